"""
Does one estimator fit tables, series, images and volumes?
==========================================================

One estimator fits all four: the number of dimensions of X picks the layers, and
everything else stays the same.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits, load_wine
from sklearn.model_selection import train_test_split

from sk_resnet import ResNetClassifier
from sk_resnet.inspection import NetworkDisplay, summary

rng = np.random.default_rng(0)
digits = load_digits()

# A sine of one of three frequencies, with a random phase, in noise.
classes = np.arange(300) % 3
t = np.linspace(0, 1, 64) + rng.uniform(size=(300, 1))
waves = np.sin(2 * np.pi * (3 + classes[:, None]) * t) + 0.5 * rng.normal(size=(300, 64))

# A bright ball or a bright cube at a random place.
grid = np.indices((10, 10, 10))
centres = rng.uniform(3, 7, size=(200, 3, 1, 1, 1))
distance = np.abs(grid - centres)
is_ball = np.arange(200) % 2 == 0
inside = np.where(
    is_ball[:, None, None, None],
    (distance**2).sum(1) ** 0.5 < 3.2,
    distance.max(1) < 2.6,
)
volumes = inside + 0.3 * rng.normal(size=inside.shape)

DATA = {
    "table": load_wine(return_X_y=True),
    "series": (waves[:, None], classes),
    "images": (digits.images[:600, None], digits.target[:600]),
    "volumes": (volumes[:, None], np.where(is_ball, "ball", "cube")),
}

# %%
# All four get the same call. A network for tables has one stage instead of three: with a
# depth of 8, this stage has three blocks, and each of the three stages has one.

scores = {}
for name, (X, y) in DATA.items():
    parts = train_test_split(X, y, random_state=0, stratify=y)
    model = ResNetClassifier(8, max_epochs=12, random_state=0).fit(parts[0], parts[2])
    scores[name] = model.score(parts[1], parts[3])
    print(f"{name}: X {X.shape}, accuracy {scores[name]:.3f}")

figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
axes.bar(list(scores), list(scores.values()))
axes.set(ylabel="accuracy on the test quarter", ylim=(0, 1.05))

# %%
# This is the network for the volumes.

print(summary(model))
NetworkDisplay.from_estimator(model)

# %%
# Conclusion
# ----------

print(f"one estimator, four kinds of data: at least {min(scores.values()):.3f} each")
