"""Oracle: the same fit without a record, to the last bit."""

import copy
import pickle
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, LRScheduler
from test_engine import SHAPES, SMALLEST, every_network
from torch import nn

from sk_resnet import ResNetClassifier, _capture
from sk_resnet._capture import CapturedStep, capture_on, capture_operations
from sk_resnet._optim import OPTIMIZERS

NEVER = 10**9


class Steps:
    """Adds up its inputs, and notes how it was called."""

    def __init__(self):
        self.total, self.sizes, self.captures = torch.zeros(1), [], 0

    def step(self, x):
        self.sizes.append(len(x))
        self.total.add_(x.sum())

    def capture(self, step, inputs):
        self.captures += 1
        step(*inputs)
        return lambda x: self.total.add_(x.sum())


def test_full_batches_are_replayed_and_others_run():
    steps = Steps()
    captured = CapturedStep(steps.step, steps.capture, warmup=2)
    batches = torch.arange(22.0).split(4)
    for _ in range(2):
        for batch in batches:
            captured(batch)
    assert steps.total.item() == 2 * torch.arange(22.0).sum()
    assert steps.captures == 1
    assert steps.sizes == [4, 4, 4, 2, 2]


def test_inputs_of_another_layout_run():
    steps = Steps()
    captured = CapturedStep(steps.step, steps.capture, warmup=0)
    x = torch.ones(4, 4)
    captured(x)
    for other in (torch.ones(8, 4).t()[:, ::2], x.double(), x[:3]):
        n_before = len(steps.sizes)
        captured(other)
        assert len(steps.sizes) == n_before + 1


def test_a_record_ends_with_what_it_depends_on():
    steps, on = Steps(), [1]
    captured = CapturedStep(steps.step, steps.capture, warmup=1, depends_on=lambda: on[0])
    for value, n_captures in ((1, 1), (1, 1), (2, 2), (None, 2), (1, 3)):
        on[0] = value
        captured.check()
        for _ in range(4):
            captured(torch.ones(2))
        assert steps.captures == n_captures
    assert steps.total.item() == 2 * 4 * 5


def test_a_step_that_looks_at_values_is_not_recorded():
    seen = []

    def step(x):
        seen.append(x.sum().item())

    replay = capture_operations(step, [torch.ones(2)])
    replay(torch.zeros(2))
    assert seen == [2, 0]


def test_a_record_makes_the_calls_of_the_step():
    weight = torch.nn.Parameter(torch.ones(3, 2))
    totals = torch.zeros(2)

    def step(x):
        (gradient,) = torch.autograd.grad((x @ weight.T).square().sum(), weight)
        with torch.no_grad():
            weight.sub_(gradient, alpha=0.01)
            first, second = x.split(1)
            totals.add_(torch.stack([first.sum(), second.max(0).values.sum()]))

    xs = torch.randn(5, 2, 2, generator=torch.Generator().manual_seed(0))
    replay = capture_operations(step, [xs[0]])
    for x in xs[1:]:
        replay(x)
    found = weight.detach().clone(), totals.clone()
    with torch.no_grad():
        weight.fill_(1)
        totals.zero_()
    for x in xs:
        step(x)
    assert torch.equal(found[0], weight)
    assert torch.equal(found[1], totals)


def test_a_cuda_graph_is_replayed_over_copies_of_the_inputs(monkeypatch):
    total, calls, generator = torch.zeros(1), [], torch.Generator()

    class Graph:
        def register_generator_state(self, generator):
            calls.append(generator)

        def replay(self):
            total.add_(self.x.sum())

    @contextmanager
    def recording(graph, capture_error_mode):
        calls.append(capture_error_mode)
        yield
        graph.x = calls[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    capture, warmup = capture_on(torch.device("cuda"), [generator], list, 5)
    captured = CapturedStep(calls.append, capture, warmup)
    batches = torch.arange(20.0).split(4)
    for batch in batches:
        captured(batch)
    assert all(one is other for one, other in zip(calls[:3], batches, strict=False))
    assert calls[3:5] == [generator, "thread_local"]
    assert calls[5] is not batches[3]  # all that the kernels ever read
    assert len(calls) == 6
    assert total.item() == batches[3].sum() + batches[4].sum()


def samples(n_dims):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(44, *SHAPES[n_dims], generator=generator).numpy()
    return X, torch.arange(44).numpy() % 3


def assert_a_record_changes_nothing(monkeypatch, X, y, **settings):
    fits = []
    for warmup in (NEVER, 1):
        monkeypatch.setattr(_capture, "CPU_WARMUP", warmup)
        # Copies, as callbacks may keep something.
        now = copy.deepcopy(settings)
        model = ResNetClassifier(batch_size=8, max_epochs=3, random_state=0, **now)
        fits.append(model.fit(X, y))
    plain, recorded = fits
    for name, value in plain.module_.state_dict().items():
        assert torch.equal(recorded.module_.state_dict()[name], value), name
    for one, other in zip(plain.history_, recorded.history_, strict=True):
        assert one["train_loss"] == other["train_loss"]
        assert one["train_accuracy"] == other["train_accuracy"]


@pytest.fixture
def n_replays(monkeypatch):
    """How many steps were replayed."""
    counts = [0]
    real = _capture.capture_operations

    def counted(step, inputs):
        replay = real(step, inputs)

        def call(*inputs):
            counts[0] += replay is not step
            replay(*inputs)

        return call

    monkeypatch.setattr(_capture, "capture_operations", counted)
    return counts


@every_network
def test_a_record_changes_no_network(order, block, n_dims, monkeypatch, n_replays):
    X, y = samples(n_dims)
    depth = SMALLEST[block][n_dims > 0]
    assert_a_record_changes_nothing(
        monkeypatch, X, y, depth=depth, order=order, block=block
    )
    assert n_replays[0] == 3 * 5 - 2  # of 44 samples, five batches of 8 and one of 4


@pytest.mark.parametrize(
    "settings",
    [
        *({"optimizer": name, "l1": l1} for name in OPTIMIZERS for l1 in (0, 1e-3)),
        {"optimizer": "adamw", "l1": 1e-3, "l1_structure": "channel"},
        {"l1": 1e-2, "l1_structure": "channel", "finetune_epochs": 1},
        {"dropout": 0.3, "stochastic_depth": 0.2},
        {"precision": "bfloat16"},
        {"label_smoothing": 0.1, "schedule": "cosine"},
        {"augment": ["crop", "mixup"], "validation_split": 0.2},
        {"class_weight": "balanced", "schedule": "resnet_steps"},
        {"shortcut": "zero_pad", "width": 0.5},
    ],
    ids=str,
)
def test_a_record_changes_no_recipe(settings, monkeypatch, n_replays):
    X, y = samples(2)
    for n in (40, 44):  # the last step of a fit is replayed, or it is not
        n_replays[0] = 0
        assert_a_record_changes_nothing(monkeypatch, X[:n], y[:n], depth=8, **settings)
        assert n_replays[0] > 5


def test_few_steps_are_not_recorded(monkeypatch, n_replays):
    X, y = samples(0)
    monkeypatch.setattr(_capture, "CPU_WARMUP", 2)
    model = ResNetClassifier(4, batch_size=8, max_epochs=1)
    for n, expected in ((40, 0), (44, 5 - 2 - 1)):  # and a last step of 4
        n_replays[0] = 0
        model.fit(X[:n], y[:n])
        assert n_replays[0] == expected


@pytest.mark.parametrize("n", [40, 44])  # the last step is replayed, or it is not
def test_gradients_do_not_outlive_a_step(n, monkeypatch, n_replays):
    X, y = samples(0)
    monkeypatch.setattr(_capture, "CPU_WARMUP", 1)
    model = ResNetClassifier(4, batch_size=8, max_epochs=2).fit(X[:n], y[:n])
    assert n_replays[0] > 0
    assert all(parameter.grad is None for parameter in model.module_.parameters())


def through_numpy():
    return torch.autograd.graph.saved_tensors_hooks(
        lambda x: x.detach().numpy().copy(), torch.from_numpy
    )


@pytest.mark.parametrize(
    "context", [through_numpy, torch.autograd.graph.allow_mutation_on_saved_tensors]
)
def test_contexts_around_a_fit_see_every_step(context, monkeypatch):
    X, y = samples(0)
    with context():
        assert_a_record_changes_nothing(monkeypatch, X, y, depth=4)


class Copies(Callback):
    """Trains copies of the net on, beside it."""

    def on_epoch_end(self, net, dataset_train=None, **kwargs):
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            twin.callbacks_ = []
            twin.run_single_epoch(
                twin.get_iterator(dataset_train, training=True), True, "train", None
            )


def test_copies_during_training_take_steps_of_their_own(monkeypatch):
    X, y = samples(0)
    settings = {"depth": 4, "batch_size": 8, "max_epochs": 3, "random_state": 0}
    settings["schedule"] = "constant"
    monkeypatch.setattr(_capture, "CPU_WARMUP", 1)
    alone = ResNetClassifier(**settings).fit(X, y)
    beside = ResNetClassifier(**settings, callbacks=[Copies()]).fit(X, y)
    for name, value in alone.module_.state_dict().items():
        assert torch.equal(beside.module_.state_dict()[name], value)


class Meddler(Callback):
    """Changes something before the last epoch."""

    def __init__(self, change):
        self.change = change

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 2:
            self.kept = copy.deepcopy(net.module_.state_dict())
        if len(net.history) == 3:
            self.change(self, net)

    def on_train_end(self, net, **kwargs):
        if hasattr(self, "handle"):
            self.handle.remove()


def freeze(self, net):
    net.module_.stages[0].requires_grad_(False)


def decay(self, net):
    net.optimizer_.param_groups[0]["weight_decay"] = 0.5


def set_rate(self, net):
    for group in net.optimizer_.param_groups:
        group["lr"] = 0.01


def halve_rates(self, net):
    for group in net.optimizer_.param_groups:
        group["lr"] *= 0.5


def drop_more(self, net):
    for layer in net.module_.modules():
        if hasattr(layer, "rate"):
            layer.rate = 0.9


def rewind(self, net):
    net.module_.load_state_dict(self.kept)
    net.optimizer_.state.clear()


def replace(self, net):
    for parameter in net.module_.parameters():
        parameter.data = parameter.data * 0.9


def hook(self, net):
    net.module_.stem.register_forward_hook(lambda layer, inputs, output: 2 * output)


def hook_gradients(self, net):
    net.module_.classifier.weight.register_hook(lambda gradient: 2 * gradient)


def hook_steps(self, net):
    def halve(optimizer, *args):
        with torch.no_grad():
            optimizer.param_groups[0]["params"][0].mul_(0.5)

    net.optimizer_.register_step_post_hook(halve)


def hook_everywhere(self, net):
    self.handle = nn.modules.module.register_module_forward_hook(
        lambda layer, inputs, output: 2 * output if layer is net.module_.stem else None
    )


def swap_layers(self, net):
    for block in net.module_.stages[0]:
        block.shortcut = nn.Tanh()


def swap_generators(self, net):
    for layer in net.module_.modules():
        if hasattr(layer, "generator"):
            layer.generator = torch.Generator().manual_seed(1)


def drop_more_by_numpy(self, net):
    for layer in net.module_.modules():
        if hasattr(layer, "rate"):
            layer.rate = np.float32(0.9)


class Growing(nn.Module):
    """Counts its calls, and scales by them."""

    n_calls = 0

    def forward(self, x):
        self.n_calls += 1
        return self.n_calls * x


def add_layer(self, net):
    net.module_.stem.add_module("growing", Growing())


def replace_forward(self, net):
    layer, grows = net.module_.classifier, Growing()
    layer.forward = lambda x: grows(nn.Linear.forward(layer, x))


def replace_step(self, net):
    step, grows = net.optimizer_.step, Growing()

    def step_and_shrink(*args, **kwargs):
        step(*args, **kwargs)
        with torch.no_grad():
            net.module_.classifier.weight.div_(grows(1))

    net.optimizer_.step = step_and_shrink


@pytest.mark.filterwarnings("ignore:Seems like `optimizer.step:UserWarning")
@pytest.mark.parametrize(
    "change",
    [freeze, decay, set_rate, halve_rates, drop_more, rewind, replace]
    + [hook, hook_gradients, hook_steps, hook_everywhere]
    + [swap_layers, swap_generators, drop_more_by_numpy]
    + [add_layer, replace_forward, replace_step],
)
def test_a_record_sees_what_callbacks_change(change, monkeypatch, n_replays):
    X, y = samples(0)
    settings = {"depth": 4, "dropout": 0.1}
    callbacks = [Meddler(change)]
    assert_a_record_changes_nothing(monkeypatch, X, y, **settings, callbacks=callbacks)
    assert n_replays[0] > 0
    settings |= {"batch_size": 8, "max_epochs": 3, "random_state": 0}
    plain, other = (
        [record["train_loss"] for record in ResNetClassifier(**more).fit(X, y).history_]
        for more in (settings, {**settings, "callbacks": callbacks})
    )
    assert other[:2] == plain[:2]
    assert other[2] != plain[2]


class Rates(Callback):
    """Halves the rate of each group, and notes it."""

    def on_epoch_end(self, net, **kwargs):
        for group in net.optimizer_.param_groups:
            net.history.record("rate", group["lr"])
            group["lr"] *= 0.5


def test_callbacks_see_learning_rates_as_numbers(monkeypatch, n_replays):
    X, y = samples(0)
    monkeypatch.setattr(_capture, "CPU_WARMUP", 1)
    callbacks = [Rates(), LRScheduler("LambdaLR", lr_lambda=lambda epoch: 1.0)]
    model = ResNetClassifier(4, lr=0.08, batch_size=8, max_epochs=3, random_state=0)
    model.set_params(schedule="constant", l1=1e-4, callbacks=callbacks[:1]).fit(X, y)
    assert n_replays[0] > 0
    assert [row["rate"] for row in model.history_] == [0.08, 0.04, 0.02]
    model.set_params(callbacks=callbacks[1:]).fit(X, y)
    assert all(type(row["event_lr"]) is float for row in model.history_)
