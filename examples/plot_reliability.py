"""
Is a probability of 80 % right in 80 % of the cases?
====================================================

A network that has learned all of its training samples is surer than it should be; an
average of several, with a temperature, is less so. The default for tables averages
eight networks and fits a temperature on the rows that each of them left out. A diagram
of reliability shows what both do.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.calibration import CalibrationDisplay
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from sk_resnet import ResNetClassifier

X, y = make_classification(
    12_000, n_features=20, n_informative=8, flip_y=0.15, class_sep=0.8, random_state=0
)
parts = train_test_split(X, y, train_size=1500, random_state=0, stratify=y)
X_train, X_test, y_train, y_test = parts
models = {
    "one network": ResNetClassifier(n_estimators=1, calibrate=False, random_state=0),
    "eight networks": ResNetClassifier(
        validation_split=None, calibrate=False, random_state=0
    ),
    "default": ResNetClassifier(random_state=0),
    "gradient boosting": HistGradientBoostingClassifier(random_state=0),
}

# %%
# The error of calibration is the mean distance from the diagonal, by samples: between the
# mean probability in a tenth and the share that is of class 1 there.


def calibration_error(y, probability):
    """Expected calibration error in ten bins of equal width."""
    place = np.minimum((10 * probability).astype(int), 9)
    sums = [np.bincount(place, weights, minlength=10) for weights in (y, probability)]
    return np.abs(sums[0] - sums[1]).sum() / len(y)


# %%
# Each point is a tenth of the probabilities. Below the diagonal a model is surer of class 1
# than it is right, and above it less sure.

figure, ax = plt.subplots(figsize=(5, 5), layout="constrained")
print(f"{'':<18} {'log-loss':>8} {'calibration error':>18}")
errors = {}
for name, model in models.items():
    probability = model.fit(X_train, y_train).predict_proba(X_test)[:, 1]
    errors[name] = calibration_error(y_test, probability)
    print(f"{name:<18} {log_loss(y_test, probability):8.3f} {errors[name]:18.3f}")
    CalibrationDisplay.from_predictions(
        y_test, probability, n_bins=10, name=name, ax=ax, marker="o"
    )
ax.set(xlabel="mean probability of class 1", ylabel="share of class 1")
ax.legend(loc="upper left", fontsize="small")

# %%
# Conclusion
# ----------

assert errors["default"] < errors["one network"]
print(f"temperature of the default: {models['default'].temperature_:.2f}")
best = min(errors, key=errors.get)
print(f"the smallest error of calibration: {best}, {errors[best]:.3f}")
less = errors["one network"] / errors["default"]
print(f"that of one network is {less:.1f} times that of the default")
