"""
Resume a study
==============

A study in a storage outlives the process that runs it: what has ended is kept, and what a
dead worker left unfinished is done behind its last complete fold.
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
model = ResNetClassifier(depth=4, max_epochs=6, batch_size=16, random_state=0)
objective = CrossValidationObjective(model, X, y, space=search_space(model, X), cv=3)
folder = tempfile.TemporaryDirectory()
storage = str(Path(folder.name) / "study.journal")


def resumed():
    """Open the study of this name, or make it."""
    sampler = optuna.samplers.TPESampler(seed=0)
    return create_study(storage, objective=objective, name="wine", sampler=sampler)


resumed().optimize(objective, n_trials=6)

# %%
# A worker dies in the middle of a trial
# --------------------------------------
#
# It had scored one of three folds.


class Death(BaseException):
    """What happens to the worker."""


def dies_in_the_second_fold(trial):
    """Score a trial up to the second fold."""
    write = trial.set_user_attr

    def write_and_die(key, value):
        write(key, value)
        if key == "fold_seconds":
            raise Death

    trial.set_user_attr = write_and_die
    return objective(trial)


study = resumed()
study.enqueue_trial(study.best_params)  # which the pruner lets through
try:
    dies_in_the_second_fold(study.ask())
except Death:
    print("states:", [trial.state.name for trial in study.trials])

# %%
# The same lines resume the study
# -------------------------------
#
# Workers of SQLite and PostgreSQL send heartbeats, and a trial without them goes back to
# the queue by itself. A journal is one file without a server and has none: say after how
# many seconds a trial counts as dead.

study = resumed()
print("trials back in the queue:", retry_stale_trials(study, older_than=0))
study.optimize(objective, n_trials=6)
retried = next(t for t in study.trials if "retry_history" in t.system_attrs)
first = retried.system_attrs["retry_history"][0]
print(f"trial {retried.number} went on with trial {first}: {retried.state.name}")
print("its folds:", np.round(retried.user_attrs["fold_scores"], 3))

# %%
# Other data are refused, before a trial is spent.

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
    n_folds = trial.last_step / model.max_epochs
    name, color = trial.state.name, colors[trial.state.name]
    axes.bar(trial.number, n_folds, color=color, label=name.lower())
inherited = len(study.trials[first].user_attrs["fold_scores"])
axes.bar(
    retried.number, inherited, color="none", edgecolor="C3", hatch="//", label="inherited"
)
axes.axvline(first + 0.5, color="gray", linestyle=":", label="resumed")
handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
axes.legend(handles.values(), handles.keys(), loc="upper left", bbox_to_anchor=(1, 1))
axes.set(xlabel="trial", ylabel="folds, of six epochs each", yticks=range(4))

# %%
# Conclusion
# ----------

n_ended = sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials)
print(f"{n_ended} trials ended in two sittings; best accuracy {study.best_value:.3f}")
folder.cleanup()
