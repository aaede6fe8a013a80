"""
Under- and overfitting over the size of model and data
======================================================

scikit-learn's own displays work over ``width``, ``depth``, ``l1`` and ``l2``; `diagnose`
says the same in words.
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
model = ResNetClassifier(4, max_epochs=15, batch_size=32, l2=0.0, random_state=0)

# %%
# From too small to too large: the training score rises on, the other does not.

figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained", sharey=True)
ValidationCurveDisplay.from_estimator(
    model, X, y, param_name="width", param_range=[0.02, 0.1, 0.5, 2], cv=3, ax=axes[0]
)
ValidationCurveDisplay.from_estimator(
    model, X, y, param_name="l2", param_range=[1e-4, 1e-2, 1e-1, 1], cv=3, ax=axes[1]
)
for panel in axes[:2]:
    panel.set_xscale("log")
LearningCurveDisplay.from_estimator(
    model, X, y, cv=3, train_sizes=np.linspace(0.2, 1, 4), ax=axes[2]
)

# %%
# The same in words, for the smallest and the largest width.

train, test = slice(0, 200), slice(200, None)
found = {}
for width, epochs in ((0.02, 2), (2, 40)):
    fitted = model.set_params(width=width, max_epochs=epochs).fit(X[train], y[train])
    found[width] = diagnose(fitted, X[train], y[train], X[test], y[test])
    print(f"width {width}:\n{found[width]}")

# %%
# Conclusion
# ----------

print(f"too small: {found[0.02].fit}; too large for 200 noisy samples: {found[2].fit}")
