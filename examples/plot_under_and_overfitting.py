"""
Which parameters make a network underfit or overfit?
====================================================

Scores in training and in validation tell which do, over ``width``, ``depth``, ``l1``,
``l2`` and the number of samples. The displays are those of scikit-learn, and `diagnose`
says it in words.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_classification
from sklearn.model_selection import LearningCurveDisplay, ValidationCurveDisplay

from sk_resnet import ResNetClassifier
from sk_resnet.inspection import diagnose

X, y = make_classification(
    600, n_features=20, n_informative=6, n_classes=3, flip_y=0.15, random_state=0
)
settings = {"max_epochs": 15, "batch_size": 32, "n_estimators": 1, "random_state": 0}
model = ResNetClassifier(4, **settings, l2=0.0)

# %%
# Where both curves are low, the model underfits. Where the training score is far above the
# validation score, it overfits.

RANGES = {
    "width": [0.02, 0.1, 0.5, 2],
    "depth": [4, 8, 16],
    "l1": [1e-4, 1e-3, 1e-2, 1e-1],
    "l2": [1e-4, 1e-2, 1e-1, 1],
}
figure, axes = plt.subplots(2, 3, figsize=(11, 6), layout="constrained", sharey=True)
curves = {}
for panel, (name, values) in zip(axes.flat, RANGES.items(), strict=False):
    curves[name] = ValidationCurveDisplay.from_estimator(
        model, X, y, param_name=name, param_range=values, cv=3, ax=panel
    )
    panel.set_xscale("linear" if name == "depth" else "log")
LearningCurveDisplay.from_estimator(
    model, X, y, cv=3, train_sizes=np.linspace(0.2, 1, 4), ax=axes[1, 1]
)
axes[1, 2].set_axis_off()
for panel in axes.flat[1:5]:
    panel.get_legend().remove()

# %%
# `diagnose` judges the smallest and the largest width.

train, test = slice(0, 200), slice(200, None)
found = {}
for width, epochs in ((0.02, 2), (2, 40)):
    fitted = model.set_params(width=width, max_epochs=epochs).fit(X[train], y[train])
    found[width] = diagnose(fitted, X[train], y[train], X[test], y[test])
    print(f"width {width}:\n{found[width]}")

# %%
# Conclusion
# ----------

for name, display in curves.items():
    train_scores, test_scores = display.train_scores.mean(1), display.test_scores.mean(1)
    best = int(test_scores.argmax())
    print(
        f"{name}: best at {display.param_range[best]:g} with {test_scores[best]:.3f}; "
        f"training less validation from {train_scores[0] - test_scores[0]:.2f} to "
        f"{train_scores[-1] - test_scores[-1]:.2f}"
    )
print(f"too small: {found[0.02].fit}; too large for 200 noisy samples: {found[2].fit}")
