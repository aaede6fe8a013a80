"""Studies that survive dead workers, and are resumed by their name."""

from __future__ import annotations

import json
import os
import re
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sk_resnet.search._distributions import require_optuna
from sk_resnet.search._objective import CrossValidationObjective, check_study

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial


def create_study(
    storage: str | os.PathLike[str] | BaseStorage | None = None,
    *,
    objective: CrossValidationObjective | None = None,
    name: str | None = None,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
    heartbeat: int = 60,
    max_retry: int = 3,
) -> Study:
    """Study that maximises, survives dead workers, and is resumed by its name.

    Parameters
    ----------
    storage : str, path or optuna storage, default=None
        ``"sqlite:///study.db"``, ``"postgresql+psycopg://user@host/database"``, or the
        path of a journal that ends in ``.journal``. None keeps the study in memory. A
        storage of Optuna is used as it is, with its own heartbeat. In SQLite each trial
        goes to one worker if all of them open the study by this function.
    objective : CrossValidationObjective, default=None
        Its estimator's own parameters are the first trial of a new study, but with a
        ``GridSampler``, and a study that was started with other data or another space is
        refused at once.
    name : str, default=None
        Name; a study of that name is resumed.
    sampler : optuna sampler, default=None
        None is Optuna's TPE.
    pruner : optuna pruner, default=None
        None prunes nothing, and saves the scores between: before the last epochs of the
        learning rate's schedule they say little about where a trial will end. Only on
        images did those of the first epoch pay, with ``PercentilePruner(75,
        interval_steps=10**6)``.
    heartbeat : int, default=60
        Seconds between signs of life of a worker. A trial without them for twice as long
        fails, and is put in the queue again. Journals have no heartbeat, and a worker
        may die before its first one: see `retry_stale_trials`.
    max_retry : int, default=3
        How often a trial is retried.

    Returns
    -------
    optuna.Study
        New or resumed.

    Raises
    ------
    ConnectionError
        For a storage that cannot be reached, or read.
    ValueError
        For a study that belongs to other data or another space than the objective, and for
        SQLite in memory.

    Examples
    --------
    >>> from sk_resnet.search import create_study
    >>> create_study().direction.name
    'MAXIMIZE'
    """
    optuna = require_optuna()
    kept: Any = storage
    if isinstance(storage, (str, os.PathLike)):
        kept = _open(os.fspath(storage), heartbeat, max_retry)
    study = optuna.create_study(
        storage=kept,
        study_name=name,
        direction="maximize",
        load_if_exists=name is not None,
        sampler=sampler,
        pruner=pruner or optuna.pruners.NopPruner(),
    )
    if objective is not None:
        check_study(study, objective.fingerprint)
        own = objective.own_parameters()
        takes_any = not isinstance(study.sampler, optuna.samplers.GridSampler)
        if own and takes_any and not study.get_trials(deepcopy=False):
            study.enqueue_trial(own, skip_if_exists=True)
    return study


def _open(storage: str, heartbeat: int, max_retry: int) -> BaseStorage:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    from sk_resnet.search._sqlite import SQLiteStorage

    storages = require_optuna().storages
    try:
        if storage.endswith(".journal"):
            return storages.JournalStorage(storages.journal.JournalFileBackend(storage))
        with warnings.catch_warnings():
            # So is the heartbeat.
            warnings.simplefilter("ignore", require_optuna().exceptions.ExperimentalWarning)
            url = make_url(storage)
            is_sqlite = url.get_backend_name() == "sqlite"
            in_memory = ":memory:" in (url.database or ":memory:")
            if is_sqlite and (in_memory or url.query.get("mode") == "memory"):
                raise ValueError(
                    f"storage={storage!r} would give each thread a study of its own: use "
                    "None for a study in memory."
                )
            return (SQLiteStorage if is_sqlite else storages.RDBStorage)(
                storage,
                heartbeat_interval=heartbeat,
                heartbeat_stale_trial_callback=_retry(max_retry),
            )
    except (
        ArgumentError,
        SQLAlchemyError,
        ImportError,
        OSError,
        json.JSONDecodeError,
    ) as error:
        reason = str(error).partition("\n")[0]
        shown = re.sub(r"(//[^/@]*:)[^/@]*@", r"\1***@", storage)  # no password in logs
        raise ConnectionError(
            f"The storage {shown!r} cannot be reached or read ({reason}): check the "
            "address, that the server runs, and that its driver is installed."
        ) from error


def retry_stale_trials(study: Study, *, older_than: float, max_retry: int = 3) -> int:
    """Fail trials that run for too long, and put them in the queue again.

    For journals, whose trials run for ever when their worker dies, and for the rare
    worker that dies before its first heartbeat.

    Parameters
    ----------
    study : optuna.Study
        Any study.
    older_than : float
        Seconds since the start of a trial after which its worker counts as dead. More
        than any trial takes: a worker that still lives ends with an error.
    max_retry : int, default=3
        How often a trial is retried; after that it only fails.

    Returns
    -------
    int
        Number of trials that were put in the queue.

    Examples
    --------
    >>> from sk_resnet.search import create_study, retry_stale_trials
    >>> study = create_study()
    >>> trial = study.ask()
    >>> retry_stale_trials(study, older_than=0)
    1
    """
    optuna, n = require_optuna(), 0
    running = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    for trial in running:
        started = trial.datetime_start
        assert started is not None  # as it runs
        if time.time() - started.timestamp() < older_than:
            continue
        try:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        except ValueError:  # it has ended, or another worker was first
            continue
        if len(trial.system_attrs.get("retry_history", [])) < max_retry:
            _retry(max_retry)(study, trial)
            n += 1
    return n


def fail_stale_trials(study: Study) -> None:
    """Fail trials without a heartbeat, and put them in the queue as the storage says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", require_optuna().exceptions.ExperimentalWarning)
        require_optuna().storages.fail_stale_trials(study)


def _retry(max_retry: int) -> Callable[[Study, FrozenTrial], None]:
    with warnings.catch_warnings():
        # Optuna calls it experimental; it has been there since 2021.
        warnings.simplefilter("ignore", require_optuna().exceptions.ExperimentalWarning)
        storages = require_optuna().storages
        return storages.RetryHeartbeatStaleTrialCallback(max_retry=max_retry)
