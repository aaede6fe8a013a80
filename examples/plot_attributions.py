"""
Is a network right for the right reason?
========================================

A score does not say what a network looks at; an attribution does. In the images here
every 8 has a small mark in a corner, as a scanner may leave one. Does the network read
the digit, or the mark? And in a series, does it find the moment that matters?
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import zoom
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sk_resnet import ResNetClassifier
from sk_resnet.inspection import AttributionDisplay

digits = load_digits()
chosen = np.isin(digits.target, (3, 8))
images, labels = zoom(digits.images[chosen], (1, 2, 2), order=1), digits.target[chosen]
clean = np.pad(images, ((0, 0), (4, 4), (4, 4)))[:, None]  # (n, 1, 24, 24)
marked = clean.copy()
marked[labels == 8, :, 20:23, 1:4] = 16

parts = train_test_split(clean, marked, labels, train_size=200, random_state=0)
clean_train, clean_test, marked_train, marked_test, y_train, y_test = parts
settings = {"depth": 8, "max_epochs": 6, "batch_size": 20, "random_state": 0}
on_clean = ResNetClassifier(**settings).fit(clean_train, y_train)
on_marked = ResNetClassifier(**settings).fit(marked_train, y_train)

# %%
# Integrated gradients share the log-odds of a class among the pixels: red ones speak for
# it, blue ones against it. The two digits have the mark. In the upper row the network was
# trained with marks, in the lower one without.

eights = marked_test[y_test == 8][:10]
figure, axes = plt.subplots(2, 2, figsize=(5.4, 5), layout="constrained")
for row, model in zip(axes, (on_marked, on_clean), strict=True):
    AttributionDisplay.from_estimator(model, eights[:2], target=8, ax=row)
for ax, name in zip(axes[:, 0], ("trained with marks", "without marks"), strict=True):
    ax.set_ylabel(name)

# %%
# The first network finds much of its evidence in the corner. The score tells nothing of
# it, as long as the marks are in the test set too.


def share_in_the_corner(model, X):
    """Mean share of the absolute attributions in the quarter of a side around the mark."""
    display = AttributionDisplay.from_estimator(model, X, target=8, n_steps=20)
    plt.close(display.figure_)
    found = np.abs(display.attributions)
    return (found[..., 18:, :6].sum((1, 2, 3)) / found.sum((1, 2, 3))).mean()


shares = {}
for name, model in (("without marks", on_clean), ("with marks", on_marked)):
    shares[name] = share_in_the_corner(model, eights)
    with_marks = model.score(marked_test, y_test)
    without = model.score(clean_test, y_test)
    print(f"trained {name}: {shares[name]:.0%} of the evidence in the corner, accuracy ")
    print(f"  {with_marks:.2f} with the marks of the test set, {without:.2f} without")

# %%
# The same for series: noise, in which a short beat, up or down, makes the class. Grad-CAM
# says where the activations of the last stage speak for it.

rng = np.random.default_rng(0)
y = np.arange(300) % 3
X = 0.4 * rng.normal(size=(300, 1, 120))
beat = 2 * np.hanning(20)
starts = rng.integers(0, 100, size=300)
for series, label, start in zip(X[:, 0], y, starts, strict=True):
    series[start : start + 20] += (label - 1) * beat
names = np.array(["down", "none", "up"])
model = ResNetClassifier(8, block="basic", n_estimators=1, max_epochs=8, random_state=0)
model.fit(X[:200], names[y[:200]])
series, starts = X[200:][y[200:] != 1], starts[200:][y[200:] != 1]
display = AttributionDisplay.from_estimator(model, series, method="grad_cam")

# %%
# Conclusion
# ----------

peaks = display.attributions[:, 0].argmax(1)
hit = ((peaks >= starts) & (peaks < starts + 20)).mean()
assert shares["with marks"] > 2 * shares["without marks"]
print(f"in {hit:.0%} of the series the largest attribution is within the beat;")
print("the network that was trained with marks is right for the wrong reason:")
print(f"{shares['with marks']:.0%} of its evidence for an 8 is in the corner")
