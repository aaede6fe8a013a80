"""Distributions of Optuna, some under a condition, and what is drawn from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

    Distribution: TypeAlias = "BaseDistribution | Only"


def require_optuna() -> ModuleType:
    """Optuna, which is not installed with the package."""
    try:
        import optuna
    except ImportError:
        raise ImportError(
            "sk_resnet.search needs Optuna: pip install 'sk-resnet[tune]'."
        ) from None
    return optuna


@dataclass(frozen=True)
class Only:
    """A distribution that is drawn from where a condition on the draws before it holds.

    Parameters
    ----------
    distribution : optuna distribution
        Of the parameter.
    condition : callable
        Takes the dict of the parameters suggested so far; tells whether to draw.
    otherwise : object
        Value where the condition does not hold.

    Examples
    --------
    >>> from optuna.distributions import FloatDistribution
    >>> from optuna.trial import FixedTrial
    >>> from sk_resnet.search import Only, suggest
    >>> wide = Only(FloatDistribution(0, 0.5), lambda drawn: drawn["width"] > 1, 0.0)
    >>> space = {"width": FloatDistribution(0.5, 4), "dropout": wide}
    >>> suggest(FixedTrial({"width": 1.0}), space)
    {'width': 1.0, 'dropout': 0.0}
    """

    distribution: BaseDistribution
    condition: Callable[[dict[str, Any]], bool]
    otherwise: Any

    def applies(self, drawn: dict[str, Any]) -> bool:
        """Whether the condition holds."""
        try:
            return self.condition(drawn)
        except KeyError as error:
            raise ValueError(
                f"A condition of Only reads {error}, which must stand before it in the "
                f"space: drawn so far are {list(drawn)}."
            ) from error


def suggest(trial: BaseTrial, space: dict[str, Distribution]) -> dict[str, Any]:
    """Draw the parameters of a trial.

    Parameters
    ----------
    trial : optuna.Trial
        Of a study, or a FixedTrial.
    space : dict of str to optuna distribution or `Only`
        In the order of the draws.

    Returns
    -------
    dict
        For ``estimator.set_params``.

    Examples
    --------
    >>> from optuna.trial import FixedTrial
    >>> from sk_resnet import ResNetClassifier
    >>> from sk_resnet.search import search_space, suggest
    >>> space = {"depth": search_space(ResNetClassifier())["depth"]}
    >>> suggest(FixedTrial({"depth": 6}), space)
    {'depth': 6}
    """
    drawn: dict[str, Any] = {}
    for name, distribution in space.items():
        if isinstance(distribution, Only) and not distribution.applies(drawn):
            drawn[name] = distribution.otherwise
        else:
            drawn[name] = _draw(trial, name, drawn_from(distribution))
    return drawn


def _draw(trial: BaseTrial, name: str, distribution: Any) -> Any:
    kind = type(distribution).__name__
    if kind == "CategoricalDistribution":
        return trial.suggest_categorical(name, distribution.choices)
    require_distribution(name, distribution)
    method = {"IntDistribution": "suggest_int", "FloatDistribution": "suggest_float"}[kind]
    step = {} if distribution.step is None else {"step": distribution.step}
    return getattr(trial, method)(
        name, distribution.low, distribution.high, log=distribution.log, **step
    )


def drawn_from(distribution: Distribution) -> Any:
    """Distribution of Optuna, under a condition or not."""
    return distribution.distribution if isinstance(distribution, Only) else distribution


def ends(distribution: Distribution) -> list[Any]:
    """Choices, or the ends of a range, and what stands where a condition fails."""
    inner = drawn_from(distribution)
    values = list(getattr(inner, "choices", None) or (inner.low, inner.high))
    return [*values, *([distribution.otherwise] if isinstance(distribution, Only) else [])]


def nearest(distribution: Any, value: Any) -> Any:
    """Value of the distribution nearest to this one, or None."""
    if hasattr(distribution, "choices"):
        return value if value in distribution.choices else None
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    low, high, step = distribution.low, distribution.high, distribution.step
    value = min(max(value, low), high)
    return low + round((value - low) / step) * step if step else value


def nearest_draw(space: dict[str, Distribution], values: dict[str, Any]) -> dict[str, Any]:
    """Draw nearest to these values; without those that have no nearest."""
    found: dict[str, Any] = {}
    drawn: dict[str, Any] = {}  # what conditions read
    for name, distribution in space.items():
        if isinstance(distribution, Only) and not distribution.applies(drawn):
            drawn[name] = distribution.otherwise
            continue
        value = nearest(drawn_from(distribution), values[name])
        drawn[name] = values[name] if value is None else value
        if value is not None:
            found[name] = value
    return found


def described(space: dict[str, Distribution]) -> list[str]:
    """Each distribution as text, to tell spaces apart."""
    return [
        f"{name}: "
        + (f"{d.distribution} or {d.otherwise}" if isinstance(d, Only) else f"{d}")
        for name, d in space.items()
    ]


def require_distribution(name: str, d: Any) -> None:
    """Refuse what nothing can be drawn from."""
    if not isinstance(drawn_from(d), require_optuna().distributions.BaseDistribution):
        raise TypeError(
            f"space[{name!r}] must be a distribution of Optuna or Only one, got {d!r}."
        )
