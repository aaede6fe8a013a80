"""What all estimators share: the rules of their parameters, and fit in four acts."""

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import (
    check_array,
    check_consistent_length,
    check_random_state,
)

from sk_resnet._callbacks import (
    OncePerEpoch,
    SklearnCallbacks,
    TimeLimit,
    as_callbacks,
    callback_parameters,
    cloned_callbacks,
    deep_copied,
    epoch_progress,
    follows_estimator,
    monitors_validation,
    sets_learning_rate,
    with_parameters,
)
from sk_resnet._checkpoint import (
    Checkpoint,
    Progress,
    identity_of_fit,
    open_checkpoint,
    refusing_broken,
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
from sk_resnet._ensemble import (
    Backup,
    copied,
    copied_weights,
    gather_members,
    joined_history,
    settle,
)
from sk_resnet._fused import is_in_task, train
from sk_resnet._input import (
    SCALINGS,
    InputSpec,
    column_names,
    ends_in_nan,
    input_spec,
    to_numpy,
)
from sk_resnet._machine import out_of_memory_named, resolve_device
from sk_resnet._model import Model
from sk_resnet._net import DivergenceError, member_seed
from sk_resnet._network import (
    is_finite,
    new_network,
)
from sk_resnet._optim import OPTIMIZERS, SCHEDULES
from sk_resnet._penalty import STRUCTURES
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
from sk_resnet._snapshot import restore, restore_callbacks
from sk_resnet._spec import (
    BLOCKS,
    EMBEDDINGS,
    FAMILIES,
    LAYOUTS,
    ORDERS,
    SHORTCUTS,
    ArchitectureError,
    NetworkSpec,
    architecture,
    network_spec,
)
from sk_resnet._state import ModelFileError
from sk_resnet._surgery import multiply_adds
from sk_resnet._target import Target
from sk_resnet._training import Training, Unit

_positive = Interval(Real, 0, None, closed="neither")
_not_negative = Interval(Real, 0, None, closed="left")
# Products of these with each other are finite in float32.
_rate = Interval(Real, 0, 1e30, closed="right")
_strength = Interval(Real, 0, 1e5, closed="both")
_share = Interval(Real, 0, 1, closed="left")
_counts = Interval(Integral, 1, None, closed="left")
_auto = StrOptions({"auto"})


# Advice for fit and for partial_fit, which goes on whatever warm_start is.
START_ANEW = "make a new estimator, or call fit with warm_start=False."


class BaseResNet(CallbackSupportMixin, Model, ABC):
    """Estimator with a residual network in ``net_``; subclasses say for what."""

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
        "embedding": [StrOptions({*EMBEDDINGS, "auto"}), None],
        "dropout": [_share],
        "stochastic_depth": [_share],
        "n_estimators": [_counts, _auto],
        "l1": [_strength],
        "l1_structure": [StrOptions(set(STRUCTURES))],
        "finetune_epochs": [Interval(Integral, 0, None, closed="left")],
        "l2": [_not_negative, _auto],
        "l2_on": [StrOptions({"kernels", "all"})],
        "augment": [str, list, tuple, None],
        "test_time_augmentation": [str, list, tuple, None],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "lr": [_rate, _auto],
        "momentum": [_share],
        "schedule": [StrOptions(set(SCHEDULES))],
        "max_epochs": [_counts, _auto],
        "max_seconds": [_positive, None],
        "batch_size": [_counts, _auto],
        "input_shape": [tuple, list, None],
        "channel_axis": [_auto, Interval(Integral, -1, 1, closed="both"), None],
        "scale": [StrOptions(set(SCALINGS)), None],
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
        own = {k: v for k, v in params.items() if k not in of_callbacks}
        if of_callbacks:  # first: an error here must not leave the others set
            items = own.get("callbacks", self.callbacks)
            own["callbacks"] = with_parameters(items, of_callbacks)
        return super().set_params(**own)

    def __sklearn_clone__(self) -> "BaseResNet":
        # scikit-learn copies one callback after the other: one that holds another would
        # hold a second copy of it.
        bare = object.__new__(type(self))
        bare.__dict__.update(vars(self), callbacks=None)
        new: BaseResNet = super(BaseResNet, bare).__sklearn_clone__()
        new.callbacks = cloned_callbacks(self.callbacks)
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> "BaseResNet":
        new = memo[id(self)] = object.__new__(type(self))
        deep_copied(self.callbacks, memo)  # or an error that names one
        new.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return new

    # What y is: subclasses say

    def _check_raw_y(self, y: Any, name: str) -> None:
        """Refuse what is lost when y becomes an array; `name` is that of the argument."""
        if not issparse(y):
            check_kinds(y, name)

    @abstractmethod
    def _checked_y(self, y: Any, name: str) -> Any:
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
            Their y, in the layout of y; a classifier must know its classes from y. None
            for a dataset of pairs.
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
        callbacks after that keep the epochs that are done, and of an ensemble the members
        that have done one.
        """
        inputs = {
            "X": X,
            "y": y,
            "sample_weight": sample_weight,
            "X_val": X_val,
            "y_val": y_val,
            "groups": groups,
        }
        return self._fit(inputs, continues=self.warm_start and self.__sklearn_is_fitted__())

    @fit_context(prefer_skip_nested_validation=True)
    @torch.inference_mode(False)
    def _partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> "BaseResNet":
        inputs = {"X": X, "y": y, "sample_weight": sample_weight, "classes": classes}
        return self._fit(inputs, continues=self.__sklearn_is_fitted__(), in_part=True)

    def _fit(
        self, inputs: dict[str, Any], *, continues: bool, in_part: bool = False
    ) -> "BaseResNet":
        """Train on what fit or partial_fit was given: data, network, plan, run."""
        with self._as_it_was_on_error(continues):
            callbacks = [] if in_part else as_callbacks(self.callbacks)
            inputs = self._checked_inputs(inputs, reset=not continues)
            # A further fit keeps the seed, and with it the split, or it would be validated
            # on samples that it was trained on.
            seed = self._draw_seed() if not continues else 0 if in_part else self._seed
            checkpoint = self._checkpoint(seed, inputs, callbacks, continues=continues)
            if checkpoint is not None:
                seed = checkpoint.values["seed"]
                if checkpoint.is_done(self.max_seconds):
                    return self._take_fitted(checkpoint, callbacks)
            limits = [] if self.max_seconds is None else [TimeLimit(self.max_seconds)]
            callbacks = [*callbacks, *limits]
            data = self._data(
                inputs,
                continues=continues,
                in_part=in_part,
                is_monitored=monitors_validation(callbacks),
                seed=seed,
            )
            n = len(data[0].training)
            batch_size = self._resolved_batch_size(n, of_part=in_part and continues)
            if not continues:
                self._build(data, batch_size, seed)
            self._views()  # or an error now, not when the network is trained
            if in_part:
                self._train(data, self._recipe(n, 1, batch_size, "constant"), [], [])
                if not continues:
                    self._calibrate(data)
            else:
                recipes = self._recipes(n, batch_size, callbacks)
                with self._followed(recipes, inputs) as followers:
                    self._train_by(recipes, data, callbacks, followers, checkpoint)
                    self._calibrate(data)
            if checkpoint is not None:
                self._finish(checkpoint)
        return self

    @contextmanager
    def _followed(
        self, recipes: list[Recipe], inputs: dict[str, Any]
    ) -> Iterator[list[Any]]:
        """Tell scikit-learn's callbacks of a fit; gives what tells them of its epochs."""
        context = callback_context(self, sum(recipe.n_epochs for recipe in recipes))
        arguments = {
            "estimator": self,
            "X": inputs["X"],
            "y": inputs["y"],
            "metadata": {"sample_weight": inputs["sample_weight"]},
            "reconstruction_attributes": self._snapshot,
        }
        context.call_on_fit_task_begin(**arguments)
        yield [SklearnCallbacks(context, arguments)] if has_callbacks(self) else []
        context.call_on_fit_task_end(**arguments)

    def _train_by(
        self,
        recipes: list[Recipe],
        data: list[Data],
        callbacks: list[Any],
        followers: list[Any],
        checkpoint: Checkpoint | None,
    ) -> None:
        """Train by one recipe after the other, from where a checkpoint has come to."""
        if checkpoint:
            rows = [own.training.rows for own in data]
            checkpoint.check(rows, len(data), [recipe.n_epochs for recipe in recipes])
        for stage, recipe in enumerate(recipes):
            if checkpoint:
                if checkpoint.is_past(stage):
                    continue
                self.history_ = checkpoint.begin(stage, self.nets_, recipe, self.history_)
                self.n_epochs_ = len(self.history_)
            self._train(data, recipe, callbacks, followers, checkpoint)
            if recipe.l1:
                settle(self.nets_, recipe.lr)
                self._update()
            if checkpoint and checkpoint.is_paused:
                checkpoint = None  # which goes on with this training, not the next

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
        if is_in_task() and not os.path.isdir(self.checkpoint):
            raise ValueError(
                "checkpoint must be a folder where fits train together: each of them has "
                f"a file there, got {os.fspath(self.checkpoint)!r}."
            )
        parameters = self.get_params(deep=False)
        if parameters["embedding"] == "auto":  # earlier versions had no "auto"
            parameters["embedding"] = FAMILIES[self._family].rows.embedding
        parts = identity_of_fit(parameters, inputs, callbacks, seed=seed)
        if continues:
            parts["model before"] = self.n_epochs_, copied_weights(self.net_)
        parts["class"] = type(self).__name__
        return open_checkpoint(self.checkpoint, parts, seed=seed)

    def _finish(self, checkpoint: Checkpoint) -> None:
        """Keep the fitted model."""
        fitted = {
            name: value
            for name, value in self.__getstate__().items()
            if name.endswith("_") or name in ("_saved", "_seed", "_sklearn_version")
        }
        checkpoint.finish(fitted, self.nets_, self.max_seconds)

    def _take_fitted(self, checkpoint: Checkpoint, callbacks: list[Any]) -> "BaseResNet":
        """Become what an earlier run of the fit ended with."""
        open_callbacks = callback_state(self)
        parameters = self.get_params(deep=False)
        with refusing_broken(checkpoint.path):
            self.__setstate__({**parameters, **(checkpoint.fitted or {}), **open_callbacks})
            size = self.batch_size_
            # Only for an optimizer: a further training has a recipe of its own.
            recipe = self._recipe(size, 1, size, "constant")
            heard = self._heard(callbacks, [])
            for place, state in checkpoint.ended.items():
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

    def _checked_inputs(self, inputs: dict[str, Any], *, reset: bool) -> dict[str, Any]:
        """Inputs with samples and y that scikit-learn has checked."""
        X, y = read_dataset(inputs["X"], inputs["y"])
        X_val, y_val = read_dataset(inputs.get("X_val"), inputs.get("y_val"))
        self._check_validation(X_val, y_val)
        X, y = self._checked(X, y, reset=reset)
        given = {"X": X, "y": y, "X_val": X_val, "y_val": y_val}
        return {name: given.get(name, value) for name, value in inputs.items()}

    # scikit-learn adds values up to look for NaN, and lets NumPy warn of ∞ - ∞.
    @np.errstate(over="ignore", invalid="ignore")
    def _checked(
        self, X: Any, y: Any, *, reset: bool, names: tuple[str, str] = ("X", "y")
    ) -> tuple[NDArray[Any], Any]:
        """Samples and y, of fit, of partial_fit, or to validate on.

        `names` are those of the arguments, for errors.
        """
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the "
                "target y is None."
            )
        X_name, y_name = names
        target_names = column_names(y)
        y = self._array_of_y(y, y_name)
        if not isinstance(X, Samples):
            X = self._validated(X, reset=reset, name=X_name)
        elif reset:
            self.__dict__.pop("feature_names_in_", None)
            self.n_features_in_ = X.shape[1]
        check_consistent_length(X, y)
        check_numbers(X, X_name)
        if X.ndim != 2 and reset:
            self.__dict__.pop("n_features_in_", None)
        y = self._checked_y(y, y_name)
        if reset:
            self.__dict__.pop("target_names_", None)
            if target_names is not None and y.ndim == 2:
                self.target_names_ = target_names
        return X, y

    def _array_of_y(self, y: Any, name: str) -> Any:
        """Dense or sparse array of y, without missing values."""
        y = to_numpy(y)
        self._check_raw_y(y, name)
        return check_array(
            y,
            accept_sparse="csr",
            ensure_2d=False,
            dtype=None,
            estimator=self,
            input_name=name,
        )

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
        inputs: dict[str, Any],
        *,
        continues: bool,
        in_part: bool,
        is_monitored: bool,
        seed: int,
    ) -> list[Data]:
        """Data of each member."""
        X, y, X_val = inputs["X"], inputs["y"], inputs.get("X_val")
        if continues:
            check_samples(X, self.net_.input_spec)
            target = self._continued_target(y, self.net_.target, in_part=in_part)
            self._check_same_network(X)
            spec = self.net_.input_spec
        else:
            target = self._new_target(y, inputs.get("classes"), in_part=in_part)
            spec = self._input_spec(X)
            if spec.unequal and X.ndim == 2:
                del self.n_features_in_  # they differ from sample to sample
            # Refused here if it is too large, before there are data for each member.
            self._network_spec(spec, target.n_outputs)
        n_members, split, validation_set = self._n_members(spec), None, None
        if X_val is not None:
            validation_set = self._checked(
                X_val, inputs["y_val"], reset=False, names=("X_val", "y_val")
            )
            self._check_known(validation_set[1], target, "y_val")
        elif not in_part:
            n_dims = len(spec.network_shape) - 1
            split = self._resolved_split(n_dims, n_members, is_monitored)
        return training_data(
            X,
            y,
            sample_weight=inputs["sample_weight"],
            target=target,
            spec=spec,
            scale=None if continues else self.scale,
            split=split,
            groups=inputs.get("groups"),
            seed=seed,
            validation_set=validation_set,
            n_members=n_members,
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
        if self.n_estimators not in ("auto", network.members):
            raise ValueError(
                "Training goes on with the networks of the earlier fit, of which there are "
                f"{network.members}: set n_estimators={network.members}, or {START_ANEW}"
            )
        if (
            spec != earlier
            or self.scale != earlier.scaling
            or self._network_spec(spec, network.n_outputs) != network
        ):
            raise ValueError(
                "Training goes on with the network of the earlier fit, but a parameter of "
                "the architecture, n_estimators, dropout, stochastic_depth, input_shape, "
                "channel_axis or scale has changed: set it back, or "
                f"{START_ANEW}"
            )

    def _build(self, data: list[Data], batch_size: int, seed: int) -> None:
        input_spec, target = data[0].input_spec, data[0].target
        network = self._network_spec(input_spec, target.n_outputs)
        device = resolve_device(self.device)
        self.history_, self.n_epochs_ = [], 0
        self._seed = seed
        self.batch_size_ = batch_size
        single = replace(network, members=1)
        singles = [
            new_network(
                single,
                device=device,
                seed=member_seed(seed, i),
                edges=of_member.training.edges,
            )
            for i, of_member in enumerate(data)
        ]
        self._adopt(singles, input_spec, target, device)

    # Third act: plan

    def _recipes(self, n: int, batch_size: int, callbacks: list[Any]) -> list[Recipe]:
        """Recipe of a training over n samples, and of the fine-tuning behind it."""
        n_epochs = resolve_epochs(self.max_epochs, n, batch_size)
        schedule = "constant" if sets_learning_rate(callbacks) else self.schedule
        return [
            self._recipe(n, n_epochs, batch_size, schedule, finetunes=finetunes)
            for n_epochs, finetunes in (
                (n_epochs, False),
                (int(self.finetune_epochs), True),
            )
            if n_epochs
        ]

    def _resolved_batch_size(self, n: int, *, of_part: bool) -> int:
        """Samples in a step, of n samples, which may be a part of those to come."""
        size = resolve_batch_size(self.batch_size, n)
        if of_part and (self.batch_size == "auto" or size == n):
            # A small part of the data does not make later steps and predictions small.
            return max(size, self.batch_size_)
        return size

    def _recipe(
        self,
        n: int,
        n_epochs: int,
        batch_size: int,
        schedule: str,
        *,
        finetunes: bool = False,
    ) -> Recipe:
        return make_recipe(
            self.get_params(deep=False),
            FAMILIES[self._family],
            n_dims=self.net_.module_.spec.n_dims,
            n_samples=n,
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
            self.history_, lengths = joined_history(self.history_, nets)
            self.n_epochs_ = len(self.history_)
            if held is None:
                self._drop_untrained(lengths)
                held = [n for n in lengths if n] or lengths
            self.best_epoch_ = held[0] if len(held) == 1 else np.array(held)
            self._update()

    def _drop_untrained(self, lengths: list[int]) -> None:
        """Leave out members that had done no epoch when the fit was ended."""
        trained = [net for net, n in zip(self.nets_, lengths, strict=True) if n]
        if 0 < len(trained) < len(lengths):
            net, modules = self.net_, [one.module_ for one in trained]
            self._adopt(modules, net.input_spec, net.target, torch.device(net.device))
            self.nets_ = trained
            if len(trained) == 1:
                self.net_ = trained[0]

    def _heard(self, callbacks: list[Any], followers: list[Any]) -> list[Any]:
        """Callbacks that each member gets."""
        if len(self.nets_) == 1:
            return [*callbacks, *followers]
        followers = [*followers, *filter(follows_estimator, callbacks)]
        own = [callback for callback in callbacks if not follows_estimator(callback)]
        if not followers:
            return own
        gather = partial(gather_members, self.net_, self.nets_)
        return [*own, OncePerEpoch(followers, begin=gather)]

    @contextmanager
    def _as_it_was_on_error(self, continues: bool) -> Iterator[None]:
        """Put everything back where no epoch was done, or where training diverged."""
        before = dict(vars(self))
        backup = Backup.of(self.net_, self.nets_) if continues else None
        try:
            yield
        except BaseException as error:
            has_new_net = vars(self).get("net_") is not before.get("net_")
            n_before = 0 if has_new_net else before.get("n_epochs_", 0)
            is_trained = vars(self).get("n_epochs_", 0) > n_before
            is_broken = isinstance(error, (DivergenceError, ModelFileError))
            if is_trained and not is_broken and is_finite(self.net_.module_):
                raise
            # scikit-learn has yet to end the callbacks that this fit began.
            open_callbacks = callback_state(self)
            self.__dict__.clear()
            self.__dict__.update({**before, **open_callbacks})
            if backup:
                self.net_, self.nets_ = backup.restored(
                    batch_size=self.batch_size_, seed=self._seed, history=self.history_
                )
            raise

    def _snapshot(self) -> dict[str, Any]:
        """Net with a copy of the weights as they are in the middle of a fit."""
        return {"net_": copied(self.net_, seed=self._seed, history=self.history_)}


def public_estimators(kind: type[BaseResNet] = BaseResNet) -> Iterator[type[BaseResNet]]:
    """Estimators of this package that users make, as far as they are imported."""
    for subclass in kind.__subclasses__():
        if subclass.__module__.startswith("sk_resnet.") and subclass.__name__[0] != "_":
            yield subclass
        yield from public_estimators(subclass)


def strata(kind: type[BaseResNet], y: Any) -> NDArray[np.intp]:
    """Numbers of what the parts of a split of y should have the same shares of."""
    estimator = kind()  # as a target for y is made by an estimator that is not fitted
    y = estimator._checked_y(estimator._array_of_y(y, "y"), "y")
    target = estimator._new_target(y, None, in_part=False)
    return target.strata(target.encode(y))


def checked_samples(estimator: BaseResNet, X: Any) -> NDArray[Any] | Samples:
    """Samples that a fitted estimator takes, as its methods check them."""
    return estimator._checked_samples(X)


def evaluation_data(
    estimator: BaseResNet, X: Any, y: Any, name: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Checked samples and encoded y to measure a fitted estimator on.

    `name` is that of y where the user gave it, for errors.
    """
    X_name = name.replace("y", "X")
    X, y = estimator._checked(X, y, reset=False, names=(X_name, name))
    check_samples(X, estimator.net_.input_spec, X_name)
    target = estimator.net_.target
    estimator._check_known(y, target, name)
    return X, target.encode(y)
