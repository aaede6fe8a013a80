"""Search spaces: distributions of Optuna that fit an estimator and its samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from sk_resnet._base import BaseResNet
from sk_resnet._spec import NetworkSpec, network_spec

WIDTHS = (0.25, 0.5, 1, 2, 4, 8, 10)
N_DEPTHS = 4  # smallest depths in a space
# Memory of training that the widest network of a space may take, in bytes.
MEMORY = 2 * 2**30
# Values kept for the backward pass, as multiples of a block's output.
KEPT_PER_BLOCK = 6
# Of learning rates, by optimizer.
LR_RANGES = {"sgd": (3e-3, 0.5), "heavy_ball": (3e-3, 0.5), "adamw": (2e-4, 2e-2)}


def require_optuna() -> Any:
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

    distribution: Any
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


def search_space(
    estimator: Any, X: Any = None, *, prefix: str | None = None
) -> dict[str, Any]:
    """Make distributions of depth, width, dropout, l1, l2 and lr that fit an estimator.

    Parameters
    ----------
    estimator : estimator or Pipeline
        One of ours, or a pipeline that ends in one.
    X : array-like of shape (n_samples, ...), default=None
        Samples as the network gets them; their shape decides on layers and memory. None
        takes ``input_shape`` of the estimator, or rows.
    prefix : str, default=None
        Stands before each name, such as ``"model__"``. None finds the step of a pipeline.

    Returns
    -------
    space : dict of str to optuna distribution
        For `suggest`, `CrossValidationObjective`, or ``OptunaSearchCV``. Depths are
        valid for the block and layout; no width takes more than 2 GiB in training.

    Raises
    ------
    TypeError
        For other estimators.
    ValueError
        For samples that no depth fits, and for parameters that the estimator refuses.

    Examples
    --------
    >>> from sk_resnet import ResNetClassifier
    >>> from sk_resnet.search import search_space
    >>> space = search_space(ResNetClassifier(input_shape=(1, 8, 8)))
    >>> space["depth"]
    IntDistribution(high=26, log=False, low=8, step=6)
    """
    d = require_optuna().distributions
    net, found = network_step(estimator)
    net._validate_params()
    prefix = found if prefix is None else prefix
    shape = sample_shape(net, X)
    depths = [n for n in range(2, 160) if _spec_or_none(net, shape, depth=n)][:N_DEPTHS]
    if not depths:
        raise ValueError(
            f"No depth fits samples of shape {shape} with block={net.block!r} and "
            f"layout={net.layout!r}: change those, or give X as the network gets it."
        )
    widths = [
        w
        for w in WIDTHS
        if _training_bytes(net, _spec_or_none(net, shape, depth=depths[-1], width=w), shape)
        < MEMORY
    ]
    low, high = LR_RANGES[net.optimizer]
    steps = set(np.diff(depths).tolist())
    depth = (
        d.IntDistribution(depths[0], depths[-1], step=steps.pop())
        if len(steps) == 1
        else d.CategoricalDistribution(depths)
    )
    space = {
        "depth": depth,
        "width": d.CategoricalDistribution(widths or [WIDTHS[0]]),
        "dropout": d.FloatDistribution(0.0, 0.5, step=0.1),
        "l1": d.FloatDistribution(1e-7, 1e-3, log=True),
        "l2": d.FloatDistribution(1e-6, 1e-1 if len(shape) == 1 else 1e-2, log=True),
        "lr": d.FloatDistribution(low, high, log=True),
    }
    return {prefix + name: distribution for name, distribution in space.items()}


def network_step(estimator: Any) -> tuple[BaseResNet, str]:
    """Estimator of ours at the end of pipelines, and what its parameters start with."""
    prefix = ""
    while isinstance(estimator, Pipeline):
        name, estimator = estimator.steps[-1]
        prefix += f"{name}__"
    if not isinstance(estimator, BaseResNet):
        raise TypeError(
            "estimator must be a ResNetClassifier or WideResNetClassifier, or a pipeline "
            f"that ends in one, got {type(estimator).__name__}."
        )
    return estimator, prefix


def sample_shape(net: BaseResNet, X: Any) -> tuple[int, ...]:
    """Channels and sides of a sample as the network gets it."""
    shape = getattr(net, "input_shape", None)
    if shape is None:
        shape = (32,) if X is None else np.shape(X)[1:]
    shape = tuple(shape)
    if not shape:
        raise ValueError(
            f"X must have samples of at least one dimension, got shape {np.shape(X)}."
        )
    return (shape[-1], *shape[:-1]) if net.channel_axis == -1 else shape


def _spec_or_none(
    net: BaseResNet, shape: tuple[int, ...], **changes: Any
) -> NetworkSpec | None:
    names = ("depth", "width", "block", "order", "shortcut", "layout", "dropout")
    values = {name: getattr(net, name) for name in names} | changes
    try:
        return network_spec(input_shape=shape, n_classes=2, wide=net._wide, **values)
    except ValueError:
        return None


def _training_bytes(
    net: BaseResNet, spec: NetworkSpec | None, shape: tuple[int, ...]
) -> float:
    assert spec is not None
    batch = 128 if net.batch_size == "auto" else net.batch_size
    places = math.prod(shape[1:])
    if spec.imagenet_stem:  # its convolution and its pooling halve every side
        places = max(1, places // 4 ** (len(shape) - 1))
    values, weights, channels = 0.0, 0.0, spec.stem_channels
    for stage in spec.stages:
        places = max(1, places // stage.stride ** (len(shape) - 1))
        values += KEPT_PER_BLOCK * stage.n_blocks * stage.out_channels * places
        taps = sum(k ** (len(shape) - 1) for k in spec.kernels)
        weights += stage.n_blocks * taps * stage.inner_channels * stage.out_channels
        channels = stage.out_channels
    # Weights, gradients, and two moments.
    return 4 * (values * batch + 4 * (weights + channels))


def suggest(trial: Any, space: dict[str, Any]) -> dict[str, Any]:
    """Draw the parameters of a trial.

    Parameters
    ----------
    trial : optuna.Trial
        Of a study, or a FixedTrial.
    space : dict of str to optuna distribution or `Only`
        In the order of the draws.

    Returns
    -------
    parameters : dict
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
        if isinstance(distribution, Only):
            if not distribution.applies(drawn):
                drawn[name] = distribution.otherwise
                continue
            distribution = distribution.distribution
        drawn[name] = _draw(trial, name, distribution)
    return drawn


def _draw(trial: Any, name: str, distribution: Any) -> Any:
    kind = type(distribution).__name__
    if kind == "CategoricalDistribution":
        return trial.suggest_categorical(name, distribution.choices)
    _require_distribution(name, distribution)
    method = {"IntDistribution": "suggest_int", "FloatDistribution": "suggest_float"}[kind]
    step = {} if distribution.step is None else {"step": distribution.step}
    return getattr(trial, method)(
        name, distribution.low, distribution.high, log=distribution.log, **step
    )


def nearest(distribution: Any, value: Any) -> Any:
    """Value of the distribution nearest to this one, or None."""
    if hasattr(distribution, "choices"):
        return value if value in distribution.choices else None
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    low, high, step = distribution.low, distribution.high, distribution.step
    value = min(max(value, low), high)
    return low + round((value - low) / step) * step if step else value


def described(space: dict[str, Any]) -> list[str]:
    """Each distribution as text, to tell spaces apart."""
    return [
        f"{name}: "
        + (f"{d.distribution} or {d.otherwise}" if isinstance(d, Only) else f"{d}")
        for name, d in space.items()
    ]


def check_space(
    estimator: Any, net: BaseResNet, prefix: str, space: dict[str, Any], X: Any
) -> None:
    """Refuse a space that names or draws what the estimator or its samples do not fit."""
    if not isinstance(space, dict):
        raise TypeError(f"space must be a dict of distributions by name, got {space!r}.")
    unknown = sorted(set(space) - set(estimator.get_params()))
    if unknown:
        raise ValueError(
            f"space names {unknown}, which are no parameters of the estimator: in a "
            f"pipeline they start with the step, such as '{prefix}depth'."
        )
    for name, d in space.items():
        _require_distribution(name, d)
    _check_values(net, prefix, space)
    depths = space.get(f"{prefix}depth")
    if depths is None or f"{prefix}block" in space or isinstance(depths, Only):
        return
    values = (
        depths.choices
        if hasattr(depths, "choices")
        else range(depths.low, depths.high + 1, depths.step)
    )
    shape = sample_shape(net, X)
    wrong = [n for n in values if _spec_or_none(net, shape, depth=int(n)) is None]
    if wrong:
        fitting = [n for n in range(2, 160) if _spec_or_none(net, shape, depth=n)]
        raise ValueError(
            f"space holds depths that do not fit, {wrong}: use {fitting[:6]}, as "
            "search_space does."
        )


def _require_distribution(name: str, d: Any) -> None:
    kind = require_optuna().distributions.BaseDistribution
    if not isinstance(d.distribution if isinstance(d, Only) else d, kind):
        raise TypeError(
            f"space[{name!r}] must be a distribution of Optuna or Only one, got {d!r}."
        )


def _check_values(net: BaseResNet, prefix: str, space: dict[str, Any]) -> None:
    """Refuse what the network would refuse in a trial: choices, and ends of ranges."""
    for name, d in space.items():
        if not name.startswith(prefix) or "__" in name.removeprefix(prefix):
            continue
        inner = d.distribution if isinstance(d, Only) else d
        values = list(getattr(inner, "choices", None) or (inner.low, inner.high))
        for value in [*values, d.otherwise] if isinstance(d, Only) else values:
            clone(net).set_params(**{name.removeprefix(prefix): value})._validate_params()
