"""
Do the features of a network help with new classes?
===================================================

Features that were learned on some classes need not suit others. ``embed`` returns the
features that the last layer of a network reads. This network learns the digits 0 to 4.
Can another model use its features to tell the digits 5 to 9 apart, with ten samples of
each?
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_resnet import ResNetClassifier, ResNetEmbedder

X, y = load_digits(return_X_y=True)
known = y < 5
network = ResNetClassifier(8, input_shape=(1, 8, 8), max_epochs=15, random_state=0)
network.fit(X[known], y[known])

# %%
# A logistic regression learns the new digits twice: from their pixels, and from the
# features of the network, which was not trained on them.

rng = np.random.default_rng(0)
few = np.concatenate(
    [rng.choice(np.flatnonzero(y == label), 10, replace=False) for label in range(5, 10)]
)
rest = np.setdiff1d(np.flatnonzero(~known), few)
features = ResNetEmbedder(FrozenEstimator(network))
models = {
    "pixels": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
    "features": make_pipeline(
        features, StandardScaler(), LogisticRegression(max_iter=2000)
    ),
}
scores = {
    name: model.fit(X[few], y[few]).score(X[rest], y[rest])
    for name, model in models.items()
}

plane = PCA(2).fit_transform(network.embed(X[~known]))
figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
points = axes.scatter(*plane.T, c=y[~known], cmap="tab10", s=8, vmin=0, vmax=9)
axes.legend(*points.legend_elements(), title="digit")
axes.set(title="features of digits 5 to 9")

# %%
# Conclusion
# ----------

print(", ".join(f"{name}: {score:.3f}" for name, score in scores.items()))
better = "do" if scores["features"] > scores["pixels"] else "do not do"
print(f"features learned on five digits {better} better than pixels on the other five")
