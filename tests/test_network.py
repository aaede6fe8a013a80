"""Oracles: the papers' parameter counts, and the papers' words in torch.nn.functional."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from test_spec import spec_of

from sk_resnet._layers import (
    Dropout,
    GroupedLinear,
    StochasticDepth,
    ZeroPadShortcut,
    convolution,
)
from sk_resnet._network import build_network, initialize, kernels, n_parameters
from sk_resnet._spec import ORDERS


def network_of(seed=0, **changes):
    network = build_network(spec_of(**changes)).to_empty(device="cpu")
    initialize(network, torch.Generator().manual_seed(seed))
    return network


def count(**changes):
    return n_parameters(build_network(spec_of(**changes)))


GRAY = (1, 32, 32)
PREACT = "full_preactivation"


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (20, 269_722),
        (32, 464_154),
        (44, 658_586),
        (56, 853_018),
        (110, 1_727_962),
        (1202, 19_421_274),
    ],
)
def test_parameters_of_resnets_with_option_a(depth, expected):
    assert count(depth=depth, shortcut="zero_pad") == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"input_shape": GRAY, "shortcut": "zero_pad"}, 269_434),
        ({"input_shape": GRAY, "shortcut": "zero_pad", "depth": 56}, 852_730),
        ({}, 272_474),
        ({"input_shape": GRAY}, 272_186),
        ({"depth": 164, "block": "bottleneck", "order": PREACT}, 1_703_258),
        ({"depth": 1001, "block": "bottleneck", "order": PREACT}, 10_327_706),
    ],
)
def test_parameters_of_other_small_resnets(changes, expected):
    assert count(**changes) == expected


@pytest.mark.parametrize(
    ("depth", "block", "width", "millions", "exact"),
    [
        (18, "basic", 1, 11.7, 11_689_512),
        (34, "basic", 1, 21.8, 21_797_672),
        (50, "bottleneck", 1, 25.6, 25_557_032),
        (101, "bottleneck", 1, 44.5, 44_549_160),
        (152, "bottleneck", 1, 60.2, 60_192_808),
        (50, "bottleneck", 2, 68.9, 68_883_240),
    ],
)
def test_parameters_of_imagenet_resnets(depth, block, width, millions, exact):
    n = count(
        input_shape=(3, 224, 224), n_outputs=1000, depth=depth, block=block, width=width
    )
    assert n == exact
    assert round(n / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("depth", "width", "expected"),
    [
        (40, 1, 563_930),
        (40, 2, 2_243_546),
        (40, 4, 8_949_210),
        (40, 8, 35_748_314),
        (28, 10, 36_479_194),
        (28, 12, 52_517_850),
        (22, 8, 17_158_106),
        (22, 10, 26_797_914),
        (16, 8, 10_961_370),
        (16, 10, 17_116_634),
        (10, 1, 77_850),
        (16, 1, 175_066),
        (16, 2, 691_674),
        (16, 4, 2_748_890),
        (28, 2, 1_467_610),
    ],
)
def test_parameters_of_wide_resnets(depth, width, expected):
    wide = {"depth": depth, "width": width, "family": "wide", "order": PREACT}
    assert count(**wide) == expected
    assert count(**wide, input_shape=GRAY) == expected - 288


@pytest.mark.parametrize(
    ("block", "depth", "expected"),
    [
        ((1, 3, 1), 40, 1_429_082),
        ((3, 1), 40, 1_211_354),
        ((1, 3), 40, 1_297_370),
        ((3, 1, 1), 40, 1_343_066),
        ((3, 3), 28, 1_467_610),
        ((3, 1, 3), 22, 1_145_498),
    ],
)
def test_parameters_of_wide_block_types(block, depth, expected):
    assert count(depth=depth, width=2, block=block, family="wide", order=PREACT) == expected


SMALL = {"input_shape": (2, 9, 9), "n_outputs": 3, "depth": 8}


def randomize_norms(network):
    """Norms that do something, so that a misplaced one shows."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5, generator=generator)


class Paper:
    """The networks again, in functional calls and in the words of the papers."""

    def __init__(self, network, order, shortcut, wide):
        self.w = network.state_dict()
        self.order, self.shortcut, self.wide = order, shortcut, wide

    def conv(self, x, name, stride=1):
        weight = self.w[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def bn(self, x, name):
        w = self.w
        return F.batch_norm(
            x,
            w[f"{name}.running_mean"],
            w[f"{name}.running_var"],
            w[f"{name}.weight"],
            w[f"{name}.bias"],
        )

    def option(self, x, p, like, stride):
        if self.shortcut == "none":
            return 0
        if x.shape == like.shape:
            return x
        if self.shortcut == "zero_pad":
            x = x[:, :, ::stride, ::stride]
            zeros = torch.zeros(x.shape[0], like.shape[1] - x.shape[1], *x.shape[2:])
            return torch.cat([x, zeros], dim=1)
        x = self.conv(x, f"{p}.shortcut.conv1", stride)
        if f"{p}.shortcut.norm1.weight" in self.w:
            x = self.bn(x, f"{p}.shortcut.norm1")
        return x

    def block(self, x, p, stride, first):
        c, b = f"{p}.branch.conv", f"{p}.branch.norm"
        changes = stride > 1 or (first and self.wide_stem)
        early = changes or (first and not self.wide)
        if self.order == "original":
            z = self.conv(x, c + "1", stride)
            z = self.bn(self.conv(F.relu(self.bn(z, b + "1")), c + "2"), b + "2")
            return F.relu(z + self.option(x, p, z, stride))
        if self.order == "norm_after_addition":
            z = F.relu(self.bn(self.conv(x, c + "1", stride), b + "1"))
            z = self.conv(z, c + "2")
            return F.relu(self.bn(z + self.option(x, p, z, stride), f"{p}.after.norm1"))
        if self.order == "relu_before_addition":
            z = F.relu(self.bn(self.conv(x, c + "1", stride), b + "1"))
            z = F.relu(self.bn(self.conv(z, c + "2"), b + "2"))
            return z + self.option(x, p, z, stride)
        if self.order == "relu_only_preactivation":
            a = F.relu(x)
            z = self.bn(self.conv(a, c + "1", stride), b + "1")
            z = self.bn(self.conv(F.relu(z), c + "2"), b + "2")
            return z + self.option(a if early else x, p, z, stride)
        pre = f"{p}.before_fork.norm1" if early else b + "1"
        second = b + ("1" if early else "2")
        a = F.relu(self.bn(x, pre))
        z = self.conv(a, c + "1", stride)
        z = self.conv(F.relu(self.bn(z, second)), c + "2")
        return z + self.option(a if early else x, p, z, stride)

    def __call__(self, x):
        x = self.conv(x, "stem.conv1")
        if self.order != "full_preactivation":
            x = self.bn(x, "stem.norm1")
            x = x if self.order == "relu_only_preactivation" else F.relu(x)
        inner = self.w["stages.0.0.branch.conv1.weight"].shape[0]
        self.wide_stem = inner != x.shape[1]
        for stage, stride in enumerate((1, 2, 2)):
            x = self.block(x, f"stages.{stage}.0", stride, first=stage == 0)
        if self.order == "relu_only_preactivation":
            x = F.relu(x)
        if self.order == "full_preactivation":
            x = F.relu(self.bn(x, "head.norm1"))
        return F.linear(
            x.mean((2, 3)), self.w["classifier.weight"], self.w["classifier.bias"]
        )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shortcut", ["projection", "zero_pad", "none"])
@pytest.mark.parametrize(("wide", "width"), [(False, 1), (False, 2), (True, 1), (True, 2)])
def test_an_independent_implementation_gives_equal_outputs(order, shortcut, wide, width):
    depth = 10 if wide else 8
    options = {"order": order, "shortcut": shortcut, "width": width}
    options["family"] = "wide" if wide else "resnet"
    network = network_of(**{**SMALL, **options, "depth": depth})
    randomize_norms(network)
    network.eval()
    x = torch.randn(4, 2, 9, 9, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(network(x), Paper(network, order, shortcut, wide)(x))


@pytest.mark.parametrize("order", ["relu_only_preactivation", "full_preactivation"])
def test_a_branch_of_zero_weights_leaves_the_identity(order):
    network = network_of(**{**SMALL, "depth": 14}, order=order)
    block = network.stages[0][1].eval()
    for weight in kernels(block).values():
        torch.nn.init.zeros_(weight)
    x = torch.randn(3, 16, 5, 5)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("order", ORDERS)
def test_the_gradient_reaches_the_input_through_the_shortcuts_alone(order):
    network = network_of(**{**SMALL, "depth": 14}, order=order)
    for stage in network.stages:
        for block in stage:
            for weight in kernels(block.branch).values():
                torch.nn.init.zeros_(weight)
    x = torch.randn(
        4, 2, 9, 9, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    network(x).square().sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_plain_network_of_zero_weights_carries_no_gradient():
    network = network_of(**SMALL, shortcut="none")
    for weight in kernels(network.stages[1][0].branch).values():
        torch.nn.init.zeros_(weight)
    x = torch.randn(4, 2, 9, 9, requires_grad=True)
    network(x).square().sum().backward()
    assert x.grad.abs().sum() == 0


def test_the_zero_pad_shortcut_subsamples_pads_and_carries_gradient():
    x = torch.arange(2 * 5 * 5.0).reshape(1, 2, 5, 5).requires_grad_()
    out = ZeroPadShortcut(2, 5, 2)(x)
    assert out.shape == (1, 5, 3, 3)
    assert torch.equal(out[:, :2], x[:, :, ::2, ::2])
    assert out[:, 2:].abs().sum() == 0
    out.sum().backward()
    expected = torch.zeros(5, 5)
    expected[::2, ::2] = 1
    assert torch.equal(x.grad, expected.expand(1, 2, 5, 5))


def test_the_zero_pad_shortcut_drops_channels_that_have_no_place():
    assert ZeroPadShortcut(4, 2, 1)(torch.ones(1, 4, 3)).shape == (1, 2, 3)


def test_dropout_keeps_the_mean_and_stands_before_the_last_convolution():
    network = network_of(**SMALL, dropout=0.3, order=PREACT, family="resnet")
    names = [name for name, _ in network.stages[0][0].branch.named_children()]
    assert names == ["conv1", "norm1", "relu1", "dropout", "conv2"]
    layer = Dropout(0.3)
    layer.generators[0] = torch.Generator().manual_seed(0)
    x = torch.ones(1000, 100)
    dropped = layer(x)
    assert (dropped == 0).float().mean() == pytest.approx(0.3, abs=0.01)
    assert dropped.mean() == pytest.approx(1, abs=0.01)
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize("sides", [(), (4, 5)])
def test_members_get_the_masks_of_dropout_that_they_get_alone(sides):
    rates = [0.3, 0.0, 0.0, 0.5]

    def generators():
        return [torch.Generator().manual_seed(i) for i in range(4)]

    together = Dropout(0.5, members=4)
    together.rates, together.generators = rates, generators()
    x = torch.randn(6, 4 * 3, *sides)
    expected = []
    for rate, generator, part in zip(rates, generators(), x.chunk(4, dim=1), strict=True):
        alone = Dropout(rate)
        alone.generators = [generator]
        expected.append(alone(part))
    torch.testing.assert_close(together(x), torch.cat(expected, dim=1), atol=0, rtol=0)
    new = torch.Generator().manual_seed(1)  # nothing was drawn at a rate of 0
    assert torch.equal(together.generators[1].get_state(), new.get_state())


def test_rates_of_dropout_are_exact_in_bfloat16():
    layer = Dropout(1 / 1024)  # 1 - 1 / 1024 is 1 in bfloat16
    layer.generators[0] = torch.Generator().manual_seed(0)
    dropped = layer(torch.ones(1000, 1000, dtype=torch.bfloat16))
    assert dropped.dtype == torch.bfloat16
    assert (dropped == 0).float().mean() == pytest.approx(1 / 1024, rel=0.1)


@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_of_members_have_the_gradients_of_each_alone(n, trains, bias):
    layer = GroupedLinear(3, 4, 5, bias=bias).double().train(trains)
    torch.nn.init.normal_(layer.weight)
    if bias:
        torch.nn.init.normal_(layer.bias)
    x = torch.randn(n, 3 * 4, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(n, 3 * 5, dtype=torch.float64)
    layer(x).backward(grad)
    found = x.grad, *(w.grad for w in layer.parameters())
    x.grad = None
    layer.zero_grad()
    biases = layer.bias.chunk(3) if bias else [None] * 3
    out = torch.cat(list(map(F.linear, x.chunk(3, 1), layer.weight.chunk(3), biases)), 1)
    torch.testing.assert_close(layer(x), out)
    out.backward(grad)
    torch.testing.assert_close(found, (x.grad, *(w.grad for w in layer.parameters())))


@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_convolutions_give_the_size_divided_by_the_stride_rounded_up(kernel, stride, size):
    layer = convolution(1, 2, 3, kernel, stride)
    assert layer(torch.ones(1, 2, 1, size)).shape == (1, 3, 1, -(-size // stride))


@pytest.mark.parametrize(
    "shape", [(5,), (2, 9), (2, 9, 9), (2, 5, 5, 5), (2, 1, 1), (1, 1)]
)
@pytest.mark.parametrize("block", ["basic", "bottleneck", (8, 5, 3), (2,)])
@pytest.mark.parametrize("order", ORDERS)
def test_every_block_and_order_works_in_every_dimension(shape, block, order):
    n = {"basic": 2, "bottleneck": 3}.get(block) or len(block)
    depth = n * (1 if len(shape) == 1 else 3) + 2
    network = network_of(
        input_shape=shape, depth=depth, block=block, order=order, width=0.25
    )
    out = network(torch.randn(3, *shape))
    assert out.shape == (3, 10)
    out.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_initial_kernels_are_he_normal_by_fan_in():
    weights = kernels(network_of(depth=20, width=4))
    w = weights["stages.2.1.branch.conv2.weight"]
    assert w.std().item() == pytest.approx((2 / w[0].numel()) ** 0.5, rel=0.02)


def test_building_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    network_of(**SMALL, dropout=0.5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("width", [0.1, 0.3, 0.37])
@pytest.mark.parametrize("block", ["basic", "bottleneck", (1, 3)])
def test_odd_numbers_of_channels_train_without_writing_out_of_bounds(width, block):
    n = 3 if block == "bottleneck" else 2
    depth = {2: 18, 3: 50}[n]
    layout = {"input_shape": (3, 64, 64), "layout": "imagenet"}
    network = network_of(**layout, depth=depth, width=width, block=block)
    for _ in range(2):
        network(torch.randn(6, 3, 64, 64)).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_series_pass_as_torch_convolves_them():
    x = torch.randn(3, 2, 11)
    layer = convolution(1, 2, 4, 3, 2)
    torch.nn.init.normal_(layer.weight)
    expected = F.conv1d(x, layer.weight[:, :, 0], stride=2, padding=1)
    torch.testing.assert_close(layer(x.unsqueeze(2)).squeeze(2), expected)


@pytest.mark.parametrize("kernel", [2, 3, 4, 7])
def test_dilated_convolutions_are_those_of_torch(kernel):
    x = torch.randn(3, 2, 11)
    layer = convolution(1, 2, 4, kernel, dilation=3)
    weight = next(layer.parameters())
    torch.nn.init.normal_(weight)
    reach = 3 * (kernel - 1)
    padded = F.pad(x, (reach // 2, reach - reach // 2))
    expected = F.conv1d(padded, weight[:, :, 0], dilation=3)
    torch.testing.assert_close(layer(x.unsqueeze(2)).squeeze(2), expected)


def test_a_dilated_network_sees_as_far_as_a_strided_one_at_every_place():
    shape = {"input_shape": (1, 40), "depth": 14, "block": (7, 3)}
    spec = spec_of(**shape, layout="dilated")
    assert receptive_field(spec) == 3 + 2 * 8 * (1 + 2 + 4)
    assert [block.sides for block in spec.blocks((40,))] == [(40,)] * 6
    assert n_parameters(build_network(spec)) == count(**shape, layout="small")


def receptive_field(spec):
    """Places between the first and the last input that an output depends on."""
    network = build_network(spec).to_empty(device="cpu").double().eval()
    for values in network.state_dict().values():
        values.fill_(1)
    x = torch.full((2, 1, 1, 3000), 1.0, dtype=torch.float64, requires_grad=True)
    out = network.stem(x)
    for stage in network.stages:
        out = stage(out)
    out[0, 0, 0, 1500].backward()
    read = x.grad[0, 0, 0].nonzero()
    return int(read[-1] - read[0]) + 1


def test_a_dilated_network_finds_a_shape_wherever_it_stands():
    differences = {}
    for layout in ("small", "dilated"):
        network = network_of(input_shape=(1, 50), depth=8, block=(7, 3), layout=layout)
        x = torch.zeros(2, 1, 301)
        x[0, 0, 150:154] = x[1, 0, 151:155] = torch.tensor([1.0, -2, 3, -1])
        first, second = network.eval()(x).detach()
        differences[layout] = float((first - second).abs().max() / first.abs().max())
    assert differences["dilated"] < 1e-5
    assert differences["small"] > 1e-3


def test_the_imagenet_stem_divides_the_sides_by_four():
    for shape in ((2, 65), (2, 65, 65), (2, 17, 17, 17)):
        network = network_of(input_shape=shape, depth=18, layout="imagenet", width=0.1)
        x = torch.randn(2, *shape)
        x = network.stem(x.unsqueeze(2) if x.ndim == 3 else x)
        assert x.shape[-1] == -(-shape[-1] // 4)


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean():
    layer = StochasticDepth(0.25)
    layer.generators[0] = torch.Generator().manual_seed(0)
    x = torch.ones(4000, 2, 3)
    out = layer(x)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    dropped = (out == 0).flatten(1)
    assert torch.equal(dropped.all(1), dropped.any(1))
    assert abs(dropped[:, 0].float().mean() - 0.25) < 0.02
    assert torch.equal(layer.eval()(x), x)


def test_the_rates_of_stochastic_depth_grow_linearly():
    network = network_of(depth=20, stochastic_depth=0.5)
    rates = [m.rates[0] for m in network.modules() if isinstance(m, StochasticDepth)]
    assert rates == pytest.approx([0.5 * (i + 1) / 9 for i in range(9)])


def test_a_dropped_branch_leaves_the_shortcut():
    spec = {"order": "full_preactivation", "depth": 20, "stochastic_depth": 0.5}
    network = network_of(**spec).train()
    block = network.stages[0][1]
    block.branch.drop.rates[0] = 1 - 1e-12
    block.branch.drop.generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 16, 6, 6)
    assert torch.equal(block(x), x)
