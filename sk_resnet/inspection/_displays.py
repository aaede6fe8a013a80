"""Displays of a network, made like scikit-learn's, and the axes that all displays use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from sk_resnet._base import BaseResNet
from sk_resnet._network import kernels
from sk_resnet.inspection._summary import network_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

    SeveralAxes: TypeAlias = Sequence[Axes] | NDArray[np.object_]


def drawing_axes(
    ax: Axes | SeveralAxes | None, n: int = 1, *, n_rows: int = 1, **kwargs: Any
) -> Any:
    """Given axes, or new ones in rows: one, or a flat array of n."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError(
            "Displays need matplotlib: pip install 'sk-resnet[plot]'."
        ) from None
    if ax is None:
        made = plt.subplots(n_rows, n // n_rows, layout="constrained", **kwargs)[1]
        return np.ravel(made) if n > 1 else made
    given = np.ravel(np.asarray(ax))
    if len(given) != n:
        raise ValueError(f"ax must hold {n} axes, got {len(given)}.")
    return given if n > 1 else given[0]


def whole_numbers(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def logarithmic(axes: Axes, which: str = "y") -> None:
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
        cls,
        estimator: BaseResNet,
        *,
        ax: SeveralAxes | None = None,
        label: str | None = None,
    ) -> WeightDisplay:
        """Draw the kernels of a fitted estimator.

        Parameters
        ----------
        estimator : ResNetClassifier, ResNetRegressor or a wide one
            Fitted.
        ax : array of matplotlib Axes, default=None
            Where to draw: ``axes_`` of another display compares two estimators. None
            makes a new figure.
        label : str, default=None
            Name of the model in the legend.

        Returns
        -------
        WeightDisplay
            Drawn.
        """
        check_is_fitted(estimator)
        parts: dict[str, list[NDArray[np.float32]]] = {}
        for name, w in kernels(estimator.module_).items():
            stage = ".".join(name.split(".")[: 2 if name.startswith("stages") else 1])
            parts.setdefault(stage, []).append(w.detach().cpu().numpy().ravel())
        weights = {stage: np.concatenate(values) for stage, values in parts.items()}
        return cls(weights, label=label).plot(ax=ax)

    def plot(self, *, ax: SeveralAxes | None = None, bins: int = 51) -> WeightDisplay:
        """Draw a histogram for each stage, on a logarithmic axis.

        Parameters
        ----------
        ax : array of matplotlib Axes, default=None
            One for each stage; None makes a new figure.
        bins : int, default=51
            Bars between the lowest and the highest value.

        Returns
        -------
        WeightDisplay
            Itself.
        """
        n = len(self.weights)
        self.axes_ = np.ravel(drawing_axes(ax, n, figsize=(2.4 * n, 3), sharey=True))
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
    def from_estimator(
        cls, estimator: BaseResNet, *, ax: Axes | None = None
    ) -> NetworkDisplay:
        """Draw the network of a fitted estimator.

        Parameters
        ----------
        estimator : ResNetClassifier, ResNetRegressor or a wide one
            Fitted.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        NetworkDisplay
            Drawn.
        """
        check_is_fitted(estimator)
        spatial = estimator.net_.input_spec.network_shape[1:]
        rows = network_rows(estimator.nets_[0].module_, spatial)
        display = cls(
            names=[row.name for row in rows],
            shapes=[row.shape for row in rows],
            parameters=[row.parameters for row in rows],
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> NetworkDisplay:
        """Draw the parts from left to right.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        NetworkDisplay
            Itself.
        """
        self.ax_ = drawing_axes(ax, figsize=(9, 3.4))
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
        whole_numbers(self.ax_.xaxis)
        self.ax_.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return self
