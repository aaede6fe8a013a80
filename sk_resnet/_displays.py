"""Pictures of fitted estimators, made like scikit-learn's Displays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from sk_resnet._network import kernels
from sk_resnet._summary import network_rows


def _axes(ax: Any, n: int = 1, **kwargs: Any) -> Any:
    """Given axes, or new ones: one, or an array of n."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError(
            "Displays need matplotlib: pip install 'sk-resnet[plot]'."
        ) from None
    if ax is None:
        return plt.subplots(1, n, layout="constrained", **kwargs)[1]
    given = np.ravel(ax)
    if len(given) != n:
        raise ValueError(f"ax must hold {n} axes, got {len(given)}.")
    return given if n > 1 else given[0]


def _whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _logarithmic(axes: Any, which: str = "y") -> None:
    """Logarithmic values where they span more than a factor of 3, written in full."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    limits = axes.dataLim
    low, high = getattr(limits, f"minpos{which}"), getattr(limits, f"{which}1")
    if not low * 3 < high < np.inf:
        return
    axes.set(**{f"{which}scale": "log"})
    axis = axes.yaxis if which == "y" else axes.xaxis
    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


class TrainingCurveDisplay:
    """Loss, accuracy and learning rate over the epochs.

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
        After `plot`: loss, accuracy and learning rate.
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
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> "TrainingCurveDisplay":
        """Draw the history of a fitted estimator.

        Parameters
        ----------
        estimator : ResNetClassifier or WideResNetClassifier
            Fitted.
        ax : array of 3 matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : TrainingCurveDisplay
            Drawn.
        """
        check_is_fitted(estimator)
        stopped = [
            getattr(callback, "stopped_epoch_", None)
            for _, callback in getattr(estimator.net_, "callbacks_", [])
        ]
        validated = any("valid_loss" in row for row in estimator.history_)
        display = cls(
            estimator.history_,
            best_epoch=estimator.best_epoch_ if validated else None,
            stopped_epoch=next((epoch for epoch in stopped if epoch), None),
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: Any = None) -> "TrainingCurveDisplay":
        """Draw the curves.

        Parameters
        ----------
        ax : array of 3 matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : TrainingCurveDisplay
            Itself.
        """
        if not self.history:
            raise ValueError("history must hold at least one epoch, got none.")
        self.axes_ = _axes(ax, 3, figsize=(10, 3))
        self.figure_ = self.axes_[0].figure
        epochs = [row["epoch"] for row in self.history]
        for axes, name in zip(self.axes_, ("loss", "accuracy"), strict=False):
            for part, label in (("train", "training"), ("valid", "validation")):
                values = [row.get(f"{part}_{name}", np.nan) for row in self.history]
                if not np.isnan(values).all():
                    axes.plot(epochs, values, label=label, marker=_marker(epochs))
            axes.set(xlabel="epoch", ylabel=name)
        _logarithmic(self.axes_[0])
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
            _whole_numbers(axes.xaxis)
        self.axes_[0].legend()
        return self


def _marker(epochs: Sequence[int]) -> str | None:
    return "o" if len(epochs) < 3 else None


class WeightDisplay:
    """Distribution of the kernels by stage, with the share of exact zeros.

    Parameters
    ----------
    weights : dict of str to ndarray
        Values of the kernels of each stage.
    label : str, default=None
        Name of the model in the legend.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        After `plot`, one for each stage.
    figure_ : matplotlib Figure
        After `plot`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import ResNetClassifier
    >>> from sk_resnet.inspection import WeightDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ResNetClassifier(depth=4, max_epochs=5, l1=0.01).fit(X, y)
    >>> display = WeightDisplay.from_estimator(model)
    >>> list(display.weights)
    ['stem', 'stages.0', 'classifier']
    """

    def __init__(
        self, weights: dict[str, NDArray[np.float32]], *, label: str | None = None
    ) -> None:
        self.weights = weights
        self.label = label

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, ax: Any = None, label: str | None = None
    ) -> "WeightDisplay":
        """Draw the kernels of a fitted estimator.

        Parameters
        ----------
        estimator : ResNetClassifier or WideResNetClassifier
            Fitted.
        ax : array of matplotlib Axes, default=None
            Where to draw: ``axes_`` of another display compares two estimators. None
            makes a new figure.
        label : str, default=None
            Name of the model in the legend.

        Returns
        -------
        display : WeightDisplay
            Drawn.
        """
        check_is_fitted(estimator)
        parts: dict[str, list[NDArray[np.float32]]] = {}
        for name, w in kernels(estimator.module_).items():
            stage = ".".join(name.split(".")[: 2 if name.startswith("stages") else 1])
            parts.setdefault(stage, []).append(w.detach().cpu().numpy().ravel())
        weights = {stage: np.concatenate(values) for stage, values in parts.items()}
        return cls(weights, label=label).plot(ax=ax)

    def plot(self, *, ax: Any = None, bins: int = 51) -> "WeightDisplay":
        """Draw a histogram for each stage, on a logarithmic axis.

        Parameters
        ----------
        ax : array of matplotlib Axes, default=None
            One for each stage; None makes a new figure.
        bins : int, default=51
            Bars between the lowest and the highest value.

        Returns
        -------
        display : WeightDisplay
            Itself.
        """
        n = len(self.weights)
        self.axes_ = np.ravel(_axes(ax, n, figsize=(2.4 * n, 3), sharey=True))
        self.figure_ = self.axes_[0].figure
        for axes, (stage, w) in zip(self.axes_, self.weights.items(), strict=True):
            zeros = float((w == 0).mean())
            label = f"{self.label}: " if self.label else ""
            limit = float(np.abs(w).max()) or 1.0
            axes.hist(
                w,
                bins=np.linspace(-limit, limit, bins),
                weights=np.full(len(w), 1 / len(w)),
                alpha=0.6,
                label=f"{label}{zeros:.0%} zeros",
            )
            axes.set(title=stage, xlabel="weight", yscale="log")
            axes.legend(fontsize="small", loc="upper center")
        # From one weight to all, and room for the legend above the peak at zero.
        self.axes_[0].set_ylim(0.5 / max(map(len, self.weights.values())), 10)
        self.axes_[0].set_ylabel("share of the weights")
        return self


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
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> "GradientFlowDisplay":
        """Draw what `GradientFlow` recorded in the fit.

        Parameters
        ----------
        estimator : ResNetClassifier or WideResNetClassifier
            Fitted with ``callbacks=[GradientFlow()]``.
        ax : array of 2 matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : GradientFlowDisplay
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

    def plot(self, *, ax: Any = None) -> "GradientFlowDisplay":
        """Draw up to six epochs, from the first (dark) to the last (light).

        Dotted lines part the stages.

        Parameters
        ----------
        ax : array of 2 matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : GradientFlowDisplay
            Itself.
        """
        self.axes_ = _axes(ax, 2, figsize=(10, 3.4))
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
            _logarithmic(axes)
            _whole_numbers(axes.xaxis)
        self.axes_[1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return self


def _stage_starts(names: Sequence[str]) -> list[int]:
    """Places at which the stage changes, from that of the name before."""
    stages = [name.split(".")[:2] if name.startswith("stages") else [] for name in names]
    return [i for i in range(1, len(names)) if stages[i] != stages[i - 1]]


class RegularizationPathDisplay:
    """Accuracy, zeros and bytes over the strength of the L1 penalty.

    Parameters
    ----------
    l1s : array-like of shape (n_l1s,)
        Strengths.
    accuracies : array-like of shape (n_l1s,)
        Accuracies on the validation set.
    sparsities : array-like of shape (n_l1s,)
        Shares of zeros.
    n_bytes : array-like of shape (n_l1s,)
        Bytes of the stored weights.

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
    ...     accuracies=[0.9, 0.8],
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
        accuracies: ArrayLike,
        sparsities: ArrayLike,
        n_bytes: ArrayLike,
    ) -> None:
        self.l1s = np.asarray(l1s)
        self.accuracies = np.asarray(accuracies)
        self.sparsities = np.asarray(sparsities)
        self.n_bytes = np.asarray(n_bytes)

    @classmethod
    def from_path(cls, path: Any, *, ax: Any = None) -> "RegularizationPathDisplay":
        """Draw the result of `regularization_path`.

        Parameters
        ----------
        path : RegularizationPath
            Models along a path.
        ax : array of 2 matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : RegularizationPathDisplay
            Drawn.
        """
        display = cls(
            l1s=path.l1s,
            accuracies=path.accuracies,
            sparsities=path.sparsities,
            n_bytes=path.n_bytes,
        )
        return display.plot(ax=ax)

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any, l1s: Sequence[float], *, ax: Any = None
    ) -> "RegularizationPathDisplay":
        """Fit the models of a path, and draw it.

        Parameters
        ----------
        estimator : ResNetClassifier or WideResNetClassifier
            Parameters of the models.
        X : array-like of shape (n_samples, ...)
            Samples, a fifth of which measures the accuracy.
        y : array-like of shape (n_samples,)
            Labels.
        l1s : sequence of float
            Strengths.
        ax : array of 2 matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : RegularizationPathDisplay
            Drawn.
        """
        from sk_resnet._path import regularization_path

        return cls.from_path(regularization_path(estimator, X, y, l1s), ax=ax)

    def plot(self, *, ax: Any = None) -> "RegularizationPathDisplay":
        """Draw accuracy and zeros over l1, and accuracy over bytes.

        Parameters
        ----------
        ax : array of 2 matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : RegularizationPathDisplay
            Itself.
        """
        self.axes_ = _axes(ax, 2, figsize=(9, 3.4))
        self.figure_ = self.axes_[0].figure
        order = np.argsort(self.l1s)
        for values, label in ((self.accuracies, "accuracy"), (self.sparsities, "zeros")):
            self.axes_[0].plot(self.l1s[order], values[order], marker="o", label=label)
        scale = "log" if (self.l1s > 0).all() else "symlog"
        if scale == "symlog":
            least = self.l1s[self.l1s > 0].min(initial=1.0)
            self.axes_[0].set_xscale("symlog", linthresh=least)
        else:
            self.axes_[0].set_xscale("log")
        self.axes_[0].set(xlabel="l1", ylabel="share", ylim=(0, 1.02))
        self.axes_[0].legend()
        self.axes_[1].plot(self.n_bytes[order] / 1e3, self.accuracies[order], marker="o")
        self.axes_[1].set(xlabel="stored weights (kB)", ylabel="accuracy")
        _logarithmic(self.axes_[1], "x")
        return self


class NetworkDisplay:
    """Blocks of a network as bars: height for channels, colour for the stage.

    Parameters
    ----------
    names : list of str
        Parts, from the stem to the classifier.
    shapes : list of tuple
        Shapes of their outputs, ``(channels, *spatial)``.
    parameters : array-like of shape (n_parts,)
        Their numbers of parameters.

    Attributes
    ----------
    ax_ : matplotlib Axes
        After `plot`.
    figure_ : matplotlib Figure
        After `plot`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import ResNetClassifier
    >>> from sk_resnet.inspection import NetworkDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ResNetClassifier(depth=4, max_epochs=1).fit(X, y)
    >>> NetworkDisplay.from_estimator(model).names
    ['stem', 'stages.0.0', 'classifier']
    """

    def __init__(
        self,
        *,
        names: Sequence[str],
        shapes: Sequence[tuple[int, ...]],
        parameters: ArrayLike,
    ) -> None:
        self.names = names
        self.shapes = shapes
        self.parameters = np.asarray(parameters)

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> "NetworkDisplay":
        """Draw the network of a fitted estimator.

        Parameters
        ----------
        estimator : ResNetClassifier or WideResNetClassifier
            Fitted.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : NetworkDisplay
            Drawn.
        """
        check_is_fitted(estimator)
        spatial = estimator.net_.input_spec.network_shape[1:]
        rows = network_rows(estimator.module_, spatial)
        display = cls(
            names=[row.name for row in rows],
            shapes=[row.shape for row in rows],
            parameters=[row.parameters for row in rows],
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: Any = None) -> "NetworkDisplay":
        """Draw the parts from left to right.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : NetworkDisplay
            Itself.
        """
        self.ax_ = _axes(ax, figsize=(9, 3.4))
        self.figure_ = self.ax_.figure
        stages = [name.rpartition(".")[0] or name for name in self.names]
        order = list(dict.fromkeys(stages))
        channels = np.array([shape[0] for shape in self.shapes])
        for i, stage in enumerate(order):
            places = [j for j, s in enumerate(stages) if s == stage]
            n = int(self.parameters[places].sum())
            at = np.array(places) + 1
            self.ax_.bar(at, channels[places], width=0.85, color=f"C{i % 10}")
            shape = " × ".join(map(str, self.shapes[places[-1]]))
            n_blocks = f"{len(places)} block{'s' * (len(places) > 1)}"
            blocks = f", {n_blocks}" if stage.startswith("stages") else ""
            self.ax_.plot(
                [], [], "s", color=f"C{i % 10}",
                label=f"{stage}{blocks}: {shape}, {n:,} parameters",
            )  # fmt: skip
        self.ax_.set(
            xlabel="part, from the input on",
            ylabel="channels",
            title=f"{int(self.parameters.sum()):,} parameters",
        )
        _whole_numbers(self.ax_.xaxis)
        self.ax_.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return self
