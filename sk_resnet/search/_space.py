"""Search spaces that fit an estimator and its samples."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import indexable

from sk_resnet._base import BaseResNet
from sk_resnet._compat_sklearn import check_parameters, rows_of
from sk_resnet._input import input_spec, padded
from sk_resnet._machine import resolve_device
from sk_resnet._optim import OPTIMIZERS
from sk_resnet._plan import default_lr
from sk_resnet._samples import is_dataset
from sk_resnet._spec import (
    FAMILIES,
    NetworkSpec,
    architecture,
    network_spec,
    resolved,
)
from sk_resnet.search._distributions import (
    Only,
    ends,
    require_distribution,
    require_optuna,
)

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from sk_resnet.search._distributions import Distribution

WIDTHS = (0.25, 0.5, 1, 2, 4, 8, 10)
N_DEPTHS = 4  # smallest depths in a space
DEEPEST = 160  # depths are looked for below it
# Memory of training that the widest network of a space may take, in bytes.
MEMORY = 2 * 2**30
# Values kept for the backward pass, as multiples of a block's output.
KEPT_PER_BLOCK = 6
# Samples in a step that batch_size="auto" does not exceed.
LARGEST_BATCH = 128
# Samples that go through the steps before a network to find the shape that it gets.
N_TRIED = 500


def search_space(
    estimator: BaseEstimator, X: Any = None, y: Any = None, *, prefix: str | None = None
) -> dict[str, BaseDistribution]:
    """Make distributions of depth, width, dropout, l1, l2 and lr that fit an estimator.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A classifier or regressor of this package, or a pipeline that ends in one.
    X : array-like of shape (n_samples, ...), or what the pipeline takes, default=None
        Samples as the estimator gets them. The shape that they have for the network
        decides on layers and memory: some of them go through copies of the steps before
        it. None takes ``input_shape`` of the network, or rows.
    y : array-like of shape (n_samples, ...), default=None
        For steps that need it.
    prefix : str, default=None
        Stands before each name, such as ``"model__"``. None finds the step of a pipeline.

    Returns
    -------
    dict of str to optuna distribution
        For `suggest`, `CrossValidationObjective`, or ``OptunaSearchCV``. Depths are
        valid for the block and layout; no width takes more than 2 GiB in training.

    Raises
    ------
    TypeError
        For other estimators.
    ValueError
        For samples that no depth fits, for parameters that the estimator refuses, and
        where a step before the network fails.

    Examples
    --------
    >>> from sk_resnet import ResNetClassifier
    >>> from sk_resnet.search import search_space
    >>> space = search_space(ResNetClassifier(input_shape=(1, 8, 8)))
    >>> space["depth"]
    IntDistribution(high=26, log=False, low=8, step=6)
    """
    d = require_optuna().distributions
    check_no_dataset(X)
    net, found = network_step(estimator)
    check_parameters(net)
    prefix = found if prefix is None else prefix
    shape = sample_shape(net, network_samples(estimator, X, y))
    depths = _fitting_depths(net, shape)[:N_DEPTHS]
    low, high = OPTIMIZERS[net.optimizer].lr_range
    own_l2 = FAMILIES[net._family].defaults(len(shape) - 1).l2
    space = {
        "depth": _depth_distribution(depths),
        "width": d.CategoricalDistribution(_affordable_widths(net, shape, depths[-1])),
        "dropout": d.FloatDistribution(0.0, 0.5, step=0.1),
        "l1": d.FloatDistribution(1e-7, 1e-3, log=True),
        "l2": d.FloatDistribution(1e-6, min(1.0, max(1e-2, 10 * own_l2)), log=True),
        "lr": d.FloatDistribution(low, high, log=True),
    }
    return {prefix + name: distribution for name, distribution in space.items()}


def network_step(estimator: BaseEstimator) -> tuple[BaseResNet, str]:
    """Estimator of ours at the end of pipelines, and what its parameters start with."""
    prefix = ""
    while isinstance(estimator, Pipeline):
        name, estimator = estimator.steps[-1]
        prefix += f"{name}__"
    if not isinstance(estimator, BaseResNet):
        raise TypeError(
            "estimator must be a ResNetClassifier, WideResNetClassifier, ResNetRegressor "
            "or WideResNetRegressor, or a pipeline that ends in one, got "
            f"{type(estimator).__name__}."
        )
    return estimator, prefix


class StepError(ValueError):
    """A step before the network fails."""


def in_front_of_network(
    model: BaseEstimator, X_train: Any, y_train: Any, X_test: Any
) -> tuple[BaseResNet, Any, Any]:
    """Network at the end of pipelines, and the samples that it gets from their steps.

    These are fitted, in the pipelines too: fitting the network is all that is left.
    """
    while isinstance(model, Pipeline):
        if len(model.steps) > 1:
            # Counts as fitted, which a last step without a state would not.
            end = ("end", FunctionTransformer())
            before = Pipeline([*model.steps[:-1], end], memory=model.memory)
            X_train = before.fit_transform(X_train, y_train)
            X_test = before.transform(X_test)
            model.steps[:-1] = before.steps[:-1]  # with `memory` they are copies
        model = model[-1]
    return model, X_train, X_test


def network_samples(estimator: BaseEstimator, X: Any, y: Any) -> Any:
    """Some samples as the network gets them; StepError where a step fails."""
    net, _ = network_step(estimator)
    if X is None or estimator is net or net.input_shape is not None:
        return X
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            X, y = indexable(X, y)
            n = X.shape[0] if hasattr(X, "shape") else len(X)
            some = np.arange(0, n, -(-n // N_TRIED))
            rows = rows_of(X, some)
            labels = None if y is None else rows_of(y, some)
            return in_front_of_network(clone(estimator), rows, labels, rows)[1]
    except Exception as error:  # steps may be anybody's
        raise StepError(
            "The shape that the network gets is not known, as a step before it fails on "
            f"up to {N_TRIED} samples: {error}. Give y if the step needs it, or no X."
        ) from error


def check_no_dataset(X: Any) -> None:
    """Refuse datasets, whose rows cannot be taken by their numbers."""
    if is_dataset(X):
        raise TypeError(
            "X must be an array in a study, got a dataset: take its samples, as by "
            "np.stack([x for x, _ in dataset]), or a memory-mapped array of them."
        )


def sample_shape(net: BaseResNet, X: Any) -> tuple[int, ...]:
    """Channels and sides of a sample as the network gets it."""
    shape = net.input_shape
    if shape is None:
        shape = (32,) if X is None else np.shape(padded(X))[1:]
    if not len(shape):
        raise ValueError(
            f"X must have samples of at least one dimension, got shape {np.shape(X)}."
        )
    # X is what the first step of a pipeline gets: `input_shape` need not fit it.
    sample = np.broadcast_to(np.float32(0), (1, *shape))
    with warnings.catch_warnings():
        # Of samples that can be read in two ways fit warns.
        warnings.filterwarnings("ignore", "Samples of shape", UserWarning)
        spec = input_spec(
            sample, input_shape=net.input_shape, channel_axis=net.channel_axis
        )
    return spec.network_shape


def resolved_parameters(net: BaseResNet, shape: tuple[int, ...], n: int) -> dict[str, Any]:
    """Parameters of a network for n samples of a shape, with what "auto" stands for."""
    defaults = FAMILIES[net._family].defaults(len(shape) - 1)
    defaults = replace(defaults, l2=defaults.l2_for(n))
    parameters = resolved(net.get_params(), defaults)
    if parameters["lr"] == "auto":
        parameters["lr"] = default_lr(net.optimizer, defaults)
    return parameters


def _spec(net: BaseResNet, shape: tuple[int, ...], **changes: Any) -> NetworkSpec:
    family = FAMILIES[net._family]
    parameters = {**net.get_params(deep=False), **changes}
    return network_spec(
        architecture(parameters, family, len(shape) - 1),
        family,
        input_shape=shape,
        n_outputs=2,
    )


def _is_valid_depth(net: BaseResNet, shape: tuple[int, ...], depth: int) -> bool:
    try:
        _spec(net, shape, depth=depth)
    except ValueError:
        return False
    return True


def _fitting_depths(net: BaseResNet, shape: tuple[int, ...]) -> list[int]:
    depths = [n for n in range(2, DEEPEST) if _is_valid_depth(net, shape, n)]
    if not depths:
        try:
            _spec(net, shape, depth=DEEPEST - 1)
        except ValueError as error:
            raise ValueError(
                f"No depth fits samples of shape {shape} (layout={net.layout!r}, "
                f"block={net.block!r}): {error}"
            ) from error
    return depths


def _depth_distribution(depths: list[int]) -> BaseDistribution:
    d = require_optuna().distributions
    steps = set(np.diff(depths).tolist())
    if len(steps) == 1:
        return d.IntDistribution(depths[0], depths[-1], step=steps.pop())
    return d.CategoricalDistribution(depths)


def _affordable_widths(net: BaseResNet, shape: tuple[int, ...], depth: int) -> list[float]:
    batch = LARGEST_BATCH if net.batch_size == "auto" else net.batch_size
    bytes_of = {
        width: _training_bytes(
            _spec(net, shape, depth=depth, width=width), shape[1:], batch
        )
        for width in WIDTHS
    }
    return [width for width in WIDTHS if bytes_of[width] < MEMORY] or [WIDTHS[0]]


def _training_bytes(spec: NetworkSpec, sides: tuple[int, ...], batch_size: int) -> int:
    blocks = spec.blocks(sides)
    values = sum(KEPT_PER_BLOCK * b.out_channels * math.prod(b.sides) for b in blocks)
    weights = sum(map(spec.n_kernel_weights, blocks))
    # Weights, gradients, and two moments.
    return 4 * (values * batch_size + 4 * weights)


def check_space(
    estimator: BaseEstimator,
    net: BaseResNet,
    prefix: str,
    space: dict[str, Distribution],
    shape: tuple[int, ...] | None,
) -> None:
    """Refuse a space that names or draws what the estimator or its samples do not fit."""
    if not isinstance(space, dict):
        raise TypeError(f"space must be a dict of distributions by name, got {space!r}.")
    unknown = sorted(set(space) - set(estimator.get_params()))
    if unknown:
        raise ValueError(
            f"space names {unknown}, which are no parameters of the estimator: in a "
            f"pipeline they start with the step, such as '{prefix}depth', and callbacks "
            f"need a name, such as '{prefix}callbacks__stop__patience'."
        )
    for name, d in space.items():
        require_distribution(name, d)
    _check_values(net, prefix, space)
    depths = space.get(f"{prefix}depth")
    if depths is not None and shape is not None and f"{prefix}block" not in space:
        _check_depths(net, depths, shape)


def _check_values(net: BaseResNet, prefix: str, space: dict[str, Distribution]) -> None:
    """Refuse what the network would refuse in a trial: choices, and ends of ranges."""
    for name, d in space.items():
        own = name.removeprefix(prefix)
        if not name.startswith(prefix) or "__" in own:  # of other steps, and of callbacks
            continue
        for value in ends(d):
            check_parameters(clone(net).set_params(**{own: value}))
            if own == "device":
                resolve_device(value)


def _check_depths(net: BaseResNet, depths: Any, shape: tuple[int, ...]) -> None:
    if isinstance(depths, Only):  # which may leave out those that do not fit
        return
    ranged = hasattr(depths, "low")
    values = range(depths.low, depths.high + 1, depths.step) if ranged else depths.choices
    wrong = [n for n in values if not _is_valid_depth(net, shape, n)]
    if wrong:
        raise ValueError(
            f"space holds depths that do not fit, {wrong}: use "
            f"{_fitting_depths(net, shape)[:6]}, as search_space does."
        )
