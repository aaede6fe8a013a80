"""What both estimators share: rules, the fit pipeline, prediction, and their state."""

import copy
import math
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, RealNotInt, StrOptions
from sklearn.utils.multiclass import _check_partial_fit_first_call
from sklearn.utils.validation import check_is_fitted

from sk_resnet._batches import ArrayDataset
from sk_resnet._callbacks import (
    EarlyStopping,
    EpochProgress,
    SklearnCallbacks,
    as_callbacks,
)
from sk_resnet._checks import (
    check_validation_set,
    check_weight,
    check_X,
    check_Xy,
    class_weights,
    require_two,
    require_validation,
    training_and_validation,
    unknown_labels,
)
from sk_resnet._compact import compacted
from sk_resnet._device import device_or_cpu, resolve_device
from sk_resnet._engine import world
from sk_resnet._input import InputSpec, input_spec, with_statistics
from sk_resnet._network import (
    build_network,
    initialize,
    kernels,
    n_parameters,
)
from sk_resnet._optim import OPTIMIZERS, SCHEDULES
from sk_resnet._penalty import STRUCTURES, sparsity
from sk_resnet._persist import (
    FORMAT,
    arrays_to_weights,
    check_versions,
    n_bytes,
    packed,
    unpacked,
    versions,
    weights_to_arrays,
)
from sk_resnet._recipe import (
    plain_recipe,
    resolve_batch_size,
    resolve_epochs,
    training_recipe,
)
from sk_resnet._spec import (
    BLOCKS,
    LAYOUTS,
    ORDERS,
    SHORTCUTS,
    NetworkSpec,
    network_spec,
)
from sk_resnet._training import ResidualNet

_positive = Interval(Real, 0, None, closed="neither")
_not_negative = Interval(Real, 0, None, closed="left")
_share = Interval(Real, 0, 1, closed="left")
_counts = Interval(Integral, 1, None, closed="left")


# Columns of skorch's history that `history_` leaves out or names otherwise.
_HISTORY_NAMES = {"dur": "seconds"}
_HISTORY_HIDDEN = ("_batch_count", "_best")


class BaseResNet(CallbackSupportMixin, ClassifierMixin, BaseEstimator):
    """Classifier with a residual network in ``net_``; subclasses say which."""

    classes_: NDArray[Any]
    net_: ResidualNet

    _wide: ClassVar[bool]
    _default_l2: ClassVar[tuple[float, float]]  # of rows, of everything else
    _doc_link_module = "sk_resnet"
    _doc_link_template = "https://sk-resnet.readthedocs.io/en/stable/generated/sk_resnet.{estimator_name}.html"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "depth": [_counts],
        "width": [_positive],
        "block": [StrOptions(set(BLOCKS)), tuple, list],
        "order": [StrOptions(set(ORDERS))],
        "shortcut": [StrOptions(set(SHORTCUTS))],
        "layout": [StrOptions(set(LAYOUTS))],
        "dropout": [_share],
        "stochastic_depth": [_share],
        "l1": [_not_negative],
        "l1_structure": [StrOptions(set(STRUCTURES))],
        "finetune_epochs": [Interval(Integral, 0, None, closed="left")],
        "l2": [_not_negative, StrOptions({"auto"})],
        "l2_on": [StrOptions({"kernels", "all"})],
        "label_smoothing": [_share],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "augment": [str, list, tuple, None],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "lr": [_positive, StrOptions({"auto"})],
        "momentum": [_share],
        "schedule": [StrOptions(set(SCHEDULES))],
        "max_epochs": [_counts, StrOptions({"auto"})],
        "batch_size": [_counts, StrOptions({"auto"})],
        "input_shape": [tuple, list, None],
        "channel_axis": [Interval(Integral, -1, 1, closed="both")],
        "standardize": ["boolean"],
        "validation_split": [
            Interval(RealNotInt, 0, 1, closed="neither"),
            HasMethods(["split", "get_n_splits"]),
            list,
            None,
        ],
        "callbacks": [list, tuple, None],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "compile": ["boolean", StrOptions({"auto"})],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return "net_" in vars(self)

    # Fitting

    @_fit_context(prefer_skip_nested_validation=True)
    @torch.inference_mode(False)  # with gradients, whatever mode the caller is in
    def fit(
        self,
        X: Any,
        y: Any,
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
            `channel_axis` for other layouts.
        y : array-like of shape (n_samples,)
            Labels: strings, integers or booleans.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the loss, at least 0. Those of weight 0 are left
            out. None means equal weights.
        X_val : array-like, default=None
            Samples to validate on after each epoch, in the layout of X.
        y_val : array-like of shape (n_samples_val,), default=None
            Their labels, all of classes that are in y.
        groups : array-like of shape (n_samples,), default=None
            Groups that `validation_split` must not tear apart.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            For data or parameters that do not fit together, and for a training loss that
            becomes infinite or NaN.
        """
        continues = self.warm_start and self.__sklearn_is_fitted__()
        X, y = check_Xy(self, X, y, reset=not continues)
        if not continues and hasattr(self, "net_"):
            del self.net_  # should this fit fail, no model of other data stays behind
        classes = np.unique(y)
        if len(classes) < 2:
            raise ValueError(
                "y must have samples of at least 2 classes, got one class only: "
                f"{classes.tolist()[0]!r}."
            )
        if continues and not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"warm_start needs the classes of the earlier fit, {self.classes_}, got "
                f"{classes}: set warm_start=False to start anew."
            )
        self.classes_ = classes
        labels = np.searchsorted(classes, y)
        class_weight = class_weights(self, y)
        weight = check_weight(sample_weight, X) * class_weight[labels]
        seed = self._draw_seed()
        train_rows, valid_rows = training_and_validation(
            self, X, y, weight, X_val, y_val, groups, seed
        )
        if continues:
            self._check_same_network(X)
        self.batch_size_ = resolve_batch_size(self, len(train_rows))
        if not continues:
            self._build(X, train_rows, weight, seed)
        spec = self.net_.input_spec
        training = ArrayDataset(X, spec, labels[train_rows], weight[train_rows], train_rows)
        validation = None
        if X_val is not None:
            X_val, y_val = check_validation_set(self, X_val, y_val, spec)
            labels_val = np.searchsorted(classes, y_val)
            weight_val = class_weight[labels_val]
            require_validation(np.flatnonzero(weight_val))
            validation = ArrayDataset(X_val, spec, labels_val, weight_val)
        elif len(valid_rows):
            validation = ArrayDataset(
                X, spec, labels[valid_rows], weight[valid_rows], valid_rows
            )
        n_epochs = resolve_epochs(self, len(train_rows))
        callbacks = as_callbacks(self.callbacks)
        n_total = n_epochs + int(self.finetune_epochs)
        context = self._init_callback_context(max_subtasks=n_total)
        data = {
            "X": X,
            "y": y,
            "metadata": {"sample_weight": sample_weight},
            "reconstruction_attributes": self._snapshot,
        }
        context.call_on_fit_task_begin(estimator=self, **data)
        if hasattr(self, "_skl_callbacks"):
            callbacks.append(SklearnCallbacks(self, context, **data))
        self._train(
            training,
            validation,
            callbacks=callbacks,
            n_epochs=n_epochs,
            schedule=self.schedule,
        )
        if self.l1:
            self._settle()
        if self.finetune_epochs:
            self._train(
                training,
                validation,
                callbacks=callbacks,
                n_epochs=int(self.finetune_epochs),
                schedule=self.schedule,
                finetune=True,
            )
        context.call_on_fit_task_end(estimator=self, **data)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    @torch.inference_mode(False)
    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> "BaseResNet":
        """Make one pass over the data at a constant learning rate.

        The first call fixes the shape of the samples, the classes, and the statistics
        for `standardize`. Neither `callbacks` nor a validation set take part. The penalty
        of `l1` does: after a fit with `finetune_epochs` it shrinks weights again, and with
        ``l1=0`` zeros do not stay zero.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples, at least 2.
        y : array-like of shape (n_samples,)
            Their labels.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come. Needed in the first call.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the loss, at least 0. None means equal weights.

        Returns
        -------
        self : object
            The estimator, trained for one more epoch.
        """
        continues = self.__sklearn_is_fitted__()
        X, y = check_Xy(self, X, y, reset=not continues)
        if not continues and hasattr(self, "classes_"):
            del self.classes_
        _check_partial_fit_first_call(self, classes)
        if unknown := unknown_labels(self, y):
            raise ValueError(
                f"y has labels {unknown} that are not in classes {self.classes_}: name all "
                "classes in the first call of partial_fit."
            )
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' needs all labels at once, which partial_fit does "
                "not see: give the weights as a dict."
            )
        labels = np.searchsorted(self.classes_, y)
        weight = check_weight(sample_weight, X) * class_weights(self, y)[labels]
        rows = np.flatnonzero(weight)
        require_two(rows)
        size = resolve_batch_size(self, len(rows))
        if continues:
            self._check_same_network(X)
            if self.batch_size == "auto" or size == len(rows):
                # A small part of the data does not make later steps and predictions small.
                size = max(size, self.batch_size_)
        self.batch_size_ = size
        if not continues:
            self._build(X, rows, weight, self._draw_seed())
        training = ArrayDataset(X, self.net_.input_spec, labels[rows], weight[rows], rows)
        self._train(training, None, callbacks=[], n_epochs=1, schedule="constant")
        return self

    def _draw_seed(self) -> int:
        # Not check_random_state(None): that is NumPy's global generator, and would move.
        if self.random_state is None:
            if world()[1] > 1:
                raise ValueError(
                    "random_state must be an int where several processes train one "
                    "network: they start from the same weights."
                )
            return int(np.random.default_rng().integers(2**31))
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _input_spec(self, X: NDArray[Any]) -> InputSpec:
        if self.channel_axis == 0:
            raise ValueError(
                "channel_axis must be 1 or -1, got 0, the axis of the samples."
            )
        axis = int(self.channel_axis)
        return input_spec(X, input_shape=self.input_shape, channel_axis=axis)

    def _network_spec(self, spec: InputSpec) -> NetworkSpec:
        network = network_spec(
            input_shape=spec.network_shape,
            n_classes=len(self.classes_),
            depth=int(self.depth),
            width=float(self.width),
            block=_checked_block(self.block),
            order=self.order,
            shortcut=self.shortcut,
            layout=self.layout,
            dropout=float(self.dropout),
            stochastic_depth=float(self.stochastic_depth),
            wide=self._wide,
        )
        if self.l1_structure == "channel" and len(network.kernels) < 2:
            raise ValueError(
                "l1_structure='channel' empties channels between the convolutions of a "
                f"block, got block={self.block!r} with one convolution: use 'weight'."
            )
        return network

    def _check_same_network(self, X: NDArray[Any]) -> None:
        """Refuse parameters that an existing network does not have."""
        earlier, spec = self.net_.input_spec, self._input_spec(X)
        has_statistics = earlier.mean is not None
        # A network that compact() cut counts as the one that it was cut from.
        network = replace(self.net_.module_.spec, cut_to=None)
        if (
            spec != earlier
            or self.standardize != has_statistics
            or self._network_spec(spec) != network
        ):
            raise ValueError(
                "Training goes on with the network of the earlier fit, but a parameter of "
                "the architecture, dropout, stochastic_depth, input_shape, channel_axis or "
                "standardize has changed: set it back, or fit with warm_start=False."
            )

    def _build(
        self, X: NDArray[Any], rows: NDArray[np.intp], weight: NDArray[Any], seed: int
    ) -> None:
        spec = self._input_spec(X)
        network = self._network_spec(spec)
        device = resolve_device(self.device)
        if self.standardize:
            in_training = np.zeros(len(X))
            in_training[rows] = weight[rows]
            spec = with_statistics(spec, X, in_training)
        self.input_shape_ = spec.input_shape
        self.device_ = str(device)
        self.history_: list[dict[str, Any]] = []
        self.n_epochs_ = 0
        self._seed = seed
        module = build_network(network).float().to_empty(device=device)
        initialize(module, torch.Generator(device).manual_seed(seed))
        if device.type == "cuda" and len(spec.network_shape) < 4:
            # cuDNN's own order of weights; the stubs do not know the argument.
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.net_ = self._make_net(module, spec, device)

    def _make_net(
        self, module: torch.nn.Module, spec: InputSpec, device: torch.device
    ) -> ResidualNet:
        # The epochs count in the seed, so that a loaded model does not shuffle as before.
        seeds = np.random.SeedSequence([self._seed, self.n_epochs_]).generate_state(2)
        shuffle, noise = map(int, seeds)
        net = ResidualNet(
            module,
            input_spec=spec,
            recipe=plain_recipe(self, len(spec.network_shape) - 1),
            shuffle=torch.Generator().manual_seed(shuffle),
            noise=torch.Generator(device).manual_seed(noise),
            device=str(device),
            criterion=torch.nn.CrossEntropyLoss,
            classes=np.arange(len(self.classes_)),
            verbose=0,
        )
        return net.initialize()

    def _snapshot(self) -> dict[str, Any]:
        """Net with a copy of the weights as they are in the middle of a fit."""
        net = self.net_
        arrays = {name: w.copy() for name, w in weights_to_arrays(net.module_).items()}
        device = torch.device(net.device)
        module = arrays_to_weights(build_network(net.module_.spec), arrays, device)
        return {"net_": self._make_net(module, net.input_spec, device)}

    def _train(
        self,
        training: ArrayDataset,
        validation: ArrayDataset | None,
        *,
        callbacks: list[Any],
        n_epochs: int,
        schedule: str,
        finetune: bool = False,
    ) -> None:
        net = self.net_
        recipe = training_recipe(self, training.spec, n_epochs * len(training))
        recipe = replace(recipe, schedule=schedule)
        if finetune:
            # From the full rate, the learning-rate rewinding of arXiv:2003.02389.
            recipe = replace(recipe, l1=0.0, keep_zeros=True)
        if self.verbose:
            callbacks = [*callbacks, EpochProgress(n_epochs)]
        self.precision_ = "bfloat16" if recipe.bfloat16 else "float32"
        self.compiled_ = recipe.compile
        try:
            net.train(
                training,
                validation,
                recipe=recipe,
                callbacks=callbacks,
                n_epochs=n_epochs,
                verbose=self.verbose,
            )
        except KeyboardInterrupt:
            self._summarize()  # Ctrl-C: the epochs that are done stay usable
            raise
        except BaseException:
            del self.net_
            raise
        self._summarize()

    def _settle(self) -> None:
        """End the training under `l1` with zeros where its steps would make them.

        The noise of batches keeps moving weights off zero, which schedules let end ever
        closer to it, and not at it.
        """
        optimizer: Any = self.net_.optimizer_
        optimizer.settle(self.net_.recipe.lr)
        self._measure_network()

    def _summarize(self) -> None:
        net = self.net_
        self.history_ = [_history_row(row) for row in net.history if "train_loss" in row]
        self.n_epochs_ = len(self.history_)
        self.best_epoch_ = self._find_best_epoch()
        self._measure_network()

    def _measure_network(self) -> None:
        module = self.net_.module_
        self.n_parameters_ = n_parameters(module)
        self.sparsity_ = sparsity(kernels(module).values())
        self.n_bytes_ = n_bytes(packed(weights_to_arrays(module)))

    def _find_best_epoch(self) -> int:
        for _, callback in self.net_.callbacks_:
            if isinstance(callback, EarlyStopping):
                return callback.best_epoch_
        losses = [row.get("valid_loss", math.inf) for row in self.history_]
        if min(losses, default=math.inf) == math.inf:
            return self.n_epochs_
        return self.history_[losses.index(min(losses))]["epoch"]

    # Prediction

    @property
    def module_(self) -> torch.nn.Module:
        """The fitted network, a `torch.nn.Module`."""
        check_is_fitted(self)
        return self.net_.module_

    def _outputs(self, X: Any, *, features: bool = False) -> NDArray[np.float32]:
        X = check_X(self, X)
        return self.net_.outputs(
            X,
            batch_size=self.batch_size_,
            bfloat16=self.precision == "bfloat16",
            features=features,
        )

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the most probable class of each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples of the shape that the model was fitted on.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels, of the type of those in fit.
        """
        logits = self._outputs(X)
        return self.classes_[logits.argmax(axis=1)]

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Predict the probability of every class for each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples of the shape that the model was fitted on.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``; rows sum to 1.
        """
        return torch.from_numpy(self._outputs(X)).softmax(dim=1).numpy()

    def predict_log_proba(self, X: Any) -> NDArray[np.float32]:
        """Predict the logarithm of the probabilities, exact where they underflow.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples of the shape that the model was fitted on.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        return torch.from_numpy(self._outputs(X)).log_softmax(dim=1).numpy()

    def embed(self, X: Any) -> NDArray[np.float32]:
        """Return the features that the classifier of the network reads.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples of the shape that the model was fitted on.

        Returns
        -------
        features : ndarray of shape (n_samples, n_channels_of_the_last_stage)
            Activations of the last block, averaged over all places.
        """
        return self._outputs(X, features=True)

    # The network

    def sparsity_by_layer(self) -> dict[str, float]:
        """Share of exact zeros in each kernel.

        Returns
        -------
        shares : dict
            By the name of the kernel in ``module_``, from the stem to the classifier.
        """
        check_is_fitted(self)
        return {name: sparsity([w]) for name, w in kernels(self.module_).items()}

    @torch.inference_mode(False)
    def compact(self) -> "BaseResNet":
        """Copy of the fitted estimator without the channels that nothing reads.

        A channel between two convolutions of a block is cut out where all weights that
        read it are zero, as ``l1_structure="channel"`` makes them. Probabilities change
        by rounding only; parameters, bytes and time go down. All orders, blocks and
        numbers of dimensions can be cut; channels of the stem and of the shortcuts stay.

        Returns
        -------
        estimator : object
            Fitted estimator of the same parameters, which `partial_fit` and
            ``warm_start`` train on as it is.
        """
        check_is_fitted(self)
        other = copy.deepcopy(self)
        net = other.net_
        module = compacted(net.module_)
        other._adopt(module, net.input_spec, torch.device(net.device))
        other._measure_network()
        return other

    # State

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        net = state.pop("net_", None)
        if net is not None:
            state["_saved"] = {
                "format": FORMAT,
                "versions": versions(),
                "network": net.module_.spec.to_dict(),
                "input": net.input_spec.to_dict(),
                "weights": packed(weights_to_arrays(net.module_)),
            }
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        saved = state.pop("_saved", None)
        # Parameters that the version of the file did not have yet get their defaults.
        super().__setstate__({**type(self)().get_params(deep=False), **state})
        if saved is None:
            return
        check_versions(saved["format"], saved["versions"])
        device = device_or_cpu(self.device_)
        module = build_network(NetworkSpec.from_dict(saved["network"]))
        arrays_to_weights(module, unpacked(saved["weights"]), device)
        self._adopt(module, InputSpec.from_dict(saved["input"]), device)

    def _adopt(
        self, module: torch.nn.Module, spec: InputSpec, device: torch.device
    ) -> None:
        """Take in a trained network, with the history so far."""
        self.net_ = self._make_net(module, spec, device)
        self.device_ = str(device)
        for row in self.history_:
            self.net_.history.new_epoch()
            for name, value in row.items():
                self.net_.history.record("dur" if name == "seconds" else name, value)


def _checked_block(block: Any) -> Any:
    if isinstance(block, str):
        return block
    if not block or not all(isinstance(k, Integral) and int(k) >= 1 for k in block):
        raise ValueError(
            f"block must be one of {sorted(BLOCKS)} or a tuple of kernel sizes of at least "
            f"1 such as (3, 1, 3), got {block!r}."
        )
    return tuple(map(int, block))


def _history_row(record: dict[str, Any]) -> dict[str, Any]:
    names = [n for n in record if n != "batches" and not n.endswith(_HISTORY_HIDDEN)]
    return {_HISTORY_NAMES.get(n, n): record[n] for n in names}
