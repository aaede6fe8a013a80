"""
Does a band of quantiles follow the noise?
==========================================

Two quantiles give a band that is wide where the noise is large, and narrow where it is
small. The noise of these samples grows from left to right. A regressor with
``loss="quantile"`` predicts a quantile of y. Two of them, for 5 % and 95 %, give a band
that should hold 90 % of the samples everywhere.
"""

import matplotlib.pyplot as plt
import numpy as np

from sk_resnet import ResNetRegressor


def draw(n_samples, seed):
    """Samples of a wave whose noise grows along x."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 10, n_samples)
    return x[:, None], np.sin(x) + (0.05 + 0.08 * x) * rng.normal(size=n_samples)


X_train, y_train = draw(1500, seed=0)
X_test, y_test = draw(4000, seed=1)
# With one feature and little noise at its start, less of the penalty than by default.
settings = {"depth": 6, "l2": 0.01, "random_state": 0}
low, high = (
    ResNetRegressor(loss="quantile", quantile=q, **settings).fit(X_train, y_train)
    for q in (0.05, 0.95)
)
mean = ResNetRegressor(**settings).fit(X_train, y_train)

# %%
# The usual band has one width: that of the errors of a regressor of the mean. On the right,
# each point is the share of test samples that a band holds in a tenth of x.

errors = np.quantile(y_train - mean.predict(X_train), (0.05, 0.95))


def bands(X):
    """Lower and upper ends of both bands."""
    middle = mean.predict(X)
    return {
        "two quantiles": (low.predict(X), high.predict(X)),
        "mean and one width": (middle + errors[0], middle + errors[1]),
    }


tenth = X_test[:, 0].astype(int)
held = {}
for name, (below, above) in bands(X_test).items():
    is_in = (below < y_test) & (y_test < above)
    held[name] = [is_in[tenth == i].mean() for i in range(10)]

figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
axes[0].plot(X_train[:, 0], y_train, ".", color="0.7", markersize=3)
grid = np.linspace(0, 10, 300)[:, None]
for i, (name, ends) in enumerate(bands(grid).items()):
    axes[0].plot(grid, np.transpose(ends), color=f"C{i}")
    axes[1].plot(np.arange(10) + 0.5, held[name], "o-", color=f"C{i}", label=name)
axes[0].set(xlabel="x", ylabel="y")
axes[1].axhline(0.9, color="gray", linestyle=":", label="asked for")
axes[1].set(xlabel="x", ylabel="share of test samples in the band", ylim=(0.5, 1.02))
axes[1].legend(loc="lower left")

# %%
# Conclusion
# ----------

misses = {}
for name, shares in held.items():
    misses[name] = np.abs(np.subtract(shares, 0.9)).mean()
    print(
        f"{name}: a tenth of x holds {min(shares):.0%} to {max(shares):.0%}, which is "
        f"{misses[name]:.3f} from 90 % in the mean"
    )
if misses["two quantiles"] < misses["mean and one width"] / 1.5:
    print("the quantiles follow the noise: they are the better band where it is uneven")
else:
    print("the quantiles are not clearly better than one width here")
