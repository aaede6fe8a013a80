"""One more worker for a study: ``python -m sk_resnet.worker --help``."""

from __future__ import annotations

import argparse
import importlib
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sk_resnet.search import CrossValidationObjective, create_study, retry_stale_trials
from sk_resnet.search._distributions import require_optuna
from sk_resnet.search._studies import fail_stale_trials

if TYPE_CHECKING:
    from datetime import datetime

    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

# Of workers that have nothing to do.
SECONDS_BETWEEN_LOOKS = 2.0


class EnoughTrialsError(Exception):
    """Other workers have begun all trials that were asked for."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Work on the trials of a study until enough of them have ended.

    No more than that are begun by all workers together. A worker for which none is left
    waits for those of the others, and takes over those of workers that die.

    Parameters
    ----------
    arguments : sequence of str, default=None
        Arguments; None takes those of the command line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m sk_resnet.worker",
        description="Work on a study from this machine, beside any number of others.",
    )
    parser.add_argument("objective", help="module:function that returns the objective")
    parser.add_argument("--storage", required=True, help="such as postgresql://host/db")
    parser.add_argument("--study", required=True, help="name; made where it is missing")
    parser.add_argument("--n-trials", type=int, required=True, help="ended ones in all")
    parser.add_argument("--heartbeat", type=int, default=60, help="seconds")
    parser.add_argument(
        "--stale-after",
        type=float,
        metavar="SECONDS",
        help="retry trials that have run for longer; for journals, which have no heartbeat",
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    objective = _made(options.objective)
    ours = objective if isinstance(objective, CrossValidationObjective) else None
    study = create_study(
        options.storage,
        objective=ours,
        name=options.study,
        heartbeat=options.heartbeat,
    )

    def retry_stale() -> None:
        if options.stale_after is not None:
            retry_stale_trials(study, older_than=options.stale_after)

    def noted(trial: Trial) -> Any:
        # Others may have begun one since they were counted; the first of them go on.
        if _n_taken(study, before=trial) >= options.n_trials:
            _put_back(study, trial)
            raise EnoughTrialsError
        value = objective(trial)
        if isinstance(value, float) and math.isnan(value):
            trial.set_user_attr("error", "The score is NaN.")
        return value

    retry_stale()
    has_heartbeat = not options.storage.endswith(".journal")
    while _n_ended(study) < options.n_trials:
        if _n_taken(study) < options.n_trials:
            study.optimize(noted, n_trials=1, catch=(EnoughTrialsError,))
        elif has_heartbeat or options.stale_after is not None:
            time.sleep(SECONDS_BETWEEN_LOOKS)  # to take over what dead workers leave
            retry_stale()
            fail_stale_trials(study)
        else:
            print(
                f"{options.study}: other workers have begun what is left; if they are "
                "dead, --stale-after takes their trials over"
            )
            break
    if any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False)):
        print(f"{options.study}: best {study.best_value:.4f}, {study.best_params}")
    else:
        print(f"{options.study}: no trial was completed")


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial is complete, pruned, or diverged, and not of a dead worker."""
    return trial.state.name in ("COMPLETE", "PRUNED") or "error" in trial.user_attrs


def _n_ended(study: Study) -> int:
    return sum(map(_counts, study.get_trials(deepcopy=False)))


def _n_taken(study: Study, before: Trial | None = None) -> int:
    """Trials that count, or may when they end; all, or those that began before one."""
    taken = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if _counts(trial) or trial.state.name == "RUNNING"
    ]
    return len(taken) if before is None else sum(_began(t) < _began(before) for t in taken)


def _put_back(study: Study, trial: Trial) -> None:
    """Put a trial that came from the queue there again: it may be a retry, or chosen."""
    optuna = require_optuna()
    frozen = study.get_trials(deepcopy=False)[trial.number]
    if frozen.params or "fixed_params" in frozen.system_attrs:
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.WAITING,
                params=frozen.params,
                distributions=frozen.distributions,
                user_attrs=frozen.user_attrs,
                system_attrs=frozen.system_attrs,
            )
        )


def _began(trial: Trial | FrozenTrial) -> tuple[datetime, int]:
    assert trial.datetime_start is not None  # of those that wait
    return trial.datetime_start, trial.number


def _made(name: str) -> Callable[[Trial], float]:
    module, _, function = name.partition(":")
    if not function:
        raise SystemExit(f"objective must be module:function, got {name!r}.")
    sys.path.insert(0, str(Path.cwd()))
    return getattr(importlib.import_module(module), function)()


if __name__ == "__main__":
    main()
