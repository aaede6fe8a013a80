"""What all estimators share: rules, fit in four acts, prediction, and their state."""

import copy
import os
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import zip_longest
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import (
    check_array,
    check_consistent_length,
    check_random_state,
    get_tags,
)
from sklearn.utils.validation import check_is_fitted, validate_data
from torch.optim import Optimizer

from sk_resnet._callbacks import (
    OncePerEpoch,
    SklearnCallbacks,
    TimeLimit,
    as_callbacks,
    callback_parameters,
    epoch_progress,
    follows_estimator,
    monitors_validation,
    sets_learning_rate,
    with_parameters,
)
from sk_resnet._checkpoint import (
    Checkpoint,
    Progress,
    open_checkpoint,
    restore,
    restore_callbacks,
    state_of,
)
from sk_resnet._compat_sklearn import (
    HasMethods,
    Interval,
    RealNotInt,
    StrOptions,
    callback_context,
    callback_state,
    fit_context,
    has_callbacks,
)
from sk_resnet._data import (
    DEFAULT_FRACTION,
    FOLDS,
    Data,
    check_kinds,
    check_numbers,
    check_samples,
    training_data,
)
from sk_resnet._fused import train
from sk_resnet._input import InputSpec, ends_in_nan, input_spec, padded, to_numpy
from sk_resnet._machine import device_or_cpu, out_of_memory_named, resolve_device
from sk_resnet._members import Training, Unit, state_by_name
from sk_resnet._net import DivergenceError, ResidualNet, make_net, member_seed
from sk_resnet._network import (
    ResidualNetwork,
    build_network,
    is_finite,
    kernels,
    n_parameters,
    new_network,
)
from sk_resnet._optim import OPTIMIZERS, SCHEDULES
from sk_resnet._penalty import STRUCTURES, sparsity
from sk_resnet._plan import (
    Execution,
    Recipe,
    make_execution,
    make_recipe,
    resolve_batch_size,
    resolve_epochs,
)
from sk_resnet._processes import rank_and_size
from sk_resnet._samples import Samples, read_dataset
from sk_resnet._spec import (
    BLOCKS,
    FAMILIES,
    LAYOUTS,
    ORDERS,
    SHORTCUTS,
    ArchitectureError,
    NetworkSpec,
    architecture,
    network_spec,
)
from sk_resnet._state import (
    ModelFileError,
    arrays_to_weights,
    n_bytes,
    network_state,
    packed,
    restored,
    weights_to_arrays,
)
from sk_resnet._surgery import compacted, gather, multiply_adds, separated, stacked
from sk_resnet._target import Target

_positive = Interval(Real, 0, None, closed="neither")
_not_negative = Interval(Real, 0, None, closed="left")
# Products of these with each other are finite in float32.
_rate = Interval(Real, 0, 1e30, closed="right")
_strength = Interval(Real, 0, 1e5, closed="both")
_share = Interval(Real, 0, 1, closed="left")
_counts = Interval(Integral, 1, None, closed="left")
_auto = StrOptions({"auto"})


# Columns of skorch's history that `history_` leaves out or names otherwise.
_HISTORY_NAMES = {"dur": "seconds"}
_HISTORY_HIDDEN = ("_batch_count", "_best")


class BaseResNet(CallbackSupportMixin, BaseEstimator, ABC):
    """Estimator with a residual network in ``net_``; subclasses say for what."""

    net_: ResidualNet
    # Those of the members; `net_` itself where there is one.
    nets_: list[ResidualNet]
    # Set by the `__init__` of subclasses, and all parameters below likewise.
    callbacks: Any

    _family: ClassVar[str]
    _doc_link_module = "sk_resnet"
    _doc_link_template = "https://sk-resnet.readthedocs.io/en/stable/generated/sk_resnet.{estimator_name}.html"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "depth": [_counts, _auto],
        "width": [_positive, _auto],
        "block": [StrOptions({*BLOCKS, "auto"}), tuple, list],
        "order": [StrOptions({*ORDERS, "auto"})],
        "shortcut": [StrOptions(set(SHORTCUTS))],
        "layout": [StrOptions(set(LAYOUTS))],
        "dropout": [_share],
        "stochastic_depth": [_share],
        "n_estimators": [_counts, _auto],
        "l1": [_strength],
        "l1_structure": [StrOptions(set(STRUCTURES))],
        "finetune_epochs": [Interval(Integral, 0, None, closed="left")],
        "l2": [_not_negative, _auto],
        "l2_on": [StrOptions({"kernels", "all"})],
        "augment": [str, list, tuple, None],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "lr": [_rate, _auto],
        "momentum": [_share],
        "schedule": [StrOptions(set(SCHEDULES))],
        "max_epochs": [_counts, _auto],
        "max_seconds": [_positive, None],
        "batch_size": [_counts, _auto],
        "input_shape": [tuple, list, None],
        "channel_axis": [_auto, Interval(Integral, -1, 1, closed="both"), None],
        "standardize": ["boolean"],
        "validation_split": [
            Interval(RealNotInt, 0, 1, closed="neither"),
            HasMethods(["split", "get_n_splits"]),
            list,
            _auto,
            None,
        ],
        "callbacks": [list, tuple, None],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "compile": ["boolean"],
        "warm_start": ["boolean"],
        "checkpoint": [str, os.PathLike, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return "net_" in vars(self)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get parameters for this estimator.

        Parameters
        ----------
        deep : bool, default=True
            Whether those of `callbacks` that are given as pairs of a name and a callback
            are among them, as ``callbacks__name`` and ``callbacks__name__parameter``.

        Returns
        -------
        dict
            Parameters by name.
        """
        params = super().get_params(deep=deep)
        return {**params, **callback_parameters(self.callbacks)} if deep else params

    def set_params(self, **params: Any) -> "BaseResNet":
        """Set parameters of this estimator, and of callbacks that have a name.

        Parameters
        ----------
        **params : dict
            By name; ``callbacks__name__parameter`` for a callback.

        Returns
        -------
        object
            The estimator.

        Raises
        ------
        ValueError
            For unknown parameters, and for callbacks that are not given by that name.
        """
        of_callbacks = {k: v for k, v in params.items() if k.startswith("callbacks__")}
        super().set_params(**{k: v for k, v in params.items() if k not in of_callbacks})
        if of_callbacks:
            self.callbacks = with_parameters(self.callbacks, of_callbacks)
        return self

    # What y is: subclasses say

    def _check_raw_y(self, y: Any) -> None:
        """Refuse what is lost when y becomes an array."""
        if y is not None and not issparse(y):
            check_kinds(y)

    @abstractmethod
    def _checked_y(self, y: Any) -> Any:
        """Refuse what cannot be learned."""

    @abstractmethod
    def _new_target(self, y: Any, classes: Any, *, in_part: bool) -> Target:
        """Target for a first training; `classes` are those of partial_fit."""

    @abstractmethod
    def _continued_target(self, y: Any, target: Target, *, in_part: bool) -> Target:
        """Target for a further training: the same, with the parameters of today."""

    @abstractmethod
    def _check_known(self, y: Any, target: Target, name: str) -> None:
        """Refuse y that the target does not know; `name` is that of the argument."""

    # Fitting

    @fit_context(prefer_skip_nested_validation=True)
    @torch.inference_mode(False)  # with gradients, whatever mode the caller is in
    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        X_val: Any = None,
        y_val: Any = None,
        groups: Any = None,
    ) -> "BaseResNet":
        """Train the network from new weights, or from its own with ``warm_start=True``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Rows of a table, series, images or volumes. See `input_shape` and
            `channel_axis` for other layouts. Series of unequal lengths are a list of
            arrays of shape (n_channels, length) or (length,), or an array in which NaN
            follow the last value of a series. A torch Dataset, or any other object with
            ``__len__`` and ``__getitem__``, gives a sample for each number; what does not
            fit into memory is read batch by batch.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            What to learn, as the class says. None only for a dataset that gives pairs of
            a sample and its y, or dicts with a field "label" or "labels".
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the loss, at least 0. Those of weight 0 are left
            out. None means equal weights.
        X_val : array-like, default=None
            Samples to validate on after each epoch, in the layout of X.
        y_val : array-like, default=None
            Their y, in the layout of y; of classes that are in y. None for a dataset of
            pairs.
        groups : array-like of shape (n_samples,), default=None
            Groups that `validation_split` must not tear apart.

        Returns
        -------
        object
            The fitted estimator.

        Raises
        ------
        TypeError
            For X that is no numbers, and for y of mixed kinds.
        ValueError
            For data or parameters that do not fit together, and for a training that
            becomes infinite or NaN.

        Notes
        -----
        An error before the first epoch is done leaves the estimator as it was, with the
        model of an earlier fit. So does a training that diverges. Ctrl-C and errors of
        callbacks after that keep the epochs that are done.
        """
        continues = self.warm_start and self.__sklearn_is_fitted__()
        with self._as_it_was_on_error(continues):
            callbacks = as_callbacks(self.callbacks)
            X, y = read_dataset(X, y)
            X_val, y_val = read_dataset(X_val, y_val)
            self._check_validation(X_val, y_val)
            X, y = self._checked(X, y, reset=not continues)
            seed = self._draw_seed()
            inputs = {
                "X": X,
                "y": y,
                "sample_weight": sample_weight,
                "X_val": X_val,
                "y_val": y_val,
                "groups": groups,
            }
            checkpoint = self._checkpoint(seed, inputs, callbacks, continues=continues)
            if checkpoint is not None:
                seed = checkpoint.values["seed"]
                if checkpoint.fitted is not None:
                    return self._take_fitted(checkpoint, callbacks)
            if self.max_seconds is not None:
                callbacks = [*callbacks, TimeLimit(self.max_seconds)]
            data = self._data(
                X,
                y,
                sample_weight,
                continues=continues,
                is_monitored=monitors_validation(callbacks),
                groups=groups,
                seed=seed,
                validation_set=(
                    None if X_val is None else self._checked(X_val, y_val, reset=False)
                ),
            )
            n = len(data[0].training)
            batch_size = resolve_batch_size(self.batch_size, n)
            if not continues:
                self._build(data[0], batch_size, seed)
            n_epochs = resolve_epochs(self.max_epochs, n, batch_size)
            epochs = n_epochs, int(self.finetune_epochs)
            schedule = "constant" if sets_learning_rate(callbacks) else self.schedule
            recipes = [
                self._recipe(n_epochs, batch_size, schedule, finetunes=i > 0)
                for i, n_epochs in enumerate(epochs)
                if n_epochs
            ]
            with self._followed(sum(epochs), X, y, sample_weight) as followers:
                for stage, recipe in enumerate(recipes):
                    if checkpoint and not self._begin(checkpoint, stage, recipe, data):
                        continue
                    self._train(data, recipe, callbacks, followers, checkpoint)
                    if recipe.l1:
                        self._settle(recipe.lr)
                self._calibrate(data)
            if checkpoint is not None:
                self._finish(checkpoint)
        return self

    @contextmanager
    def _followed(
        self, n_epochs: int, X: NDArray[Any], y: Any, sample_weight: Any
    ) -> Iterator[list[Any]]:
        """Tell scikit-learn's callbacks of a fit; gives what tells them of its epochs."""
        context = callback_context(self, n_epochs)
        arguments = {
            "estimator": self,
            "X": X,
            "y": y,
            "metadata": {"sample_weight": sample_weight},
            "reconstruction_attributes": self._snapshot,
        }
        context.call_on_fit_task_begin(**arguments)
        yield [SklearnCallbacks(context, arguments)] if has_callbacks(self) else []
        context.call_on_fit_task_end(**arguments)

    @fit_context(prefer_skip_nested_validation=True)
    @torch.inference_mode(False)
    def _partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> "BaseResNet":
        continues = self.__sklearn_is_fitted__()
        with self._as_it_was_on_error(continues):
            X, y = read_dataset(X, y)
            X, y = self._checked(X, y, reset=not continues)
            seed = 0 if continues else self._draw_seed()
            inputs = {"X": X, "y": y, "sample_weight": sample_weight, "classes": classes}
            checkpoint = self._checkpoint(seed, inputs, [], continues=continues)
            if checkpoint is not None:
                seed = checkpoint.values["seed"]
                if checkpoint.fitted is not None:
                    return self._take_fitted(checkpoint, [])
            data = self._data(
                X, y, sample_weight, continues=continues, classes=classes, in_part=True
            )
            n = len(data[0].training)
            batch_size = resolve_batch_size(self.batch_size, n)
            if not continues:
                self._build(data[0], batch_size, seed)
            elif self.batch_size == "auto" or batch_size == n:
                # A small part of the data does not make later steps and predictions small.
                batch_size = max(batch_size, self.batch_size_)
            self._train(data, self._recipe(1, batch_size, "constant"), [], [])
            if checkpoint is not None:
                self._finish(checkpoint)
        return self

    # Checkpoints

    def _checkpoint(
        self, seed: int, inputs: dict[str, Any], callbacks: list[Any], *, continues: bool
    ) -> Checkpoint | None:
        """Checkpoint of a fit of these inputs, with what an earlier run of it left."""
        if self.checkpoint is None:
            return None
        if rank_and_size()[1] > 1:
            raise ValueError(
                "checkpoint must be None where several processes train one network."
            )
        alone = [item[1] if isinstance(item, tuple) else item for item in callbacks]
        # Not those of their subclasses, which may have more.
        if others := [type(c).__name__ for c in alone if "state_dict" not in vars(type(c))]:
            raise ValueError(
                f"A checkpoint does not hold the state of {', '.join(others)}: use "
                "EarlyStopping alone, or checkpoint=None."
            )
        parts = self.get_params(deep=False)
        for name in ("checkpoint", "verbose", "random_state"):
            del parts[name]
        if self.random_state is not None:
            parts["random_state"] = seed
        parts["callbacks"] = [c for c in alone if not follows_estimator(c)]
        if continues:
            parts["model before"] = self.n_epochs_, self._copied_weights(self.net_)
        parts |= {name: _plain(value) for name, value in inputs.items()}
        parts["class"] = type(self).__name__
        return open_checkpoint(self.checkpoint, parts, seed=seed)

    def _begin(
        self, checkpoint: Checkpoint, stage: int, recipe: Recipe, data: list[Data]
    ) -> bool:
        """Begin a training, or go on with it; False where it had ended before."""
        checkpoint.check_rows([own.training.rows for own in data])
        reached = checkpoint.values.get("stage", -1)
        if stage < reached:
            return False
        if stage == reached:
            self.history_[:] = checkpoint.values["history"]
            self.n_epochs_ = len(self.history_)
            for place, state in checkpoint.states.items():
                restore(self.nets_[place], state, recipe)
        else:
            checkpoint.values |= {"stage": stage, "history": list(self.history_)}
            # Of those that have not begun the fine-tuning when a file is written.
            checkpoint.states = {
                place: state_of(
                    net, state_by_name(net), lr=0.0, began=None, n_before=len(net.history)
                )
                for place, net in enumerate(self.nets_ if stage else [])
            }
        return True

    def _finish(self, checkpoint: Checkpoint) -> None:
        """Keep the fitted model, and what a further training goes on from."""
        fitted = {
            name: value
            for name, value in self.__getstate__().items()
            if name.endswith("_") or name in ("_saved", "_seed", "_sklearn_version")
        }
        states = {
            place: state_of(net, state_by_name(net), lr=0.0, began=None, held=0)
            for place, net in enumerate(self.nets_)
        }
        checkpoint.finish(fitted, states)

    def _take_fitted(self, checkpoint: Checkpoint, callbacks: list[Any]) -> "BaseResNet":
        """Become what an earlier run of the fit ended with."""
        open_callbacks = callback_state(self)
        parameters = self.get_params(deep=False)
        self.__setstate__({**parameters, **(checkpoint.fitted or {}), **open_callbacks})
        recipe = self._recipe(1, self.batch_size_, "constant")
        heard = self._heard(callbacks, [])
        for place, state in checkpoint.states.items():
            net = self.nets_[place]
            restore(net, state, recipe)
            net.take_callbacks(heard)
            restore_callbacks(net, state)
        return self

    def _calibrates(self) -> bool:
        """Whether a fit ends in `_calibrate`."""
        return False

    def _calibrate(self, data: list[Data]) -> None:
        """Let predictions be as sure as they are right on validation data."""

    # First act: data

    # scikit-learn adds values up to look for NaN, and lets NumPy warn of ∞ - ∞.
    @np.errstate(over="ignore", invalid="ignore")
    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[NDArray[Any], Any]:
        """Samples and y, of fit, of partial_fit, or to validate on."""
        y = to_numpy(y)
        self._check_raw_y(y)
        if isinstance(X, Samples):
            X, y = self._checked_pairs(X, y, reset=reset)
        else:
            X, y = self._validated(X, y=y, reset=reset, multi_output=True)
        check_numbers(X)
        if X.ndim != 2 and reset:
            self.__dict__.pop("n_features_in_", None)
        return X, self._checked_y(y)

    def _validated(self, X: Any, **given: Any) -> Any:
        """What scikit-learn makes of samples, and of y if it is given."""
        return validate_data(
            self,
            padded(to_numpy(X), self.channel_axis),
            dtype="numeric",
            allow_nd=True,
            ensure_all_finite="allow-nan",  # until it is known whether these are series
            **given,
        )

    def _checked_pairs(self, X: Samples, y: Any, *, reset: bool) -> tuple[Samples, Any]:
        """Samples that are read later, and y: what scikit-learn checks of arrays."""
        y = check_array(y, accept_sparse=True, ensure_2d=False, dtype=None, input_name="y")
        check_consistent_length(X, y)
        if reset:
            self.__dict__.pop("feature_names_in_", None)
            if X.ndim == 2:
                self.n_features_in_ = X.shape[1]
        return X, y

    def _check_validation(self, X_val: Any, y_val: Any) -> None:
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val must be given together, got one of them.")
        if X_val is not None and self.validation_split not in ("auto", None):
            raise ValueError(
                "validation_split must be 'auto' or None when X_val is given, got "
                f"{self.validation_split}."
            )

    def _resolved_split(self, n_dims: int, n_members: int, is_monitored: bool) -> Any:
        """Part of the training data to hold out."""
        split = self.validation_split
        # Series are few, and lose more by what a fold takes than a temperature brings.
        if split == "auto" and n_dims == 0 and n_members > 1 and self._calibrates():
            return FOLDS
        if split is None or isinstance(split, str):
            return DEFAULT_FRACTION if is_monitored else None
        return split

    def _draw_seed(self) -> int:
        # Not check_random_state(None): that is NumPy's global generator, and would move.
        if self.random_state is None:
            if rank_and_size()[1] > 1:
                raise ValueError(
                    "random_state must be an int where several processes train one "
                    "network: they start from the same weights."
                )
            return int(np.random.default_rng().integers(2**31))
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _data(
        self,
        X: NDArray[Any],
        y: Any,
        sample_weight: Any,
        *,
        continues: bool,
        classes: Any = None,
        in_part: bool = False,
        is_monitored: bool = False,
        **others: Any,
    ) -> list[Data]:
        if continues:
            check_samples(X, self.net_.input_spec)
            target = self._continued_target(y, self.net_.target, in_part=in_part)
            self._check_same_network(X)
            spec = self.net_.input_spec
        else:
            target = self._new_target(y, classes, in_part=in_part)
            spec = self._input_spec(X)
            if spec.unequal and X.ndim == 2:
                del self.n_features_in_  # they differ from sample to sample
        n_members, split = self._n_members(spec), None
        if others.get("validation_set"):
            self._check_known(others["validation_set"][1], target, "y_val")
        elif not in_part:
            n_dims = len(spec.network_shape) - 1
            split = self._resolved_split(n_dims, n_members, is_monitored)
        return training_data(
            X,
            y,
            sample_weight=sample_weight,
            target=target,
            spec=spec,
            standardize=self.standardize and not continues,
            split=split,
            n_members=n_members,
            **others,
        )

    def _input_spec(self, X: NDArray[Any]) -> InputSpec:
        shape, axis = self.input_shape, self.channel_axis
        spec = input_spec(X, input_shape=shape, channel_axis=axis)
        return replace(spec, unequal=ends_in_nan(X, spec))

    # Second act: network

    def _network_spec(self, spec: InputSpec, n_outputs: int) -> NetworkSpec:
        family, n_dims = FAMILIES[self._family], len(spec.network_shape) - 1
        network = network_spec(
            architecture(self.get_params(deep=False), family, n_dims),
            family,
            input_shape=spec.network_shape,
            n_outputs=n_outputs,
            unequal=spec.unequal,
            members=self._n_members(spec),
        )
        if self.l1_structure == "channel" and len(network.kernels) < 2:
            raise ArchitectureError(
                "l1_structure='channel' empties channels between the convolutions of a "
                f"block, got block={self.block!r} with one convolution: use 'weight'."
            )
        return network

    def _n_members(self, spec: InputSpec) -> int:
        defaults = FAMILIES[self._family].defaults(len(spec.network_shape) - 1)
        auto = self.n_estimators == "auto"
        return defaults.n_estimators if auto else int(self.n_estimators)

    def _check_same_network(self, X: NDArray[Any]) -> None:
        """Refuse parameters that an existing network does not have."""
        earlier, spec = self.net_.input_spec, self._input_spec(X)
        if earlier.unequal:
            spec = replace(
                spec,
                unequal=True,
                sample_shape=earlier.sample_shape,
                input_shape=earlier.input_shape,
            )
        # A network that compact() cut counts as the one that it was cut from.
        network = replace(self.net_.module_.spec, cut_to=None)
        if (
            spec != earlier
            or self.standardize != (earlier.mean is not None)
            or self._network_spec(spec, network.n_outputs) != network
        ):
            raise ValueError(
                "Training goes on with the network of the earlier fit, but a parameter of "
                "the architecture, n_estimators, dropout, stochastic_depth, input_shape, "
                "channel_axis or standardize has changed: set it back, or fit with "
                "warm_start=False."
            )

    def _build(self, data: Data, batch_size: int, seed: int) -> None:
        network = self._network_spec(data.input_spec, data.target.n_outputs)
        device = resolve_device(self.device)
        self.history_: list[dict[str, Any]] = []
        self.n_epochs_ = 0
        self._seed = seed
        self.batch_size_ = batch_size
        single = replace(network, members=1)
        singles = [
            new_network(single, device=device, seed=member_seed(seed, i))
            for i in range(network.members)
        ]
        self._adopt(singles, data.input_spec, data.target, device)

    def _adopt(
        self,
        modules: list[ResidualNetwork],
        spec: InputSpec,
        target: Target,
        device: torch.device,
    ) -> None:
        """Take in the networks of all members, with the history so far."""
        self.nets_ = [
            self._net(module, spec, target, device, member=i)
            for i, module in enumerate(modules)
        ]
        self.net_ = self.nets_[0]
        if len(modules) > 1:
            self.net_ = self._net(stacked(modules), spec, target, device)
        self.input_shape_ = spec.input_shape
        self.device_ = str(device)

    def _net(
        self,
        module: ResidualNetwork,
        spec: InputSpec,
        target: Target,
        device: torch.device,
        member: int = 0,
    ) -> ResidualNet:
        net = make_net(
            module,
            input_spec=spec,
            target=target,
            batch_size=self.batch_size_,
            device=device,
            seed=member_seed(self._seed, member),
            n_epochs=self.n_epochs_,
        )
        _fill_history(net, self.history_)
        return net

    # Third act: plan

    def _recipe(
        self, n_epochs: int, batch_size: int, schedule: str, *, finetunes: bool = False
    ) -> Recipe:
        return make_recipe(
            self.get_params(deep=False),
            FAMILIES[self._family],
            n_dims=self.net_.module_.spec.n_dims,
            n_epochs=n_epochs,
            batch_size=batch_size,
            schedule=schedule,
            finetunes=finetunes,
        )

    def _execution(self, batch_size: int) -> Execution:
        net = self.nets_[0]
        sides = net.input_spec.network_shape[1:]
        return make_execution(
            self.precision,
            self.compile,
            device=torch.device(net.device),
            network=net.module_.spec,
            sides=sides,
            multiply_adds=multiply_adds(net.module_, sides),
            batch_size=batch_size,
        )

    # Fourth act: run

    def _train(
        self,
        data: list[Data],
        recipe: Recipe,
        callbacks: list[Any],
        followers: list[Any],
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Train all members; `followers` are told of each epoch once."""
        execution, nets = self._execution(recipe.batch_size), self.nets_
        self.precision_ = "bfloat16" if execution.bfloat16 else "float32"
        self.batch_size_ = recipe.batch_size
        for net in {self.net_, *nets}:
            net.batch_size, net.target = recipe.batch_size, data[0].target
        held, verbose = None, self.verbose
        try:
            n_done = checkpoint.n_done if checkpoint else 0
            with epoch_progress(recipe.n_epochs, n_done, shown=bool(verbose)) as bar:
                heard = self._heard(callbacks, [*followers, *bar])
                made = (recipe, execution, heard, verbose, Unit())
                trainings = [
                    Training(net, own, *made, Progress.of(checkpoint, place))
                    for place, (net, own) in enumerate(zip(nets, data, strict=True))
                ]
                with out_of_memory_named(recipe.batch_size):
                    held = train(trainings)
        finally:  # also after Ctrl-C: the epochs that are done stay usable
            self._gather()
            self._summarize(held)

    def _heard(self, callbacks: list[Any], followers: list[Any]) -> list[Any]:
        """Callbacks that each member gets."""
        if len(self.nets_) == 1:
            return [*callbacks, *followers]
        followers = [*followers, *filter(follows_estimator, callbacks)]
        own = [callback for callback in callbacks if not follows_estimator(callback)]
        if not followers:
            return own
        return [*own, OncePerEpoch(followers, begin=self._gather)]

    def _gather(self) -> None:
        """Bring the weights of the members into the network that predicts."""
        if len(self.nets_) > 1:
            gather(self.net_.module_, [net.module_ for net in self.nets_])

    def _settle(self, lr: float) -> None:
        """End the training under `l1` with zeros where its steps would make them.

        The noise of batches keeps moving weights off zero, which schedules let end ever
        closer to it, and not at it.
        """
        for net in self.nets_:
            optimizer: Any = net.optimizer_
            optimizer.settle(lr)
        self._gather()
        self._measure_network()

    def _summarize(self, held: list[int] | None) -> None:
        histories = [
            [_history_row(row) for row in net.history if "train_loss" in row]
            for net in self.nets_
        ]
        n_before = self.n_epochs_ if len(self.nets_) > 1 else 0
        new = zip_longest(*(rows[n_before:] for rows in histories))
        self.history_ = [*self.history_[:n_before], *map(_mean_row, new)]
        self.n_epochs_ = len(self.history_)
        if len(self.nets_) > 1:  # or they would differ in length after early stops
            for net in self.nets_:
                _fill_history(net, self.history_)
        held = [len(rows) for rows in histories] if held is None else held
        self.best_epoch_ = held[0] if len(held) == 1 else np.array(held)
        self._measure_network()

    def _measure_network(self) -> None:
        module = self.net_.module_
        self.n_parameters_ = n_parameters(module)
        self.sparsity_ = sparsity(kernels(module).values())
        self.n_bytes_ = n_bytes(packed(weights_to_arrays(module)))

    @contextmanager
    def _as_it_was_on_error(self, continues: bool) -> Iterator[None]:
        """Put everything back where no epoch was done, or where training diverged."""
        before = dict(vars(self))
        net = self.net_ if continues else None
        weights = self._copied_weights(net) if net else {}
        target = net.target if net else None
        nets = self.nets_ if net else []
        optimizers = [_copied_optimizer(member) for member in nets]
        try:
            yield
        except BaseException as error:
            has_new_net = vars(self).get("net_") is not before.get("net_")
            n_before = 0 if has_new_net else before.get("n_epochs_", 0)
            is_trained = vars(self).get("n_epochs_", 0) > n_before
            diverged = isinstance(error, DivergenceError)
            if is_trained and not diverged and is_finite(self.net_.module_):
                raise
            # scikit-learn has yet to end the callbacks that this fit began.
            open_callbacks = callback_state(self)
            self.__dict__.clear()
            self.__dict__.update({**before, **open_callbacks})
            if net and target:
                self._take_back(nets, target, weights, optimizers)
            raise

    def _take_back(
        self,
        nets: list[ResidualNet],
        target: Target,
        weights: dict[str, NDArray[Any]],
        optimizers: list[Optimizer | None],
    ) -> None:
        """Undo what a training did to the members."""
        net = self.net_
        if len(nets) > 1 or _differs(net.module_, weights):
            device = torch.device(net.device)
            module = arrays_to_weights(build_network(net.module_.spec), weights, device)
            self._adopt(separated(module), net.input_spec, target, device)
        else:
            net.target = target
            del net.history[self.n_epochs_ :]
        for earlier, now, optimizer in zip(nets, self.nets_, optimizers, strict=True):
            if optimizer is not None:
                _move_optimizer(optimizer, earlier.module_, now.module_)
                now.take_optimizer(optimizer)

    @staticmethod
    def _copied_weights(net: ResidualNet) -> dict[str, NDArray[Any]]:
        return {name: w.copy() for name, w in weights_to_arrays(net.module_).items()}

    def _snapshot(self) -> dict[str, Any]:
        """Net with a copy of the weights as they are in the middle of a fit."""
        net = self.net_
        device = torch.device(net.device)
        module = build_network(net.module_.spec)
        arrays_to_weights(module, self._copied_weights(net), device)
        return {"net_": self._net(module, net.input_spec, net.target, device)}

    # Prediction

    @property
    def module_(self) -> ResidualNetwork:
        """The fitted network, a `torch.nn.Module` in evaluation mode.

        It reads what `network_input` gives, not raw samples.
        """
        check_is_fitted(self)
        return self.net_.module_

    @np.errstate(over="ignore", invalid="ignore")
    def _checked_samples(self, X: Any) -> NDArray[Any]:
        check_is_fitted(self)
        X, _ = read_dataset(X, wants_y=False)
        if not isinstance(X, Samples):
            X = self._validated(X, reset=False)
        check_numbers(X)
        check_samples(X, self.net_.input_spec)
        return X

    def _member_outputs(self, X: Any, *, features: bool = False) -> NDArray[np.float32]:
        """Outputs or features of shape (members, n, ...)."""
        X = self._checked_samples(X)
        bfloat16 = self.precision == "bfloat16"
        outputs = self.net_.outputs(X, bfloat16=bfloat16, features=features)
        return outputs if outputs.ndim == 3 else outputs[None]

    def _outputs(self, X: Any) -> NDArray[Any]:
        X = self._checked_samples(X)
        return self.net_.averaged_outputs(X, bfloat16=self.precision == "bfloat16")

    def network_input(self, X: Any) -> NDArray[np.float32]:
        """Return samples as ``module_`` reads them: channels first, and scaled.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples of the shape that the model was fitted on.

        Returns
        -------
        ndarray of shape (n_samples, n_channels, ...)
            For ``torch.from_numpy`` and `module_`.
        """
        return self.net_.input_spec.transform(self._checked_samples(X))

    def embed(self, X: Any) -> NDArray[np.float32]:
        """Return the features that the last layer of the network reads.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples of the shape that the model was fitted on.

        Returns
        -------
        ndarray of shape (n_samples, n_estimators * n_channels_of_the_last_stage)
            Activations of the last block, averaged over all places; those of the
            networks of an ensemble side by side.
        """
        features = self._member_outputs(X, features=True)
        return np.concatenate(features, axis=1)

    # The network

    def sparsity_by_layer(self) -> dict[str, float]:
        """Share of exact zeros in each kernel.

        Returns
        -------
        dict
            By the name of the kernel in ``module_``, from the stem to the last layer.
        """
        check_is_fitted(self)
        return {name: sparsity([w]) for name, w in kernels(self.module_).items()}

    @torch.inference_mode(False)
    def compact(self) -> "BaseResNet":
        """Copy of the fitted estimator without the channels that nothing reads.

        A channel between two convolutions of a block is cut out where all weights that
        read it are zero, as ``l1_structure="channel"`` makes them. Predictions change
        by rounding only; parameters, bytes and time go down. All orders, blocks and
        numbers of dimensions can be cut; channels of the stem and of the shortcuts stay.

        Returns
        -------
        object
            Fitted estimator of the same parameters, which `partial_fit` and
            ``warm_start`` train on as it is.
        """
        check_is_fitted(self)
        other = copy.deepcopy(self)
        net = other.net_
        module = compacted(net.module_)
        device = torch.device(net.device)
        other._adopt(separated(module), net.input_spec, net.target, device)
        other._measure_network()
        return other

    # State

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        net = state.pop("net_", None)
        state.pop("nets_", None)
        if net is not None:
            state["_saved"] = network_state(net.module_, net.input_spec, net.target)
        if isinstance(state["checkpoint"], os.PathLike):  # which no file of skops may hold
            state["checkpoint"] = os.fspath(state["checkpoint"])
        return state

    @torch.inference_mode(False)
    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        saved = state.pop("_saved", None)
        # Parameters that the version of the file did not have yet get their defaults.
        state = {**type(self)().get_params(deep=False), **state}
        if state["compile"] == "auto":  # up to format 2
            state["compile"] = False
        super().__setstate__(state)
        if saved is None:
            return
        device = device_or_cpu(getattr(self, "device_", "cpu"))
        classes = getattr(self, "classes_", None)
        module, spec, target = restored(saved, classes=classes, device=device)
        self._check_state(target)
        self._adopt(separated(module), spec, target, device)

    def _check_state(self, target: Target) -> None:
        """Refuse attributes that do not belong to the target."""
        size, classes = self.batch_size_, getattr(target, "classes", None)
        is_size = isinstance(size, Integral) and 2 <= size <= 2**31
        if (
            target.estimator_type != get_tags(self).estimator_type
            or not is_size
            or (classes is not None and not np.array_equal(self.classes_, classes))
        ):
            raise ModelFileError(
                "The state of this model is broken: its classes, its batch size or its "
                "kind of estimator are not those of its network."
            )


def _plain(values: Any) -> Any:
    """Values that two runs of a fit hash alike."""
    values = to_numpy(values)
    return np.ascontiguousarray(values) if isinstance(values, np.ndarray) else values


def _copied_optimizer(net: ResidualNet) -> Optimizer | None:
    """Optimizer with averages of its own, as a further training changes them in place."""
    optimizer: Any = copy.copy(getattr(net, "optimizer_", None))
    if optimizer is not None:
        copies = {w: _clones(kept) for w, kept in optimizer.state.items()}
        optimizer.state = defaultdict(dict, copies)
    return optimizer


def _clones(values: dict[str, Any]) -> dict[str, Any]:
    tensors = {k: v.clone() for k, v in values.items() if isinstance(v, torch.Tensor)}
    return {**values, **tensors}


def _move_optimizer(
    optimizer: Optimizer, module: torch.nn.Module, copied: torch.nn.Module
) -> None:
    """Let an optimizer act on the parameters of a copy of its network."""
    pairs = zip(module.parameters(), copied.parameters(), strict=True)
    new: dict[torch.Tensor, torch.Tensor] = dict(pairs)
    optimizer.state = defaultdict(dict, {new[w]: s for w, s in optimizer.state.items()})
    optimizer.param_groups = [
        {**group, "params": [new[w] for w in group["params"]]}
        for group in optimizer.param_groups
    ]


def evaluation_data(
    estimator: BaseResNet, X: Any, y: Any, name: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Checked samples and encoded y to measure a fitted estimator on.

    `name` is that of y where the user gave it, for errors.
    """
    X, y = estimator._checked(X, y, reset=False)
    check_samples(X, estimator.net_.input_spec)
    target = estimator.net_.target
    estimator._check_known(y, target, name)
    return X, target.encode(y)


def _differs(module: torch.nn.Module, weights: dict[str, NDArray[Any]]) -> bool:
    now = weights_to_arrays(module)
    return not all(np.array_equal(now[name], w) for name, w in weights.items())


def _fill_history(net: ResidualNet, rows: list[dict[str, Any]]) -> None:
    net.history.clear()
    for row in rows:
        net.history.new_epoch()
        for name, value in row.items():
            net.history.record("dur" if name == "seconds" else name, value)


def _mean_row(rows: tuple[dict[str, Any] | None, ...]) -> dict[str, Any]:
    """Means over the members that were still training; seconds are added up."""
    given = [row for row in rows if row is not None]
    if len(rows) == 1:
        return given[0]
    means = {
        name: float(np.mean([row[name] for row in given]))
        if isinstance(value, float)
        else value
        for name, value in given[0].items()
        if all(name in row for row in given)
    }
    if "seconds" in means:
        means["seconds"] = sum(row["seconds"] for row in given)
    return means


def _history_row(record: dict[str, Any]) -> dict[str, Any]:
    names = [n for n in record if n != "batches" and not n.endswith(_HISTORY_HIDDEN)]
    return {_HISTORY_NAMES.get(n, n): record[n] for n in names}
