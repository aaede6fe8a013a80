import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from sk_resnet._layers import Subsample
from sk_resnet._network import Block, build_network, kernels
from sk_resnet._spec import (
    FAMILIES,
    ORDERS,
    SHORTCUTS,
    Architecture,
    BlockOrder,
    NetworkSpec,
    blocks_per_stage,
    network_spec,
)


def spec_of(*, input_shape=(3, 32, 32), n_outputs=10, family="resnet", **changes):
    shape = Architecture(**{"depth": 20, **changes})
    return network_spec(
        shape, FAMILIES[family], input_shape=input_shape, n_outputs=n_outputs
    )


@pytest.mark.parametrize(
    ("depth", "layers", "stages", "extra", "nearest"),
    [
        (21, 2, 3, 2, "20 or 26"),
        (1, 2, 3, 2, "8 or 14"),
        (25, 2, 3, 2, "20 or 26"),
        (28, 3, 3, 2, "20 or 29"),
        (27, 2, 3, 4, "22 or 28"),
        (5, 2, 1, 2, "4 or 6"),
    ],
)
def test_a_depth_that_does_not_fit_names_the_nearest_two(
    depth, layers, stages, extra, nearest
):
    with pytest.raises(ValueError, match=f"got depth={depth}: use {nearest}"):
        blocks_per_stage(
            depth,
            layers_per_block=layers,
            n_stages=stages,
            extra_layers=extra,
            layout="small",
        )


def test_imagenet_layout_lists_the_depths_of_the_paper():
    with pytest.raises(ValueError, match=r"depth=40: use 18 or 34"):
        spec_of(depth=40, layout="imagenet")
    with pytest.raises(ValueError, match="2 or 3 convolutions, got 4"):
        spec_of(block=(3, 3, 3, 3), layout="imagenet")
    for layout in ("imagenet", "dilated"):
        with pytest.raises(ValueError, match=f"'{layout}' needs images, series"):
            spec_of(input_shape=(7,), depth=18, layout=layout)


def test_auto_layout_wants_large_images_and_a_listed_depth():
    assert spec_of(input_shape=(3, 224, 224), depth=18).imagenet_stem
    assert not spec_of(input_shape=(3, 224, 224), depth=20).imagenet_stem
    assert not spec_of(input_shape=(3, 32, 32), depth=50, block="basic").imagenet_stem
    assert not spec_of(input_shape=(1, 500), depth=50, block="basic").imagenet_stem


def test_rows_have_one_stage():
    spec = spec_of(input_shape=(7,), depth=20)
    assert [stage.n_blocks for stage in spec.stages] == [9]


def test_a_spec_survives_plain_values():
    spec = spec_of(block=(3, 1, 3), depth=20)
    assert NetworkSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_the_order_table_checks_itself(order):
    broken = {**dataclasses.asdict(order), "unit": "br"}
    with pytest.raises(AssertionError):
        BlockOrder(**broken)


@pytest.mark.parametrize(
    ("name", "branch"),
    [
        ("original", "cbrcb"),
        ("norm_after_addition", "cbrc"),
        ("relu_before_addition", "cbrcbr"),
        ("relu_only_preactivation", "rcbrcb"),
        ("full_preactivation", "brcbrc"),
    ],
)
def test_branches_read_as_figure_4(name, branch):
    assert ORDERS[name].branch(2) == branch


SAMPLES = {0: (6,), 1: (2, 9), 2: (2, 7, 6), 3: (2, 5, 4, 6)}
# Block, and the depth of a small network of it: of rows, of everything else.
DEPTHS = {"basic": (6, 14), "bottleneck": (8, 20), (2, 3): (6, 14), (3, 1, 3): (8, 20)}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block", DEPTHS)
@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize(
    ("n_dims", "layout"),
    [*((n_dims, "small") for n_dims in SAMPLES), (1, "dilated"), (2, "dilated")],
)
def test_the_walk_over_a_network_is_the_network(order, block, shortcut, n_dims, layout):
    spec = spec_of(
        layout=layout,
        input_shape=SAMPLES[n_dims],
        depth=DEPTHS[block][n_dims > 0],
        order=order,
        block=block,
        shortcut=shortcut,
    )
    network = build_network(spec).eval()
    blocks = [m for m in network.modules() if isinstance(m, Block)]
    counted = [sum(w.numel() for w in kernels(block).values()) for block in blocks]
    walk = spec.blocks(SAMPLES[n_dims][1:])
    assert [spec.n_kernel_weights(block) for block in walk] == counted
    assert_sides_are_those_of_the_layers(spec, SAMPLES[n_dims])


def assert_sides_are_those_of_the_layers(spec, shape):
    network = build_network(spec).eval()
    given, read_by_strides = {}, []

    def sides(x):  # series are images of height 1 inside
        return tuple(x.shape[3 if spec.n_dims == 1 else 2 :])

    def note(layer, inputs, output):
        given[layer] = sides(output)
        stride = getattr(layer, "stride", 1)
        convolves = isinstance(layer, (nn.Conv2d, nn.Conv3d, Subsample))
        pools = isinstance(layer, (nn.MaxPool2d, nn.MaxPool3d))
        if (convolves or pools) and np.max(stride) > 1:
            read_by_strides.append(sides(inputs[0]))

    for layer in network.modules():
        layer.register_forward_hook(note)
    network(torch.empty(1, *shape, device="meta"))
    blocks = [m for m in network.modules() if isinstance(m, Block)]
    found = [given[block] for block in blocks]
    assert [block.sides for block in spec.blocks(shape[1:])] == found
    assert spec.stem_sides(shape[1:]) == given[network.stem.conv1]
    keeps = all(side > 1 for places in read_by_strides for side in places)
    assert spec.keeps_two_places(shape[1:]) == keeps


@pytest.mark.parametrize(("depth", "block"), [(18, "basic"), (50, "bottleneck")])
@pytest.mark.parametrize(
    "shape", [(2, 37), (2, 15), (3, 64, 51), (3, 32, 9), (1, 33, 34, 40), (1, 9, 7, 10)]
)
def test_the_walk_over_an_imagenet_network_is_the_network(shape, depth, block):
    spec = spec_of(input_shape=shape, depth=depth, block=block, layout="imagenet")
    assert_sides_are_those_of_the_layers(spec, shape)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 3), (2, 1, 5), (2, 3, 2)])
def test_the_walk_over_a_network_of_small_samples_is_the_network(shape):
    assert_sides_are_those_of_the_layers(spec_of(input_shape=shape), shape)


@pytest.mark.parametrize(
    ("sides", "changes", "keeps"),
    [
        ((3, 3), {}, True),
        ((2, 9), {}, False),
        ((17,), {"depth": 18, "layout": "imagenet"}, True),
        ((16,), {"depth": 18, "layout": "imagenet"}, False),
    ],
)
def test_strided_convolutions_that_read_one_place_are_found(sides, changes, keeps):
    spec = spec_of(input_shape=(1, *sides), **changes)
    assert spec.keeps_two_places(sides) == keeps


def test_layers_are_counted_as_the_paper_does():
    assert spec_of(depth=20).n_layers == 20
    assert spec_of(depth=164, block="bottleneck").n_layers == 164
    assert spec_of(depth=50, block="bottleneck", layout="imagenet").n_layers == 50
