"""
What is lost when a worker dies?
================================

A study loses only the trial that the worker was running, and another worker repeats
that trial. The storage of a study keeps the trials that have ended, and the parameters
of those that run.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import optuna
from sklearn.datasets import load_wine

from sk_resnet import ResNetClassifier
from sk_resnet.search import (
    CrossValidationObjective,
    create_study,
    retry_stale_trials,
    search_space,
)

optuna.logging.set_verbosity(optuna.logging.WARNING)
X, y = load_wine(return_X_y=True)
settings = {"max_epochs": 6, "batch_size": 16, "n_estimators": 1, "random_state": 0}
model = ResNetClassifier(depth=4, **settings)
objective = CrossValidationObjective(model, X, y, space=search_space(model, X), cv=3)
folder = tempfile.TemporaryDirectory()
storage = str(Path(folder.name) / "study.journal")


def resumed():
    """Open the study of this name, or make it."""
    return create_study(
        storage,
        objective=objective,
        name="wine",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.PercentilePruner(75, interval_steps=10**6),
    )


resumed().optimize(objective, n_trials=6)

# %%
# A worker dies in the middle of a trial
# --------------------------------------


class Death(BaseException):
    """Stands for anything that ends a worker."""


def dies_after_three_epochs(trial):
    """Report three epochs of a trial, then die."""
    report = trial.report

    def report_and_die(value, step):
        report(value, step)
        if step == 3:
            raise Death

    trial.report = report_and_die
    return objective(trial)


study = resumed()
study.enqueue_trial(study.best_params)  # good enough not to be pruned
try:
    dies_after_three_epochs(study.ask())
except Death:
    print("states:", [trial.state.name for trial in study.trials])

# %%
# The same lines resume the study
# -------------------------------
#
# Workers send heartbeats to SQLite and PostgreSQL, and a trial whose heartbeats stop goes
# back to the queue by itself. A journal is a file without a server and has no heartbeats:
# there you say after how many seconds a trial counts as dead.

study = resumed()
print("trials back in the queue:", retry_stale_trials(study, older_than=0))
study.optimize(objective, n_trials=6)
retried = next(t for t in study.trials if "retry_history" in t.system_attrs)
first = retried.system_attrs["retry_history"][0]
print(f"trial {retried.number} repeats trial {first}: {retried.state.name}")
print("its folds:", np.round(retried.user_attrs["fold_scores"], 3))

# %%
# A study cannot be resumed with other data: it would mix two kinds of scores.

try:
    other = CrossValidationObjective(model, X[:-1], y[:-1], space=objective.space)
    create_study(storage, objective=other, name="wine")
except ValueError as error:
    print(error)

# %%
# How far each trial came
# -----------------------

figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
colors = {"COMPLETE": "C0", "PRUNED": "C1", "FAIL": "C3"}
for trial in study.trials:
    name, color = trial.state.name, colors[trial.state.name]
    axes.bar(trial.number, trial.last_step, color=color, label=name.lower())
axes.axvline(first + 0.5, color="gray", linestyle=":", label="resumed")
handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
axes.legend(handles.values(), handles.keys(), loc="upper center", ncols=2)
axes.set(xlabel="trial", ylabel="epochs of all three folds", ylim=(0, 9))

# %%
# Conclusion
# ----------

n_ended = sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials)
print(f"the study lost {study.trials[first].last_step} epochs of one trial")
print(f"{n_ended} trials ended; best accuracy {study.best_value:.3f}")
folder.cleanup()
