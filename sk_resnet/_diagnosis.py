"""What is wrong with a fitted model, and which parameter to change."""

import html
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sk_resnet._checks import check_X
from sk_resnet._probe import dead_share, probe_samples

# Share of the way from the most frequent class to no error, on the training samples.
UNDERFITTING_BELOW = 0.8
# Accuracy on training less validation samples, and in standard errors of it.
OVERFITTING_ABOVE = 0.1
STANDARD_ERRORS = 2.0
# Gradient of the first block over that of the last one, medians of their kernels.
VANISHING_BELOW = 1e-3
EXPLODING_ABOVE = 1e3
# Training accuracy that the shallower network is ahead.
DEGRADATION_ABOVE = 0.02
DEAD_ABOVE = 0.2
SPARSE_ABOVE = 0.5
# Highest training loss of an epoch over the entropy of the labels.
LOSS_RATIO = 1.5
MOST_SAMPLES = 2000


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


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; prints as text, and as HTML in notebooks.

    Parameters
    ----------
    fit : {"underfitting", "overfitting", "good fit"}
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
    estimator: Any, X: Any, y: Any, X_val: Any, y_val: Any, *, shallower: Any = None
) -> Diagnosis:
    """Tell under- from overfitting, and degradation from vanishing gradients.

    Parameters
    ----------
    estimator : ResNetClassifier or WideResNetClassifier
        Fitted.
    X : array-like of shape (n_samples, ...)
        The samples that it was fitted on; up to 2,000 of them are used.
    y : array-like of shape (n_samples,)
        Their labels.
    X_val : array-like of shape (n_samples_val, ...)
        Samples that it has not seen.
    y_val : array-like of shape (n_samples_val,)
        Their labels.
    shallower : estimator, default=None
        The same model fitted with a smaller depth. Without it, degradation is not
        looked for: batch norm keeps the gradients of deep plain networks healthy
        (arXiv:1512.03385 §4.1), so they do not tell.

    Returns
    -------
    diagnosis : Diagnosis
        ``print`` it.

    Raises
    ------
    NotFittedError
        For an estimator that is not fitted.
    ValueError
        If `shallower` is not shallower.

    Notes
    -----
    Underfitting: the training accuracy is less than 0.8 of the way from the most frequent
    class to 1. Overfitting: validation is behind by more than 0.1 and by two standard
    errors. Vanishing and exploding gradients: a factor of 1,000 between the first and the
    last block. Degradation: the shallower network is ahead on the training samples by
    0.02 and two standard errors. Learning rate too high: the loss of an epoch was above
    1.5 times the entropy of the labels. Dead units: 20 % of the channels are always zero.

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
    X, y, X_val, y_val = (np.asarray(a) for a in (X, y, X_val, y_val))
    rows = np.unique(np.linspace(0, len(X) - 1, min(len(X), MOST_SAMPLES)).astype(int))
    X, y = X[rows], y[rows]
    figures = _measure(estimator, X, y, X_val, y_val)
    findings = [_fit_of(figures), *_learning_rate(figures), *_gradients(figures)]
    if shallower is not None:
        findings += _degradation(estimator, shallower, X, y, figures)
    findings += _units(figures)
    return Diagnosis(findings[0].name, findings, figures)


def _measure(estimator: Any, X: Any, y: Any, X_val: Any, y_val: Any) -> dict[str, float]:
    shares = np.unique(y, return_counts=True)[1] / len(y)
    net = estimator.net_
    labels = np.searchsorted(estimator.classes_, y)
    dataset = net.get_dataset(check_X(estimator, X), labels)
    places = torch.linspace(0, len(X) - 1, min(len(X), estimator.batch_size_)).long()
    norms = probe_samples(net, dataset, places, on_a_copy=True).gradient_norms
    blocks: dict[str, list[float]] = {}
    for name, norm in norms.items():
        if name.startswith("stages"):
            blocks.setdefault(".".join(name.split(".")[:3]), []).append(norm)
    medians = [float(np.median(values)) for values in blocks.values()]
    device = torch.device(net.device)
    units = torch.linspace(0, len(X) - 1, min(len(X), 256)).long().to(device)
    losses = [row["train_loss"] for row in estimator.history_]
    return {
        "training_accuracy": float(estimator.score(X, y)),
        "validation_accuracy": float(estimator.score(X_val, y_val)),
        "most_frequent_class": float(shares.max()),
        "n_training": float(len(y)),
        "n_validation": float(len(y_val)),
        "highest_loss": float(max(losses)),
        "label_entropy": float(-(shares * np.log(shares)).sum()),
        "first_gradient": medians[0],
        "last_gradient": medians[-1],
        **{f"gradient of {block}": m for block, m in zip(blocks, medians, strict=True)},
        "dead_share": dead_share(net.module_, dataset.inputs(units)),
        "sparsity": float(estimator.sparsity_),
        "lr": float(max(row["lr"] for row in estimator.history_)),
    }


def _error_of(accuracy: float, n: float) -> float:
    return math.sqrt(max(accuracy * (1 - accuracy), 1 / n) / n)


def _fit_of(figures: dict[str, float]) -> Finding:
    train, valid = figures["training_accuracy"], figures["validation_accuracy"]
    base = figures["most_frequent_class"]
    learned = (train - base) / (1 - base) if base < 1 else 1.0
    error = math.hypot(
        _error_of(train, figures["n_training"]), _error_of(valid, figures["n_validation"])
    )
    text = f"training accuracy {train:.3f}, validation {valid:.3f}"
    if learned < UNDERFITTING_BELOW:
        return Finding(
            "underfitting",
            f"{text}; the most frequent class alone gives {base:.3f}",
            "Raise max_epochs, width or depth; lower l1, l2, dropout or label_smoothing; "
            "try another lr.",
        )
    if train - valid > max(OVERFITTING_ABOVE, STANDARD_ERRORS * error):
        return Finding(
            "overfitting",
            f"{text}: {train - valid:.3f} apart",
            "Add samples or augment, callbacks=[EarlyStopping()], dropout, l2, l1 or "
            "label_smoothing; lower width or depth.",
        )
    return Finding("good fit", text, "Nothing: see whether less width does as well.")


def _learning_rate(figures: dict[str, float]) -> list[Finding]:
    ratio = figures["highest_loss"] / max(figures["label_entropy"], 1e-12)
    if ratio <= LOSS_RATIO:
        return []
    return [
        Finding(
            "learning rate too high",
            f"an epoch had a loss of {figures['highest_loss']:.3g}, {ratio:.1f} times that "
            f"of guessing, at rates of up to {figures['lr']:.2g}",
            f"Set lr={figures['lr'] / 10:.1g}, and standardize=True.",
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


def _degradation(
    estimator: Any, shallower: Any, X: Any, y: Any, figures: dict[str, float]
) -> list[Finding]:
    check_is_fitted(shallower)
    if shallower.depth >= estimator.depth:
        raise ValueError(
            f"shallower must have a depth below {estimator.depth}, got {shallower.depth}."
        )
    own, other = figures["training_accuracy"], float(shallower.score(X, y))
    figures["shallower_training_accuracy"] = other
    n = len(y)
    error = math.hypot(_error_of(own, n), _error_of(other, n))
    if other - own <= max(DEGRADATION_ABOVE, STANDARD_ERRORS * error):
        return []
    return [
        Finding(
            "degradation",
            f"depth {shallower.depth} reaches {other:.3f} on the training samples, depth "
            f"{estimator.depth} only {own:.3f}",
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
