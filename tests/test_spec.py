import dataclasses

import pytest

from sk_resnet._spec import ORDERS, BlockOrder, NetworkSpec, blocks_per_stage, network_spec

DEFAULTS = {
    "input_shape": (3, 32, 32),
    "n_classes": 10,
    "depth": 20,
    "width": 1,
    "block": "basic",
    "order": "original",
    "shortcut": "projection",
    "layout": "auto",
    "dropout": 0.0,
    "wide": False,
}


def spec_of(**changes):
    return network_spec(**{**DEFAULTS, **changes})


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
    with pytest.raises(ValueError, match="needs images or series"):
        spec_of(input_shape=(7,), depth=18, layout="imagenet")


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
