"""Oracles: the plain path, a loop written here, and the unfolded network."""

import copy
import resource
import subprocess
import sys
import threading
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from sk_resnet import (
    ResNetClassifier,
    WideResNetClassifier,
    _batches,
    _engine,
    _recipe,
    _training,
)
from sk_resnet._augment import AUGMENTATIONS, Augmentation
from sk_resnet._batches import ArrayDataset, Batches
from sk_resnet._input import input_spec, with_statistics
from sk_resnet._network import build_network, folded, initialize, multiply_adds
from sk_resnet._spec import ORDERS, network_spec
from sk_resnet._training import ResidualNet

CPU = torch.device("cpu")
SHAPES = {0: (6,), 1: (2, 9), 2: (2, 7, 7), 3: (2, 4, 4, 4)}
# Block, and the depth of the smallest network of it: of rows, of everything else.
SMALLEST = {"basic": (4, 8), "bottleneck": (5, 11), (2, 3): (4, 8)}


def small_network(order, block, n_dims, shortcut="projection", dropout=0.0):
    spec = network_spec(
        input_shape=SHAPES[n_dims],
        n_classes=3,
        depth=SMALLEST[block][n_dims > 0],
        width=1,
        block=block,
        order=order,
        shortcut=shortcut,
        layout="auto",
        dropout=dropout,
        wide=False,
    )
    network = build_network(spec).to_empty(device="cpu")
    initialize(network, torch.Generator().manual_seed(0))
    return network


class WantsBatches(Callback):
    def on_batch_end(self, net, **kwargs):
        pass


every_network = pytest.mark.parametrize(
    ("order", "block", "n_dims"),
    [(o, b, d) for o in ORDERS for b in SMALLEST for d in SHAPES],
)


@every_network
def test_fast_steps_equal_a_plain_loop(order, block, n_dims):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(24, *SHAPES[n_dims])).astype(np.float32)
    y = np.arange(24) % 3
    model = ResNetClassifier(
        depth=SMALLEST[block][n_dims > 0],
        block=block,
        order=order,
        batch_size=8,
        max_epochs=1,
        lr=0.01,
        l2=0.01,
        schedule="constant",
        standardize=False,
        random_state=0,
    )
    model.partial_fit(X, y, classes=[0, 1, 2])  # statistics of batch norm, momentum
    network = copy.deepcopy(model.module_)
    earlier = copy.deepcopy(model.net_.optimizer_.state_dict())
    order_of_samples = torch.Generator()
    order_of_samples.set_state(model.net_.shuffle.get_state())
    model.partial_fit(X, y)

    kernels = [m.weight for m in network.modules() if isinstance(m, _kernel_types())]
    others = [p for p in network.parameters() if all(p is not k for k in kernels)]
    groups = [{"params": kernels, "weight_decay": 0.01}, {"params": others}]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)
    state = optimizer.state_dict()
    state["state"] = earlier["state"]
    optimizer.load_state_dict(state)
    network.train()
    for rows in torch.randperm(24, generator=order_of_samples).split(8):
        optimizer.zero_grad()
        logits = network(torch.from_numpy(X[rows.numpy()]))
        nn.functional.cross_entropy(logits, torch.from_numpy(y)[rows]).backward()
        optimizer.step()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(
            model.module_.state_dict()[name], value, atol=1e-5, rtol=1e-5
        )


def _kernel_types():
    return (nn.Linear, nn.Conv2d, nn.Conv3d)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_batch_hooks_do_not_change_the_weights(images, dropout):
    X, y = images
    settings = {"depth": 8, "max_epochs": 2, "batch_size": 8, "random_state": 0}
    settings |= {"dropout": dropout, "augment": "crop", "validation_split": 0.2}
    fast = ResNetClassifier(**settings).fit(X, y)
    slow = ResNetClassifier(**settings, callbacks=[WantsBatches()]).fit(X, y)
    assert not fast.net_._per_batch
    assert slow.net_._per_batch
    for one, other in zip(
        fast.module_.state_dict().values(), slow.module_.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
    keys = ("train_loss", "valid_loss", "valid_accuracy", "lr")
    for one, other in zip(fast.history_, slow.history_, strict=True):
        assert [one[k] for k in keys] == pytest.approx([other[k] for k in keys], rel=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channel_axis", [1, -1])
def test_resident_samples_equal_streamed_ones(dtype, channel_axis):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 255, size=(20, 3, 5, 3)).astype(dtype)
    spec = input_spec(X, input_shape=None, channel_axis=channel_axis)
    spec = with_statistics(spec, X, np.ones(20))
    rows = np.array([3, 1, 9, 19])
    streamed, resident = (ArrayDataset(X, spec, rows=rows) for _ in range(2))
    streamed.load(CPU, limit=0)
    resident.load(CPU)
    assert streamed.resident is None
    assert resident.resident.dtype == (torch.uint8 if dtype == np.uint8 else torch.float32)
    places = torch.tensor([2, 0])
    assert torch.equal(streamed.inputs(places), resident.inputs(places))


def test_streaming_does_not_change_a_fit(images, monkeypatch):
    X, y = images
    settings = {"depth": 8, "max_epochs": 2, "batch_size": 8, "random_state": 0}
    resident = ResNetClassifier(**settings).fit(X, y).predict_proba(X)
    monkeypatch.setattr(_batches.ArrayDataset.load, "__defaults__", (0,))
    streamed = ResNetClassifier(**settings).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(streamed, resident)


def test_a_short_tail_goes_into_the_batch_before():
    X = np.zeros((50, 2))
    dataset = ArrayDataset(X, input_spec(X, input_shape=None, channel_axis=1))

    def sizes(n, size, **shuffle):
        part = ArrayDataset(X, dataset.spec, rows=np.arange(n))
        return [len(batch[0]) for batch in Batches(part, size, CPU, **shuffle)]

    seeded = {"shuffle": torch.Generator()}
    assert sizes(50, 16, **seeded) == [16, 16, 18]
    assert sizes(24, 16, **seeded) == [16, 8]
    assert sizes(3, 2, **seeded) == [3]
    assert sizes(5, 16, **seeded) == [5]
    assert sizes(50, 16) == [16, 16, 16, 2]


@every_network
@pytest.mark.parametrize("shortcut", ["projection", "zero_pad"])
def test_folding_batch_norms_keeps_the_outputs(order, block, n_dims, shortcut):
    network = small_network(order, block, n_dims, shortcut, dropout=0.1)
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            for values in (layer.weight.data, layer.running_var):
                values.uniform_(0.5, 2, generator=generator)
            for values in (layer.bias.data, layer.running_mean):
                values.normal_(generator=generator)
    x = torch.randn(4, *SHAPES[n_dims], generator=generator)
    network.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.inference_mode():
        expected = network(x)
        twin = folded(network)
        torch.testing.assert_close(twin(x), expected, rtol=1e-4, atol=1e-5)
    count = sum("Norm" in type(layer).__name__ for layer in network.modules())
    left = sum("Norm" in type(layer).__name__ for layer in twin.modules())
    assert left < count
    assert left == 0 or order != "original"
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_compilation_pays_only_in_long_fits(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    # ResNet-20 on 28 x 28: 30 epochs of 60,000 take an hour, one of 1,000 a second.
    def pays(n_samples, device=CPU, bfloat16=False):
        return _engine.pays_to_compile(n_samples, 31_000_000, device, bfloat16=bfloat16)

    assert pays(30 * 60_000)
    assert not pays(30 * 60_000, bfloat16=True)  # done before the compiler pays off
    assert pays(200 * 60_000, bfloat16=True)
    assert not pays(1000)
    assert not pays(30 * 60_000, torch.device("cuda"))


def test_auto_compiles_where_it_pays(rows, monkeypatch):
    X, y = rows
    asked = []

    def pays(n_samples, macs, device, bfloat16):
        asked.append((n_samples, macs))
        return False

    monkeypatch.setattr(_recipe, "pays_to_compile", pays)
    model = ResNetClassifier(depth=4, max_epochs=2, random_state=0).fit(X, y)
    # Stem 5 x 64, two layers of 64 x 64, classifier 64 x 3.
    assert asked == [(120, 5 * 64 + 2 * 64 * 64 + 64 * 3)]
    assert model.compiled_ is False


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while compiling
def test_a_compiled_fit_gives_the_same_network(rows):
    X, y = rows
    settings = {"depth": 4, "max_epochs": 2, "batch_size": 16, "random_state": 0}
    plain = ResNetClassifier(**settings, compile=False).fit(X, y)
    fast = ResNetClassifier(**settings, compile=True).fit(X, y)
    assert fast.compiled_
    np.testing.assert_allclose(fast.predict_proba(X), plain.predict_proba(X), atol=1e-5)


def test_a_failed_compilation_warns_and_goes_on(monkeypatch):
    def broken(forward, **kwargs):
        def call(x):
            raise torch._dynamo.exc.TorchDynamoException("no C++ compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    forward = _engine.compiled(lambda x: x + 1, batch_size=3)
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler.*compile=False"):
        assert torch.equal(forward(torch.zeros(3)), torch.ones(3))
    assert torch.equal(forward(torch.zeros(3)), torch.ones(3))  # and is silent then


@pytest.mark.parametrize("fast", [True, False])
def test_auto_precision_takes_bfloat16_where_it_is_fast(rows, monkeypatch, fast):
    X, y = rows
    monkeypatch.setattr(_recipe, "pays_in_bfloat16", lambda macs, device: fast)
    settings = {"depth": 4, "max_epochs": 1, "random_state": 0}
    model = ResNetClassifier(**settings).fit(X, y)
    assert model.precision_ == ("bfloat16" if fast else "float32")
    forced = ResNetClassifier(**settings, precision=model.precision_).fit(X, y)
    for one, other in zip(
        model.module_.parameters(), forced.module_.parameters(), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("feature", "wins"), [(True, True), (True, False), (False, True)])
def test_fast_bfloat16_needs_the_feature_and_the_probe(monkeypatch, feature, wins):
    monkeypatch.setattr(_engine, "cpu_has_bfloat16", lambda: feature)
    monkeypatch.setattr(_engine, "_bfloat16_wins", lambda: wins)
    assert _engine.has_fast_bfloat16(CPU) == (feature and wins)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_bfloat16_is_tried_out_within_a_mode_without_gradients(mode):
    with mode():
        assert _engine._bfloat16_wins.__wrapped__() in (False, True)


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_needs_a_fast_processor_and_enough_work(monkeypatch, fast):
    monkeypatch.setattr(_engine, "has_fast_bfloat16", lambda device: fast)
    assert _engine.pays_in_bfloat16(31_000_000, CPU) == fast
    assert not _engine.pays_in_bfloat16(2_000_000, CPU)
    assert _engine.pays_in_bfloat16(2_000_000, torch.device("cuda")) == fast


class Threads(Callback):
    """Notes the number of threads in every epoch."""

    def on_epoch_end(self, net, **kwargs):
        net.history.record("threads", torch.get_num_threads())


def test_small_networks_train_on_one_thread_which_leaves_the_number_as_it_was(rows):
    X, y = rows
    settings = {"max_epochs": 1, "callbacks": [Threads()], "random_state": 0}
    torch.set_num_threads(2)
    try:
        small = ResNetClassifier(depth=4, **settings).fit(X, y)
        assert torch.get_num_threads() == 2
        wide = ResNetClassifier(depth=4, width=40, **settings, batch_size=64).fit(X, y)
    finally:
        torch.set_num_threads(1)
    assert small.history_[0]["threads"] == 1
    assert wide.history_[0]["threads"] == 2


def test_a_fit_inside_another_or_beside_it_has_the_right_number_of_threads():
    found = []

    def large():
        with _engine.one_thread(False):
            found.append(torch.get_num_threads())

    torch.set_num_threads(2)
    try:
        with _engine.one_thread(True):
            with _engine.one_thread(True):
                pass
            assert torch.get_num_threads() == 1
            thread = threading.Thread(target=large)
            thread.start()
            thread.join()
        assert found == [2]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_fits_in_threads_restore_the_number_that_was_before_the_first():
    torch.set_num_threads(2)
    inside, leave = threading.Event(), threading.Event()

    def first():
        with _engine.one_thread(True):
            inside.set()
            leave.wait(10)

    def second():
        inside.wait(10)
        with _engine.one_thread(True):
            leave.set()
            thread.join(10)
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2

    thread = threading.Thread(target=first)
    try:
        thread.start()
        second()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.skipif(_engine._glibc() is None, reason="needs glibc's allocator")
def test_freed_memory_is_kept_until_the_last_fit_ends():
    with _engine.kept_memory(True):
        with _engine.kept_memory(True):
            # Small things may lie above what is freed first, but not above the last.
            low, _, top = torch.ones(25_000_000), torch.ones(1000), torch.ones(25_000_000)
            del low, top
        kept = resident_bytes()
    assert kept - resident_bytes() > 190e6
    with _engine.kept_memory(False):
        before = resident_bytes()
        torch.ones(25_000_000)
        assert resident_bytes() - before < 10e6


@pytest.mark.skipif(_engine._glibc() is None, reason="needs glibc's allocator")
def test_predictions_of_much_work_keep_memory(monkeypatch):
    found = []

    @contextmanager
    def noted(applies):
        found.append(applies)
        yield

    monkeypatch.setattr(_training, "kept_memory", noted)
    X = np.zeros((40, 1, 28, 28), dtype=np.float32)
    model = ResNetClassifier(depth=8, max_epochs=1).fit(X, np.arange(40) % 2)
    found.clear()
    model.predict(X)
    model.predict(X[:1])
    monkeypatch.setattr(_engine, "ONE_THREAD_MULTIPLY_ADDS", 10**12)
    model.predict(X)
    assert found == [True, True, False]


@pytest.mark.parametrize("n_dims", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_activations_and_gradients_have_their_channels_innermost(n_dims, channels):
    spec = network_spec(
        input_shape=(channels, *(8,) * n_dims),
        n_classes=3,
        depth=8,
        width=1,
        block="basic",
        order="original",
        shortcut="projection",
        layout="small",
        dropout=0.0,
        wide=False,
    )
    network = build_network(spec).to_empty(device="cpu")
    initialize(network, torch.Generator().manual_seed(0))
    found = []

    def note(layer, inputs, output):
        found.append(output.detach())
        if inputs[0].requires_grad:
            inputs[0].register_hook(lambda gradient: found.append(gradient))

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.BatchNorm2d | nn.BatchNorm3d):
            layer.register_forward_hook(note)
    generator = torch.Generator().manual_seed(0)
    network(torch.randn(2, channels, *(8,) * n_dims, generator=generator)).sum().backward()
    assert len(found) > 30
    assert [t.shape for t in found if t.stride(1) != 1] == []


def test_less_than_a_batch_of_a_large_network_is_not_padded_to_one():
    size = _engine.prediction_size
    assert size(3, 128, 31_000_000, CPU) == 32
    assert size(3, 16, 31_000_000, CPU) == 16
    assert size(33, 128, 31_000_000, CPU) == 64
    assert size(300, 128, 31_000_000, CPU) == 128
    assert size(3, 128, 2_000_000, CPU) == 128
    assert size(3, 128, 31_000_000, torch.device("cuda")) == 128


def test_denormals_are_flushed_in_training_alone():
    tiny = torch.full((1,), 1e-40)
    with _engine.flushed_denormals():
        assert (tiny * 1.0).item() == 0
    assert (tiny * 1.0).item() > 0
    torch.set_flush_denormal(True)
    try:
        with _engine.flushed_denormals():
            pass
        assert (tiny * 1.0).item() == 0
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize(
    ("layout", "spatial"),
    [("small", ()), ("small", (37,)), ("small", (21, 18)), ("small", (9, 7, 10))]
    + [("imagenet", (37,)), ("imagenet", (21, 18)), ("imagenet", (9, 7, 10))],
)
def test_multiply_adds_are_those_that_torch_counts(spatial, layout):
    spec = network_spec(
        input_shape=(3, *spatial),
        n_classes=5,
        depth=18 if layout == "imagenet" else 8,
        width=1,
        block="basic",
        order="original",
        shortcut="projection",
        layout=layout,
        dropout=0.0,
        wide=False,
    )
    network = build_network(spec).eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, *spatial, device="meta"))
    assert multiply_adds(network, spatial) == counter.get_total_flops() // 2


def test_multiply_adds_are_those_of_the_published_networks():
    def count(depth, width, wide):
        spec = network_spec(
            input_shape=(3, 32, 32),
            n_classes=10,
            depth=depth,
            width=width,
            block="basic",
            order="full_preactivation" if wide else "original",
            shortcut="projection" if wide else "zero_pad",
            layout="small",
            dropout=0.0,
            wide=wide,
        )
        return multiply_adds(build_network(spec), (32, 32))

    assert count(28, 10, True) == pytest.approx(5243e6, rel=2e-3)
    assert count(20, 1, False) == pytest.approx(40.6e6, rel=5e-3)
    assert count(110, 1, False) == pytest.approx(253e6, rel=5e-3)


LIMITED = """
import resource, sys
import numpy as np, torch
torch.set_num_threads(1)
from sk_resnet import ResNetClassifier, _batches
# 96 MB of bytes stand for 4 GB: as float32 they would take 384 MB.
X = np.memmap(sys.argv[1], dtype=np.uint8, mode="r", shape=(100_000, 960))
y = np.arange(len(X)) % 2
_batches.ArrayDataset.load.__defaults__ = (50 * 2**20,)
small = dict(depth=4, batch_size=256, max_epochs=1, random_state=0)
ResNetClassifier(**small).fit(X[:512], y[:512]).predict(X[:512])  # loads the libraries
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = now + int(sys.argv[2]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
if sys.argv[3] == "copy":
    X.astype(np.float32)
model = ResNetClassifier(**small, validation_split=0.05).fit(X, y)
assert len(model.predict(X)) == len(X)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
@pytest.mark.parametrize("mode", ["stream", "copy"])
def test_a_memmap_larger_than_memory_fits_and_predicts(tmp_path, mode):
    path = tmp_path / "X.dat"
    rng = np.random.default_rng(0)
    rng.integers(0, 255, size=100_000 * 960, dtype=np.uint8).tofile(path)
    command = [sys.executable, "-c", LIMITED, str(path), "300", mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if mode == "stream":
        assert done.returncode == 0, done.stderr
    else:  # the limit is one that a copy would break
        assert "MemoryError" in done.stderr


class NeedsValues(Exception):
    """An operation has to know values of tensors, for which a CPU waits for a GPU."""


NEEDING_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class NoValues(TorchDispatchMode):
    """Refuses operations whose result, or its shape, is known to the CPU by values."""

    refuses, n_refusals_begun = False, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.name().startswith("aten::index"):  # only masks need them
            places = args[1] if isinstance(args[1], (list, tuple)) else ()
            needs = any(i is not None and i.dtype == torch.bool for i in places)
        else:
            needs = not NEEDING_VALUES.isdisjoint(function.tags)
        if self.refuses and needs:
            raise NeedsValues(str(function))
        return function(*args, **(kwargs or {}))


@pytest.fixture
def no_values(monkeypatch):
    """Mode that refuses from the begin of each epoch to its record; no step is replayed."""
    mode = NoValues()

    def refusing(read):
        def refuse(self, *args, **kwargs):
            if mode.refuses:
                raise NeedsValues(read.__name__)
            return read(self, *args, **kwargs)

        return refuse

    for name in ("tolist", "numpy", "cpu"):  # seen by no mode
        monkeypatch.setattr(torch.Tensor, name, refusing(getattr(torch.Tensor, name)))
    run, record = ResidualNet.run_single_epoch, ResidualNet._record_epoch

    def strict_run(self, *args, **kwargs):
        mode.refuses, mode.n_refusals_begun = True, mode.n_refusals_begun + 1
        try:
            run(self, *args, **kwargs)
        finally:
            mode.refuses = False

    def lenient_record(self, *args):
        mode.refuses = False
        record(self, *args)

    monkeypatch.setattr(ResidualNet, "run_single_epoch", strict_run)
    monkeypatch.setattr(ResidualNet, "_record_epoch", lenient_record)
    return mode


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.2, "label_smoothing": 0.1, "validation_split": 0.2},
        {"order": "full_preactivation", "stochastic_depth": 0.2, "precision": "bfloat16"},
        {"l1": 1e-3, "finetune_epochs": 1, "optimizer": "sgd"},
        {"l1": 1e-3, "l1_structure": "channel", "optimizer": "heavy_ball"},
        {"l1": 1e-3, "class_weight": "balanced", "optimizer": "adamw"},
        {"augment": ["shift", "window"], "input_shape": (2, 36)},
        *({"augment": [name]} for name, kind in AUGMENTATIONS.items() if 2 in kind.dims),
    ],
    ids=str,
)
def test_nothing_within_an_epoch_waits_for_values(images, no_values, settings):
    X, y = images
    settings = {"input_shape": (2, 6, 6), "max_epochs": 2, "batch_size": 16} | settings
    with no_values:
        ResNetClassifier(depth=8, **settings).fit(X.reshape(40, 72), y)
    assert no_values.n_refusals_begun >= 2


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x * x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.index_put_((x > 0,), x.sum()),
        lambda x: x * x.sum().tolist(),
        lambda x: x.cpu(),
        lambda x: torch.from_numpy(x.numpy()),
    ],
)
def test_what_waits_for_values_is_found(images, no_values, monkeypatch, wait):
    monkeypatch.setitem(AUGMENTATIONS, "waits", Augmentation(lambda x, _: wait(x), (2,)))
    with no_values, pytest.raises(NeedsValues):
        ResNetClassifier(depth=8, augment=["waits"], max_epochs=1).fit(*images)


class Stream:
    """Stands in for a stream of CUDA."""

    def __init__(self, *args):
        self.waited_for = []

    def wait_stream(self, other):
        self.waited_for.append(other)


def test_a_stream_is_joined_after_an_error_too(monkeypatch):
    outer = Stream()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: outer)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    with pytest.raises(KeyboardInterrupt), _engine.own_stream(torch.device("cuda")):
        raise KeyboardInterrupt
    (own,) = outer.waited_for
    assert own.waited_for == [outer]


# What only a GPU can show.

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("l1", [0.0, 1e-4])
def test_captured_training_equals_uncaptured(images, optimizer, l1):
    X, y = images
    settings = {"depth": 8, "max_epochs": 4, "batch_size": 12, "random_state": 0}
    settings |= {"device": "cuda", "precision": "float32", "optimizer": optimizer}
    fast = ResNetClassifier(**settings, l1=l1).fit(X, y)
    slow = ResNetClassifier(**settings, l1=l1, callbacks=[WantsBatches()]).fit(X, y)
    np.testing.assert_allclose(fast.predict_proba(X), slow.predict_proba(X), atol=1e-3)


@pytest.mark.gpu
@needs_cuda
def test_a_gpu_fit_is_reproducible_with_dropout(images):
    X, y = images
    settings = {"depth": 8, "max_epochs": 6, "batch_size": 8, "dropout": 0.3}
    settings |= {"device": "cuda", "augment": ["crop", "flip"], "random_state": 0}
    one, other = (ResNetClassifier(**settings).fit(X, y) for _ in range(2))
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=1e-2)


@pytest.mark.gpu
@needs_cuda
def test_fits_in_threads_share_a_gpu(images):
    from concurrent.futures import ThreadPoolExecutor

    X, y = images
    settings = {"depth": 8, "max_epochs": 6, "batch_size": 8, "device": "cuda"}
    models = [ResNetClassifier(**settings, random_state=0) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        fitted = list(pool.map(lambda model: model.fit(X, y), models))
    for model in fitted[1:]:
        np.testing.assert_allclose(
            model.predict_proba(X), fitted[0].predict_proba(X), atol=1e-2
        )


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("wide", [False, True])
def test_a_gpu_predicts_as_a_cpu(images, monkeypatch, wide):
    X, y = images
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    kind = WideResNetClassifier if wide else ResNetClassifier
    model = kind(depth=10 if wide else 8, max_epochs=6, device="cuda").fit(X, y)
    on_gpu = model.predict_proba(X)
    model.net_.module_.cpu()
    model.net_.device = "cpu"
    np.testing.assert_allclose(on_gpu, model.predict_proba(X), atol=1e-5)
