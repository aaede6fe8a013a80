"""Displays of trainings: curves over the epochs, the depth and the strength of l1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from sk_resnet._base import BaseResNet
from sk_resnet.inspection._displays import drawing_axes, logarithmic, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sk_resnet._net import ResidualNet
    from sk_resnet._path import RegularizationPath
    from sk_resnet.inspection._displays import SeveralAxes

# R² has no lower bound: one bad epoch, or model, would flatten all others.
LOWEST_SHOWN = -1.0


def _stopped_epoch(net: ResidualNet) -> int:
    """Epoch at which a callback stopped a training; 0 if none did."""
    callbacks = getattr(net, "callbacks_", [])
    epochs = [getattr(callback, "stopped_epoch_", None) for _, callback in callbacks]
    return next((epoch for epoch in epochs if epoch), 0)


class TrainingCurveDisplay:
    """Loss, score and learning rate over the epochs.

    The score is the accuracy of a classifier, and R² of a regressor.

    Parameters
    ----------
    history : list of dict
        As ``history_`` of a fitted estimator.
    best_epoch : int, default=None
        Epoch whose weights are kept, marked by a line.
    stopped_epoch : int, default=None
        Epoch in which training was stopped early, marked by a line.

    Attributes
    ----------
    axes_ : ndarray of shape (3,) of matplotlib Axes
        After `plot`: loss, score and learning rate.
    figure_ : matplotlib Figure
        After `plot`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import EarlyStopping, ResNetClassifier
    >>> from sk_resnet.inspection import TrainingCurveDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ResNetClassifier(depth=4, max_epochs=5, callbacks=[EarlyStopping()])
    >>> display = TrainingCurveDisplay.from_estimator(model.fit(X, y))
    >>> len(display.axes_)
    3
    """

    def __init__(
        self,
        history: Sequence[dict[str, Any]],
        *,
        best_epoch: int | None = None,
        stopped_epoch: int | None = None,
    ) -> None:
        self.history = history
        self.best_epoch = best_epoch
        self.stopped_epoch = stopped_epoch

    @classmethod
    def from_estimator(
        cls, estimator: BaseResNet, *, ax: SeveralAxes | None = None
    ) -> TrainingCurveDisplay:
        """Draw the history of a fitted estimator.

        Parameters
        ----------
        estimator : ResNetClassifier, ResNetRegressor or a wide one
            Fitted.
        ax : array of 3 matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        TrainingCurveDisplay
            Drawn.
        """
        check_is_fitted(estimator)
        stopped = [_stopped_epoch(net) for net in estimator.nets_]
        validated = any("valid_loss" in row for row in estimator.history_)
        best = estimator.best_epoch_  # of each member, where there are several
        display = cls(
            estimator.history_,
            best_epoch=best if validated and isinstance(best, int) else None,
            # Of an ensemble, where its last member stopped.
            stopped_epoch=max(stopped) if all(stopped) else None,
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: SeveralAxes | None = None) -> TrainingCurveDisplay:
        """Draw the curves.

        Parameters
        ----------
        ax : array of 3 matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        TrainingCurveDisplay
            Itself.
        """
        if not self.history:
            raise ValueError("history must hold at least one epoch, got none.")
        self.axes_ = drawing_axes(ax, 3, figsize=(10, 3))
        self.figure_ = self.axes_[0].figure
        epochs = [row["epoch"] for row in self.history]
        score_name = _score_name(self.history)
        for axes, name in zip(self.axes_, ("loss", score_name), strict=False):
            for part, label in (("train", "training"), ("valid", "validation")):
                values = [row.get(f"{part}_{name}", np.nan) for row in self.history]
                if not np.isnan(values).all():
                    axes.plot(epochs, values, label=label, marker=_marker(epochs))
            axes.set(xlabel="epoch", ylabel=name)
        logarithmic(self.axes_[0])
        _score_limits(self.axes_[1])
        self.axes_[2].plot(
            epochs, [row["lr"] for row in self.history], marker=_marker(epochs), color="C2"
        )
        self.axes_[2].set(xlabel="epoch", ylabel="learning rate at its start")
        for epoch, label, style in (
            (self.best_epoch, "best", "--"),
            (self.stopped_epoch, "stopped", ":"),
        ):
            if epoch:
                for i, axes in enumerate(self.axes_):
                    text = label if i == 0 else None
                    axes.axvline(epoch, color="gray", linestyle=style, label=text)
        for axes in self.axes_:
            whole_numbers(axes.xaxis)
        self.axes_[0].legend()
        return self


def _score_name(history: Sequence[dict[str, Any]]) -> str:
    """Name of the first column of the training part beside the loss."""
    columns = [name for name in history[0] if name.startswith("train_")]
    scores = [name.removeprefix("train_") for name in columns if name != "train_loss"]
    return scores[0] if scores else "score"


def _score_limits(axes: Axes) -> None:
    """Let a score below LOWEST_SHOWN leave the axes where others are above."""
    lowest, highest = axes.dataLim.intervaly
    if lowest < LOWEST_SHOWN < highest:
        axes.set_ylim(bottom=LOWEST_SHOWN)


def _marker(epochs: Sequence[int]) -> str | None:
    return "o" if len(epochs) < 3 else None


class GradientFlowDisplay:
    """Norms of the gradients and of the activations over the depth, by epoch.

    Parameters
    ----------
    epochs : array-like of shape (n_epochs,)
        Epochs.
    layers : list of str
        Names of the kernels.
    gradient_norms : array-like of shape (n_epochs, n_layers)
        Norms of their gradients.
    blocks : list of str
        Names of the stem and the blocks.
    activation_norms : array-like of shape (n_epochs, n_blocks)
        Root mean squares of their outputs.

    Attributes
    ----------
    axes_ : ndarray of shape (2,) of matplotlib Axes
        After `plot`.
    figure_ : matplotlib Figure
        After `plot`.

    See Also
    --------
    GradientFlow : Records the norms.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import ResNetClassifier
    >>> from sk_resnet.inspection import GradientFlow, GradientFlowDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> flow = GradientFlow(every=1)
    >>> model = ResNetClassifier(depth=8, max_epochs=3, callbacks=[flow])
    >>> display = GradientFlowDisplay.from_estimator(model.fit(X, y))
    >>> display.gradient_norms.shape
    (3, 8)
    """

    def __init__(
        self,
        *,
        epochs: ArrayLike,
        layers: Sequence[str],
        gradient_norms: ArrayLike,
        blocks: Sequence[str],
        activation_norms: ArrayLike,
    ) -> None:
        self.epochs = np.asarray(epochs)
        self.layers = layers
        self.gradient_norms = np.asarray(gradient_norms)
        self.blocks = blocks
        self.activation_norms = np.asarray(activation_norms)

    @classmethod
    def from_estimator(
        cls, estimator: BaseResNet, *, ax: SeveralAxes | None = None
    ) -> GradientFlowDisplay:
        """Draw what `GradientFlow` recorded in the fit.

        Parameters
        ----------
        estimator : ResNetClassifier, ResNetRegressor or a wide one
            Fitted with ``callbacks=[GradientFlow()]``.
        ax : array of 2 matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        GradientFlowDisplay
            Drawn.
        """
        check_is_fitted(estimator)
        rows = [row for row in estimator.history_ if "gradient_norms" in row]
        if not rows:
            raise ValueError(
                "The history holds no gradients: fit with callbacks=[GradientFlow()]."
            )
        layers, blocks = list(rows[0]["gradient_norms"]), list(rows[0]["activation_norms"])
        display = cls(
            epochs=[row["epoch"] for row in rows],
            layers=layers,
            gradient_norms=[[row["gradient_norms"][n] for n in layers] for row in rows],
            blocks=blocks,
            activation_norms=[[row["activation_norms"][n] for n in blocks] for row in rows],
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: SeveralAxes | None = None) -> GradientFlowDisplay:
        """Draw up to six epochs, from the first (dark) to the last (light).

        Dotted lines part the stages.

        Parameters
        ----------
        ax : array of 2 matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        GradientFlowDisplay
            Itself.
        """
        self.axes_ = drawing_axes(ax, 2, figsize=(10, 3.4))
        self.figure_ = self.axes_[0].figure
        from matplotlib import colormaps

        shown = np.unique(np.linspace(0, len(self.epochs) - 1, 6).astype(int))
        colours = colormaps["viridis"](np.linspace(0, 0.9, len(shown)))
        for axes, values, names, what, title in (
            (self.axes_[0], self.gradient_norms, self.layers, "kernel", "gradients: norm"),
            (
                self.axes_[1],
                self.activation_norms,
                self.blocks,
                "block",
                "activations: root mean square",
            ),
        ):
            places = np.arange(1, values.shape[1] + 1)
            for i, colour in zip(shown, colours, strict=True):
                label = f"epoch {self.epochs[i]}"
                marker = "o" if len(places) < 40 else None
                axes.plot(places, values[i], color=colour, label=label, marker=marker, ms=3)
            for place in _stage_starts(names):
                axes.axvline(place + 0.5, color="gray", linestyle=":", linewidth=0.8)
            axes.set(xlabel=f"{what}, from input to output", title=title)
            logarithmic(axes)
            whole_numbers(axes.xaxis)
        self.axes_[1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return self


def _stage_starts(names: Sequence[str]) -> list[int]:
    """Places at which the stage changes, from that of the name before."""
    stages = [name.split(".")[:2] if name.startswith("stages") else [] for name in names]
    return [i for i in range(1, len(names)) if stages[i] != stages[i - 1]]


class RegularizationPathDisplay:
    """Score, zeros and bytes over the strength of the L1 penalty.

    Parameters
    ----------
    l1s : array-like of shape (n_l1s,)
        Strengths.
    scores : array-like of shape (n_l1s,)
        Accuracies, or R², on the validation set.
    sparsities : array-like of shape (n_l1s,)
        Shares of zeros.
    n_bytes : array-like of shape (n_l1s,)
        Bytes of the stored weights.
    score_name : str, default="score"
        What `scores` are, such as "accuracy".

    Attributes
    ----------
    axes_ : ndarray of shape (2,) of matplotlib Axes
        After `plot`.
    figure_ : matplotlib Figure
        After `plot`.

    See Also
    --------
    sk_resnet.regularization_path : Fits the models.

    Examples
    --------
    >>> from sk_resnet.inspection import RegularizationPathDisplay
    >>> display = RegularizationPathDisplay(
    ...     l1s=[1e-4, 1e-3],
    ...     scores=[0.9, 0.8],
    ...     sparsities=[0.3, 0.9],
    ...     n_bytes=[9e5, 2e5],
    ... )
    >>> len(display.plot().axes_)
    2
    """

    def __init__(
        self,
        *,
        l1s: ArrayLike,
        scores: ArrayLike,
        sparsities: ArrayLike,
        n_bytes: ArrayLike,
        score_name: str = "score",
    ) -> None:
        self.l1s = np.asarray(l1s)
        self.scores = np.asarray(scores)
        self.sparsities = np.asarray(sparsities)
        self.n_bytes = np.asarray(n_bytes)
        self.score_name = score_name

    @classmethod
    def from_path(
        cls, path: RegularizationPath, *, ax: SeveralAxes | None = None
    ) -> RegularizationPathDisplay:
        """Draw the result of `regularization_path`.

        Parameters
        ----------
        path : RegularizationPath
            Models along a path.
        ax : array of 2 matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        RegularizationPathDisplay
            Drawn.
        """
        display = cls(
            l1s=path.l1s,
            scores=path.scores,
            sparsities=path.sparsities,
            n_bytes=path.n_bytes,
            score_name=path.estimators[0].net_.target.score_name,
        )
        return display.plot(ax=ax)

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseResNet,
        X: Any,
        y: Any,
        l1s: Sequence[float],
        *,
        ax: SeveralAxes | None = None,
    ) -> RegularizationPathDisplay:
        """Fit the models of a path, and draw it.

        Parameters
        ----------
        estimator : ResNetClassifier, ResNetRegressor or a wide one
            Parameters of the models.
        X : array-like of shape (n_samples, ...)
            Samples, a fifth of which measures the score.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Their labels or numbers.
        l1s : sequence of float
            Strengths.
        ax : array of 2 matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        RegularizationPathDisplay
            Drawn.
        """
        from sk_resnet._path import regularization_path

        return cls.from_path(regularization_path(estimator, X, y, l1s), ax=ax)

    def plot(self, *, ax: SeveralAxes | None = None) -> RegularizationPathDisplay:
        """Draw score and zeros over l1, and the score over bytes.

        Parameters
        ----------
        ax : array of 2 matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        RegularizationPathDisplay
            Itself.
        """
        self.axes_ = drawing_axes(ax, 2, figsize=(9, 3.4))
        self.figure_ = self.axes_[0].figure
        order = np.argsort(self.l1s)
        for values, label in ((self.scores, self.score_name), (self.sparsities, "zeros")):
            self.axes_[0].plot(self.l1s[order], values[order], marker="o", label=label)
        scale = "log" if (self.l1s > 0).all() else "symlog"
        if scale == "symlog":
            least = self.l1s[self.l1s > 0].min(initial=1.0)
            self.axes_[0].set_xscale("symlog", linthresh=least)
        else:
            self.axes_[0].set_xscale("log")
        lowest = min(0.0, float(self.scores.min()))
        self.axes_[0].set_ylim(max(lowest, LOWEST_SHOWN) * 1.02, 1.02)
        self.axes_[0].set(xlabel="l1", ylabel=f"{self.score_name}, and share of zeros")
        self.axes_[0].legend()
        self.axes_[1].plot(self.n_bytes[order] / 1e3, self.scores[order], marker="o")
        self.axes_[1].set(xlabel="stored weights (kB)", ylabel=self.score_name)
        _score_limits(self.axes_[1])
        logarithmic(self.axes_[1], "x")
        return self
