"""
How long do 60 fits take that train as one?
===========================================

Fits of networks of one shape take less time when they train as one. A grid of 12 points
and 5 folds is 60 such networks. Under joblib's backend ``"fused"`` the fits of a search
wait for each other, and train as one network with groups. Each of them still sees its
own samples in its own order, at its own learning rate, and with its own penalties.
"""

import time

import joblib
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine
from sklearn.model_selection import GridSearchCV

from sk_resnet import ResNetClassifier

X, y = load_wine(return_X_y=True)
model = ResNetClassifier(depth=8, n_estimators=1, max_epochs=30, random_state=0)
grid = {"l2": [1e-3, 1e-2, 1e-1], "lr": [0.05, 0.1], "dropout": [0.0, 0.2]}
search = GridSearchCV(model, grid, cv=5, refit=False)
model.fit(X, y)  # the first fit of a process loads libraries


def timed(backend, n_jobs):
    """Seconds, and the scores of all points, of a search."""
    started = time.perf_counter()
    with joblib.parallel_config(backend, n_jobs=n_jobs):
        results = search.fit(X, y).cv_results_
    return time.perf_counter() - started, results


seconds_alone, alone = timed("sequential", 1)
seconds_fused, fused = timed("fused", 64)

# %%
# On the left, the time of each of the 60 fits, one after the other, and below it that of
# the search in which they met. On the right, the mean score of each point in both searches.
# Members start as the networks of single fits and take the same steps, up to rounding. Over
# some hundred steps rounding grows, so that some points differ by a sample or two. Points
# with the same scores lie on each other.

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
each = np.repeat(alone["mean_fit_time"], 5)
ends = np.cumsum(each)
axes[0].barh(1, each, left=ends - each, color="C0", edgecolor="white", linewidth=0.4)
axes[0].barh(0, seconds_fused, color="C1")
for place, seconds in ((1, ends[-1]), (0, seconds_fused)):
    axes[0].text(seconds, place, f" {seconds:.1f} s", va="center")
axes[0].set_xlim(0, 1.15 * max(ends[-1], seconds_fused))
axes[0].set_yticks([0, 1], ["as one", "one after\nthe other"])
axes[0].set_xlabel("seconds")
axes[0].set_title("60 fits")
low = min(alone["mean_test_score"].min(), fused["mean_test_score"].min()) - 0.005
axes[1].axline((low, low), slope=1, color="0.7", linewidth=1)
axes[1].plot(alone["mean_test_score"], fused["mean_test_score"], "o", color="C1", alpha=0.6)
axes[1].set_xlabel("mean accuracy, one after the other")
axes[1].set_ylabel("as one")
axes[1].set_title("12 points of the grid")

# %%
# Conclusion
# ----------

print(f"{seconds_alone:.1f} s one after the other, {seconds_fused:.1f} s as one")
differences = np.abs(alone["mean_test_score"] - fused["mean_test_score"])
print(f"the scores of a point differ by {differences.mean():.4f} in the mean")
if seconds_fused < seconds_alone:
    print(f"fits that meet need {seconds_fused / seconds_alone:.0%} of the time")
