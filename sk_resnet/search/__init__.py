"""A cross-validated objective for Optuna, spaces for it, and studies that last."""

from sk_resnet.search._distributions import Only, suggest
from sk_resnet.search._objective import CrossValidationObjective
from sk_resnet.search._pruning import PruningCallback
from sk_resnet.search._space import search_space
from sk_resnet.search._studies import create_study, retry_stale_trials

__all__ = [
    "CrossValidationObjective",
    "Only",
    "PruningCallback",
    "create_study",
    "retry_stale_trials",
    "search_space",
    "suggest",
]
