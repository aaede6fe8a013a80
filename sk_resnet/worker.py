"""One more worker for a study: ``python -m sk_resnet.worker --help``."""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sk_resnet.search import CrossValidationObjective, create_study, retry_stale_trials

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial


def main(arguments: Sequence[str] | None = None) -> None:
    """Work on the trials of a study until enough of them have ended.

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

    if options.stale_after is not None:
        retry_stale_trials(study, older_than=options.stale_after)

    def noted(trial: Trial) -> Any:
        value = objective(trial)
        if isinstance(value, float) and math.isnan(value):
            trial.set_user_attr("error", "The score is NaN.")
        return value

    def stop_at_the_end(study: Study, trial: FrozenTrial) -> None:
        if _n_ended(study) >= options.n_trials:
            study.stop()

    if _n_ended(study) < options.n_trials:
        study.optimize(noted, callbacks=[stop_at_the_end])
    if any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False)):
        print(f"{options.study}: best {study.best_value:.4f}, {study.best_params}")
    else:
        print(f"{options.study}: no trial was completed")


def _n_ended(study: Study) -> int:
    """Trials that count: complete, pruned, or diverged; not those of dead workers."""
    return sum(
        trial.state.name in ("COMPLETE", "PRUNED") or "error" in trial.user_attrs
        for trial in study.get_trials(deepcopy=False)
    )


def _made(name: str) -> Callable[[Trial], float]:
    module, _, function = name.partition(":")
    if not function:
        raise SystemExit(f"objective must be module:function, got {name!r}.")
    sys.path.insert(0, str(Path.cwd()))
    return getattr(importlib.import_module(module), function)()


if __name__ == "__main__":
    main()
