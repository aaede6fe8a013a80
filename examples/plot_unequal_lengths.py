"""
Does a network learn how long a series is, or what is in it?
============================================================

From zeros behind short series a network learns their length; from a list of arrays it
learns what is in them. Here are three kinds of waves under noise. In the training set
the quick waves happen to be recorded for longer. A network that reads the length does
well on such a set, and fails where lengths say nothing. Lists are compared with three
ways to bring series to one length.
"""

import matplotlib.pyplot as plt
import numpy as np

from sk_resnet import ResNetClassifier

CYCLES = (0.1, 0.125, 0.15)  # per step
LENGTHS = ((30, 60), (60, 90), (90, 120))


def draw(n_samples, seed, *, tied):
    """Waves of three classes, of lengths that are tied to the class or not."""
    rng = np.random.default_rng(seed)
    X, y = [], np.arange(n_samples) % 3
    for label in y:
        t = np.arange(rng.integers(*(LENGTHS[label] if tied else (30, 120))))
        wave = np.sin(2 * np.pi * (CYCLES[label] * t + rng.random()))
        X.append(wave + rng.normal(size=len(t)))
    return X, y


def stretched(series):
    """The same curve in 120 steps."""
    places = np.linspace(0, len(series) - 1, 120)
    return np.interp(places, np.arange(len(series)), series)


def followed_by_zeros(series):
    """The same series, and zeros up to 120 steps."""
    return np.pad(series, (0, 120 - len(series)))


ways = {
    "as they are": lambda X: X,
    "cut to 30 steps": lambda X: np.stack([series[:30] for series in X])[:, None],
    "followed by zeros": lambda X: np.stack([followed_by_zeros(one) for one in X])[:, None],
    "stretched": lambda X: np.stack([stretched(series) for series in X])[:, None],
}
X_train, y_train = draw(300, seed=0, tied=True)
tests = {
    "lengths as in training": draw(600, seed=1, tied=True),
    "lengths say nothing": draw(600, seed=2, tied=False),
}
scores = {}
for name, way in ways.items():
    model = ResNetClassifier(depth=8, n_estimators=1, max_epochs=15, random_state=0)
    model.fit(way(X_train), y_train)
    scores[name] = [model.score(way(X), y) for X, y in tests.values()]

# %%
# On the left, a series of each class, in colour without its noise. On the right, the share
# of test series that each network names right.

figure, axes = plt.subplots(
    1, 2, figsize=(10, 3.8), layout="constrained", width_ratios=(1, 1.2)
)
for label in range(3):
    series = X_train[label]
    axes[0].plot(series / 6 - label, color="0.75", linewidth=1)
    t = np.arange(len(series))
    design = np.stack([f(2 * np.pi * CYCLES[label] * t) for f in (np.sin, np.cos)], axis=1)
    wave = design @ np.linalg.lstsq(design, series)[0]
    axes[0].plot(wave / 6 - label, color=f"C{label}")
axes[0].set_yticks([0, -1, -2], ["slow", "middle", "quick"])
axes[0].set_xlabel("step")
axes[0].set_title("a series of each class")
places = -np.arange(len(ways))
before, after = np.transpose(list(scores.values()))
axes[1].hlines(places, after, before, color="0.7", linewidth=2)
for (name, marker), values in zip(
    zip(tests, "os", strict=True), (before, after), strict=True
):
    axes[1].plot(values, places, marker, markersize=9, label=name)
axes[1].set_yticks(places, list(ways))
axes[1].set(xlabel="accuracy", xlim=(0.3, 1.03), ylim=(-3.5, 0.5))
axes[1].legend(loc="upper left")

# %%
# Conclusion
# ----------
#
# Zeros after a series tell a network how long it is, and stretching makes the waves of
# short series slow. Cut series tell nothing of their length, but have lost most of their
# steps. In a list nothing after the end of a series is read, and nothing is lost.

for name, (known, other) in scores.items():
    print(f"{name}: {known:.3f}, and {other:.3f} where lengths say nothing")
best = max(scores, key=lambda name: scores[name][1])
print(f"the best where lengths say nothing: {best}")
