"""Oracle: the same fit without a record, to the last bit."""

import copy
from contextlib import contextmanager

import pytest
import torch
from skorch.callbacks import Callback, LRScheduler
from test_run import SHAPES, SMALLEST, every_network
from torch import nn

from sk_resnet import EarlyStopping, ResNetClassifier, _record
from sk_resnet._optim import OPTIMIZERS
from sk_resnet._record import RecordedStep, record_operations, recorded
from sk_resnet.inspection import GradientFlow

NEVER = 10**9


class Steps:
    """Adds up its inputs, and notes how it was called."""

    def __init__(self):
        self.total, self.sizes, self.records = torch.zeros(1), [], 0

    def step(self, x):
        self.sizes.append(len(x))
        self.total.add_(x.sum())

    def record(self, step, inputs):
        self.records += 1
        step(*inputs)
        return lambda x: self.total.add_(x.sum())


def test_full_batches_are_replayed_and_others_run():
    steps = Steps()
    recorded_step = RecordedStep(steps.step, steps.record, warmup=2)
    batches = torch.arange(22.0).split(4)
    for _ in range(2):
        for batch in batches:
            recorded_step(batch)
    assert steps.total.item() == 2 * torch.arange(22.0).sum()
    assert steps.records == 1
    assert steps.sizes == [4, 4, 4, 2, 2]


def test_inputs_of_another_layout_run():
    steps = Steps()
    recorded_step = RecordedStep(steps.step, steps.record, warmup=0)
    x = torch.ones(4, 4)
    recorded_step(x)
    for other in (torch.ones(8, 4).t()[:, ::2], x.double(), x[:3]):
        n_before = len(steps.sizes)
        recorded_step(other)
        assert len(steps.sizes) == n_before + 1


def test_a_step_that_looks_at_values_is_not_recorded():
    seen = []

    def step(x):
        seen.append(x.sum().item())

    replay = record_operations(step, [torch.ones(2)])
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
    replay = record_operations(step, [xs[0]])
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
    recorded_step = recorded(
        calls.append,
        None,
        device=torch.device("cuda"),
        n_steps=5,
        generators=[generator],
    )
    batches = torch.arange(20.0).split(4)
    for batch in batches:
        recorded_step(batch)
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
    for fewest in (NEVER, 3):
        monkeypatch.setattr(_record, "FEWEST_STEPS", fewest)
        # Copies, as callbacks may keep something.
        now = copy.deepcopy(settings)
        model = ResNetClassifier(batch_size=8, max_epochs=3, random_state=0, **now)
        model.set_params(n_estimators=1)
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
    real = _record.record_operations

    def counted(step, inputs):
        replay = real(step, inputs)

        def call(*inputs):
            counts[0] += replay is not step
            replay(*inputs)

        return call

    monkeypatch.setattr(_record, "record_operations", counted)
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
    monkeypatch.setattr(_record, "FEWEST_STEPS", 6)
    model = ResNetClassifier(4, n_estimators=1, batch_size=8, max_epochs=1)
    for n, expected in ((40, 0), (44, 5 - 1 - 1)):  # and a last step of 4
        n_replays[0] = 0
        model.fit(X[:n], y[:n])
        assert n_replays[0] == expected


@pytest.mark.parametrize("n", [40, 44])  # the last step is replayed, or it is not
def test_gradients_do_not_outlive_a_step(n, monkeypatch, n_replays):
    X, y = samples(0)
    monkeypatch.setattr(_record, "FEWEST_STEPS", 3)
    model = ResNetClassifier(4, n_estimators=1, batch_size=8, max_epochs=2)
    model.fit(X[:n], y[:n])
    assert n_replays[0] > 0
    assert all(parameter.grad is None for parameter in model.module_.parameters())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_learning_rates_are_numbers_after_a_record(optimizer, monkeypatch, n_replays):
    X, y = samples(0)
    monkeypatch.setattr(_record, "FEWEST_STEPS", 3)
    model = ResNetClassifier(4, n_estimators=1, batch_size=8, max_epochs=2)
    model.set_params(optimizer=optimizer).fit(X, y)
    assert n_replays[0] > 0
    assert all(type(group["lr"]) is float for group in model.net_.optimizer_.param_groups)


class Foreign(Callback):
    """A callback of somebody else."""


class Growing(nn.Module):
    """Scales by the number of its calls, which no record would repeat."""

    n_calls = 0

    def forward(self, x):
        self.n_calls += 1
        return self.n_calls * x


def test_steps_are_recorded_with_callbacks_of_ours_alone(monkeypatch, n_replays):
    X, y = samples(0)
    monkeypatch.setattr(_record, "FEWEST_STEPS", 3)
    settings = {"depth": 4, "batch_size": 8, "max_epochs": 2, "random_state": 0}
    settings |= {"n_estimators": 1}
    for callbacks, replays in (
        ([], True),
        ([EarlyStopping("train_loss"), GradientFlow()], True),
        ([Foreign()], False),
        ([EarlyStopping("train_loss"), LRScheduler("StepLR", step_size=1)], False),
    ):
        n_replays[0] = 0
        ResNetClassifier(**settings, callbacks=callbacks).fit(X, y)
        assert (n_replays[0] > 0) == replays


@pytest.mark.parametrize("change", ["hook", "layer", "global hook"])
def test_layers_that_run_code_of_users_are_not_recorded(change, monkeypatch, n_replays):
    X, y = samples(0)
    monkeypatch.setattr(_record, "FEWEST_STEPS", 3)
    settings = {"depth": 4, "batch_size": 8, "max_epochs": 2, "warm_start": True}
    model = ResNetClassifier(**settings, n_estimators=1, random_state=0).fit(X, y)
    assert n_replays[0] > 0
    grows, remove = Growing(), lambda: None
    if change == "hook":
        model.module_.stem.register_forward_hook(lambda layer, x, output: grows(output))
    elif change == "layer":
        model.module_.stem.add_module("growing", grows)
    else:
        remove = nn.modules.module.register_module_forward_hook(
            lambda layer, x, output: grows(output) if layer is model.module_.stem else None
        ).remove
    n_replays[0] = 0
    try:
        model.partial_fit(X, y)
        model.set_params(lr=1e-9).fit(X, y)
    finally:
        remove()
    assert n_replays[0] == 0
    assert grows.n_calls >= 15
