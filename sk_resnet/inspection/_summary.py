"""Stages, shapes, parameters and multiply-adds of a network, as a table."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sk_resnet._base import BaseResNet
from sk_resnet._layers import Embedding, Periodic
from sk_resnet._network import Block, ResidualNetwork, build_network, n_parameters


@dataclass(frozen=True)
class Row:
    """One part of a network: the stem, a block, the head or the classifier."""

    name: str
    layers: str
    shortcut: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def network_rows(network: ResidualNetwork, spatial: tuple[int, ...]) -> list[Row]:
    """Parts of a network in the order of the data."""
    spec = network.spec
    # Of series of one length, as layers alone are called otherwise.
    meta = build_network(replace(spec, unequal=False)).eval()
    shapes: dict[str, tuple[int, ...]] = {}
    parts = _parts(meta)

    def keep(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            shapes[name] = tuple(output.shape[1:])

        return hook

    for name, part in parts.items():
        part.register_forward_hook(keep(name))
    with FlopCounterMode(display=False) as counter:
        meta(torch.empty(1, spec.in_channels, *spatial, device="meta"))
    counts = counter.get_flop_counts()
    root = type(meta).__name__
    return [
        Row(
            name,
            _layers(part),
            _shortcut(part),
            # Series are images of height 1 inside.
            shapes[name] if spec.n_dims != 1 else _without_height(shapes[name]),
            n_parameters(part),
            sum(counts.get(f"{root}.{name}", {}).values()) // 2,
        )
        for name, part in parts.items()
    ]


def _without_height(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], *shape[2:])


def _parts(network: ResidualNetwork) -> dict[str, nn.Module]:
    parts: dict[str, nn.Module] = {}
    if network.embedding is not None:
        parts["embedding"] = network.embedding
    parts["stem"] = network.stem
    for i, stage in enumerate(network.stages):
        for name, block in stage.named_children():
            parts[f"stages.{i}.{name}"] = block
    if len(network.head):
        parts["head"] = network.head
    return {**parts, "classifier": network.classifier}


def _layers(part: nn.Module) -> str:
    if isinstance(part, nn.Linear):
        return "linear"
    if isinstance(part, Embedding):
        return "cosines" if isinstance(part, Periodic) else "bins"
    if not isinstance(part, Block):
        return _names(part)
    names = map(_names, (part.before_fork, part.branch, part.after))
    found = ", ".join(name for name in names if name)
    dilation = max(max(getattr(layer, "dilation", (1,))) for layer in part.branch.modules())
    return found if dilation == 1 else f"{found} (dilation {dilation})"


def _shortcut(part: nn.Module) -> str:
    """Kind of the shortcut of a block; nothing for what is no block."""
    if not isinstance(part, Block):
        return ""
    if part.shortcut is None:
        return "none"
    kind = type(part.shortcut).__name__.lower()
    return {"sequential": "projection", "zeropadshortcut": "zero pad"}.get(kind, kind)


def _names(sequence: nn.Module) -> str:
    letters = [name.rstrip("0123456789") for name, _ in sequence.named_children()]
    return " ".join(letters)


def summary(estimator: BaseResNet) -> str:
    """Table of the network: shapes, parameters and multiply-adds of each part.

    Blocks that are alike and follow each other share a line. Commas part what stands
    before the fork, the residual branch, and what follows the addition. Kernels that leave
    places out have their dilation in brackets.

    Parameters
    ----------
    estimator : ResNetClassifier, ResNetRegressor or a wide one
        Fitted.

    Returns
    -------
    str
        One line for each part; shapes are ``(channels, *spatial)``, counts for a sample.

    Raises
    ------
    NotFittedError
        For an estimator that is not fitted.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import ResNetClassifier
    >>> from sk_resnet.inspection import summary
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ResNetClassifier(depth=4, n_estimators=1, max_epochs=1)
    >>> print(summary(model.fit(X, y)))
    part        layers                          shortcut  shape  parameters  multiply-adds
    stem        conv norm relu                            64            384            256
    stages.0.0  conv norm relu conv norm, relu  identity  64          8,448          8,192
    classifier  linear                                    3             195            192
    total                                                             9,027          8,640
    """
    check_is_fitted(estimator)
    nets = estimator.nets_
    rows = network_rows(nets[0].module_, nets[0].input_spec.network_shape[1:])
    lines = [("part", "layers", "shortcut", "shape", "parameters", "multiply-adds")]
    for first, last, n in _runs(rows):
        name = first.name if n == 1 else f"{first.name} to {last.name.rpartition('.')[2]}"
        parameters = f"{first.parameters:,}" if n == 1 else f"{n} x {first.parameters:,}"
        macs = f"{first.multiply_adds:,}" if n == 1 else f"{n} x {first.multiply_adds:,}"
        shape = " × ".join(map(str, first.shape))
        lines.append((name, first.layers, first.shortcut, shape, parameters, macs))
    total = sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows)
    lines.append(("total", "", "", "", f"{total[0]:,}", f"{total[1]:,}"))
    if (n := len(nets)) > 1:
        of_all = f"{n * total[0]:,}", f"{n * total[1]:,}"
        lines.append((f"{n} networks", "", "", "", *of_all))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i > 3 else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _runs(rows: list[Row]) -> list[tuple[Row, Row, int]]:
    """Rows in groups of neighbours that differ in their names only."""
    runs: list[tuple[Row, Row, int]] = []
    for row in rows:
        if runs and _alike(runs[-1][1], row):
            first, _, n = runs.pop()
            runs.append((first, row, n + 1))
        else:
            runs.append((row, row, 1))
    return runs


def _alike(one: Row, other: Row) -> bool:
    stage = [row.name.rpartition(".")[0] for row in (one, other)]
    return replace(one, name=other.name) == other and stage[0] == stage[1] != ""
