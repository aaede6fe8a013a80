"""Block orders and network specifications: depth and width become stages."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from numbers import Integral
from typing import Any

RESNET = "He et al. 2015, arXiv:1512.03385"
PREACTIVATION = "He et al. 2016, arXiv:1603.05027, figure 4"
WIDE = "Zagoruyko & Komodakis 2016, arXiv:1605.07146"


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
# What each number of a row is embedded in, beside itself: how many values.
EMBEDDINGS = {"periodic": 8, "piecewise_linear": 16}
LAYOUTS = ("auto", "small", "dilated", "imagenet")


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
# one stage only.
STEM_CHANNELS = {0: 64, 1: 16, 2: 16, 3: 16}


@dataclass(frozen=True)
class Defaults:
    """What "auto" stands for in parameters of these names, for samples of one kind."""

    depth: int
    width: float
    order: str
    l2: float
    block: str | tuple[int, ...] = "basic"
    n_estimators: int = 1
    embedding: str | None = None
    layout: str = "auto"
    # Strength for all samples together, of which each gets its share; at most `l2`.
    l2_in_all: float = math.inf
    # Of the optimizer's own learning rate.
    lr_factor: float = 1.0

    def l2_for(self, n: int) -> float:
        """Strength of the L2 penalty for so many training samples."""
        return min(self.l2, self.l2_in_all / n)


@dataclass(frozen=True)
class Family:
    """Conventions of a paper: what "auto" stands for, and how depth is counted."""

    rows: Defaults
    series: Defaults
    images: Defaults  # and volumes
    # Depth is 6n+4 whatever the block, as arXiv:1605.07146 counts it.
    counts_nominally: bool
    # The first block activates before its fork even if it does not project.
    activates_first: bool
    source: str

    def defaults(self, n_dims: int) -> Defaults:
        """Those for samples with this many spatial dimensions."""
        return (self.rows, self.series, self.images)[min(n_dims, 2)]


# Of all rows of a table together: the more there are, the weaker each is penalized.
L2_IN_ALL = 60
# Of rows and series, several networks of few layers predict better than a deep one. What
# tells series apart may stand anywhere in them, so nothing is left out by strides.
_SERIES = Defaults(8, 1, "original", 1e-4, (7, 3), n_estimators=5, layout="dilated")
_WIDE = Defaults(16, 4, "full_preactivation", 5e-4)
FAMILIES = {
    "resnet": Family(
        rows=Defaults(8, 1, "original", 5e-2, n_estimators=8, l2_in_all=L2_IN_ALL),
        series=_SERIES,
        images=Defaults(20, 1, "original", 5e-4, lr_factor=2.0),
        counts_nominally=False,
        activates_first=True,
        source=RESNET,
    ),
    "wide": Family(
        rows=Defaults(16, 4, "full_preactivation", 1e-2),
        series=_WIDE,
        images=_WIDE,
        counts_nominally=True,
        activates_first=False,
        source=WIDE,
    ),
    # Losses of numbers have no bound. With a norm behind the last convolution of each
    # branch, as in "original", they diverge at the learning rates of classification, and
    # so they do with the many features of wide networks. Rows need a stronger penalty.
    "resnet_of_numbers": Family(
        rows=Defaults(
            8,
            1,
            "full_preactivation",
            l2=3e-1,
            n_estimators=8,
            embedding="periodic",
            l2_in_all=L2_IN_ALL,
            lr_factor=0.5,
        ),
        series=replace(_SERIES, order="full_preactivation", lr_factor=0.5),
        images=Defaults(20, 1, "full_preactivation", 1e-4, lr_factor=0.5),
        counts_nominally=False,
        activates_first=True,
        source=RESNET,
    ),
    "wide_of_numbers": Family(
        rows=Defaults(16, 4, "full_preactivation", 1e-1, lr_factor=0.3),
        series=replace(_WIDE, lr_factor=0.3),
        images=replace(_WIDE, lr_factor=0.3),
        counts_nominally=True,
        activates_first=False,
        source=WIDE,
    ),
}


def resolved(parameters: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    """Parameters with what "auto" stands for; "auto" stays where that is not by family."""
    named = asdict(defaults)
    return {
        name: named[name] if name in named and value == "auto" else value
        for name, value in parameters.items()
    }


class ArchitectureError(ValueError):
    """Parameters, or samples and parameters, that no network has together."""


@dataclass(frozen=True)
class Architecture:
    """The parameters of an estimator that shape its network; their names stand here."""

    depth: int
    width: float = 1.0
    block: str | tuple[int, ...] = "basic"
    order: str = "original"
    shortcut: str = "projection"
    layout: str = "auto"
    embedding: str | None = None
    dropout: float = 0.0
    stochastic_depth: float = 0.0


def architecture(
    parameters: Mapping[str, Any], family: Family, n_dims: int
) -> Architecture:
    """Architecture for parameters, in which "auto" is left to the family."""
    defaults = family.defaults(n_dims)
    chosen = resolved(parameters, defaults)
    values = {field.name: chosen[field.name] for field in fields(Architecture)}
    values["depth"] = int(values["depth"])
    values["block"] = _checked_block(values["block"])
    if parameters["depth"] == "auto" and not (family.counts_nominally and n_dims):
        # About as many layers, where blocks have more or fewer of them.
        step = len(resolve_block(values["block"]).kernels) * (3 if n_dims else 1)
        values["depth"] = 2 + step * max(1, round((defaults.depth - 2) / step))
    for name in ("width", "dropout", "stochastic_depth"):
        values[name] = float(values[name])
    return Architecture(**values)


def _checked_block(block: Any) -> Any:
    if isinstance(block, str):
        return block
    if not block or not all(isinstance(k, Integral) and int(k) >= 1 for k in block):
        raise ValueError(
            f"block must be one of {sorted(BLOCKS)} or a tuple of kernel sizes of at least "
            f"1 such as (3, 1, 3), got {block!r}."
        )
    return tuple(map(int, block))


@dataclass(frozen=True)
class Stage:
    """Blocks at one resolution; the first of them applies the stride."""

    n_blocks: int
    inner_channels: int
    out_channels: int
    stride: int
    dilation: int = 1


@dataclass(frozen=True)
class BlockSpec:
    """Place of one block in its network, and the sides of what it gives."""

    stage: int
    in_channels: int
    inner_channels: tuple[int, ...]
    out_channels: int
    stride: int
    dilation: int
    drop_rate: float
    is_first: bool
    sides: tuple[int, ...]

    @property
    def changes_shape(self) -> bool:
        """Whether the shortcut cannot be the identity."""
        return self.stride > 1 or self.in_channels != self.out_channels


@dataclass(frozen=True)
class NetworkSpec:
    """All that is needed to build a network, in plain values."""

    n_dims: int
    in_channels: int
    n_outputs: int
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
    # Networks of this architecture that are trained as one.
    members: int = 1
    # Of series that NaN follow, which no layer reads.
    unequal: bool = False
    # Of the numbers in a row.
    embedding: str | None = None

    @property
    def n_embedded(self) -> int:
        """Channels that the stem reads."""
        each = 0 if self.embedding is None else EMBEDDINGS[self.embedding]
        return self.in_channels * (1 + each)

    @property
    def n_layers(self) -> int:
        """Weight layers on the longest path: stem, convolutions of the branches, head."""
        return 2 + len(self.kernels) * sum(stage.n_blocks for stage in self.stages)

    def stem_sides(self, sides: tuple[int, ...]) -> tuple[int, ...]:
        """Sides behind the convolution of the stem."""
        return _halved(sides) if self.imagenet_stem else sides

    def blocks(self, sides: tuple[int, ...] = ()) -> list[BlockSpec]:
        """Blocks in the order of the data, for samples with these sides.

        Every layer gives ceil(side / stride); the first block of a stage strides.
        """
        sides = self.stem_sides(sides)
        if self.imagenet_stem:
            sides = _halved(sides)  # the pooling
        found: list[BlockSpec] = []
        channels = self.stem_channels
        n_blocks = sum(stage.n_blocks for stage in self.stages)
        for i, stage in enumerate(self.stages):
            sides = tuple(-(-side // stage.stride) for side in sides)
            for j in range(stage.n_blocks):
                n = len(found)
                inner = (stage.inner_channels,) * (len(self.kernels) - 1)
                found.append(
                    BlockSpec(
                        stage=i,
                        in_channels=channels,
                        inner_channels=self.cut_to[n] if self.cut_to else inner,
                        out_channels=stage.out_channels,
                        stride=stage.stride if j == 0 else 1,
                        dilation=stage.dilation,
                        # Linear decay of the survival, arXiv:1603.09382 §3.
                        drop_rate=self.stochastic_depth * (n + 1) / n_blocks,
                        is_first=n == 0,
                        sides=sides,
                    )
                )
                channels = stage.out_channels
        return found

    def widest_layer(self, sides: tuple[int, ...] = ()) -> int:
        """Most values behind a layer, for one sample with these sides."""
        places = math.prod(self.stem_sides(sides))
        of_blocks = [
            max((*b.inner_channels, b.out_channels)) * math.prod(b.sides)
            for b in self.blocks(sides)
        ]
        return max(self.stem_channels * places, *of_blocks)

    def n_kernel_weights(self, block: BlockSpec) -> int:
        """Weights of the convolutions of a block, in each member."""
        channels = [block.in_channels, *block.inner_channels, block.out_channels]
        sizes = [kernel**self.n_dims for kernel in self.kernels]
        branch = sum(map(math.prod, zip(sizes, channels, channels[1:], strict=False)))
        projects = self.shortcut == "projection" and block.changes_shape
        return branch + projects * block.in_channels * block.out_channels

    def keeps_two_places(self, sides: tuple[int, ...]) -> bool:
        """Whether every strided convolution reads at least 2 places along every axis."""
        read = [sides, self.stem_sides(sides)] if self.imagenet_stem else []
        blocks = self.blocks(sides)
        read += [before.sides for before, block in pairwise(blocks) if block.stride > 1]
        return all(side > 1 for places in read for side in places)

    def to_dict(self) -> dict[str, Any]:
        """Plain dict that `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NetworkSpec":
        """Inverse of `to_dict`."""
        values = dict(values)
        if "n_classes" in values:  # its name up to format 2
            values["n_outputs"] = values.pop("n_classes")
        stages = tuple(Stage(**stage) for stage in values["stages"])
        cut_to = values.get("cut_to")
        if cut_to is not None:
            cut_to = tuple(tuple(widths) for widths in cut_to)
        kernels = tuple(values["kernels"])
        return cls(**{**values, "kernels": kernels, "stages": stages, "cut_to": cut_to})


def _halved(sides: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-side // 2) for side in sides)


def resolve_block(block: str | tuple[int, ...]) -> BlockKind:
    """Block kind for a name or a tuple of kernel sizes."""
    return BLOCKS[block] if isinstance(block, str) else BlockKind(tuple(block))


def resolve_layout(
    layout: str, *, depth: int, block: BlockKind, spatial: tuple[int, ...]
) -> str:
    """A layout by name; 'auto' looks at the image sides and at the depth."""
    if layout != "auto":
        return layout
    large = len(spatial) >= 2 and min(spatial) >= IMAGENET_MIN_SIDE
    listed = IMAGENET_STAGES.get(depth, (None,))[0] == len(block.kernels)
    return "imagenet" if large and listed else "small"


def _check_fit(depth: int, valid: list[int], rule: str) -> None:
    if depth not in valid:
        nearest = sorted(sorted(valid, key=lambda d: (abs(d - depth), d))[:2])
        suggestion = " or ".join(map(str, nearest))
        raise ArchitectureError(
            f"depth must be {rule}, got depth={depth}: use {suggestion}."
        )


def blocks_per_stage(
    depth: int, *, layers_per_block: int, n_stages: int, extra_layers: int, layout: str
) -> tuple[int, ...]:
    """Blocks of each stage in a network with `depth` weight layers."""
    if layout == "imagenet":
        tables = {d: n for d, (m, n) in IMAGENET_STAGES.items() if m == layers_per_block}
        if not tables:
            raise ArchitectureError(
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


# Weights of 40 GB in float32; training takes three to four times that.
MOST_WEIGHTS, MOST_BLOCKS = 10**10, 10**4


def network_spec(
    shape: Architecture,
    family: Family,
    *,
    input_shape: tuple[int, ...],
    n_outputs: int,
    members: int = 1,
    unequal: bool = False,
) -> NetworkSpec:
    """Specification of a network for samples of shape (channels, *spatial)."""
    kind = resolve_block(shape.block)
    spatial = input_shape[1:]
    layout = resolve_layout(shape.layout, depth=shape.depth, block=kind, spatial=spatial)
    _check_kind(shape, layout, input_shape)
    n_stages = 1 if not spatial else 4 if layout == "imagenet" else 3
    nominal = family.counts_nominally and bool(spatial) and layout != "imagenet"
    counts = blocks_per_stage(
        shape.depth,
        layers_per_block=2 if nominal else len(kind.kernels),
        n_stages=n_stages,
        extra_layers=4 if nominal else 2,
        layout=layout,
    )
    if sum(counts) > MOST_BLOCKS:
        raise ArchitectureError(
            f"depth={shape.depth} makes a network of {sum(counts)} blocks, more than the "
            f"{MOST_BLOCKS} that are allowed: lower it."
        )
    stem = 64 if layout == "imagenet" else STEM_CHANNELS[len(spatial)]
    spec = NetworkSpec(
        n_dims=len(spatial),
        in_channels=input_shape[0],
        n_outputs=n_outputs,
        order=shape.order,
        kernels=kind.kernels,
        stem_channels=stem,
        imagenet_stem=layout == "imagenet",
        stages=tuple(
            _stage(i, n, stem * 2**i, shape.width, kind, dilates=layout == "dilated")
            for i, n in enumerate(counts)
        ),
        shortcut=shape.shortcut,
        dropout=shape.dropout,
        activate_first=family.activates_first,
        stochastic_depth=shape.stochastic_depth,
        members=members,
        unequal=unequal,
        embedding=shape.embedding,
    )
    n_weights = members * sum(map(spec.n_kernel_weights, spec.blocks()))
    if n_weights > MOST_WEIGHTS:
        shown = float(min(n_weights, 10**300))  # more than a float can hold
        raise ArchitectureError(
            f"depth={shape.depth} and width={shape.width:g} make a network of {shown:.1e} "
            f"weights, more than the {MOST_WEIGHTS:.0e} that are allowed: lower them, or "
            "n_estimators."
        )
    return spec


def _check_kind(shape: Architecture, layout: str, input_shape: tuple[int, ...]) -> None:
    """Refuse parameters that samples of this kind, or other parameters, do not go with."""
    spatial = input_shape[1:]
    if layout != "small" and not spatial:
        raise ArchitectureError(
            f"layout={layout!r} needs images, series or volumes, got rows: use 'small'."
        )
    if shape.embedding is not None and spatial:
        raise ArchitectureError(
            f"embedding={shape.embedding!r} is for the numbers of rows, got samples of "
            f"shape {input_shape}: set it to None."
        )
    if shape.stochastic_depth > 0 and shape.shortcut == "none":
        raise ArchitectureError(
            "stochastic_depth drops branches, which needs shortcuts: set it to 0, or "
            "shortcut to 'projection' or 'zero_pad'."
        )


def _stage(
    i: int, n_blocks: int, channels: int, width: float, kind: BlockKind, *, dilates: bool
) -> Stage:
    # A bottleneck widens inside only, as WRN-50-2-bottleneck of arXiv:1605.07146 §3.4.
    inner = max(1, round(channels * width))
    out = inner if kind.expansion == 1 else channels * kind.expansion
    if dilates:  # an output sees as far as with strides: arXiv:1705.09914 §2
        return Stage(n_blocks, inner, out, stride=1, dilation=2**i)
    return Stage(n_blocks, inner, out, stride=1 if i == 0 else 2)
