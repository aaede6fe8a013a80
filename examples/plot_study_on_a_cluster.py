"""
How do workers of a cluster share a study?
==========================================

Workers share the storage of a study, from which each of them takes its trials. Here
they are two workers of a dask cluster. The same lines work on many machines, with the
address of their scheduler in ``Client``, and with PostgreSQL instead of SQLite.
"""

import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import optuna
from distributed import Client, LocalCluster
from optuna.distributions import CategoricalDistribution
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState
from sklearn.datasets import load_wine
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_resnet import ResNetClassifier
from sk_resnet.search import CrossValidationObjective, create_study, search_space


def work(objective, storage, n_trials):
    """Run trials until the study has enough of them; each worker calls this."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def signed(trial):
        trial.set_user_attr("worker", os.getpid())
        return objective(trial)

    study = create_study(storage, objective=objective, name="wine")
    study.optimize(signed, callbacks=[MaxTrialsCallback(n_trials)])


# %%
# The objective holds the data, and is sent to each worker once. Each worker is a process
# with one torch thread. Without the ``if`` below, each would start its own cluster.

if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    X, y = load_wine(return_X_y=True)
    settings = {"max_epochs": 6, "batch_size": 16, "n_estimators": 1}
    network = ResNetClassifier(**settings, random_state=0)
    model = make_pipeline(StandardScaler(), network)
    space = search_space(model, X)
    space["resnetclassifier__width"] = CategoricalDistribution([0.5, 1, 2])
    objective = CrossValidationObjective(model, X, y, space=space, cv=3)
    folder = tempfile.TemporaryDirectory()
    storage = f"sqlite:///{Path(folder.name) / 'study.db'}"
    study = create_study(storage, objective=objective, name="wine")
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs="ERROR"
        ) as cluster,
        Client(cluster) as client,
    ):
        sent = client.scatter(objective, broadcast=True)
        jobs = [client.submit(work, sent, storage, 8, pure=False) for _ in range(2)]
        client.gather(jobs)

# %%
# Which worker ran which trial, and when. The first trial has the estimator's parameters.

if __name__ == "__main__":
    trials = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    began = min(trial.datetime_start for trial in trials)
    workers = sorted({trial.user_attrs["worker"] for trial in trials})
    figure, axes = plt.subplots(figsize=(8, 2.6), layout="constrained")
    for trial in trials:
        start = (trial.datetime_start - began).total_seconds()
        row = workers.index(trial.user_attrs["worker"])
        seconds = trial.duration.total_seconds()
        axes.barh(row, seconds, left=start, edgecolor="white", color="C0")
        axes.text(start + seconds / 2, row, trial.number, ha="center", va="center")
    axes.set(xlabel="seconds", title="Trials of the study", ylim=(-0.5, 2))
    axes.set_yticks(range(len(workers)), [f"worker {i + 1}" for i in range(len(workers))])

# %%
# Conclusion
# ----------

if __name__ == "__main__":
    spent = sum(trial.duration.total_seconds() for trial in trials)
    lasted = (max(trial.datetime_complete for trial in trials) - began).total_seconds()
    print(f"{len(workers)} workers did {spent:.1f} s of trials in {lasted:.1f} s")
    print(f"best: trial {study.best_trial.number}, accuracy {study.best_value:.3f}")
    folder.cleanup()
