"""What y is: one class a sample, a set of labels a sample, or numbers.

The network gets an encoded y and gives outputs; a target knows both. Everything else in
the package asks the target.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse, special
from sklearn.utils import compute_class_weight
from torch import Tensor
from torch.nn import functional

from sk_resnet._input import are_statistics


class Target(Protocol):
    """One kind of y. Encoded y and outputs have one row a sample."""

    kind: ClassVar[str]
    estimator_type: ClassVar[str]
    score_name: ClassVar[str]  # of the columns of the history

    @property
    def score_judges(self) -> bool:
        """Whether the score tells how good a prediction is."""

    @property
    def classes(self) -> NDArray[Any] | None:
        """What probabilities are of, in their order; None where y has no probabilities."""

    @property
    def n_outputs(self) -> int:
        """Outputs of the network."""

    @property
    def output_name(self) -> str:
        """What an output is called beside what `explained` says of it.

        "prediction" or "output" where that is a number; any other name, such as "class",
        where it is the log-odds of that.
        """

    @property
    def n_sums(self) -> int:
        """Sums behind the loss that `sums` gives."""

    def encode(self, y: Any) -> NDArray[Any]:
        """Y as the network is trained on it."""

    def weights(self, encoded: NDArray[Any]) -> NDArray[np.float64]:
        """Weight of each sample, beside those that the user gives."""

    def fitted(self, encoded: NDArray[Any], weight: NDArray[Any]) -> Self:
        """Target with the statistics of the training part."""

    def to(self, device: torch.device) -> Self:
        """Target whose tensors are on a device."""

    @property
    def loss_key(self) -> Any:
        """Equal for targets whose `training_losses` are the same function."""

    def training_losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Loss of each sample in training."""

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Loss of each sample in validation."""

    def sums(self, loss: Tensor, outputs: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """A loss, and behind it the sums over a batch that `score` is made from.

        They stay on the device, and are put into one tensor here, as few operations as
        possible: small networks feel each of them.
        """

    def score(self, sums: list[float]) -> float:
        """Score of all batches whose sums were added up."""

    def soft(self, y: Tensor) -> Tensor:
        """Encoded y of which weighted means can be taken, for mixup and cutmix."""

    def hold_out(
        self, encoded: NDArray[Any], fraction: float, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        """Rows to validate on."""

    def strata(self, encoded: NDArray[Any]) -> NDArray[np.intp]:
        """Numbers of what folds should have the same shares of."""

    def check_training_part(self, encoded: NDArray[Any], shown: str) -> None:
        """Refuse a training part from which something of y is missing."""

    def averaged(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Outputs that predict what (members, n, outputs) do on average."""

    def explained(self, outputs: Tensor, places: Tensor) -> Tensor:
        """What (members, n, outputs) say of the output at one place in each sample.

        Log-odds of a class or a label, or a number in the units of y: differentiable, of
        what all members predict on average, and without the saturation of probabilities.
        """

    def decide(self, outputs: NDArray[np.float32]) -> NDArray[Any]:
        """Encoded prediction."""

    def decode(self, outputs: NDArray[np.float32]) -> Any:
        """Prediction in the form of the y of fit."""

    def probabilities(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities of the classes."""

    def predictions(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """What (members, n, outputs) predict, in operations of torch that can be exported.

        Encoded predictions and probabilities, or numbers in the units of y.
        """

    def sample_scores(
        self, outputs: NDArray[np.float32], encoded: NDArray[Any]
    ) -> NDArray[np.float64]:
        """What each sample adds to the score, which is their mean."""

    def constant(self, encoded: NDArray[Any]) -> tuple[float, float]:
        """Score and loss of a prediction that is the same for all samples."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values and arrays that `target_from_dict` reads back."""

    def is_whole(self) -> bool:
        """Whether a fit can end in these values, which a file may have changed."""


@dataclass(frozen=True, eq=False)
class Labels:
    """One of several classes a sample: softmax and cross-entropy."""

    classes: NDArray[Any]
    class_weight: NDArray[np.float64] | None = None
    label_smoothing: float = 0.0

    kind: ClassVar[str] = "labels"
    estimator_type: ClassVar[str] = "classifier"
    score_name: ClassVar[str] = "accuracy"
    score_judges: ClassVar[bool] = True
    output_name: ClassVar[str] = "class"
    n_sums: ClassVar[int] = 2

    @property
    def n_outputs(self) -> int:
        return len(self.classes)

    def weighted_for(self, class_weight: Any, y: NDArray[Any]) -> Self:
        """Target with the weights of the classes, for labels y."""
        weights = compute_class_weight(class_weight, classes=self.classes, y=y)
        _check_class_weight(weights, class_weight)
        return replace(self, class_weight=weights)

    def unknown(self, y: NDArray[Any]) -> list[Any]:
        """Labels that are no classes."""
        return sorted(set(np.unique(y).tolist()) - set(self.classes.tolist()))

    def encode(self, y: Any) -> NDArray[np.int64]:
        return np.searchsorted(self.classes, y)

    def weights(self, encoded: NDArray[Any]) -> NDArray[np.float64]:
        if self.class_weight is None:
            return np.ones(len(encoded))
        return self.class_weight[encoded]

    def fitted(self, encoded: NDArray[Any], weight: NDArray[Any]) -> Self:
        return self

    def to(self, device: torch.device) -> Self:
        return self

    @property
    def loss_key(self) -> Any:
        return self.kind, self.label_smoothing

    def training_losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(
            outputs, y, reduction="none", label_smoothing=self.label_smoothing
        )

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, y, reduction="none")

    def sums(self, loss: Tensor, outputs: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        y = y.argmax(1) if y.ndim == 2 else y
        right = (outputs.argmax(1) == y).to(weight.dtype)
        return torch.stack((loss, right.dot(weight), weight.sum()))

    def score(self, sums: list[float]) -> float:
        right, weight = sums
        return right / weight

    def soft(self, y: Tensor) -> Tensor:
        if y.ndim == 2:
            return y
        return (y[:, None] == torch.arange(self.n_outputs, device=y.device)).float()

    def hold_out(
        self, encoded: NDArray[Any], fraction: float, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        """Rows drawn by class; each class keeps a row for training.

        train_test_split refuses classes with one sample, and parts that are smaller than
        the number of classes. Here the other classes make up for them.
        """
        counts = np.bincount(encoded, minlength=self.n_outputs)
        most = np.maximum(counts - 1, 0)
        wanted = min(max(1, round(fraction * len(encoded))), most.sum())
        quota = np.minimum(np.floor(fraction * counts).astype(int), most)
        while quota.sum() < wanted:
            missing = np.where(quota < most, fraction * counts - quota, -np.inf)
            quota[missing.argmax()] += 1
        drawn = [
            rng.permutation(np.flatnonzero(encoded == label))[:n]
            for label, n in enumerate(quota)
        ]
        return np.sort(np.concatenate(drawn))

    def strata(self, encoded: NDArray[Any]) -> NDArray[np.intp]:
        return encoded

    def check_training_part(self, encoded: NDArray[Any], shown: str) -> None:
        missing = np.setdiff1d(np.arange(self.n_outputs), encoded)
        if len(missing):
            raise ValueError(
                f"{shown} leaves no training sample of class "
                f"{self.classes[missing].tolist()[0]!r}: every class must be in the "
                "training part; shuffle, or stratify."
            )

    def averaged(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        logs = special.log_softmax(outputs.astype(np.float64), axis=2)
        return special.logsumexp(logs, axis=0) - np.log(len(outputs))

    def explained(self, outputs: Tensor, places: Tensor) -> Tensor:
        logs = outputs.log_softmax(2)
        own = places.expand(len(outputs), -1).unsqueeze(2)
        present = _at_places(logs, places)
        absent = logs.scatter(2, own, -torch.inf).logsumexp(2)
        return present.logsumexp(0) - absent.logsumexp(0)

    def decide(self, outputs: NDArray[np.float32]) -> NDArray[np.intp]:
        return outputs.argmax(axis=1)

    def decode(self, outputs: NDArray[np.float32]) -> NDArray[Any]:
        return self.classes[self.decide(outputs)]

    def probabilities(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        # In float64: logits of 104 apart have a probability of 0 in float32.
        return special.softmax(outputs.astype(np.float64), axis=1)

    def log_probabilities(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logarithms of the probabilities."""
        return special.log_softmax(outputs.astype(np.float64), axis=1)

    def predictions(self, outputs: Tensor) -> tuple[Tensor, ...]:
        probabilities = outputs.double().softmax(2).mean(0)
        return probabilities.argmax(1), probabilities

    def sample_scores(
        self, outputs: NDArray[np.float32], encoded: NDArray[Any]
    ) -> NDArray[np.float64]:
        return (self.decide(outputs) == encoded).astype(np.float64)

    def constant(self, encoded: NDArray[Any]) -> tuple[float, float]:
        shares = np.unique(encoded, return_counts=True)[1] / len(encoded)
        return float(shares.max()), float(special.entr(shares).sum())

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "classes": self.classes}

    def is_whole(self) -> bool:
        return _are(self.classes, np.unique(self.classes))


@dataclass(frozen=True, eq=False)
class LabelSets:
    """Any number of labels a sample: a sigmoid and binary cross-entropy for each.

    `classes` numbers the columns of y, as scikit-learn does. `class_weight` weighs the
    samples that have a label against those that have it not, in the loss of that label.
    """

    classes: NDArray[Any]
    class_weight: Any = None  # an array, or a tensor in training
    label_smoothing: float = 0.0
    is_sparse: bool = False

    kind: ClassVar[str] = "label_sets"
    estimator_type: ClassVar[str] = "classifier"
    score_name: ClassVar[str] = "accuracy"
    score_judges: ClassVar[bool] = True
    output_name: ClassVar[str] = "label"
    n_sums: ClassVar[int] = 2

    @property
    def n_outputs(self) -> int:
        return len(self.classes)

    def weighted_for(self, class_weight: Any, y: Any) -> Self:
        """Target with the weights of the labels, for an indicator y."""
        if class_weight is None:
            return replace(self, class_weight=None)
        if isinstance(class_weight, str):  # "balanced": both sides weigh the same
            present = self.encode(y).sum(axis=0, dtype=np.float64)
            weights = (y.shape[0] - present) / np.maximum(present, 1)
            weights = np.where((present > 0) & (weights > 0), weights, 1.0)
        else:
            unknown = [c for c in class_weight if c not in self.classes.tolist()]
            if unknown:
                raise ValueError(
                    f"class_weight names {unknown}, but the labels are the columns of y, "
                    f"0 to {self.n_outputs - 1}."
                )
            weights = np.array([class_weight.get(c, 1.0) for c in self.classes.tolist()])
        _check_class_weight(weights, class_weight)
        return replace(self, class_weight=weights)

    def unknown(self, y: Any) -> list[Any]:
        """Columns that are no labels."""
        return list(range(self.n_outputs, y.shape[1] if y.ndim == 2 else 0))

    def encode(self, y: Any) -> NDArray[np.float32]:
        return np.asarray(y.todense() if sparse.issparse(y) else y, dtype=np.float32)

    def weights(self, encoded: NDArray[Any]) -> NDArray[np.float64]:
        return np.ones(len(encoded))

    def fitted(self, encoded: NDArray[Any], weight: NDArray[Any]) -> Self:
        return self

    def to(self, device: torch.device) -> Self:
        if self.class_weight is None:
            return self
        weights = torch.tensor(self.class_weight, dtype=torch.float32, device=device)
        return replace(self, class_weight=weights)

    @property
    def loss_key(self) -> Any:
        weights = None if self.class_weight is None else tuple(self.class_weight.tolist())
        return self.kind, self.label_smoothing, weights

    def training_losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        # Each label is smoothed towards one half, as one of two classes.
        smoothing = self.label_smoothing
        return self.losses(outputs, y * (1 - smoothing) + smoothing / 2)

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        by_label = functional.binary_cross_entropy_with_logits(
            outputs, y, reduction="none", pos_weight=self.class_weight
        )
        return by_label.sum(1)

    def sums(self, loss: Tensor, outputs: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        right = ((outputs > 0) == (y > 0.5)).all(1).to(weight.dtype)
        return torch.stack((loss, right.dot(weight), weight.sum()))

    def score(self, sums: list[float]) -> float:
        right, weight = sums
        return right / weight

    def soft(self, y: Tensor) -> Tensor:
        return y

    def hold_out(
        self, encoded: NDArray[Any], fraction: float, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        return _random_rows(len(encoded), fraction, rng)

    def strata(self, encoded: NDArray[Any]) -> NDArray[np.intp]:
        return np.zeros(len(encoded), dtype=np.intp)

    def check_training_part(self, encoded: NDArray[Any], shown: str) -> None:
        """Labels that no training sample has are learned as absent."""

    def averaged(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        # The logits of the mean probabilities.
        wide = outputs.astype(np.float64)
        present, absent = (
            special.logsumexp(special.log_expit(x), axis=0) for x in (wide, -wide)
        )
        return present - absent

    def explained(self, outputs: Tensor, places: Tensor) -> Tensor:
        own = _at_places(outputs, places)
        present, absent = (functional.logsigmoid(x).logsumexp(0) for x in (own, -own))
        return present - absent

    def decide(self, outputs: NDArray[np.float32]) -> NDArray[np.int64]:
        return (outputs > 0).astype(np.int64)

    def decode(self, outputs: NDArray[np.float32]) -> Any:
        indicator = self.decide(outputs)
        return sparse.csr_matrix(indicator) if self.is_sparse else indicator

    def probabilities(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        return special.expit(outputs.astype(np.float64))

    def log_probabilities(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logarithms of the probabilities."""
        return special.log_expit(outputs.astype(np.float64))

    def predictions(self, outputs: Tensor) -> tuple[Tensor, ...]:
        outputs = outputs.double()
        present, absent = outputs.sigmoid().mean(0), (-outputs).sigmoid().mean(0)
        return (present > absent).long(), present

    def sample_scores(
        self, outputs: NDArray[np.float32], encoded: NDArray[Any]
    ) -> NDArray[np.float64]:
        return (self.decide(outputs) == encoded).all(axis=1).astype(np.float64)

    def constant(self, encoded: NDArray[Any]) -> tuple[float, float]:
        sets = np.unique(encoded, axis=0, return_counts=True)[1]
        present = encoded.mean(axis=0, dtype=np.float64)
        entropy = special.entr(present) + special.entr(1 - present)
        return float(sets.max() / len(encoded)), float(entropy.sum())

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "classes": self.classes, "is_sparse": self.is_sparse}

    def is_whole(self) -> bool:
        return _are(self.classes, np.arange(self.n_outputs))


def _are(classes: Any, expected: NDArray[Any]) -> bool:
    return isinstance(classes, np.ndarray) and np.array_equal(classes, expected)


def _check_class_weight(weights: NDArray[Any], given: Any) -> None:
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(
            f"class_weight must have finite weights of at least 0, got {given}."
        )


def _random_rows(n: int, fraction: float, rng: np.random.Generator) -> NDArray[np.intp]:
    wanted = min(max(1, round(fraction * n)), n - 1)
    return np.sort(rng.permutation(n)[:wanted])


def _at_places(outputs: Tensor, places: Tensor) -> Tensor:
    """One output of each sample: (members, n, outputs) → (members, n)."""
    return outputs[:, torch.arange(len(places)), places]


def _pinball(outputs: Tensor, y: Tensor, quantile: float) -> Tensor:
    error = y - outputs
    return torch.maximum(quantile * error, (quantile - 1) * error)


# Loss of each number, from (outputs, y, quantile). The square is halved, as in the
# likelihood of a normal distribution.
LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "squared_error": lambda outputs, y, _: 0.5 * (outputs - y).square(),
    "absolute_error": lambda outputs, y, _: (outputs - y).abs(),
    "huber": lambda outputs, y, _: functional.huber_loss(outputs, y, reduction="none"),
    "quantile": _pinball,
}


@dataclass(frozen=True, eq=False)
class Numbers:
    """One or more numbers a sample, standardized by the training part."""

    n_outputs: int
    is_flat: bool  # y of shape (n,)
    loss: str = "squared_error"
    quantile: float = 0.5
    mean: NDArray[np.float64] | None = None
    scale: NDArray[np.float64] | None = None

    kind: ClassVar[str] = "numbers"
    estimator_type: ClassVar[str] = "regressor"
    score_name: ClassVar[str] = "r2"
    classes: ClassVar[None] = None

    @property
    def output_name(self) -> str:
        return "prediction" if self.n_outputs == 1 else "output"

    @property
    def score_judges(self) -> bool:
        return self.loss != "quantile"  # which is no mean, so R² is low by right

    @property
    def n_sums(self) -> int:
        return 1 + 3 * self.n_outputs

    def encode(self, y: Any) -> NDArray[np.float32]:
        """Standardized y; before `fitted` only in the shape of the outputs."""
        y = np.asarray(y, dtype=np.float64).reshape(len(y), self.n_outputs)
        if self.mean is None:
            return y
        assert self.scale is not None
        with np.errstate(over="ignore", invalid="ignore"):
            encoded = ((y - self.mean) / self.scale).astype(np.float32)
        if not np.isfinite(encoded).all():
            raise ValueError(
                "y has values that are too large for float32 beside those that the model "
                "is standardized by: scale them down."
            )
        return encoded

    def weights(self, encoded: NDArray[Any]) -> NDArray[np.float64]:
        return np.ones(len(encoded))

    @np.errstate(over="ignore", invalid="ignore")
    def fitted(self, encoded: NDArray[Any], weight: NDArray[Any]) -> Self:
        if self.mean is not None:
            return self
        # In units in which the squares of tiny numbers do not underflow. Division by 1 is
        # exact, so that all others keep their bits.
        largest = np.abs(encoded).max(axis=0)
        unit = np.where((largest > 0) & (largest < 1e-130), largest, 1.0)
        encoded = encoded / unit
        mean = np.average(encoded, axis=0, weights=weight)
        deviation = np.sqrt(np.average((encoded - mean) ** 2, axis=0, weights=weight))
        if not np.isfinite(deviation).all():
            raise ValueError(
                "y has values whose squares are too large for float64, so that it cannot "
                "be standardized: scale them down."
            )
        # A constant output has a deviation of rounding errors only.
        constant = deviation <= 10 * np.finfo(np.float64).eps * np.abs(mean)
        scale = np.where(constant, 1.0, deviation * unit)
        return replace(self, mean=mean * unit, scale=scale)

    def to(self, device: torch.device) -> Self:
        return self

    @property
    def loss_key(self) -> Any:
        return self.kind, self.loss, self.quantile

    def training_losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.losses(outputs, y)

    def losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        return LOSSES[self.loss](outputs, y, self.quantile).mean(1)

    def sums(self, loss: Tensor, outputs: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        errors = weight @ (outputs.detach() - y).square()
        scalars = torch.stack((loss, weight.sum()))
        return torch.cat((scalars, errors, weight @ y, weight @ y.square()))

    def score(self, sums: list[float]) -> float:
        total = sums[0]
        errors, first, second = np.reshape(sums[1:], (3, self.n_outputs))
        variance = second - first**2 / total
        # As r2_score: the variance of a constant output is 0 but for rounding.
        constant = variance <= 1e-6 * second
        ratio = errors / np.where(constant, 1.0, variance)
        return float(np.mean(np.where(constant, np.where(errors > 0, 0.0, 1.0), 1 - ratio)))

    def soft(self, y: Tensor) -> Tensor:
        return y

    def hold_out(
        self, encoded: NDArray[Any], fraction: float, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        return _random_rows(len(encoded), fraction, rng)

    def strata(self, encoded: NDArray[Any]) -> NDArray[np.intp]:
        return np.zeros(len(encoded), dtype=np.intp)

    def check_training_part(self, encoded: NDArray[Any], shown: str) -> None:
        """Any part will do."""

    def averaged(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        return outputs.mean(axis=0, dtype=np.float64)

    def explained(self, outputs: Tensor, places: Tensor) -> Tensor:
        assert self.mean is not None
        assert self.scale is not None
        mean, scale = (
            torch.from_numpy(a).to(outputs)[places] for a in (self.mean, self.scale)
        )
        return _at_places(outputs, places).mean(0) * scale + mean

    def decide(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return outputs

    def decode(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        assert self.mean is not None
        assert self.scale is not None
        y = outputs * self.scale + self.mean
        return y[:, 0] if self.is_flat else y

    def probabilities(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        raise AttributeError("Numbers have no probabilities.")

    def predictions(self, outputs: Tensor) -> tuple[Tensor, ...]:
        assert self.mean is not None
        assert self.scale is not None
        scale, mean = (
            torch.tensor(values.tolist(), dtype=torch.float64)
            for values in (self.scale, self.mean)
        )
        return (outputs.double().mean(0) * scale + mean,)

    def sample_scores(
        self, outputs: NDArray[np.float32], encoded: NDArray[Any]
    ) -> NDArray[np.float64]:
        variance = encoded.var(axis=0, dtype=np.float64)
        errors = (outputs.astype(np.float64) - encoded) ** 2
        return (1 - errors / np.where(variance > 0, variance, 1.0)).mean(axis=1)

    def constant(self, encoded: NDArray[Any]) -> tuple[float, float]:
        level = 0.5 if self.loss != "quantile" else self.quantile
        middle = np.mean if self.loss == "squared_error" else _at(level)
        y = torch.from_numpy(encoded)
        guess = torch.from_numpy(np.asarray(middle(encoded, axis=0), np.float32))
        return 0.0, float(self.losses(guess.expand_as(y), y).mean())

    def to_dict(self) -> dict[str, Any]:
        kept = ("n_outputs", "is_flat", "loss", "quantile", "mean", "scale")
        return {"kind": self.kind, **{name: getattr(self, name) for name in kept}}

    def is_whole(self) -> bool:
        return (
            self.loss in LOSSES
            and 0 < self.quantile < 1
            and not (self.is_flat and self.n_outputs != 1)
            and self.mean is not None
            and are_statistics(self.mean, self.scale, self.n_outputs)
        )


def _at(level: float) -> Callable[..., Any]:
    return lambda y, axis: np.quantile(y, level, axis=axis)


KINDS: dict[str, Any] = {kind.kind: kind for kind in (Labels, LabelSets, Numbers)}


def target_from_dict(values: Mapping[str, Any]) -> Target:
    """Target that `to_dict` described."""
    values = dict(values)
    return KINDS[values.pop("kind")](**values)
