"""Pictures of attributions: bars, coloured lines, overlays and slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_consistent_length

from sk_resnet._base import BaseResNet
from sk_resnet.inspection._attribution import METHODS, attributed, last_step
from sk_resnet.inspection._displays import drawing_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

    from sk_resnet.inspection._displays import SeveralAxes

# Bars of a row of a table; what more there is shares the last one.
MOST_BARS = 10
# Share of the values that the colours tell apart; a few larger ones take the last colour.
COLOURED = 99.5


class AttributionDisplay:
    """What in a sample speaks for a class, or raises a number, drawn over the sample.

    Parameters
    ----------
    samples : array-like of shape (n_samples, n_channels, ...) or (n_samples, n_features)
        Samples in the units of X, channels in front.
    attributions : array-like of the shape of `samples`, or with one channel
        What each value, or all channels of a place, add to the score.
    scores : array-like of shape (n_samples,)
        What was attributed: log-odds of the targets, or predicted numbers.
    targets : array-like of shape (n_samples,)
        Class, label or output that was explained in each sample.
    target_name : {"class", "label", "output", "prediction"}, default="class"
        What targets are; "prediction" stands for the only output of a regressor.
    target_names : array-like of shape (n_labels,) or (n_outputs,), default=None
        Names of all labels or outputs, by number, for the titles.
    method : str, default="integrated_gradients"
        How the attributions were found.
    feature_names : array-like of shape (n_features,), default=None
        Names for the bars of rows.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        After `plot`: one for each sample that is drawn, three for each volume.
    figure_ : matplotlib Figure
        After `plot`.

    See Also
    --------
    sklearn.inspection.permutation_importance : What features matter in a whole set.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import ResNetClassifier
    >>> from sk_resnet.inspection import AttributionDisplay
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> model = ResNetClassifier(depth=4, max_epochs=10, random_state=0).fit(X, y)
    >>> display = AttributionDisplay.from_estimator(model, X[:2])
    >>> display.attributions.shape, display.targets
    ((2, 4), array([0, 0]))
    """

    def __init__(
        self,
        samples: ArrayLike,
        attributions: ArrayLike,
        *,
        scores: ArrayLike,
        targets: ArrayLike,
        target_name: str = "class",
        target_names: ArrayLike | None = None,
        method: str = "integrated_gradients",
        feature_names: ArrayLike | None = None,
    ) -> None:
        self.samples = np.asarray(samples)
        self.attributions = np.asarray(attributions)
        self.scores = np.asarray(scores)
        self.targets = np.asarray(targets)
        self.target_name = target_name
        self.target_names = target_names
        self.method = method
        self.feature_names = feature_names
        if method not in METHODS:
            raise ValueError(f"method must be one of {sorted(METHODS)}, got {method!r}.")
        check_consistent_length(self.samples, self.attributions, self.scores, self.targets)

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseResNet | Pipeline,
        X: Any,
        *,
        method: str = "integrated_gradients",
        target: Any = None,
        baseline: ArrayLike | None = None,
        n_steps: int | None = None,
        window: int | Sequence[int] | None = None,
        stage: int | None = None,
        shown: Sequence[int] | None = None,
        ax: SeveralAxes | None = None,
    ) -> AttributionDisplay:
        """Attribute predictions to what a fitted estimator read, and draw it.

        Attributed is the log-odds of the class or label, ``log(p / (1 - p))`` of the
        probability p that the estimator predicts, or the number that it predicts, in the
        units of y. It includes all that the estimator does: scaling, temperature, the
        average over an ensemble; only the views of `test_time_augmentation` are left out,
        from the score and from the choice of the most probable class.

        Parameters
        ----------
        estimator : ResNetClassifier, ResNetRegressor or a wide one
            Fitted. Or a fitted pipeline that ends in one: what its last step reads is
            explained.
        X : array-like of shape (n_samples, ...)
            Samples as `predict` takes them.
        method : str, default="integrated_gradients"
            - "integrated_gradients" [1]_ adds up gradients on the way from the baseline to
              the sample. The attributions of a sample add up to what its score is above
              that of the baseline.
            - "grad_cam" [2]_ marks places that speak for the target, as coarse as the last
              stage. Not for rows.
            - "occlusion" [3]_ is what the score loses when the baseline covers a part.
            - "saliency" [4]_ is the absolute gradient of the score, by unit of X.
        target : label, int or array-like of shape (n_samples,), default=None
            Class, or name or number of a label or output, to explain: one for all samples,
            or one for each. Names are those of the columns of y in fit. None takes the most
            probable class or label of each sample, and the first output of a regressor.
        baseline : float or array-like of the shape of a sample, default=None
            Sample without evidence, in the units of X. None takes the mean of each channel
            in the training set, its median with ``scale="robust"``, 0 with ``scale=None``.
        n_steps : int, default=None
            Gradients that are added up for each sample; None takes 50.
        window : int or sequence of int, default=None
            Places along each axis that are occluded at once; None takes an eighth of each
            side. Features of rows are occluded one by one.
        stage : int, default=None
            Stage of the network whose activations Grad-CAM weighs; None takes the last.
            Earlier ones are finer, but have less to do with the classes.
        shown : sequence of int or mask of shape (n_samples,), default=None
            Samples to draw, see `plot`.
        ax : array of matplotlib Axes, default=None
            Where to draw, see `plot`.

        Returns
        -------
        AttributionDisplay
            Drawn.

        Raises
        ------
        ImportError
            Without captum.
        NotFittedError
            For an estimator that is not fitted.
        TypeError
            For an estimator of another package.
        ValueError
            For an unknown method or target, for options that the method does not read,
            and for Grad-CAM of rows, which have no places.

        References
        ----------
        .. [1] Sundararajan et al. 2017, Axiomatic attribution for deep networks,
           arXiv:1703.01365, section 3.
        .. [2] Selvaraju et al. 2016, Grad-CAM, arXiv:1610.02391, section 3.
        .. [3] Zeiler and Fergus 2013, Visualizing and understanding convolutional
           networks, arXiv:1311.2901, section 4.2.
        .. [4] Simonyan et al. 2013, Deep inside convolutional networks, arXiv:1312.6034,
           section 3.
        """
        network, X, names = last_step(estimator, X)
        found = attributed(
            network,
            X,
            method=method,
            target=target,
            baseline=baseline,
            n_steps=n_steps,
            window=window,
            stage=stage,
        )
        display = cls(
            found.samples,
            found.attributions,
            scores=found.scores,
            targets=found.targets,
            target_name=network.net_.target.output_name,
            target_names=getattr(network, "target_names_", None),
            method=method,
            feature_names=names,
        )
        return display.plot(shown=shown, ax=ax)

    def plot(
        self,
        *,
        shown: Sequence[int] | None = None,
        ax: Axes | SeveralAxes | None = None,
    ) -> AttributionDisplay:
        """Draw some samples with their attributions; red speaks for the target.

        Rows are bars with the value of each feature, series are lines that are coloured
        where they matter, images are grey under colours, and volumes are three slices
        through the place that matters most.

        Parameters
        ----------
        shown : sequence of int or mask of shape (n_samples,), default=None
            Samples to draw; None draws the first six images, or three of others.
        ax : array of matplotlib Axes, default=None
            One for each sample, three for each volume; None makes a new figure.

        Returns
        -------
        AttributionDisplay
            Itself.
        """
        picture = PICTURES[self.attributions.ndim - 2]
        drawn = _rows(shown, len(self.attributions), picture.n_shown)
        self.axes_ = picture.axes(ax, len(drawn))
        self.figure_ = self.axes_[0].figure
        method = METHODS[self.method]
        colours = _colours(self.attributions[drawn], is_signed=method.is_signed)
        names = _names(self.feature_names, self.samples.shape[1])
        for i, own in zip(drawn, np.split(self.axes_, len(drawn)), strict=True):
            picture.draw(own, Shown(self.samples[i], self.attributions[i], colours, names))
            own[len(own) // 2].set_title(self._title(i), fontsize="medium")
        if picture.has_colour_bar:
            ends = "both" if method.is_signed else "max"
            self.figure_.colorbar(colours, ax=self.axes_, label=method.label, extend=ends)
        else:
            for axes in self.axes_:
                axes.set_xlabel(method.label)
        return self

    def _title(self, i: int) -> str:
        target, score = self.targets[i], self.scores[i]
        if self.target_names is not None:
            target = np.asarray(self.target_names)[target]
        if self.target_name == "prediction":
            return f"prediction: {_number(score)}"
        if self.target_name == "output":
            return f"output {target}: {_number(score)}"
        return f"{self.target_name} {target}: {expit(score):.0%}"


def _rows(shown: Sequence[int] | None, n: int, most: int) -> NDArray[np.intp]:
    """Numbers of the samples to draw, of n."""
    if shown is None:
        return np.arange(min(n, most))
    rows = np.asarray(shown).ravel()
    if rows.dtype == bool and len(rows) == n:  # a mask
        rows = rows.nonzero()[0]
    is_whole = rows.dtype.kind in "iu" and len(rows)
    if not is_whole or not ((rows >= -n) & (rows < n)).all():
        raise ValueError(
            f"shown must hold numbers of samples, from 0 to {n - 1} or counted back from "
            f"-1, or be a mask of {n}, got {shown!r}."
        )
    return rows % n


def _names(given: ArrayLike | None, n_features: int) -> list[str]:
    if given is None:
        return [f"feature {i}" for i in range(n_features)]
    return [str(name) for name in np.asarray(given)]


def _colours(attributions: NDArray[np.float64], *, is_signed: bool) -> ScalarMappable:
    """Colours by attribution: blue, white at 0, red; or from white on where none is < 0."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    seen = _of_places(attributions, axis=1) if attributions.ndim > 3 else attributions
    most = float(np.nanpercentile(np.abs(seen), COLOURED)) or float(np.nanmax(np.abs(seen)))
    most = most or 1.0
    diverging = colormaps["RdBu_r"]
    if is_signed:
        return ScalarMappable(Normalize(-most, most), diverging)
    upper = ListedColormap(diverging(np.linspace(0.5, 1, 128)))
    return ScalarMappable(Normalize(0, most), upper)


def _of_places(attributions: NDArray[np.float64], axis: int = 0) -> NDArray[np.float64]:
    """What the channels of each place add together."""
    return attributions.sum(axis=axis)


class Shown(NamedTuple):
    """A sample, what was found in it, and what its picture is drawn with."""

    sample: NDArray[np.float64]
    attributions: NDArray[np.float64]
    colours: ScalarMappable
    names: list[str]


def _draw_bars(axes: NDArray[np.object_], shown: Shown) -> None:
    """Features by size, the largest on top, each with its value."""
    ax, (sample, attributions, colours, names) = axes[0], shown
    order = np.argsort(-np.abs(attributions), kind="stable")
    n_own = len(order) if len(order) <= MOST_BARS else MOST_BARS - 1
    own, others = order[:n_own], order[n_own:]
    labels = [f"{names[i]} = {_number(sample[i])}" for i in own]
    values = attributions[own].tolist()
    if len(others):
        labels.append(f"{len(others)} others")
        values.append(float(attributions[others].sum()))
    ends = colours.cmap([0.12, 0.88])
    ax.barh(range(len(values)), values, color=[ends[int(v > 0)] for v in values])
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set(yticks=range(len(values)), yticklabels=labels)
    ax.invert_yaxis()
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0, labelsize="small")


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def _draw_series(axes: NDArray[np.object_], shown: Shown) -> None:
    """A thin line for each channel over a broad one in colours."""
    from matplotlib.collections import LineCollection

    ax, (sample, attributions, colours, _) = axes[0], shown
    n_channels = len(sample)
    step = 1.1 * float(np.nanmax(sample) - np.nanmin(sample)) or 1.0
    levels = -step * np.arange(n_channels)
    places = np.arange(sample.shape[1])
    by_channel = np.broadcast_to(attributions, sample.shape)
    for values, found, level in zip(sample, by_channel, levels, strict=True):
        points = np.stack([places, values + level], axis=1)
        # Each segment has the colour of the two places that it joins.
        line = LineCollection(
            list(np.stack([points[:-1], points[1:]], axis=1)),
            array=(found[:-1] + found[1:]) / 2,
            cmap=colours.cmap,
            norm=colours.norm,
            linewidth=6,
            capstyle="round",
        )
        ax.add_collection(line)
        ax.plot(places, values + level, color="black", linewidth=0.8)
    if n_channels > 1:
        middles = levels + np.nanmean(sample, axis=1)
        ax.set(yticks=middles, yticklabels=[f"channel {i}" for i in range(n_channels)])
    ax.margins(x=0.01)


def _draw_image(axes: NDArray[np.object_], shown: Shown) -> None:
    found = _of_places(shown.attributions)
    _overlay(axes[0], _grey(shown.sample), found, shown.colours)


def _draw_volume(axes: NDArray[np.object_], shown: Shown) -> None:
    """Three cuts through the place of the largest attribution."""
    grey, found = _grey(shown.sample), _of_places(shown.attributions)
    peak = np.unravel_index(np.abs(found).argmax(), found.shape)
    for axis, (ax, place) in enumerate(zip(axes, peak, strict=True)):
        cut = (slice(None),) * axis + (place,)
        _overlay(ax, grey[cut], found[cut], shown.colours)
        ax.set_xlabel(f"axis {axis} at {place}", fontsize="small")


def _grey(sample: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the channels, from 0 to 1."""
    grey = sample.mean(axis=0)
    span = float(np.ptp(grey)) or 1.0
    return (grey - grey.min()) / span


def _overlay(
    ax: Axes,
    grey: NDArray[np.float64],
    found: NDArray[np.float64],
    colours: ScalarMappable,
) -> None:
    """Grey picture, covered by colours the more the larger they are."""
    rgba = colours.to_rgba(found)
    share = np.clip(np.abs(found) / colours.norm.vmax, 0, 1)[..., None]
    # Light, so that colours of both signs stand out on all of it.
    picture = (0.45 + 0.5 * grey)[..., None]
    ax.imshow(share * rgba[..., :3] + (1 - share) * picture)
    ax.set(xticks=[], yticks=[])


@dataclass(frozen=True)
class Picture:
    """How samples of a number of dimensions are drawn; `size` is that of one axes."""

    draw: Callable[[NDArray[np.object_], Shown], None]
    n_shown: int
    size: tuple[float, float]
    n_axes: int = 1
    below: bool = False
    has_colour_bar: bool = True

    def axes(self, ax: Axes | SeveralAxes | None, n_samples: int) -> NDArray[np.object_]:
        """Axes of the samples, beside or below each other."""
        n_rows, n_columns = (n_samples, 1) if self.below else (1, n_samples)
        n_columns *= self.n_axes
        size = n_columns * self.size[0], n_rows * self.size[1]
        n = n_rows * n_columns
        return np.atleast_1d(drawing_axes(ax, n, n_rows=n_rows, figsize=size))


PICTURES = {
    0: Picture(_draw_bars, 3, (4, 3.2), has_colour_bar=False),
    1: Picture(_draw_series, 3, (8, 1.7), below=True),
    2: Picture(_draw_image, 6, (2, 2.2)),
    3: Picture(_draw_volume, 3, (2.2, 2.4), n_axes=3, below=True),
}
