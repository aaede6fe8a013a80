"""
Is a study better than a grid?
==============================

A grid search fits every combination of a few values. An Optuna study draws each trial
from whole ranges, with regard to the trials before, and trains its folds as one network.
Which of them finds the better parameters, and in how many seconds?
"""

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import optuna
from sklearn.datasets import load_wine
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from sk_resnet import ResNetClassifier
from sk_resnet.search import CrossValidationObjective, create_study, search_space

optuna.logging.set_verbosity(optuna.logging.WARNING)
X, y = load_wine(return_X_y=True)
network = ResNetClassifier(n_estimators=1, max_epochs=8, batch_size=16, random_state=0)
model = Pipeline([("scale", StandardScaler()), ("network", network)])

# %%
# The grid has eight combinations of three parameters.

grid = {
    "network__depth": [4, 8],
    "network__width": [0.25, 1],
    "network__l2": [1e-4, 1e-2],
}
started = time.perf_counter()
search = GridSearchCV(model, grid, cv=3).fit(X, y)
grid_seconds = time.perf_counter() - started

# %%
# ``search_space`` makes a space for the estimator and the data, of depths that exist and of
# ranges on logarithmic scales. The first trial has the parameters of the estimator.

space = search_space(model, X)
objective = CrossValidationObjective(model, X, y, space=space, cv=3)
study = create_study(objective=objective, sampler=optuna.samplers.TPESampler(seed=0))
started = time.perf_counter()
study.optimize(objective, n_trials=30, timeout=30)
study_seconds = time.perf_counter() - started

# %%
# Each point is a combination of the grid, or a trial, and the line is the best so far. The
# combinations of the grid are shown at the mean of their time.

grid_scores = search.cv_results_["mean_test_score"]
n_points = len(grid_scores)
arms = {
    "grid": (np.arange(1, n_points + 1) * grid_seconds / n_points, grid_scores),
    "study": (
        [
            (t.datetime_complete - study.trials[0].datetime_start).total_seconds()
            for t in study.trials
        ],
        [t.value for t in study.trials],
    ),
}
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for name, (seconds, scores) in arms.items():
    best = axes.step(seconds, np.maximum.accumulate(scores), where="post", label=name)
    axes.plot(seconds, scores, "o", color=best[0].get_color(), alpha=0.4)
axes.set(xlabel="seconds", ylabel="mean accuracy of three folds")
axes.legend()

# %%
# Optuna draws figures too, such as the best score after each complete trial:

warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
axes = optuna.visualization.matplotlib.plot_optimization_history(
    study, target_name="mean accuracy"
)
axes.figure.set_size_inches(7, 3)
axes.figure.set_layout_engine("constrained")

# %%
# This one shows when each trial ran, and how it ended:

axes = optuna.visualization.matplotlib.plot_timeline(study)
axes.figure.set_size_inches(7, 3)
axes.figure.set_layout_engine("constrained")

# %%
# Conclusion
# ----------

print(f"grid: {search.best_score_:.3f} of {n_points} points, {grid_seconds:.1f} s")
n_trials = len(study.trials)
print(f"study: {study.best_value:.3f} of {n_trials} trials, {study_seconds:.1f} s")
print(f"best parameters: {objective.best_parameters(study)}")
