"""Private names of skorch: all that the package uses stand here."""

from typing import Any

from skorch import NeuralNet
from torch.optim import Optimizer

for _name in ("_current_init_context", "_default_callbacks", "_initialize_optimizer"):
    if not hasattr(NeuralNet, _name):
        raise ImportError(
            f"sk_resnet cannot use this version of skorch (NeuralNet has no {_name}): "
            "install one that its pyproject.toml names."
        )


class BareNet(NeuralNet):
    """Net of skorch without callbacks of its own, whose optimizer is made by hand."""

    verbose: int

    @property
    def _default_callbacks(self) -> list[Any]:
        return []

    def _initialize_optimizer(self, reason: Any = None) -> "BareNet":
        # The first optimizer of a process imports torch's compiler, which takes seconds
        # that a model that only predicts need not wait for.
        return self

    def make_optimizer(self) -> None:
        """Call `initialize_optimizer`, which sets ``optimizer_``."""
        verbose, self.verbose = self.verbose, 0  # or skorch says that there was one
        super()._initialize_optimizer()
        self.verbose = verbose

    def take_optimizer(self, optimizer: Optimizer) -> None:
        """Set ``optimizer_``, which skorch allows while it initializes alone."""
        with self._current_init_context("optimizer"):
            self.optimizer_ = optimizer
