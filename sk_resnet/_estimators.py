"""The four estimators: what their y is, what they predict, and their parameters."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from sk_resnet._base import START_ANEW, BaseResNet
from sk_resnet._calibration import fitted_temperature
from sk_resnet._compat_sklearn import Interval, StrOptions
from sk_resnet._data import Data, check_kinds, check_labels, check_learns_numbers
from sk_resnet._target import LOSSES, Labels, LabelSets, Numbers, Target


class _Classifier(ClassifierMixin, BaseResNet):
    """Classifier of one label a sample, or of several."""

    classes_: NDArray[Any]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseResNet._parameter_constraints,
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "calibrate": ["boolean"],
    }

    def __init__(
        self,
        depth: int | str = "auto",
        *,
        width: float | str = "auto",
        block: str | Sequence[int] = "auto",
        order: str = "auto",
        shortcut: str = "projection",
        layout: str = "auto",
        embedding: str | None = "auto",
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        n_estimators: int | str = "auto",
        l1: float = 0.0,
        l1_structure: str = "weight",
        finetune_epochs: int = 0,
        l2: float | str = "auto",
        l2_on: str = "kernels",
        label_smoothing: float = 0.0,
        class_weight: Any = None,
        calibrate: bool = True,
        augment: str | Sequence[str] | None = None,
        test_time_augmentation: str | Sequence[str] | None = None,
        optimizer: str = "sgd",
        lr: float | str = "auto",
        momentum: float = 0.9,
        schedule: str = "one_cycle",
        max_epochs: int | str = "auto",
        max_seconds: float | None = None,
        batch_size: int | str = "auto",
        input_shape: Sequence[int] | None = None,
        channel_axis: int | str | None = "auto",
        scale: str | None = "standard",
        validation_split: Any = "auto",
        callbacks: Sequence[Any] | None = None,
        device: Any = "auto",
        precision: str = "auto",
        compile: bool = False,
        warm_start: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.depth = depth
        self.width = width
        self.block = block
        self.order = order
        self.shortcut = shortcut
        self.layout = layout
        self.embedding = embedding
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth
        self.n_estimators = n_estimators
        self.l1 = l1
        self.l1_structure = l1_structure
        self.finetune_epochs = finetune_epochs
        self.l2 = l2
        self.l2_on = l2_on
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
        self.calibrate = calibrate
        self.augment = augment
        self.test_time_augmentation = test_time_augmentation
        self.optimizer = optimizer
        self.lr = lr
        self.momentum = momentum
        self.schedule = schedule
        self.max_epochs = max_epochs
        self.max_seconds = max_seconds
        self.batch_size = batch_size
        self.input_shape = input_shape
        self.channel_axis = channel_axis
        self.scale = scale
        self.validation_split = validation_split
        self.callbacks = callbacks
        self.device = device
        self.precision = precision
        self.compile = compile
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    # What y is

    def _checked_y(self, y: Any, name: str) -> Any:
        is_sparse = sparse.issparse(y)
        if is_sparse:
            y = y.tocsr(copy=True)
            y.sum_duplicates()
        else:
            y = np.asarray(y)
            check_labels(y, name)
        kind = type_of_target(y, input_name=name)
        if is_sparse or kind in ("multiclass-multioutput", "multilabel-indicator"):
            other = np.setdiff1d(y.data if is_sparse else y, (0, 1)).tolist()
            if not other and (is_sparse or kind == "multilabel-indicator"):
                return y
            raise ValueError(
                f"{name} of several columns must be a multilabel indicator of 0 and 1, got "
                f"values such as {other[0]!r}: fit one classifier for each column with "
                "sklearn.multioutput.MultiOutputClassifier."
            )
        y = column_or_1d(y, warn=True, input_name=name)
        check_classification_targets(y)
        return y

    def _new_target(self, y: Any, classes: Any, *, in_part: bool) -> Target:
        if y.ndim == 2:
            if classes is not None and list(classes) != list(range(y.shape[1])):
                raise ValueError(
                    f"classes of multilabel y are its columns, 0 to {y.shape[1] - 1}, got "
                    f"{list(classes)}."
                )
            columns, is_sparse = np.arange(y.shape[1]), sparse.issparse(y)
            target: Labels | LabelSets = LabelSets(columns, is_sparse=is_sparse)
        else:
            if in_part and classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            target = Labels(np.unique(y if classes is None else np.asarray(classes)))
            if classes is None and len(target.classes) < 2:
                raise ValueError(
                    "y must have samples of at least 2 classes, got one class only: "
                    f"{target.classes.tolist()[0]!r}."
                )
        self.classes_ = target.classes
        return self._weighted(target, y)

    def _continued_target(self, y: Any, target: Any, *, in_part: bool) -> Target:
        if (y.ndim == 2) != isinstance(target, LabelSets):
            raise ValueError(
                "y must stay what it was in the earlier fit, one label a sample or a "
                f"multilabel indicator: {START_ANEW}"
            )
        if not in_part and y.ndim == 1 and not np.array_equal(np.unique(y), target.classes):
            raise ValueError(
                f"warm_start needs the classes of the earlier fit, {target.classes}, got "
                f"{np.unique(y)}: set warm_start=False to start anew."
            )
        if y.ndim == 2 and y.shape[1] != target.n_outputs:
            raise ValueError(
                f"y has {y.shape[1]} columns, but this model was fitted on "
                f"{target.n_outputs}: {START_ANEW}"
            )
        return self._weighted(target, y)

    def _weighted(self, target: Labels | LabelSets, y: Any) -> Target:
        if unknown := target.unknown(y):
            raise ValueError(
                f"y has labels {unknown} that are not in classes {target.classes}: name "
                "all classes in the first call of partial_fit."
            )
        target = replace(target, label_smoothing=float(self.label_smoothing))
        return target.weighted_for(self.class_weight, y)

    def _check_known(self, y: Any, target: Any, name: str) -> None:
        expected = (target.n_outputs,) if isinstance(target, LabelSets) else ()
        if y.shape[1:] != expected:
            raise ValueError(
                f"{name} must have the layout of y in the fit, (n_samples, "
                f"{target.n_outputs}) for multilabel y and else (n_samples,), got "
                f"{y.shape}."
            )
        if unknown := target.unknown(y):
            raise ValueError(
                f"{name} has classes {unknown} that are not in y of the fit: remove their "
                "samples."
            )

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> "BaseResNet":
        """Make one pass over the data at a constant learning rate.

        The first call fixes the shape of the samples, the classes, the statistics for
        `scale`, and the bins of `embedding`. Neither `callbacks` nor a validation set take
        part. The penalty of `l1` does: after a fit with `finetune_epochs` it shrinks
        weights again, and with ``l1=0`` zeros do not stay zero.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples, at least 2.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Their labels.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come. Needed in the first call, unless y is a
            multilabel indicator.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the loss, at least 0. None means equal weights.

        Returns
        -------
        object
            The estimator, trained for one more epoch.
        """
        continues = self.__sklearn_is_fitted__()
        if classes is not None:
            self._check_classes(classes)
        if continues and not self._are_classes(classes):
            raise ValueError(
                f"classes must stay those of the first call of partial_fit, "
                f"{self.classes_}, got {classes!r}."
            )
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' needs all labels at once, which partial_fit does "
                "not see: give the weights as a dict."
            )
        return self._partial_fit(X, y, classes, sample_weight)

    def _are_classes(self, classes: Any) -> bool:
        return classes is None or np.array_equal(np.unique(classes), self.classes_)

    def _check_classes(self, classes: Any) -> None:
        check_kinds(classes, "classes")
        check_labels(np.asarray(classes), "classes")
        if np.asarray(classes).dtype.kind == "f" and not np.isfinite(classes).all():
            raise ValueError(f"classes must not hold NaN or infinity, got {classes!r}.")

    # Calibration

    def _calibrates(self) -> bool:
        return bool(self.calibrate)

    def _calibrate(self, data: list[Data]) -> None:
        """Divide the outputs of all members by a temperature that validation data tell."""
        self.temperature_ = 1.0
        validation = [own.validation for own in data if own.validation is not None]
        if not self.calibrate or len(validation) < len(data):
            return
        bfloat16 = self.precision == "bfloat16"
        outputs = [
            net.outputs(own, bfloat16=bfloat16)
            for net, own in zip(self.nets_, validation, strict=True)
        ]
        self.temperature_ = fitted_temperature(outputs, validation, data[0].target)
        with torch.no_grad():
            for net in self.nets_:
                for w in net.module_.classifier.parameters():
                    w /= self.temperature_
        self._update()

    # Prediction

    def predict(self, X: Any) -> Any:
        """Predict the most probable class of each sample, or its labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples of the shape that the model was fitted on.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Labels, of the type of those in fit; for multilabel y the indicator of those
            with a probability above one half, sparse where that of fit was.
        """
        outputs = self._outputs(X)
        return self.net_.target.decode(outputs)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the share of samples whose labels are predicted right.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples of the shape that the model was fitted on.
        y : array-like of shape (n_samples,) or (n_samples, n_labels), default=None
            Their labels. None only for a dataset that gives pairs.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples. None means equal weights.

        Returns
        -------
        float
            From 0 to 1; of several labels a sample all must be right.
        """
        X, y = self._scored_pairs(X, y)
        return float(super().score(X, y, sample_weight))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Predict the probability of every class for each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples of the shape that the model was fitted on.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``; rows sum to 1, unless y was multilabel.
        """
        outputs = self._outputs(X)
        return self.net_.target.probabilities(outputs)

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Predict the logarithm of the probabilities, exact where they underflow.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples of the shape that the model was fitted on.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        outputs = self._outputs(X)
        target: Any = self.net_.target
        return target.log_probabilities(outputs)

    def member_probabilities(self, X: Any) -> NDArray[np.float64]:
        """Predict the probabilities that each network of the ensemble gives.

        Their mean is `predict_proba`; their spread says where the networks disagree.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples of the shape that the model was fitted on.

        Returns
        -------
        probabilities : ndarray of shape (n_estimators, n_samples, n_classes)
            In the order of ``classes_``.
        """
        outputs = self._member_outputs(X)
        return np.stack([self.net_.target.probabilities(one) for one in outputs])


class _Regressor(RegressorMixin, BaseResNet):
    """Regressor of one number a sample, or of several."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseResNet._parameter_constraints,
        "loss": [StrOptions(set(LOSSES))],
        "quantile": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        depth: int | str = "auto",
        *,
        width: float | str = "auto",
        block: str | Sequence[int] = "auto",
        order: str = "auto",
        shortcut: str = "projection",
        layout: str = "auto",
        embedding: str | None = "auto",
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        n_estimators: int | str = "auto",
        l1: float = 0.0,
        l1_structure: str = "weight",
        finetune_epochs: int = 0,
        l2: float | str = "auto",
        l2_on: str = "kernels",
        loss: str = "squared_error",
        quantile: float = 0.5,
        augment: str | Sequence[str] | None = None,
        test_time_augmentation: str | Sequence[str] | None = None,
        optimizer: str = "sgd",
        lr: float | str = "auto",
        momentum: float = 0.9,
        schedule: str = "one_cycle",
        max_epochs: int | str = "auto",
        max_seconds: float | None = None,
        batch_size: int | str = "auto",
        input_shape: Sequence[int] | None = None,
        channel_axis: int | str | None = "auto",
        scale: str | None = "standard",
        validation_split: Any = "auto",
        callbacks: Sequence[Any] | None = None,
        device: Any = "auto",
        precision: str = "auto",
        compile: bool = False,
        warm_start: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.depth = depth
        self.width = width
        self.block = block
        self.order = order
        self.shortcut = shortcut
        self.layout = layout
        self.embedding = embedding
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth
        self.n_estimators = n_estimators
        self.l1 = l1
        self.l1_structure = l1_structure
        self.finetune_epochs = finetune_epochs
        self.l2 = l2
        self.l2_on = l2_on
        self.loss = loss
        self.quantile = quantile
        self.augment = augment
        self.test_time_augmentation = test_time_augmentation
        self.optimizer = optimizer
        self.lr = lr
        self.momentum = momentum
        self.schedule = schedule
        self.max_epochs = max_epochs
        self.max_seconds = max_seconds
        self.batch_size = batch_size
        self.input_shape = input_shape
        self.channel_axis = channel_axis
        self.scale = scale
        self.validation_split = validation_split
        self.callbacks = callbacks
        self.device = device
        self.precision = precision
        self.compile = compile
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.random_state = random_state
        self.verbose = verbose

    # What y is

    def _check_raw_y(self, y: Any, name: str) -> None:
        super()._check_raw_y(y, name)
        check_learns_numbers(y, name)

    def _checked_y(self, y: Any, name: str) -> Any:
        y = check_array(
            y, dtype=np.float64, ensure_2d=False, allow_nd=True, input_name=name
        )
        if y.ndim > 2:
            raise ValueError(
                f"{name} must have the shape (n_samples,) or (n_samples, n_outputs), got "
                f"{y.shape}."
            )
        return y

    def _new_target(self, y: Any, classes: Any, *, in_part: bool) -> Target:
        return Numbers(_n_outputs(y), y.ndim == 1, self.loss, float(self.quantile))

    def _continued_target(self, y: Any, target: Any, *, in_part: bool) -> Target:
        n_outputs = _n_outputs(y)
        if n_outputs != target.n_outputs:
            raise ValueError(
                f"y has {n_outputs} numbers a sample, but this model was fitted on "
                f"{target.n_outputs}: change y, or {START_ANEW}"
            )
        _warn_if_far(target.encode(y))
        return replace(target, loss=self.loss, quantile=float(self.quantile))

    def _check_known(self, y: Any, target: Any, name: str) -> None:
        n_outputs = _n_outputs(y)
        if n_outputs != target.n_outputs:
            raise ValueError(
                f"{name} has {n_outputs} numbers a sample, but y of the fit has "
                f"{target.n_outputs}: give it the same columns."
            )

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "BaseResNet":
        """Make one pass over the data at a constant learning rate.

        The first call fixes the shape of the samples, the statistics that X and y are
        scaled by, and the bins of `embedding`. Neither `callbacks` nor a validation set
        take part. The penalty of `l1` does: after a fit with `finetune_epochs` it shrinks
        weights again, and with ``l1=0`` zeros do not stay zero.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples, at least 2.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Their numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the loss, at least 0. None means equal weights.

        Returns
        -------
        object
            The estimator, trained for one more epoch.
        """
        return self._partial_fit(X, y, sample_weight=sample_weight)

    # Prediction

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the share of the variance of y that predictions explain, R².

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples of the shape that the model was fitted on.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Their numbers. None only for a dataset that gives pairs.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples. None means equal weights.

        Returns
        -------
        float
            At most 1; of several columns the mean.
        """
        X, y = self._scored_pairs(X, y)
        return float(super().score(X, y, sample_weight))

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Predict the numbers of each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples of the shape that the model was fitted on.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            In the units and in the shape of y in fit.
        """
        outputs = self._outputs(X)
        return self.net_.target.decode(outputs)

    def member_predictions(self, X: Any) -> NDArray[np.float64]:
        """Predict the numbers that each network of the ensemble gives.

        Their mean is `predict`; their spread says where the networks disagree.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples of the shape that the model was fitted on.

        Returns
        -------
        y : ndarray of shape (n_estimators, n_samples) or \
(n_estimators, n_samples, n_outputs)
            In the units of y in fit.
        """
        outputs = self._member_outputs(X)
        return np.stack([self.net_.target.decode(one) for one in outputs])


# Standard deviations between y of a further training and that of the first.
FAR = 1000


def _warn_if_far(encoded: NDArray[Any]) -> None:
    """Warn of y that is far from what it is standardized by."""
    if (distance := float(np.abs(encoded).max())) > FAR:
        warnings.warn(
            f"y lies up to {distance:.4g} standard deviations from the mean of y of the "
            "first fit (1 where that y was constant), so that training may diverge: make "
            "the first fit or call of partial_fit with samples of the whole range of y.",
            UserWarning,
            stacklevel=2,
        )


def _n_outputs(y: NDArray[Any]) -> int:
    """Numbers a sample."""
    return 1 if y.ndim == 1 else y.shape[1]


class ResNetClassifier(_Classifier):
    """Residual network for images, series, volumes and tables.

    The number of dimensions of X picks the layers: rows pass through linear layers,
    (n, channels, length) through 1-D, (n, channels, height, width) through 2-D, and
    volumes through 3-D convolutions, all in the same residual blocks.

    Training minimises the weighted mean of the cross-entropy + ``l1``·‖W‖₁ +
    (``l2``/2)·‖W‖², where W are the kernels of the convolutions and linear layers. For
    multilabel y, an indicator of shape (n_samples, n_labels), the cross-entropies of the
    labels are added up.

    Parameters
    ----------
    depth : int or "auto", default="auto"
        Number of weight layers: 6n+2 for basic blocks, 9n+2 for bottlenecks, m·3n+2 for
        blocks of m kernels; 18, 34, 50, 101 or 152 in the imagenet layout. Networks for
        rows have one stage in place of three, so 2n+2 for basic blocks. "auto" is 8 for
        rows and series, and 20 for images and volumes.
    width : float or "auto", default="auto"
        Widening factor of the blocks, "auto" is 1. Bottlenecks widen inside only.
    block : {"auto", "basic", "bottleneck"} or tuple of int, default="auto"
        Two 3×3 convolutions; 1×1, 3×3, 1×1 with fourfold output; or kernel sizes such
        as (3, 1, 3). "auto" is (7, 3) for series, and "basic" for everything else.
    order : {"auto", "original", "norm_after_addition", "relu_before_addition", \
"relu_only_preactivation", "full_preactivation"}, default="auto"
        Where norms and activations stand in a block, figure 4 of [2]_. "auto" is
        "original".
    shortcut : {"projection", "zero_pad", "none"}, default="projection"
        What the shortcut does where the shape changes: a 1×1 convolution (option B of
        [1]_), or subsampling and zeros (option A). "none" drops all shortcuts, which
        gives the plain network that [1]_ compares with.
    layout : {"auto", "small", "dilated", "imagenet"}, default="auto"
        "small" has a 3×3 stem and three stages, the second and third of which halve the
        sides. "dilated" keeps the sides; there the kernels read every second or fourth
        place instead [7]_. It has as many weights, but takes more time and memory.
        "imagenet" has a 7×7 stem with pooling and four stages. "auto" is "dilated" for
        series; for images and volumes, "imagenet" for sides of at least 64 where `depth`
        is one of its depths, and "small" for all others.
    embedding : {"auto", "periodic", "piecewise_linear"} or None, default="auto"
        What the network reads beside each number of a row, after `scale`: nothing, 8
        cosines of it, whose frequencies are learned, or its place in each of 16 bins
        between quantiles of the training samples [5]_. Bins help where y jumps at some
        values of a feature and there are thousands of rows; with a few hundred they fit
        noise. For rows only. "auto" is "periodic" in `ResNetRegressor` and None in the
        others.
    dropout : float, default=0.0
        Probability, in [0, 1), of dropping a value before the last convolution of a
        branch.
    stochastic_depth : float, default=0.0
        Probability, in [0, 1), with which the last block's branch is dropped for a
        sample in training; that of the others grows linearly up to it [4]_.
    n_estimators : int or "auto", default="auto"
        Networks of an ensemble, each with initial weights, order of samples and dropout
        of its own. They train as one, which takes far less time than one after the
        other where the networks are small. "auto" is 8 for rows, 5 for series, and 1 for
        images and volumes.
    l1 : float, default=0.0
        Strength of the L1 penalty on the kernels. A proximal step after each step of
        the optimizer makes weights exactly zero.
    l1_structure : {"weight", "channel"}, default="weight"
        What `l1` empties: single weights, or whole channels inside the blocks, which
        `compact` then cuts out. For "channel" the penalty is Σ √m·‖w‖₂ over the m
        weights w that read one channel between two convolutions of a block; other
        kernels are free of it.
    finetune_epochs : int, default=0
        Epochs after `max_epochs` without the L1 penalty, in which zeros stay zero and
        `schedule` starts anew. They undo the shrinking of the other weights.
    l2 : float or "auto", default="auto"
        Strength of the L2 penalty on the kernels. "adamw" decays them by lr·l2 instead.
        "auto" is 1e-4, as in [1]_, for series, and 5e-4 for images and volumes; for rows
        it is 60 over the number of training samples of a call, but at most 0.05.
    l2_on : {"kernels", "all"}, default="kernels"
        Whether `l2` acts on the kernels alone, or on batch norms and biases too, as in
        [3]_.
    label_smoothing : float, default=0.0
        Share of each label, in [0, 1), that is spread over all classes in training; for
        multilabel y, over the presence and the absence of the label.
    class_weight : dict or "balanced", default=None
        Weights of the classes in the loss, by label, at least 0; classes that are not named
        have a weight of 1; "balanced" is inverse to their frequencies. For multilabel y,
        weights of the samples that have a label, by its column; with "balanced", the
        samples that have a label weigh as much in its loss as those that do not.
    calibrate : bool, default=True
        Whether a fit ends with a temperature [8]_: all outputs are divided by one number,
        the one with the least loss on the validation data, those of `validation_split` or
        X_val. Without validation data nothing is changed.
    augment : str or list of str, default=None
        Random changes of the training samples, in this order: "crop" (shifts of up to 4
        pixels over a reflected border, fewer on small samples), "flip" (of the last
        axis), "random_erasing", "cutout", "scaling"; "shift" and "window" for series;
        "jitter", also for rows; "mixup" and "cutmix", which mix y too.
    test_time_augmentation : str or list of str, default=None
        What predictions see of images and volumes beside the samples as they are; they
        average over all views: "crop" (shifts by one pixel along each axis and back: 5
        views of an image), "flip" (of the last axis: 2 views), or both (10). A prediction
        takes as many times longer. Use what the network was trained with (`augment`): other
        views can make predictions worse, shifts those of small images above all. `embed`,
        the temperature of classifiers and the scores during training use the samples as
        they are.
    optimizer : {"sgd", "heavy_ball", "adamw"}, default="sgd"
        SGD with Nesterov momentum, with the plain momentum of [1]_, or AdamW.
    lr : float or "auto", default="auto"
        Largest learning rate; "auto" is 0.002 for "adamw" and 0.1 for the others, and
        twice as much for images and volumes.
    momentum : float, default=0.9
        Momentum of SGD, or the first decay rate of AdamW, in [0, 1).
    schedule : {"one_cycle", "cosine", "resnet_steps", "wide_steps", "constant"}, \
default="one_cycle"
        Course of the learning rate over `max_epochs`. The steps are those of [1]_
        (÷10 at 50 and 75 %) and [3]_ (×0.2 at 30, 60 and 80 %). A ``LRScheduler`` of
        skorch among the `callbacks` takes its place.
    max_epochs : int or "auto", default="auto"
        Passes over the training data. "auto" is 30, and more, up to 200, where those
        would make fewer than 500 steps: on fewer than about 1,000 samples.
    max_seconds : float, default=None
        Seconds after which `fit` stops training at the end of an epoch, before the
        learning rate has come down. None sets no limit. With a `checkpoint`, the same fit
        with a larger one goes on from there.
    batch_size : int or "auto", default="auto"
        Samples in a step, at least 2; "auto" takes 8 to 128, a power of two: about a
        quarter of up to 128 samples, then 32, and a sixteenth of more than 512.
    input_shape : tuple of int, default=None
        Shape of one sample, such as (1, 28, 28), into which rows are folded. None takes
        that of X.
    channel_axis : {"auto", 1, -1, None}, default="auto"
        Axis of the channels in X: 1 for (n, channels, ...), -1 for (n, ..., channels),
        None for samples of one channel without an axis for it, such as grey images
        (n, height, width). "auto" is -1 where the last axis has 1, 3 or 4 places beside
        larger sides of an image or volume, else 1; it warns of shapes that can be read
        in two ways.
    scale : {"standard", "robust"} or None, default="standard"
        How each channel (each feature of a row) is shifted and scaled, by statistics of the
        training part: "standard" to mean 0 and deviation 1; "robust" by its median and the
        distance of its quartiles, and then squashed smoothly into (-3, 3), for features
        with a few values that lie far out (section 3 of [6]_). None is
        for values of about size 1 around 0: networks hardly learn from others, and numbers
        that are far from 0 for their spread lose their places in the bins of `embedding`.
    validation_split : "auto", float, splitter, list of a pair of index arrays, or None, \
default="auto"
        Part of the training data that is held out to validate on. With "auto" and
        `calibrate`, each network of an ensemble for rows is validated on a fold of its own,
        and trained on the others. In all other cases "auto" and None hold out nothing,
        except a tenth where a callback monitors or scores validation and X_val is not
        given. A fraction and folds are drawn by class, or by `groups`. With a splitter each
        network of an ensemble gets another split, and a single network the first.
    callbacks : list of skorch callbacks or of (str, callback) pairs, default=None
        Such as `EarlyStopping`. Copies of them take part in the fit. Those with hooks for
        batches make it slower. Parameters of a named one are set, and searched, as
        ``callbacks__name__parameter``. A class or a function that makes a callback may
        stand for it, which clones and searches need where it holds a lock or a writer.
    device : str or torch.device, default="auto"
        "auto" is a GPU of CUDA where there is one, else the CPU. Worker processes of
        joblib, dask or torchrun take the GPUs in turn.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of the convolutions. "auto" trains in bfloat16 where that is fast, on
        GPUs and on processors with AVX512-BF16 or AMX, and predicts in float32. A GPU
        convolves float32 in TF32, and predicts as a CPU to about three digits, unless
        ``torch.backends.cudnn.allow_tf32 = False`` says otherwise.
        Volumes, and samples that the network shrinks to one place, train in float32 on
        the CPU, where torch's gradients in bfloat16 are wrong for them.
    compile : bool, default=False
        Whether training runs a network compiled by `torch.compile`, which takes about a
        minute at the first batch.
    warm_start : bool, default=False
        Whether `fit` starts from the weights of the last fit, on its device. Parameters
        that shape the network or its input must be as they were then.
    checkpoint : path-like, default=None
        File in which `fit` and `partial_fit` save their state, or a folder in which each
        fit has a file of its own. After Ctrl-C or the end of its process, the same call on
        the same data resumes from it and ends with the same model. After a fit that was
        done it returns at once, with ``random_state=None`` too. Written at ends of epochs,
        for at most about 1 % of the time, and at the end of the fit, for some 35 ms. Needs
        skops; the only callback whose state it holds is `EarlyStopping`.
    random_state : int, RandomState instance or None, default=None
        Source of the initial weights, the order of the samples, dropout, augmentation
        and split. An int gives the same result on the same machine with the same number
        of threads. torch's and NumPy's global generators are left alone.
    verbose : int, default=0
        0 prints nothing, 1 shows a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted; the numbers of the columns for multilabel y.
    n_features_in_ : int
        Number of features, where X has two dimensions.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, where X is a table with names that are all strings.
    target_names_ : ndarray of shape (n_columns,)
        Names of the columns of y, where y is a table with names that are all strings.
    input_shape_ : tuple of int
        Shape of one sample.
    net_ : skorch.NeuralNet
        The net that holds the network, its callbacks and its history.
    module_ : torch.nn.Module
        The network, in evaluation mode. It reads what `network_input` gives.
    history_ : list of dict
        One record an epoch: ``epoch``, ``train_loss``, ``train_accuracy``,
        ``valid_loss`` and ``valid_accuracy`` where there is a validation set, ``lr`` at
        the epoch's first step, ``seconds``.
    n_epochs_ : int
        Epochs trained.
    best_epoch_ : int or ndarray of shape (n_estimators,)
        Epoch whose weights the network holds: the last, unless `EarlyStopping` or another
        callback put those of an earlier one back.
    n_parameters_ : int
        Trainable values of the network.
    sparsity_ : float
        Share of exact zeros in the kernels.
    n_bytes_ : int
        Bytes of the weights in a saved model.
    batch_size_ : int
        Samples in a step.
    device_ : str
        Where the network is.
    temperature_ : float
        What the last fit divided the outputs by, 1 without validation data or `calibrate`.
    precision_ : str
        "float32" or "bfloat16": arithmetic of the last training.

    See Also
    --------
    WideResNetClassifier : Fewer, wider layers, with the conventions of [3]_.
    ResNetRegressor : The same network for numbers.
    sklearn.neural_network.MLPClassifier : Networks without shortcuts or convolutions.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning for Image Recognition,
       2015, arXiv:1512.03385.
    .. [2] K. He, X. Zhang, S. Ren, J. Sun, Identity Mappings in Deep Residual Networks,
       2016, arXiv:1603.05027.
    .. [3] S. Zagoruyko, N. Komodakis, Wide Residual Networks, 2016, arXiv:1605.07146.
    .. [4] G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, Deep Networks with
       Stochastic Depth, 2016, arXiv:1603.09382.
    .. [5] Y. Gorishniy, I. Rubachev, A. Babenko, On Embeddings for Numerical Features in
       Tabular Deep Learning, 2022, arXiv:2203.05556.
    .. [6] D. Holzmüller, L. Grinsztajn, I. Steinwart, Better by Default: Strong Pre-Tuned
       MLPs and Boosted Trees on Tabular Data, 2024, arXiv:2407.04491.
    .. [7] F. Yu, V. Koltun, T. Funkhouser, Dilated Residual Networks, 2017,
       arXiv:1705.09914.
    .. [8] C. Guo, G. Pleiss, Y. Sun, K. Weinberger, On Calibration of Modern Neural
       Networks, 2017, arXiv:1706.04599.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import ResNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ResNetClassifier(depth=4, max_epochs=10, random_state=0).fit(X, y)
    >>> model.predict(X[:2])
    array([0, 0])
    >>> model.score(X, y) > 0.9
    True
    """

    _family: ClassVar[str] = "resnet"


class WideResNetClassifier(_Classifier):
    """Wide residual network for images, series, volumes and tables.

    Fewer and wider layers than in a `ResNetClassifier`, norms and activations before the
    convolutions, and dropout between them, as in [3]_: ``depth=28, width=10`` is its
    WRN-28-10. The number of dimensions of X picks the layers: rows pass through linear
    layers, (n, channels, length) through 1-D, (n, channels, height, width) through 2-D,
    and volumes through 3-D convolutions, all in the same residual blocks.

    Training minimises the weighted mean of the cross-entropy + ``l1``·‖W‖₁ +
    (``l2``/2)·‖W‖², where W are the kernels of the convolutions and linear layers. For
    multilabel y, an indicator of shape (n_samples, n_labels), the cross-entropies of the
    labels are added up.

    Parameters
    ----------
    depth : int or "auto", default="auto"
        6n+4 for n blocks in each of three stages, whatever the block; 18, 34, 50, 101 or
        152 in the imagenet layout. Networks for rows have one stage and a depth of 2n+2
        for basic blocks. "auto" is 16.
    width : float or "auto", default="auto"
        Widening factor of the blocks, "auto" is 4. Bottlenecks widen inside only.
    block : {"auto", "basic", "bottleneck"} or tuple of int, default="auto"
        Two 3×3 convolutions; 1×1, 3×3, 1×1 with fourfold output; or kernel sizes such
        as (3, 1, 3). "auto" is "basic".
    order : {"auto", "original", "norm_after_addition", "relu_before_addition", \
"relu_only_preactivation", "full_preactivation"}, default="auto"
        Where norms and activations stand in a block, figure 4 of [2]_. "auto" is
        "full_preactivation".
    shortcut : {"projection", "zero_pad", "none"}, default="projection"
        What the shortcut does where the shape changes: a 1×1 convolution (option B of
        [1]_), or subsampling and zeros (option A). "none" drops all shortcuts, which
        gives the plain network that [1]_ compares with.
    layout : {"auto", "small", "dilated", "imagenet"}, default="auto"
        "small" has a 3×3 stem and three stages, the second and third of which halve the
        sides. "dilated" keeps the sides; there the kernels read every second or fourth
        place instead [7]_. It has as many weights, but takes more time and memory.
        "imagenet" has a 7×7 stem with pooling and four stages. "auto" is "imagenet" for
        images and volumes with sides of at least 64 where `depth` is one of its depths,
        and "small" for everything else.
    embedding : {"auto", "periodic", "piecewise_linear"} or None, default="auto"
        What the network reads beside each number of a row, after `scale`: nothing, 8
        cosines of it, whose frequencies are learned, or its place in each of 16 bins
        between quantiles of the training samples [5]_. Bins help where y jumps at some
        values of a feature and there are thousands of rows; with a few hundred they fit
        noise. For rows only. "auto" is "periodic" in `ResNetRegressor` and None in the
        others.
    dropout : float, default=0.0
        Probability, in [0, 1), of dropping a value before the last convolution of a
        branch.
    stochastic_depth : float, default=0.0
        Probability, in [0, 1), with which the last block's branch is dropped for a
        sample in training; that of the others grows linearly up to it [4]_.
    n_estimators : int or "auto", default="auto"
        Networks of an ensemble, each with initial weights, order of samples and dropout
        of its own. They train as one, which takes far less time than one after the
        other where the networks are small. "auto" is 1.
    l1 : float, default=0.0
        Strength of the L1 penalty on the kernels. A proximal step after each step of
        the optimizer makes weights exactly zero.
    l1_structure : {"weight", "channel"}, default="weight"
        What `l1` empties: single weights, or whole channels inside the blocks, which
        `compact` then cuts out. For "channel" the penalty is Σ √m·‖w‖₂ over the m
        weights w that read one channel between two convolutions of a block; other
        kernels are free of it.
    finetune_epochs : int, default=0
        Epochs after `max_epochs` without the L1 penalty, in which zeros stay zero and
        `schedule` starts anew. They undo the shrinking of the other weights.
    l2 : float or "auto", default="auto"
        Strength of the L2 penalty on the kernels. "adamw" decays them by lr·l2 instead.
        "auto" is 0.01 for rows and 5e-4, as in [3]_, for everything else.
    l2_on : {"kernels", "all"}, default="kernels"
        Whether `l2` acts on the kernels alone, or on batch norms and biases too, as in
        [3]_.
    label_smoothing : float, default=0.0
        Share of each label, in [0, 1), that is spread over all classes in training; for
        multilabel y, over the presence and the absence of the label.
    class_weight : dict or "balanced", default=None
        Weights of the classes in the loss, by label, at least 0; classes that are not named
        have a weight of 1; "balanced" is inverse to their frequencies. For multilabel y,
        weights of the samples that have a label, by its column; with "balanced", the
        samples that have a label weigh as much in its loss as those that do not.
    calibrate : bool, default=True
        Whether a fit ends with a temperature [8]_: all outputs are divided by one number,
        the one with the least loss on the validation data, those of `validation_split` or
        X_val. Without validation data nothing is changed.
    augment : str or list of str, default=None
        Random changes of the training samples, in this order: "crop" (shifts of up to 4
        pixels over a reflected border, fewer on small samples), "flip" (of the last
        axis), "random_erasing", "cutout", "scaling"; "shift" and "window" for series;
        "jitter", also for rows; "mixup" and "cutmix", which mix y too.
    test_time_augmentation : str or list of str, default=None
        What predictions see of images and volumes beside the samples as they are; they
        average over all views: "crop" (shifts by one pixel along each axis and back: 5
        views of an image), "flip" (of the last axis: 2 views), or both (10). A prediction
        takes as many times longer. Use what the network was trained with (`augment`): other
        views can make predictions worse, shifts those of small images above all. `embed`,
        the temperature of classifiers and the scores during training use the samples as
        they are.
    optimizer : {"sgd", "heavy_ball", "adamw"}, default="sgd"
        SGD with Nesterov momentum, with the plain momentum of [1]_, or AdamW.
    lr : float or "auto", default="auto"
        Largest learning rate; "auto" is 0.002 for "adamw" and 0.1 for the others.
    momentum : float, default=0.9
        Momentum of SGD, or the first decay rate of AdamW, in [0, 1).
    schedule : {"one_cycle", "cosine", "resnet_steps", "wide_steps", "constant"}, \
default="one_cycle"
        Course of the learning rate over `max_epochs`. The steps are those of [1]_
        (÷10 at 50 and 75 %) and [3]_ (×0.2 at 30, 60 and 80 %). A ``LRScheduler`` of
        skorch among the `callbacks` takes its place.
    max_epochs : int or "auto", default="auto"
        Passes over the training data. "auto" is 30, and more, up to 200, where those
        would make fewer than 500 steps: on fewer than about 1,000 samples.
    max_seconds : float, default=None
        Seconds after which `fit` stops training at the end of an epoch, before the
        learning rate has come down. None sets no limit. With a `checkpoint`, the same fit
        with a larger one goes on from there.
    batch_size : int or "auto", default="auto"
        Samples in a step, at least 2; "auto" takes 8 to 128, a power of two: about a
        quarter of up to 128 samples, then 32, and a sixteenth of more than 512.
    input_shape : tuple of int, default=None
        Shape of one sample, such as (1, 28, 28), into which rows are folded. None takes
        that of X.
    channel_axis : {"auto", 1, -1, None}, default="auto"
        Axis of the channels in X: 1 for (n, channels, ...), -1 for (n, ..., channels),
        None for samples of one channel without an axis for it, such as grey images
        (n, height, width). "auto" is -1 where the last axis has 1, 3 or 4 places beside
        larger sides of an image or volume, else 1; it warns of shapes that can be read
        in two ways.
    scale : {"standard", "robust"} or None, default="standard"
        How each channel (each feature of a row) is shifted and scaled, by statistics of the
        training part: "standard" to mean 0 and deviation 1; "robust" by its median and the
        distance of its quartiles, and then squashed smoothly into (-3, 3), for features
        with a few values that lie far out (section 3 of [6]_). None is
        for values of about size 1 around 0: networks hardly learn from others, and numbers
        that are far from 0 for their spread lose their places in the bins of `embedding`.
    validation_split : "auto", float, splitter, list of a pair of index arrays, or None, \
default="auto"
        Part of the training data that is held out to validate on. With "auto" and
        `calibrate`, each network of an ensemble for rows is validated on a fold of its own,
        and trained on the others. In all other cases "auto" and None hold out nothing,
        except a tenth where a callback monitors or scores validation and X_val is not
        given. A fraction and folds are drawn by class, or by `groups`. With a splitter each
        network of an ensemble gets another split, and a single network the first.
    callbacks : list of skorch callbacks or of (str, callback) pairs, default=None
        Such as `EarlyStopping`. Copies of them take part in the fit. Those with hooks for
        batches make it slower. Parameters of a named one are set, and searched, as
        ``callbacks__name__parameter``. A class or a function that makes a callback may
        stand for it, which clones and searches need where it holds a lock or a writer.
    device : str or torch.device, default="auto"
        "auto" is a GPU of CUDA where there is one, else the CPU. Worker processes of
        joblib, dask or torchrun take the GPUs in turn.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of the convolutions. "auto" trains in bfloat16 where that is fast, on
        GPUs and on processors with AVX512-BF16 or AMX, and predicts in float32. A GPU
        convolves float32 in TF32, and predicts as a CPU to about three digits, unless
        ``torch.backends.cudnn.allow_tf32 = False`` says otherwise.
        Volumes, and samples that the network shrinks to one place, train in float32 on
        the CPU, where torch's gradients in bfloat16 are wrong for them.
    compile : bool, default=False
        Whether training runs a network compiled by `torch.compile`, which takes about a
        minute at the first batch.
    warm_start : bool, default=False
        Whether `fit` starts from the weights of the last fit, on its device. Parameters
        that shape the network or its input must be as they were then.
    checkpoint : path-like, default=None
        File in which `fit` and `partial_fit` save their state, or a folder in which each
        fit has a file of its own. After Ctrl-C or the end of its process, the same call on
        the same data resumes from it and ends with the same model. After a fit that was
        done it returns at once, with ``random_state=None`` too. Written at ends of epochs,
        for at most about 1 % of the time, and at the end of the fit, for some 35 ms. Needs
        skops; the only callback whose state it holds is `EarlyStopping`.
    random_state : int, RandomState instance or None, default=None
        Source of the initial weights, the order of the samples, dropout, augmentation
        and split. An int gives the same result on the same machine with the same number
        of threads. torch's and NumPy's global generators are left alone.
    verbose : int, default=0
        0 prints nothing, 1 shows a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted; the numbers of the columns for multilabel y.
    n_features_in_ : int
        Number of features, where X has two dimensions.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, where X is a table with names that are all strings.
    target_names_ : ndarray of shape (n_columns,)
        Names of the columns of y, where y is a table with names that are all strings.
    input_shape_ : tuple of int
        Shape of one sample.
    net_ : skorch.NeuralNet
        The net that holds the network, its callbacks and its history.
    module_ : torch.nn.Module
        The network, in evaluation mode. It reads what `network_input` gives.
    history_ : list of dict
        One record an epoch: ``epoch``, ``train_loss``, ``train_accuracy``,
        ``valid_loss`` and ``valid_accuracy`` where there is a validation set, ``lr`` at
        the epoch's first step, ``seconds``.
    n_epochs_ : int
        Epochs trained.
    best_epoch_ : int or ndarray of shape (n_estimators,)
        Epoch whose weights the network holds: the last, unless `EarlyStopping` or another
        callback put those of an earlier one back.
    n_parameters_ : int
        Trainable values of the network.
    sparsity_ : float
        Share of exact zeros in the kernels.
    n_bytes_ : int
        Bytes of the weights in a saved model.
    batch_size_ : int
        Samples in a step.
    device_ : str
        Where the network is.
    temperature_ : float
        What the last fit divided the outputs by, 1 without validation data or `calibrate`.
    precision_ : str
        "float32" or "bfloat16": arithmetic of the last training.

    See Also
    --------
    ResNetClassifier : Deeper, thinner layers, with the conventions of [1]_.
    WideResNetRegressor : The same network for numbers.
    sklearn.neural_network.MLPClassifier : Networks without shortcuts or convolutions.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning for Image Recognition,
       2015, arXiv:1512.03385.
    .. [2] K. He, X. Zhang, S. Ren, J. Sun, Identity Mappings in Deep Residual Networks,
       2016, arXiv:1603.05027.
    .. [3] S. Zagoruyko, N. Komodakis, Wide Residual Networks, 2016, arXiv:1605.07146.
    .. [4] G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, Deep Networks with
       Stochastic Depth, 2016, arXiv:1603.09382.
    .. [5] Y. Gorishniy, I. Rubachev, A. Babenko, On Embeddings for Numerical Features in
       Tabular Deep Learning, 2022, arXiv:2203.05556.
    .. [6] D. Holzmüller, L. Grinsztajn, I. Steinwart, Better by Default: Strong Pre-Tuned
       MLPs and Boosted Trees on Tabular Data, 2024, arXiv:2407.04491.
    .. [7] F. Yu, V. Koltun, T. Funkhouser, Dilated Residual Networks, 2017,
       arXiv:1705.09914.
    .. [8] C. Guo, G. Pleiss, Y. Sun, K. Weinberger, On Calibration of Modern Neural
       Networks, 2017, arXiv:1706.04599.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import WideResNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = WideResNetClassifier(depth=4, width=1, max_epochs=10, random_state=0)
    >>> model = model.fit(X, y)
    >>> model.predict(X[:2])
    array([0, 0])
    >>> model.score(X, y) > 0.9
    True
    """

    _family: ClassVar[str] = "wide"


class ResNetRegressor(_Regressor):
    """Residual network for images, series, volumes and tables that predicts numbers.

    The number of dimensions of X picks the layers: rows pass through linear layers,
    (n, channels, length) through 1-D, (n, channels, height, width) through 2-D, and
    volumes through 3-D convolutions, all in the same residual blocks.

    Training minimises the weighted mean of the `loss` + ``l1``·‖W‖₁ + (``l2``/2)·‖W‖²,
    where W are the kernels of the convolutions and linear layers. Each output of y is
    standardized by the training part, and the loss is the mean over the outputs.

    Parameters
    ----------
    depth : int or "auto", default="auto"
        Number of weight layers: 6n+2 for basic blocks, 9n+2 for bottlenecks, m·3n+2 for
        blocks of m kernels; 18, 34, 50, 101 or 152 in the imagenet layout. Networks for
        rows have one stage in place of three, so 2n+2 for basic blocks. "auto" is 8 for
        rows and series, and 20 for images and volumes.
    width : float or "auto", default="auto"
        Widening factor of the blocks, "auto" is 1. Bottlenecks widen inside only.
    block : {"auto", "basic", "bottleneck"} or tuple of int, default="auto"
        Two 3×3 convolutions; 1×1, 3×3, 1×1 with fourfold output; or kernel sizes such
        as (3, 1, 3). "auto" is (7, 3) for series, and "basic" for everything else.
    order : {"auto", "original", "norm_after_addition", "relu_before_addition", \
"relu_only_preactivation", "full_preactivation"}, default="auto"
        Where norms and activations stand in a block, figure 4 of [2]_. "auto" is
        "full_preactivation". Others may diverge with the `lr` of "auto": take a tenth.
    shortcut : {"projection", "zero_pad", "none"}, default="projection"
        What the shortcut does where the shape changes: a 1×1 convolution (option B of
        [1]_), or subsampling and zeros (option A). "none" drops all shortcuts, which
        gives the plain network that [1]_ compares with.
    layout : {"auto", "small", "dilated", "imagenet"}, default="auto"
        "small" has a 3×3 stem and three stages, the second and third of which halve the
        sides. "dilated" keeps the sides; there the kernels read every second or fourth
        place instead [7]_. It has as many weights, but takes more time and memory.
        "imagenet" has a 7×7 stem with pooling and four stages. "auto" is "dilated" for
        series; for images and volumes, "imagenet" for sides of at least 64 where `depth`
        is one of its depths, and "small" for all others.
    embedding : {"auto", "periodic", "piecewise_linear"} or None, default="auto"
        What the network reads beside each number of a row, after `scale`: nothing, 8
        cosines of it, whose frequencies are learned, or its place in each of 16 bins
        between quantiles of the training samples [5]_. Bins help where y jumps at some
        values of a feature and there are thousands of rows; with a few hundred they fit
        noise. For rows only. "auto" is "periodic" in `ResNetRegressor` and None in the
        others.
    dropout : float, default=0.0
        Probability, in [0, 1), of dropping a value before the last convolution of a
        branch.
    stochastic_depth : float, default=0.0
        Probability, in [0, 1), with which the last block's branch is dropped for a
        sample in training; that of the others grows linearly up to it [4]_.
    n_estimators : int or "auto", default="auto"
        Networks of an ensemble, each with initial weights, order of samples and dropout
        of its own. They train as one, which takes far less time than one after the
        other where the networks are small. "auto" is 8 for rows, 5 for series, and 1 for
        images and volumes.
    l1 : float, default=0.0
        Strength of the L1 penalty on the kernels. A proximal step after each step of
        the optimizer makes weights exactly zero.
    l1_structure : {"weight", "channel"}, default="weight"
        What `l1` empties: single weights, or whole channels inside the blocks, which
        `compact` then cuts out. For "channel" the penalty is Σ √m·‖w‖₂ over the m
        weights w that read one channel between two convolutions of a block; other
        kernels are free of it.
    finetune_epochs : int, default=0
        Epochs after `max_epochs` without the L1 penalty, in which zeros stay zero and
        `schedule` starts anew. They undo the shrinking of the other weights.
    l2 : float or "auto", default="auto"
        Strength of the L2 penalty on the kernels. "adamw" decays them by lr·l2 instead.
        "auto" is 1e-4, as in [1]_; for rows it is 60 over the number of training samples
        of a call, but at most 0.3.
    l2_on : {"kernels", "all"}, default="kernels"
        Whether `l2` acts on the kernels alone, or on batch norms and biases too, as in
        [3]_.
    loss : {"squared_error", "absolute_error", "huber", "quantile"}, \
default="squared_error"
        Loss of a standardized number: half the squared error, the absolute error, both in
        one with a change at 1, or the pinball loss of `quantile`.
    quantile : float, default=0.5
        Quantile, in (0, 1), that ``loss="quantile"`` predicts.
    augment : str or list of str, default=None
        Random changes of the training samples, in this order: "crop" (shifts of up to 4
        pixels over a reflected border, fewer on small samples), "flip" (of the last
        axis), "random_erasing", "cutout", "scaling"; "shift" and "window" for series;
        "jitter", also for rows; "mixup" and "cutmix", which mix y too.
    test_time_augmentation : str or list of str, default=None
        What predictions see of images and volumes beside the samples as they are; they
        average over all views: "crop" (shifts by one pixel along each axis and back: 5
        views of an image), "flip" (of the last axis: 2 views), or both (10). A prediction
        takes as many times longer. Use what the network was trained with (`augment`): other
        views can make predictions worse, shifts those of small images above all. `embed`,
        the temperature of classifiers and the scores during training use the samples as
        they are.
    optimizer : {"sgd", "heavy_ball", "adamw"}, default="sgd"
        SGD with Nesterov momentum, with the plain momentum of [1]_, or AdamW.
    lr : float or "auto", default="auto"
        Largest learning rate; "auto" is 0.001 for "adamw" and 0.05 for the others.
    momentum : float, default=0.9
        Momentum of SGD, or the first decay rate of AdamW, in [0, 1).
    schedule : {"one_cycle", "cosine", "resnet_steps", "wide_steps", "constant"}, \
default="one_cycle"
        Course of the learning rate over `max_epochs`. The steps are those of [1]_
        (÷10 at 50 and 75 %) and [3]_ (×0.2 at 30, 60 and 80 %). A ``LRScheduler`` of
        skorch among the `callbacks` takes its place.
    max_epochs : int or "auto", default="auto"
        Passes over the training data. "auto" is 30, and more, up to 200, where those
        would make fewer than 500 steps: on fewer than about 1,000 samples.
    max_seconds : float, default=None
        Seconds after which `fit` stops training at the end of an epoch, before the
        learning rate has come down. None sets no limit. With a `checkpoint`, the same fit
        with a larger one goes on from there.
    batch_size : int or "auto", default="auto"
        Samples in a step, at least 2; "auto" takes 8 to 128, a power of two: about a
        quarter of up to 128 samples, then 32, and a sixteenth of more than 512.
    input_shape : tuple of int, default=None
        Shape of one sample, such as (1, 28, 28), into which rows are folded. None takes
        that of X.
    channel_axis : {"auto", 1, -1, None}, default="auto"
        Axis of the channels in X: 1 for (n, channels, ...), -1 for (n, ..., channels),
        None for samples of one channel without an axis for it, such as grey images
        (n, height, width). "auto" is -1 where the last axis has 1, 3 or 4 places beside
        larger sides of an image or volume, else 1; it warns of shapes that can be read
        in two ways.
    scale : {"standard", "robust"} or None, default="standard"
        How each channel (each feature of a row) is shifted and scaled, by statistics of the
        training part: "standard" to mean 0 and deviation 1; "robust" by its median and the
        distance of its quartiles, and then squashed smoothly into (-3, 3), for features
        with a few values that lie far out (section 3 of [6]_). None is
        for values of about size 1 around 0: networks hardly learn from others, and numbers
        that are far from 0 for their spread lose their places in the bins of `embedding`.
    validation_split : "auto", float, splitter, list of a pair of index arrays, or None, \
default="auto"
        Part of the training data that is held out to validate on. "auto" and None hold
        nothing out, unless a callback monitors or scores validation and X_val is not given:
        then 0.1. A fraction is drawn at random, or by `groups`. With a splitter each
        network of an ensemble gets another split, one network the first.
    callbacks : list of skorch callbacks or of (str, callback) pairs, default=None
        Such as `EarlyStopping`. Copies of them take part in the fit. Those with hooks for
        batches make it slower. Parameters of a named one are set, and searched, as
        ``callbacks__name__parameter``. A class or a function that makes a callback may
        stand for it, which clones and searches need where it holds a lock or a writer.
    device : str or torch.device, default="auto"
        "auto" is a GPU of CUDA where there is one, else the CPU. Worker processes of
        joblib, dask or torchrun take the GPUs in turn.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of the convolutions. "auto" trains in bfloat16 where that is fast, on
        GPUs and on processors with AVX512-BF16 or AMX, and predicts in float32. A GPU
        convolves float32 in TF32, and predicts as a CPU to about three digits, unless
        ``torch.backends.cudnn.allow_tf32 = False`` says otherwise.
        Volumes, and samples that the network shrinks to one place, train in float32 on
        the CPU, where torch's gradients in bfloat16 are wrong for them.
    compile : bool, default=False
        Whether training runs a network compiled by `torch.compile`, which takes about a
        minute at the first batch.
    warm_start : bool, default=False
        Whether `fit` starts from the weights of the last fit, on its device. Parameters
        that shape the network or its input must be as they were then.
    checkpoint : path-like, default=None
        File in which `fit` and `partial_fit` save their state, or a folder in which each
        fit has a file of its own. After Ctrl-C or the end of its process, the same call on
        the same data resumes from it and ends with the same model. After a fit that was
        done it returns at once, with ``random_state=None`` too. Written at ends of epochs,
        for at most about 1 % of the time, and at the end of the fit, for some 35 ms. Needs
        skops; the only callback whose state it holds is `EarlyStopping`.
    random_state : int, RandomState instance or None, default=None
        Source of the initial weights, the order of the samples, dropout, augmentation
        and split. An int gives the same result on the same machine with the same number
        of threads. torch's and NumPy's global generators are left alone.
    verbose : int, default=0
        0 prints nothing, 1 shows a progress bar.

    Attributes
    ----------
    n_features_in_ : int
        Number of features, where X has two dimensions.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, where X is a table with names that are all strings.
    target_names_ : ndarray of shape (n_columns,)
        Names of the columns of y, where y is a table with names that are all strings.
    input_shape_ : tuple of int
        Shape of one sample.
    net_ : skorch.NeuralNet
        The net that holds the network, its callbacks and its history.
    module_ : torch.nn.Module
        The network, in evaluation mode. It reads what `network_input` gives.
    history_ : list of dict
        One record an epoch: ``epoch``, ``train_loss``, ``train_r2``, ``valid_loss`` and
        ``valid_r2`` where there is a validation set, ``lr`` at the epoch's first step,
        ``seconds``. Losses are those of the standardized y.
    n_epochs_ : int
        Epochs trained.
    best_epoch_ : int or ndarray of shape (n_estimators,)
        Epoch whose weights the network holds: the last, unless `EarlyStopping` or another
        callback put those of an earlier one back.
    n_parameters_ : int
        Trainable values of the network.
    sparsity_ : float
        Share of exact zeros in the kernels.
    n_bytes_ : int
        Bytes of the weights in a saved model.
    batch_size_ : int
        Samples in a step.
    device_ : str
        Where the network is.
    precision_ : str
        "float32" or "bfloat16": arithmetic of the last training.

    See Also
    --------
    WideResNetRegressor : Fewer, wider layers, with the conventions of [3]_.
    ResNetClassifier : The same network for labels.
    sklearn.neural_network.MLPRegressor : Networks without shortcuts or convolutions.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning for Image Recognition,
       2015, arXiv:1512.03385.
    .. [2] K. He, X. Zhang, S. Ren, J. Sun, Identity Mappings in Deep Residual Networks,
       2016, arXiv:1603.05027.
    .. [3] S. Zagoruyko, N. Komodakis, Wide Residual Networks, 2016, arXiv:1605.07146.
    .. [4] G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, Deep Networks with
       Stochastic Depth, 2016, arXiv:1603.09382.
    .. [5] Y. Gorishniy, I. Rubachev, A. Babenko, On Embeddings for Numerical Features in
       Tabular Deep Learning, 2022, arXiv:2203.05556.
    .. [6] D. Holzmüller, L. Grinsztajn, I. Steinwart, Better by Default: Strong Pre-Tuned
       MLPs and Boosted Trees on Tabular Data, 2024, arXiv:2407.04491.
    .. [7] F. Yu, V. Koltun, T. Funkhouser, Dilated Residual Networks, 2017,
       arXiv:1705.09914.

    Examples
    --------
    >>> from sklearn.datasets import make_friedman1
    >>> from sk_resnet import ResNetRegressor
    >>> X, y = make_friedman1(n_samples=200, random_state=0)
    >>> model = ResNetRegressor(depth=4, width=1, max_epochs=30, random_state=0)
    >>> model.fit(X, y).score(X, y) > 0.8
    True
    """

    _family: ClassVar[str] = "resnet_of_numbers"


class WideResNetRegressor(_Regressor):
    """Wide residual network for images, series, volumes and tables that predicts numbers.

    Fewer and wider layers than in a `ResNetRegressor`, norms and activations before the
    convolutions, and dropout between them, as in [3]_: ``depth=28, width=10`` is its
    WRN-28-10. The number of dimensions of X picks the layers: rows pass through linear
    layers, (n, channels, length) through 1-D, (n, channels, height, width) through 2-D,
    and volumes through 3-D convolutions, all in the same residual blocks.

    Training minimises the weighted mean of the `loss` + ``l1``·‖W‖₁ + (``l2``/2)·‖W‖²,
    where W are the kernels of the convolutions and linear layers. Each output of y is
    standardized by the training part, and the loss is the mean over the outputs.

    Parameters
    ----------
    depth : int or "auto", default="auto"
        6n+4 for n blocks in each of three stages, whatever the block; 18, 34, 50, 101 or
        152 in the imagenet layout. Networks for rows have one stage and a depth of 2n+2
        for basic blocks. "auto" is 16.
    width : float or "auto", default="auto"
        Widening factor of the blocks, "auto" is 4. Bottlenecks widen inside only.
    block : {"auto", "basic", "bottleneck"} or tuple of int, default="auto"
        Two 3×3 convolutions; 1×1, 3×3, 1×1 with fourfold output; or kernel sizes such
        as (3, 1, 3). "auto" is "basic".
    order : {"auto", "original", "norm_after_addition", "relu_before_addition", \
"relu_only_preactivation", "full_preactivation"}, default="auto"
        Where norms and activations stand in a block, figure 4 of [2]_. "auto" is
        "full_preactivation". Others may diverge with the `lr` of "auto": take a tenth.
    shortcut : {"projection", "zero_pad", "none"}, default="projection"
        What the shortcut does where the shape changes: a 1×1 convolution (option B of
        [1]_), or subsampling and zeros (option A). "none" drops all shortcuts, which
        gives the plain network that [1]_ compares with.
    layout : {"auto", "small", "dilated", "imagenet"}, default="auto"
        "small" has a 3×3 stem and three stages, the second and third of which halve the
        sides. "dilated" keeps the sides; there the kernels read every second or fourth
        place instead [7]_. It has as many weights, but takes more time and memory.
        "imagenet" has a 7×7 stem with pooling and four stages. "auto" is "imagenet" for
        images and volumes with sides of at least 64 where `depth` is one of its depths,
        and "small" for everything else.
    embedding : {"auto", "periodic", "piecewise_linear"} or None, default="auto"
        What the network reads beside each number of a row, after `scale`: nothing, 8
        cosines of it, whose frequencies are learned, or its place in each of 16 bins
        between quantiles of the training samples [5]_. Bins help where y jumps at some
        values of a feature and there are thousands of rows; with a few hundred they fit
        noise. For rows only. "auto" is "periodic" in `ResNetRegressor` and None in the
        others.
    dropout : float, default=0.0
        Probability, in [0, 1), of dropping a value before the last convolution of a
        branch.
    stochastic_depth : float, default=0.0
        Probability, in [0, 1), with which the last block's branch is dropped for a
        sample in training; that of the others grows linearly up to it [4]_.
    n_estimators : int or "auto", default="auto"
        Networks of an ensemble, each with initial weights, order of samples and dropout
        of its own. They train as one, which takes far less time than one after the
        other where the networks are small. "auto" is 1.
    l1 : float, default=0.0
        Strength of the L1 penalty on the kernels. A proximal step after each step of
        the optimizer makes weights exactly zero.
    l1_structure : {"weight", "channel"}, default="weight"
        What `l1` empties: single weights, or whole channels inside the blocks, which
        `compact` then cuts out. For "channel" the penalty is Σ √m·‖w‖₂ over the m
        weights w that read one channel between two convolutions of a block; other
        kernels are free of it.
    finetune_epochs : int, default=0
        Epochs after `max_epochs` without the L1 penalty, in which zeros stay zero and
        `schedule` starts anew. They undo the shrinking of the other weights.
    l2 : float or "auto", default="auto"
        Strength of the L2 penalty on the kernels. "adamw" decays them by lr·l2 instead.
        "auto" is 0.1 for rows and 5e-4, as in [3]_, for everything else.
    l2_on : {"kernels", "all"}, default="kernels"
        Whether `l2` acts on the kernels alone, or on batch norms and biases too, as in
        [3]_.
    loss : {"squared_error", "absolute_error", "huber", "quantile"}, \
default="squared_error"
        Loss of a standardized number: half the squared error, the absolute error, both in
        one with a change at 1, or the pinball loss of `quantile`.
    quantile : float, default=0.5
        Quantile, in (0, 1), that ``loss="quantile"`` predicts.
    augment : str or list of str, default=None
        Random changes of the training samples, in this order: "crop" (shifts of up to 4
        pixels over a reflected border, fewer on small samples), "flip" (of the last
        axis), "random_erasing", "cutout", "scaling"; "shift" and "window" for series;
        "jitter", also for rows; "mixup" and "cutmix", which mix y too.
    test_time_augmentation : str or list of str, default=None
        What predictions see of images and volumes beside the samples as they are; they
        average over all views: "crop" (shifts by one pixel along each axis and back: 5
        views of an image), "flip" (of the last axis: 2 views), or both (10). A prediction
        takes as many times longer. Use what the network was trained with (`augment`): other
        views can make predictions worse, shifts those of small images above all. `embed`,
        the temperature of classifiers and the scores during training use the samples as
        they are.
    optimizer : {"sgd", "heavy_ball", "adamw"}, default="sgd"
        SGD with Nesterov momentum, with the plain momentum of [1]_, or AdamW.
    lr : float or "auto", default="auto"
        Largest learning rate; "auto" is 0.0006 for "adamw" and 0.03 for the others.
    momentum : float, default=0.9
        Momentum of SGD, or the first decay rate of AdamW, in [0, 1).
    schedule : {"one_cycle", "cosine", "resnet_steps", "wide_steps", "constant"}, \
default="one_cycle"
        Course of the learning rate over `max_epochs`. The steps are those of [1]_
        (÷10 at 50 and 75 %) and [3]_ (×0.2 at 30, 60 and 80 %). A ``LRScheduler`` of
        skorch among the `callbacks` takes its place.
    max_epochs : int or "auto", default="auto"
        Passes over the training data. "auto" is 30, and more, up to 200, where those
        would make fewer than 500 steps: on fewer than about 1,000 samples.
    max_seconds : float, default=None
        Seconds after which `fit` stops training at the end of an epoch, before the
        learning rate has come down. None sets no limit. With a `checkpoint`, the same fit
        with a larger one goes on from there.
    batch_size : int or "auto", default="auto"
        Samples in a step, at least 2; "auto" takes 8 to 128, a power of two: about a
        quarter of up to 128 samples, then 32, and a sixteenth of more than 512.
    input_shape : tuple of int, default=None
        Shape of one sample, such as (1, 28, 28), into which rows are folded. None takes
        that of X.
    channel_axis : {"auto", 1, -1, None}, default="auto"
        Axis of the channels in X: 1 for (n, channels, ...), -1 for (n, ..., channels),
        None for samples of one channel without an axis for it, such as grey images
        (n, height, width). "auto" is -1 where the last axis has 1, 3 or 4 places beside
        larger sides of an image or volume, else 1; it warns of shapes that can be read
        in two ways.
    scale : {"standard", "robust"} or None, default="standard"
        How each channel (each feature of a row) is shifted and scaled, by statistics of the
        training part: "standard" to mean 0 and deviation 1; "robust" by its median and the
        distance of its quartiles, and then squashed smoothly into (-3, 3), for features
        with a few values that lie far out (section 3 of [6]_). None is
        for values of about size 1 around 0: networks hardly learn from others, and numbers
        that are far from 0 for their spread lose their places in the bins of `embedding`.
    validation_split : "auto", float, splitter, list of a pair of index arrays, or None, \
default="auto"
        Part of the training data that is held out to validate on. "auto" and None hold
        nothing out, unless a callback monitors or scores validation and X_val is not given:
        then 0.1. A fraction is drawn at random, or by `groups`. With a splitter each
        network of an ensemble gets another split, one network the first.
    callbacks : list of skorch callbacks or of (str, callback) pairs, default=None
        Such as `EarlyStopping`. Copies of them take part in the fit. Those with hooks for
        batches make it slower. Parameters of a named one are set, and searched, as
        ``callbacks__name__parameter``. A class or a function that makes a callback may
        stand for it, which clones and searches need where it holds a lock or a writer.
    device : str or torch.device, default="auto"
        "auto" is a GPU of CUDA where there is one, else the CPU. Worker processes of
        joblib, dask or torchrun take the GPUs in turn.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of the convolutions. "auto" trains in bfloat16 where that is fast, on
        GPUs and on processors with AVX512-BF16 or AMX, and predicts in float32. A GPU
        convolves float32 in TF32, and predicts as a CPU to about three digits, unless
        ``torch.backends.cudnn.allow_tf32 = False`` says otherwise.
        Volumes, and samples that the network shrinks to one place, train in float32 on
        the CPU, where torch's gradients in bfloat16 are wrong for them.
    compile : bool, default=False
        Whether training runs a network compiled by `torch.compile`, which takes about a
        minute at the first batch.
    warm_start : bool, default=False
        Whether `fit` starts from the weights of the last fit, on its device. Parameters
        that shape the network or its input must be as they were then.
    checkpoint : path-like, default=None
        File in which `fit` and `partial_fit` save their state, or a folder in which each
        fit has a file of its own. After Ctrl-C or the end of its process, the same call on
        the same data resumes from it and ends with the same model. After a fit that was
        done it returns at once, with ``random_state=None`` too. Written at ends of epochs,
        for at most about 1 % of the time, and at the end of the fit, for some 35 ms. Needs
        skops; the only callback whose state it holds is `EarlyStopping`.
    random_state : int, RandomState instance or None, default=None
        Source of the initial weights, the order of the samples, dropout, augmentation
        and split. An int gives the same result on the same machine with the same number
        of threads. torch's and NumPy's global generators are left alone.
    verbose : int, default=0
        0 prints nothing, 1 shows a progress bar.

    Attributes
    ----------
    n_features_in_ : int
        Number of features, where X has two dimensions.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, where X is a table with names that are all strings.
    target_names_ : ndarray of shape (n_columns,)
        Names of the columns of y, where y is a table with names that are all strings.
    input_shape_ : tuple of int
        Shape of one sample.
    net_ : skorch.NeuralNet
        The net that holds the network, its callbacks and its history.
    module_ : torch.nn.Module
        The network, in evaluation mode. It reads what `network_input` gives.
    history_ : list of dict
        One record an epoch: ``epoch``, ``train_loss``, ``train_r2``, ``valid_loss`` and
        ``valid_r2`` where there is a validation set, ``lr`` at the epoch's first step,
        ``seconds``. Losses are those of the standardized y.
    n_epochs_ : int
        Epochs trained.
    best_epoch_ : int or ndarray of shape (n_estimators,)
        Epoch whose weights the network holds: the last, unless `EarlyStopping` or another
        callback put those of an earlier one back.
    n_parameters_ : int
        Trainable values of the network.
    sparsity_ : float
        Share of exact zeros in the kernels.
    n_bytes_ : int
        Bytes of the weights in a saved model.
    batch_size_ : int
        Samples in a step.
    device_ : str
        Where the network is.
    precision_ : str
        "float32" or "bfloat16": arithmetic of the last training.

    See Also
    --------
    ResNetRegressor : Deeper, thinner layers, with the conventions of [1]_.
    WideResNetClassifier : The same network for labels.
    sklearn.neural_network.MLPRegressor : Networks without shortcuts or convolutions.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning for Image Recognition,
       2015, arXiv:1512.03385.
    .. [2] K. He, X. Zhang, S. Ren, J. Sun, Identity Mappings in Deep Residual Networks,
       2016, arXiv:1603.05027.
    .. [3] S. Zagoruyko, N. Komodakis, Wide Residual Networks, 2016, arXiv:1605.07146.
    .. [4] G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, Deep Networks with
       Stochastic Depth, 2016, arXiv:1603.09382.
    .. [5] Y. Gorishniy, I. Rubachev, A. Babenko, On Embeddings for Numerical Features in
       Tabular Deep Learning, 2022, arXiv:2203.05556.
    .. [6] D. Holzmüller, L. Grinsztajn, I. Steinwart, Better by Default: Strong Pre-Tuned
       MLPs and Boosted Trees on Tabular Data, 2024, arXiv:2407.04491.
    .. [7] F. Yu, V. Koltun, T. Funkhouser, Dilated Residual Networks, 2017,
       arXiv:1705.09914.

    Examples
    --------
    >>> from sklearn.datasets import make_friedman1
    >>> from sk_resnet import WideResNetRegressor
    >>> X, y = make_friedman1(n_samples=200, random_state=0)
    >>> model = WideResNetRegressor(depth=4, width=1, max_epochs=30, random_state=0)
    >>> model.fit(X, y).score(X, y) > 0.8
    True
    """

    _family: ClassVar[str] = "wide_of_numbers"
