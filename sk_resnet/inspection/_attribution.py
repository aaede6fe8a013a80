"""How much each value of a sample adds to what a network says of one output."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sk_resnet._base import BaseResNet, checked_samples
from sk_resnet._input import InputSpec
from sk_resnet._network import ResidualNetwork
from sk_resnet._samples import Samples
from sk_resnet._target import Target
from sk_resnet.inspection._probe import without_generators

Outputs = Callable[[Tensor], Tensor]
Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Question:
    """What is attributed, and where it is attributed from.

    `score` gives a number for each of some samples, in the units of X, and the places of
    the outputs that are asked for. `n_at_once` samples fit into memory.
    """

    score: Score
    network: ResidualNetwork
    baseline: Tensor
    n_at_once: int
    n_steps: int
    window: tuple[int, ...]
    stage: int

    def up_to(self, length: int) -> "Question":
        """Question for samples that end before the longest of them."""
        window = (*self.window[:-1], min(self.window[-1], length))
        return replace(self, baseline=self.baseline[..., :length], window=window)


@dataclass(frozen=True)
class Method:
    """One way to attribute; `options` are the arguments that it reads."""

    attribute: Callable[[Question, Tensor, Tensor], Tensor]
    label: str
    options: tuple[str, ...] = ()
    needs_places: bool = False
    is_signed: bool = True


def _integrated_gradients(question: Question, x: Tensor, places: Tensor) -> Tensor:
    from captum.attr import IntegratedGradients

    return IntegratedGradients(question.score).attribute(
        x,
        baselines=question.baseline,
        additional_forward_args=places,
        n_steps=question.n_steps,
        internal_batch_size=max(len(x), question.n_at_once),
    )


def _saliency(question: Question, x: Tensor, places: Tensor) -> Tensor:
    from captum.attr import Saliency

    return Saliency(question.score).attribute(x, additional_forward_args=places)


def _occlusion(question: Question, x: Tensor, places: Tensor) -> Tensor:
    from captum.attr import Occlusion

    has_places = x.ndim > 2
    window = (x.shape[1], *question.window) if has_places else question.window
    found = Occlusion(question.score).attribute(
        x,
        window,
        strides=tuple(-(-side // 2) for side in window),
        baselines=question.baseline,
        additional_forward_args=places,
    )
    return found[:, :1] if has_places else found


def _grad_cam(question: Question, x: Tensor, places: Tensor) -> Tensor:
    from captum.attr import LayerGradCam

    layer = _seen_layer(question.network, question.stage)
    found = LayerGradCam(question.score, layer).attribute(
        x, additional_forward_args=places, relu_attributions=True
    )
    if x.ndim == 3:  # series are images of height 1 inside
        found = found.squeeze(2)
    return _over_the_input(found.to(x), x.shape[2:])


METHODS = {
    # arXiv:1703.01365 §3
    "integrated_gradients": Method(
        _integrated_gradients, "integrated gradients", ("baseline", "n_steps")
    ),
    # arXiv:1610.02391 §3
    "grad_cam": Method(
        _grad_cam, "Grad-CAM", ("stage",), needs_places=True, is_signed=False
    ),
    # arXiv:1311.2901 §4.2
    "occlusion": Method(_occlusion, "occlusion", ("baseline", "window")),
    # arXiv:1312.6034 §3
    "saliency": Method(_saliency, "|gradient|", is_signed=False),
}


def _seen_layer(network: ResidualNetwork, stage: int) -> nn.Module:
    """Layer whose activations Grad-CAM weighs: those that the last layer averages.

    Of the last stage they may come out of the head. Sequences are not called themselves
    for series of unequal lengths, so that it is their last layer.
    """
    is_last = stage in (-1, len(network.stages) - 1)
    blocks = cast(nn.Sequential, network.stages[stage])
    return [*blocks, *(network.head if is_last else ())][-1]


def _over_the_input(found: Tensor, sides: Sequence[int]) -> Tensor:
    """Values at every place of the input, linear between those of a coarser grid.

    All convolutions keep the first place of each axis and skip from there, so that the
    grid stands at multiples of its stride, not in the middle of what each value covers.
    """
    for axis, side in enumerate(sides, start=2):
        stride = 1
        while -(-side // stride) > found.shape[axis]:
            stride *= 2
        at = torch.arange(side, dtype=found.dtype) / stride
        before = at.long()
        behind = (before + 1).clamp(max=found.shape[axis] - 1)
        share = (at - before).reshape(-1, *(1,) * (found.ndim - axis - 1))
        low, high = found.index_select(axis, before), found.index_select(axis, behind)
        found = low + share * (high - low)
    return found


class Attributions(NamedTuple):
    """Samples in the units of X with the channels in front, and what was found."""

    samples: NDArray[np.float64]
    attributions: NDArray[np.float64]
    scores: NDArray[np.float64]
    targets: NDArray[Any]


@torch.inference_mode(False)
@torch.enable_grad()
def attributed(
    estimator: BaseResNet,
    X: Any,
    *,
    method: str,
    target: Any = None,
    baseline: Any = None,
    n_steps: int | None = None,
    window: Any = None,
    stage: int | None = None,
) -> Attributions:
    """Attributions of samples, which leave a fitted estimator as it is."""
    given = {"baseline": baseline, "n_steps": n_steps, "window": window, "stage": stage}
    way = _method(method, given)
    _check_captum()
    net = estimator.net_
    network = cast(ResidualNetwork, without_generators(estimator.module_))
    network.eval().requires_grad_(False)
    spec = net.input_spec
    x = _samples(checked_samples(estimator, X), spec)
    sides = tuple(x.shape[2:])
    if way.needs_places and not sides:
        raise ValueError(
            f"method={method!r} marks places, and the rows of a table have none: use "
            "'integrated_gradients', 'occlusion' or 'saliency'."
        )
    outputs = _outputs_of(network, spec, torch.device(net.device))
    if target is not None:
        names = getattr(estimator, "target_names_", None)
        places = _places(net.target, target, len(x), names)
    else:
        places = _most_probable(net.target, outputs, x, net.batch_size)
    question = Question(
        score=lambda x, places: net.target.explained(outputs(x), places),
        network=network,
        baseline=_baseline(baseline, spec, x),
        n_at_once=net.batch_size,
        n_steps=_whole("n_steps", n_steps, 50),
        window=_window(window, sides),
        stage=_stage(stage, len(network.stages)),
    )
    attributions, scores = _of_batches(way, question, x, places)
    targets = _names(net.target)[places.numpy()]
    return Attributions(x.numpy(), attributions, scores, targets)


def _of_batches(
    way: Method, question: Question, x: Tensor, places: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Attributions and scores; NaN behind the ends of series."""
    scores = torch.empty(len(x), dtype=torch.float64)
    attributions: Tensor | None = None
    for rows, length in _batches(x, question.n_at_once):
        batch = x[rows, ..., :length]
        with torch.no_grad():
            scores[rows] = question.score(batch, places[rows])
        found = way.attribute(question.up_to(length), batch.requires_grad_(), places[rows])
        if attributions is None:
            shape = (len(x), found.shape[1], *x.shape[2:])
            attributions = torch.full(shape, torch.nan, dtype=torch.float64)
        attributions[rows, ..., :length] = found.detach().double()
    assert attributions is not None
    return attributions.numpy(), scores.numpy()


def _batches(x: Tensor, size: int) -> Iterator[tuple[Tensor, int]]:
    """Rows of batches whose samples have one length, and that length.

    So that nothing behind the ends of series is averaged, occluded or interpolated.
    """
    lengths = torch.full((len(x),), x.shape[-1])
    if x.ndim == 3:
        lengths = (~x[:, 0].isnan()).sum(-1)
    for length in lengths.unique().tolist():
        for rows in (lengths == length).nonzero().flatten().split(size):
            yield rows, length


def _samples(X: NDArray[Any] | Samples, spec: InputSpec) -> Tensor:
    """Samples that were checked, in float64 with the channels in front."""
    return torch.tensor(spec.channels_first(X[:].astype(np.float64)))


def _statistics(spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Mean and scale of each channel, to broadcast over (n, channels, *sides)."""
    n_channels, *sides = spec.network_shape
    mean = np.zeros(n_channels) if spec.mean is None else spec.mean
    scale = np.ones(n_channels) if spec.scale is None else spec.scale
    shape = (1, n_channels, *(1,) * len(sides))
    # Copies: the arrays of a mapped file cannot be written to, of which torch warns.
    return torch.tensor(mean.reshape(shape)), torch.tensor(scale.reshape(shape))


def _outputs_of(network: ResidualNetwork, spec: InputSpec, device: torch.device) -> Outputs:
    """Function from samples in the units of X to outputs of shape (members, n, outputs).

    It is in float64 around the network, as large means leave few digits in float32.
    """
    mean, scale = _statistics(spec)

    def outputs_of(x: Tensor) -> Tensor:
        outputs = network(spec.clipped((x - mean) / scale).float().to(device))
        outputs = outputs.cpu().double()  # in this order: not all devices have float64
        return outputs if outputs.ndim == 3 else outputs[None]

    return outputs_of


# What the arguments say


def last_step(
    estimator: BaseResNet | Pipeline, X: Any
) -> tuple[BaseResNet, Any, NDArray[Any] | None]:
    """Estimator at the end of a pipeline, what it reads there, and the names of that."""
    names = None
    while isinstance(estimator, Pipeline):
        *before, (_, last) = estimator.steps
        if before:
            X = estimator[:-1].transform(X)
            names = _names_behind(estimator[:-1])
        estimator = last
    if not isinstance(estimator, BaseResNet):
        inside = [
            name for name in ("best_estimator_", "estimator_") if hasattr(estimator, name)
        ]
        hint = f": pass its {inside[0]}." if inside else "."
        raise TypeError(
            "estimator must be a classifier or regressor of sk_resnet, or a Pipeline that "
            f"ends in one, got {type(estimator).__name__}{hint}"
        )
    check_is_fitted(estimator)
    return estimator, X, getattr(estimator, "feature_names_in_", names)


def _names_behind(steps: Pipeline) -> NDArray[Any] | None:
    try:
        return steps.get_feature_names_out()
    except (AttributeError, ValueError):  # of steps that keep no names
        return None


def _method(name: str, given: dict[str, Any]) -> Method:
    if name not in METHODS:
        raise ValueError(f"method must be one of {sorted(METHODS)}, got {name!r}.")
    way = METHODS[name]
    for option, value in given.items():
        if value is not None and option not in way.options:
            readers = [known for known, row in METHODS.items() if option in row.options]
            raise ValueError(
                f"{option} is read by method={' or '.join(map(repr, readers))} only, got "
                f"method={name!r}: leave it out."
            )
    return way


def _check_captum() -> None:
    try:
        import captum  # noqa: F401
    except ImportError:
        raise ImportError(
            "Attributions need captum: pip install 'sk-resnet[explain]'."
        ) from None


def _most_probable(target: Target, outputs: Outputs, x: Tensor, size: int) -> Tensor:
    """Most probable class or label of each sample; the first output of numbers."""
    places = torch.zeros(len(x), dtype=torch.long)
    if target.classes is not None:
        with torch.no_grad():
            for rows, length in _batches(x, size):
                *_, probabilities = target.predictions(outputs(x[rows, ..., :length]))
                places[rows] = probabilities.argmax(1)
    return places


def _names(target: Target) -> NDArray[Any]:
    """What users call the outputs: classes, or else their numbers."""
    return np.arange(target.n_outputs) if target.classes is None else target.classes


def _places(
    target: Target, given: Any, n: int, names: NDArray[np.object_] | None
) -> Tensor:
    """Output to explain of each sample; `names` are those of the columns of y."""
    known = _names(target).tolist()
    place_of = {one: place for place, one in enumerate(known)}
    if names is not None:
        place_of |= {name: place for place, name in enumerate(names)}
    wanted = np.asarray(given)
    if wanted.shape not in ((), (n,)):
        raise ValueError(
            f"target must be one of the outputs, or one for each of the {n} samples, got "
            f"an array of shape {wanted.shape}."
        )
    listed = np.broadcast_to(wanted, n).tolist()
    for one in listed:
        if one not in place_of:
            raise ValueError(f"target must be among {_shown(list(place_of))}, got {one!r}.")
    return torch.tensor([place_of[one] for one in listed])


def _shown(values: list[Any], most: int = 10) -> str:
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return f"{values[:most]}{more}"


def _baseline(baseline: Any, spec: InputSpec, x: Tensor) -> Tensor:
    """Sample that stands for no evidence, of shape (1, channels, *sides)."""
    if baseline is None:
        return _statistics(spec)[0].expand(1, *x.shape[1:]).clone()
    try:
        values = np.asarray(baseline, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if not np.isfinite(values).all():
        raise ValueError(f"baseline must hold finite numbers, got {baseline!r}.")
    if values.ndim == 0:
        return torch.full((1, *x.shape[1:]), float(values), dtype=torch.float64)
    if values.shape != spec.sample_shape or spec.unequal:
        shape = (
            "" if spec.unequal else f", or have the shape {spec.sample_shape} of a sample"
        )
        raise ValueError(
            f"baseline must be a number{shape}, got an array of shape {values.shape}."
        )
    return torch.from_numpy(spec.channels_first(values[None]).copy())


def _whole(name: str, value: Any, default: int) -> int:
    if value is None:
        return default
    if not isinstance(value, Integral) or int(value) < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
    return int(value)


def _window(window: Any, sides: tuple[int, ...]) -> tuple[int, ...]:
    """Sides of what is occluded at once: an eighth of those of the samples, or given."""
    if not sides:
        if window not in (None, 1):
            raise ValueError(
                f"window must be None for the rows of a table, got {window!r}: features "
                "are occluded one by one."
            )
        return (1,)
    if window is None:
        return tuple(max(1, round(side / 8)) for side in sides)
    lengths = (
        np.broadcast_to(window, len(sides)).tolist() if np.ndim(window) == 0 else window
    )
    fits = len(lengths) == len(sides) and all(
        isinstance(length, Integral) and 1 <= int(length) <= side
        for length, side in zip(lengths, sides, strict=True)
    )
    if not fits:
        raise ValueError(
            f"window must be an integer or {len(sides)} of them, from 1 to the sides "
            f"{sides} of the samples, got {window!r}."
        )
    return tuple(map(int, lengths))


def _stage(stage: int | None, n_stages: int) -> int:
    if stage is None:
        return n_stages - 1
    if not isinstance(stage, Integral) or not -n_stages <= int(stage) < n_stages:
        raise ValueError(
            f"stage must be an integer from 0 to {n_stages - 1}, or count back from -1, "
            f"got {stage!r}."
        )
    return int(stage) % n_stages
