"""What is wrong with a fitted model, and which parameter to change."""

import html
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sk_resnet._base import BaseResNet, evaluation_data
from sk_resnet._input import padded, to_numpy
from sk_resnet._net import ResidualNet
from sk_resnet._target import Target
from sk_resnet.inspection._probe import dead_share, probe_samples

# Share of the way from the best constant prediction to a score of 1, on the training
# samples.
UNDERFITTING_BELOW = 0.8
# Score on training less validation samples, and in standard errors of it.
OVERFITTING_ABOVE = 0.1
STANDARD_ERRORS = 2.0
# Gradient of the first block over that of the last one, medians of their kernels.
VANISHING_BELOW = 1e-3
EXPLODING_ABOVE = 1e3
# Training score that the shallower network is ahead.
DEGRADATION_ABOVE = 0.02
DEAD_ABOVE = 0.2
SPARSE_ABOVE = 0.5
# Highest training loss of an epoch after the first, over that of the best constant
# prediction.
LOSS_RATIO = 1.5
MOST_SAMPLES = 2000
# Parameters against overfitting, of which each estimator has some.
PENALTIES = ("l1", "l2", "dropout", "label_smoothing")


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Parameters
    ----------
    name : str
        Such as "overfitting".
    figures : str
        What was measured.
    advice : str
        Which parameters to change.

    Examples
    --------
    >>> from sk_resnet.inspection import Finding
    >>> Finding("good fit", "training accuracy 0.99", "Nothing.").name
    'good fit'
    """

    name: str
    figures: str
    advice: str


NOT_JUDGED = Finding(
    "fit not judged",
    "the model predicts a quantile, which R² does not measure",
    "Compare sklearn.metrics.mean_pinball_loss on training and validation samples.",
)


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; prints as text, and as HTML in notebooks.

    Parameters
    ----------
    fit : {"underfitting", "overfitting", "good fit", "fit not judged"}
        What training and validation say together.
    findings : list of Finding
        Each with ``name``, ``figures`` and ``advice``; the fit comes first.
    figures : dict of str to float
        All that was measured; the gradient of each block among it.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import ResNetClassifier
    >>> from sk_resnet.inspection import diagnose
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ResNetClassifier(depth=4, max_epochs=20, random_state=0)
    >>> model = model.fit(X[::2], y[::2])
    >>> diagnose(model, X[::2], y[::2], X[1::2], y[1::2]).fit
    'good fit'
    """

    fit: str
    findings: list[Finding]
    figures: dict[str, float]

    def __contains__(self, name: str) -> bool:
        return any(finding.name == name for finding in self.findings)

    def __str__(self) -> str:
        return "\n".join(f"{f.name}: {f.figures}\n    {f.advice}" for f in self.findings)

    def _repr_html_(self) -> str:
        style = "style='text-align:left;vertical-align:top;padding:.3em .8em .3em 0'"

        def row(tag: str, *cells: str) -> str:
            first, *others = map(html.escape, cells)
            rest = "".join(f"<{tag} {style}>{cell}</{tag}>" for cell in others)
            return f"<tr><th {style}>{first}</th>{rest}</tr>"

        head = row("th", "finding", "figures", "what to change")
        body = "".join(row("td", f.name, f.figures, f.advice) for f in self.findings)
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


@torch.inference_mode(False)
def diagnose(
    estimator: BaseResNet,
    X: Any,
    y: Any,
    X_val: Any,
    y_val: Any,
    *,
    shallower: BaseResNet | None = None,
) -> Diagnosis:
    """Tell under- from overfitting, and degradation from vanishing gradients.

    Parameters
    ----------
    estimator : ResNetClassifier, ResNetRegressor or a wide one
        Fitted.
    X : array-like of shape (n_samples, ...)
        The samples that it was fitted on; up to 2,000 of them are used.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Their labels or numbers.
    X_val : array-like of shape (n_samples_val, ...)
        Samples that it has not seen; all are used.
    y_val : array-like of shape (n_samples_val,) or (n_samples_val, n_outputs)
        Their labels or numbers.
    shallower : estimator, default=None
        The same model fitted with a smaller depth. Without it, degradation is not
        looked for: batch norm keeps the gradients of deep plain networks healthy
        (arXiv:1512.03385 §4.1), so they do not tell.

    Returns
    -------
    Diagnosis
        ``print`` it.

    Raises
    ------
    NotFittedError
        For an estimator that is not fitted.
    ValueError
        If `shallower` has as many layers or more, for labels that were not in the y of
        the fit, and for fewer than 2 training samples.

    Notes
    -----
    The score is the accuracy of classifiers, with all labels of a sample right where y is
    multilabel, and R² of regressors. What is learned is counted from the best prediction
    that is the same for all samples: for an accuracy that of the most frequent class, or
    set of labels, and for R² 0.

    Underfitting: the training score is less than 0.8 of the way from there to 1. A
    regressor of a noisy y stays below that, and should: compare other models. Overfitting:
    validation is behind by more than 0.1 and by two standard errors. Vanishing and
    exploding gradients: a factor of 1,000 between the first and the last block.
    Degradation: the shallower network is ahead on the training samples by 0.02 and two
    standard errors. Learning rate too high: the loss of an epoch after the first was
    above 1.5 times that of the constant prediction. Dead units: 20 % of the channels are
    always zero.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import ResNetClassifier
    >>> from sk_resnet.inspection import diagnose
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ResNetClassifier(depth=4, max_epochs=1, lr=1e-5, random_state=0)
    >>> model = model.fit(X[::2], y[::2])
    >>> diagnose(model, X[::2], y[::2], X[1::2], y[1::2]).fit
    'underfitting'
    """
    check_is_fitted(estimator)
    X, y = _some_rows(X, y)
    target = estimator.net_.target
    losses = [row["train_loss"] for row in estimator.history_]
    training = _part(estimator, X, y, "y")
    if len(training.X) < 2:
        raise ValueError(
            "diagnose needs at least 2 training samples, got 1: give X and y of the fit. "
            "Batch norm has no variance over one sample."
        )
    validation = _part(estimator, X_val, y_val, "y_val")
    figures = {
        **_score_figures(training, validation, target),
        # Not of the first epoch: new weights may be far from y at any rate.
        "highest_loss": max(losses[1:], default=math.nan),
        "lr": float(max(row["lr"] for row in estimator.history_)),
        # Of an ensemble, those of its first network stand for all.
        **_network_figures(estimator.nets_[0], training, estimator.batch_size_),
        "sparsity": float(estimator.sparsity_),
    }
    fit = (
        _fit_of(
            figures,
            target.score_name,
            penalties=_penalties(estimator),
            # No model predicts the noise of numbers, and no score tells how much there is.
            is_noisy=target.classes is None,
        )
        if target.score_judges
        else NOT_JUDGED
    )
    findings = [fit, *_learning_rate(figures), *_gradients(figures)]
    if shallower is not None:
        check_is_fitted(shallower)
        _require_fewer_layers(shallower, estimator)
        scores = _part(shallower, X, y, "y").scores
        figures["shallower_training_score"] = float(scores.mean())
        findings += _degradation(figures, target.score_name, _standard_error(scores))
    findings += _units(figures)
    return Diagnosis(fit.name, findings, figures)


@dataclass(frozen=True)
class _Part:
    """Checked samples, their encoded y, and what each adds to the score."""

    X: NDArray[Any]
    encoded: NDArray[Any]
    scores: NDArray[np.float64]


def _part(estimator: BaseResNet, X: Any, y: Any, name: str) -> _Part:
    net = estimator.net_
    X, encoded = evaluation_data(estimator, X, y, name)
    outputs = net.averaged_outputs(X, bfloat16=estimator.precision == "bfloat16")
    return _Part(X, encoded, net.target.sample_scores(outputs, encoded))


def _some_rows(X: Any, y: Any) -> tuple[Any, Any]:
    """At most MOST_SAMPLES rows, evenly over all; tables stay tables."""
    X, y = padded(to_numpy(X)), to_numpy(y)
    X, y = (a if hasattr(a, "shape") else np.asarray(a) for a in (X, y))
    n = X.shape[0]
    if n <= MOST_SAMPLES:
        return X, y
    rows = np.linspace(0, n - 1, MOST_SAMPLES).astype(int)
    y = y.tocsr() if sparse.issparse(y) else y
    return tuple(getattr(a, "iloc", a)[rows] for a in (X, y))


def _score_figures(training: _Part, validation: _Part, target: Target) -> dict[str, float]:
    constant_score, constant_loss = target.constant(training.encoded)
    return {
        "training_score": float(training.scores.mean()),
        "training_error": _standard_error(training.scores),
        "validation_score": float(validation.scores.mean()),
        "validation_error": _standard_error(validation.scores),
        "constant_score": constant_score,
        "constant_loss": constant_loss,
        "n_training": float(len(training.scores)),
        "n_validation": float(len(validation.scores)),
    }


def _network_figures(net: ResidualNet, part: _Part, batch_size: int) -> dict[str, float]:
    """Gradients of the blocks and dead units, by a part of the training samples."""
    dataset = net.get_dataset(part.X, part.encoded)
    places = _evenly(len(dataset), batch_size)
    norms = probe_samples(net, dataset, places, on_a_copy=True).gradient_norms
    blocks: dict[str, list[float]] = {}
    for name, norm in norms.items():
        if name.startswith("stages"):
            blocks.setdefault(".".join(name.split(".")[:3]), []).append(norm)
    medians = {block: float(np.median(values)) for block, values in blocks.items()}
    by_depth = list(medians.values())
    units = _evenly(len(dataset), 256).to(torch.device(net.device))
    return {
        "first_gradient": by_depth[0],
        "last_gradient": by_depth[-1],
        **{f"gradient of {block}": median for block, median in medians.items()},
        "dead_share": dead_share(net.module_, dataset.inputs(units)),
    }


def _evenly(n: int, most: int) -> Tensor:
    return torch.linspace(0, n - 1, min(n, most)).long()


def _standard_error(scores: NDArray[np.float64]) -> float:
    n = len(scores)
    return math.sqrt(max(float(scores.var()), 1 / n) / n)


def _penalties(estimator: BaseResNet) -> str:
    """Those that an estimator has, as words of a sentence."""
    known = estimator.get_params(deep=False)
    *others, last = [name for name in PENALTIES if name in known]
    return f"{', '.join(others)} or {last}"


def _fit_of(
    figures: dict[str, float], score_name: str, *, penalties: str, is_noisy: bool
) -> Finding:
    train, valid = figures["training_score"], figures["validation_score"]
    base = figures["constant_score"]
    learned = (train - base) / (1 - base) if base < 1 else 1.0
    error = math.hypot(figures["training_error"], figures["validation_error"])
    text = f"training {score_name} {train:.3f}, validation {valid:.3f}"
    if learned < UNDERFITTING_BELOW:
        noise = " Noise in y gives the same figures: see what other models reach."
        return Finding(
            "underfitting",
            f"{text}; the best constant prediction has {base:.3f}",
            f"Raise max_epochs, width or depth; lower {penalties}; try another lr."
            f"{noise * is_noisy}",
        )
    if train - valid > max(OVERFITTING_ABOVE, STANDARD_ERRORS * error):
        return Finding(
            "overfitting",
            f"{text}: {train - valid:.3f} apart",
            "Add samples or augment; use callbacks=[EarlyStopping()]; raise "
            f"{penalties}; lower width or depth.",
        )
    return Finding("good fit", text, "Nothing: see whether less width does as well.")


def _learning_rate(figures: dict[str, float]) -> list[Finding]:
    highest, constant = figures["highest_loss"], figures["constant_loss"]
    # A y that is constant itself has no loss to compare with; NaN is no finding either.
    if constant < 1e-12 or not highest > LOSS_RATIO * constant:
        return []
    return [
        Finding(
            "learning rate too high",
            f"an epoch had a loss of {highest:.3g}, {highest / constant:.1f} times that of "
            f"the best constant prediction, at rates of up to {figures['lr']:.2g}",
            f"Set lr={figures['lr'] / 10:.1g}, and scale='standard'.",
        )
    ]


def _gradients(figures: dict[str, float]) -> list[Finding]:
    first, last = figures["first_gradient"], figures["last_gradient"]
    ratio = first / last if last > 0 else math.inf if first > 0 else 1.0
    text = f"gradient {first:.2g} in the first block, {last:.2g} in the last"
    if ratio < VANISHING_BELOW:
        advice = "Use shortcut='projection' and order='full_preactivation', or less depth."
        return [Finding("vanishing gradients", text, advice)]
    if ratio > EXPLODING_ABOVE:
        advice = "Lower lr; use shortcut='projection', or less depth."
        return [Finding("exploding gradients", text, advice)]
    return []


def _require_fewer_layers(shallower: BaseResNet, estimator: BaseResNet) -> None:
    other, own = (model.module_.spec.n_layers for model in (shallower, estimator))
    if other >= own:
        raise ValueError(
            f"shallower must have fewer than the {own} layers of estimator, got {other}: "
            "fit it with a smaller depth, or exchange the two."
        )


def _degradation(
    figures: dict[str, float], score_name: str, shallower_error: float
) -> list[Finding]:
    own, other = figures["training_score"], figures["shallower_training_score"]
    error = math.hypot(figures["training_error"], shallower_error)
    if other - own <= max(DEGRADATION_ABOVE, STANDARD_ERRORS * error):
        return []
    return [
        Finding(
            "degradation",
            f"the shallower network has a training {score_name} of {other:.3f}, this one "
            f"only {own:.3f}",
            "Use shortcut='projection' instead of 'none', or less depth and more width.",
        )
    ]


def _units(figures: dict[str, float]) -> list[Finding]:
    found = []
    if figures["dead_share"] > DEAD_ABOVE:
        found.append(
            Finding(
                "dead units",
                f"{figures['dead_share']:.0%} of the channels behind ReLUs are always 0",
                "Lower lr, l1 or l2; or less width, as they are not needed.",
            )
        )
    if figures["sparsity"] > SPARSE_ABOVE:
        found.append(
            Finding(
                "sparse weights",
                f"{figures['sparsity']:.0%} of the weights are exactly zero",
                "The saved file is smaller by about that; l1_structure='channel' and "
                "compact() make prediction faster too.",
            )
        )
    return found
