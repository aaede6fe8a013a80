"""
Is a study that prunes better than a grid?
==========================================

Pruning lets a study try more parameters. An Optuna study ends trials that fall behind
after few epochs; scikit-learn's grid search fits every combination to the end. Which of
them finds the better parameters, and after how many epochs?
"""

import time
import warnings

import matplotlib.pyplot as plt
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
grid_epochs = 8 * 3 * len(search.cv_results_["params"])

# %%
# ``search_space`` makes a space for the estimator and the data, of depths that exist and of
# ranges on logarithmic scales. The first trial has the parameters of the estimator. Each
# trial trains its folds at once, and reports their mean score after each epoch. Those that
# are worse than three quarters of the complete ones after the first epoch are pruned.

space = search_space(model, X)
objective = CrossValidationObjective(model, X, y, space=space, cv=3)
study = create_study(objective=objective, sampler=optuna.samplers.TPESampler(seed=0))
started = time.perf_counter()
study.optimize(objective, n_trials=30, timeout=30)
study_seconds = time.perf_counter() - started

# %%
# Each line is a trial. The orange points are trials that were pruned after their first
# epoch.

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for trial in study.trials:
    pruned = trial.state.name == "PRUNED"
    axes.plot(
        list(trial.intermediate_values),
        list(trial.intermediate_values.values()),
        "o" if pruned else "-",
        color="C1" if pruned else "C0",
        alpha=0.6,
    )
axes.axhline(search.best_score_, color="gray", linestyle=":", label="best of the grid")
axes.set(xlabel="epoch", ylabel="mean accuracy of three folds")
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

epochs = 3 * sum(len(trial.intermediate_values) for trial in study.trials)
print(f"grid: {search.best_score_:.3f} after {grid_epochs} epochs, {grid_seconds:.1f} s")
print(f"study: {study.best_value:.3f} after {epochs} epochs, {study_seconds:.1f} s")
print(f"best parameters: {objective.best_parameters(study)}")
per_trial = epochs / len(study.trials)
print(f"a trial of the study took {per_trial:.1f} epochs, one of the grid {8 * 3}")
