"""Block orders and network specifications: depth and width become stages."""

import math
from dataclasses import asdict, dataclass
from typing import Any

RESNET = "He et al. 2015, arXiv:1512.03385"
PREACTIVATION = "He et al. 2016, arXiv:1603.05027, figure 4"


@dataclass(frozen=True)
class BlockOrder:
    """One activation placement, in letters: c convolution, b batch norm, r ReLU.

    A branch of m convolutions reads ``unit * (m - 1) + last_unit``.
    """

    name: str
    unit: str
    last_unit: str
    after_addition: str
    projection: str
    stem: str
    head: str
    source: str

    def __post_init__(self) -> None:
        with_convolution = self.unit, self.last_unit, self.projection, self.stem
        without = self.after_addition, self.head
        assert all(letters.count("c") == 1 for letters in with_convolution)
        assert not any("c" in letters for letters in without)
        # The signal that leaves the network is always normed and rectified.
        assert (self.stem + self.branch(2) + self.after_addition + self.head)[-1] == "r"

    def branch(self, n_convolutions: int) -> str:
        """Letters of a residual branch with this many convolutions."""
        return self.unit * (n_convolutions - 1) + self.last_unit

    @property
    def leading(self) -> str:
        """Letters of the branch that come before its first convolution."""
        return self.unit.partition("c")[0]


ORDERS = {
    row.name: row
    for row in (
        BlockOrder("original", "cbr", "cb", "r", "cb", "cbr", "", RESNET),
        BlockOrder("norm_after_addition", "cbr", "c", "br", "c", "cbr", "", PREACTIVATION),
        BlockOrder(
            "relu_before_addition", "cbr", "cbr", "", "cb", "cbr", "", PREACTIVATION
        ),
        BlockOrder(
            "relu_only_preactivation", "rcb", "rcb", "", "cb", "cb", "r", PREACTIVATION
        ),
        BlockOrder("full_preactivation", "brc", "brc", "", "c", "c", "br", PREACTIVATION),
    )
}

SHORTCUTS = ("projection", "zero_pad", "none")
LAYOUTS = ("auto", "small", "imagenet")


@dataclass(frozen=True)
class BlockKind:
    """Kernel sizes of a branch, and how much wider its output is than its inside."""

    kernels: tuple[int, ...]
    expansion: int = 1


BLOCKS = {"basic": BlockKind((3, 3)), "bottleneck": BlockKind((1, 3, 1), expansion=4)}

# Table 1 of arXiv:1512.03385: depth -> (convolutions in a block, blocks in each stage).
IMAGENET_STAGES = {
    18: (2, (2, 2, 2, 2)),
    34: (2, (3, 4, 6, 3)),
    50: (3, (3, 4, 6, 3)),
    101: (3, (3, 4, 23, 3)),
    152: (3, (3, 8, 36, 3)),
}
IMAGENET_MIN_SIDE = 64

# Channels of the stem by number of spatial dimensions: the 16 of the papers, but rows have
# one stage only. On series 16 did as well as the 64 of Wang et al. 2017
# (arXiv:1611.06455), in a sixth of the time.
STEM_CHANNELS = {0: 64, 1: 16, 2: 16, 3: 16}


@dataclass(frozen=True)
class Stage:
    """Blocks at one resolution; the first of them applies the stride."""

    n_blocks: int
    inner_channels: int
    out_channels: int
    stride: int


@dataclass(frozen=True)
class NetworkSpec:
    """All that is needed to build a network, in plain values."""

    n_dims: int
    in_channels: int
    n_classes: int
    order: str
    kernels: tuple[int, ...]
    stem_channels: int
    imagenet_stem: bool
    stages: tuple[Stage, ...]
    shortcut: str
    dropout: float
    activate_first: bool
    stochastic_depth: float = 0.0
    # Channels between the convolutions of every block, where they were cut.
    cut_to: tuple[tuple[int, ...], ...] | None = None

    def inner_channels(self) -> list[tuple[int, ...]]:
        """Channels between the convolutions of each block, in order."""
        if self.cut_to is not None:
            return list(self.cut_to)
        n_inner = len(self.kernels) - 1
        return [
            (stage.inner_channels,) * n_inner
            for stage in self.stages
            for _ in range(stage.n_blocks)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain dict that `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NetworkSpec":
        """Inverse of `to_dict`."""
        stages = tuple(Stage(**stage) for stage in values["stages"])
        cut_to = values.get("cut_to")
        if cut_to is not None:
            cut_to = tuple(tuple(widths) for widths in cut_to)
        kernels = tuple(values["kernels"])
        return cls(**{**values, "kernels": kernels, "stages": stages, "cut_to": cut_to})


def keeps_two_places(spec: NetworkSpec, spatial: tuple[int, ...]) -> bool:
    """Whether every strided convolution reads at least 2 places along every axis."""
    strides = [stage.stride for stage in spec.stages]
    if spec.imagenet_stem:
        strides = [2, 2, *strides]  # the stem's convolution, and its pooling
    before_last = math.prod(strides[:-1])
    return all(side > before_last for side in spatial)


def resolve_block(block: str | tuple[int, ...]) -> BlockKind:
    """Block kind for a name or a tuple of kernel sizes."""
    return BLOCKS[block] if isinstance(block, str) else BlockKind(tuple(block))


def resolve_layout(
    layout: str, *, depth: int, block: BlockKind, spatial: tuple[int, ...]
) -> str:
    """'small' or 'imagenet'; 'auto' looks at the image sides and at the depth."""
    if layout != "auto":
        return layout
    large = len(spatial) >= 2 and min(spatial) >= IMAGENET_MIN_SIDE
    listed = IMAGENET_STAGES.get(depth, (None,))[0] == len(block.kernels)
    return "imagenet" if large and listed else "small"


def _check_fit(depth: int, valid: list[int], rule: str) -> None:
    if depth not in valid:
        nearest = sorted(sorted(valid, key=lambda d: (abs(d - depth), d))[:2])
        suggestion = " or ".join(map(str, nearest))
        raise ValueError(f"depth must be {rule}, got depth={depth}: use {suggestion}.")


def blocks_per_stage(
    depth: int, *, layers_per_block: int, n_stages: int, extra_layers: int, layout: str
) -> tuple[int, ...]:
    """Blocks of each stage in a network with `depth` weight layers."""
    if layout == "imagenet":
        tables = {d: n for d, (m, n) in IMAGENET_STAGES.items() if m == layers_per_block}
        if not tables:
            raise ValueError(
                "layout='imagenet' needs a block of 2 or 3 convolutions, got "
                f"{layers_per_block}: use another block or layout='small'."
            )
        rule = f"one of {sorted(tables)} for layout='imagenet' with this block"
        _check_fit(depth, sorted(tables), rule)
        return tables[depth]
    step = layers_per_block * n_stages
    n = max(1, (depth - extra_layers) // step)
    valid = [extra_layers + step * m for m in range(max(1, n - 1), n + 3)]
    _check_fit(depth, valid, f"{step}n+{extra_layers} with n >= 1 for this block")
    return (n,) * n_stages


def network_spec(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    depth: int,
    width: int | float,
    block: str | tuple[int, ...],
    order: str,
    shortcut: str,
    layout: str,
    dropout: float,
    wide: bool,
    stochastic_depth: float = 0.0,
) -> NetworkSpec:
    """Specification of a network for samples of shape (channels, *spatial).

    ``wide`` selects the conventions of arXiv:1605.07146: depth is 6n+4 whatever the
    block, and the first block activates before the fork only if it projects.
    """
    kind = resolve_block(block)
    spatial = input_shape[1:]
    layout = resolve_layout(layout, depth=depth, block=kind, spatial=spatial)
    if layout == "imagenet" and not spatial:
        raise ValueError("layout='imagenet' needs images or series, got rows: use 'small'.")
    if stochastic_depth > 0 and shortcut == "none":
        raise ValueError(
            "stochastic_depth drops branches, which needs shortcuts: set it to 0, or "
            "shortcut to 'projection' or 'zero_pad'."
        )
    n_stages = 1 if not spatial else 3 if layout == "small" else 4
    nominal = wide and bool(spatial) and layout == "small"
    counts = blocks_per_stage(
        depth,
        layers_per_block=2 if nominal else len(kind.kernels),
        n_stages=n_stages,
        extra_layers=4 if nominal else 2,
        layout=layout,
    )
    stem = 64 if layout == "imagenet" else STEM_CHANNELS[len(spatial)]
    return NetworkSpec(
        n_dims=len(spatial),
        in_channels=input_shape[0],
        n_classes=n_classes,
        order=order,
        kernels=kind.kernels,
        stem_channels=stem,
        imagenet_stem=layout == "imagenet",
        stages=tuple(
            _stage(n, stem * 2**i, width, kind, stride=1 if i == 0 else 2)
            for i, n in enumerate(counts)
        ),
        shortcut=shortcut,
        dropout=dropout,
        activate_first=not wide,
        stochastic_depth=stochastic_depth,
    )


def _stage(
    n_blocks: int, channels: int, width: int | float, kind: BlockKind, *, stride: int
) -> Stage:
    # A bottleneck widens inside only, as WRN-50-2-bottleneck of arXiv:1605.07146 §3.4.
    inner = max(1, round(channels * width))
    out = inner if kind.expansion == 1 else channels * kind.expansion
    return Stage(n_blocks, inner, out, stride)
