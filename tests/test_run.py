"""Oracles: a loop written here, the path with hooks, and that of a CPU."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from test_spec import spec_of
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sk_resnet import (
    ResNetClassifier,
    WideResNetClassifier,
    _batches,
    _plan,
)
from sk_resnet._augment import AUGMENTATIONS, Augmentation
from sk_resnet._batches import ArrayDataset, Batches
from sk_resnet._input import input_spec, with_statistics
from sk_resnet._network import build_network, initialize
from sk_resnet._plan import resolve_batch_size
from sk_resnet._run import Run
from sk_resnet._spec import ORDERS

CPU = torch.device("cpu")
SHAPES = {0: (6,), 1: (2, 9), 2: (2, 7, 7), 3: (2, 4, 4, 4)}
# Block, and the depth of the smallest network of it: of rows, of everything else.
SMALLEST = {"basic": (4, 8), "bottleneck": (5, 11), (2, 3): (4, 8)}


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
        n_estimators=1,
        batch_size=8,
        max_epochs=1,
        lr=0.01,
        l2=0.01,
        schedule="constant",
        scale=None,
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
    assert len(fast.net_.history[0]["batches"]) < len(slow.net_.history[0]["batches"])
    for one, other in zip(
        fast.module_.state_dict().values(), slow.module_.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
    keys = ("train_loss", "valid_loss", "valid_accuracy", "lr")
    for one, other in zip(fast.history_, slow.history_, strict=True):
        assert [one[k] for k in keys] == pytest.approx([other[k] for k in keys], rel=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channel_axis", [1, -1])
def test_resident_samples_equal_streamed_ones(dtype, channel_axis, monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 255, size=(20, 3, 5, 3)).astype(dtype)
    spec = input_spec(X, input_shape=None, channel_axis=channel_axis)
    spec = with_statistics(spec, X, np.ones(20))
    rows = np.array([3, 1, 9, 19])
    streamed, resident = (ArrayDataset(X, spec, rows=rows) for _ in range(2))
    resident.load(CPU)
    monkeypatch.setattr(_batches, "RESIDENT_BYTES", 0)
    streamed.load(CPU)
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


@pytest.mark.parametrize(("at_once", "n_reads"), [(2**24, 1), (40 * 5 * 4, 3), (0, 13)])
@pytest.mark.parametrize("is_loaded", [True, False])
def test_passes_hold_all_samples_in_order(is_loaded, at_once, n_reads, monkeypatch):
    monkeypatch.setattr(_batches, "ORDERED_BYTES", at_once)
    X = np.random.default_rng(0).normal(size=(100, 5))
    spec = input_spec(X, input_shape=None, channel_axis=1)
    spec = with_statistics(spec, X, np.ones(100))
    dataset, reads = ArrayDataset(X, spec), []
    if is_loaded:
        dataset.load(torch.device("cpu"))
    inputs = dataset.inputs
    monkeypatch.setattr(dataset, "inputs", lambda at: reads.append(at) or inputs(at))
    passes = list(dataset.passes(8, torch.device("cpu")))
    assert [len(x) for x in passes] == [8] * 12 + [4]
    assert torch.equal(torch.cat(passes), torch.from_numpy(spec.transform(X)))
    assert len(reads) == n_reads


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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while compiling
def test_a_compiled_fit_gives_the_same_network(rows):
    X, y = rows
    settings = {"depth": 4, "max_epochs": 2, "batch_size": 16, "random_state": 0}
    settings |= {"n_estimators": 1}
    plain = ResNetClassifier(**settings, compile=False).fit(X, y)
    fast = ResNetClassifier(**settings, compile=True).fit(X, y)
    np.testing.assert_allclose(fast.predict_proba(X), plain.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("fast", [True, False])
def test_auto_precision_takes_bfloat16_where_it_is_fast(rows, monkeypatch, fast):
    X, y = rows
    monkeypatch.setattr(_plan, "pays_in_bfloat16", lambda macs, device: fast)
    settings = {"depth": 4, "max_epochs": 1, "n_estimators": 1, "random_state": 0}
    model = ResNetClassifier(**settings).fit(X, y)
    assert model.precision_ == ("bfloat16" if fast else "float32")
    forced = ResNetClassifier(**settings, precision=model.precision_).fit(X, y)
    for one, other in zip(
        model.module_.parameters(), forced.module_.parameters(), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("n_dims", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_activations_and_gradients_have_their_channels_innermost(n_dims, channels):
    spec = spec_of(
        input_shape=(channels, *(8,) * n_dims),
        n_outputs=3,
        depth=8,
        layout="small",
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


LIMITED = """
import resource, sys
import numpy as np, torch
torch.set_num_threads(1)
from sk_resnet import ResNetClassifier, _batches
# 96 MB of bytes stand for 4 GB: as float32 they would take 384 MB.
X = np.memmap(sys.argv[1], dtype=np.uint8, mode="r", shape=(100_000, 960))
y = np.arange(len(X)) % 2
_batches.ArrayDataset.load.__defaults__ = (50 * 2**20,)
small = dict(depth=4, batch_size=256, max_epochs=1, n_estimators=1, random_state=0)
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

    def strict(run):
        def strict_run(self, *args):
            mode.refuses, mode.n_refusals_begun = True, mode.n_refusals_begun + 1
            try:
                return run(self, *args)
            finally:
                mode.refuses = False

        return strict_run

    means = Run._means

    def lenient_means(self, *args):
        mode.refuses = False
        return means(self, *args)

    monkeypatch.setattr(Run, "train", strict(Run.train))
    monkeypatch.setattr(Run, "validate", strict(Run.validate))
    monkeypatch.setattr(Run, "_means", lenient_means)
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
    settings = {
        "input_shape": (2, 6, 6),
        "channel_axis": 1,
        "max_epochs": 2,
        "batch_size": 16,
        "n_estimators": 1,
    } | settings
    with no_values:
        ResNetClassifier(depth=8, **settings).fit(X.reshape(40, 72), y)
    by_epoch = 2 if "validation_split" in settings else 1
    assert no_values.n_refusals_begun >= 2 * by_epoch


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


# What only a GPU can show.

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("l1", [0.0, 1e-4])
def test_recorded_training_equals_unrecorded(images, optimizer, l1):
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


@pytest.mark.parametrize(
    ("n", "size"), [(2, 2), (5, 5), (16, 8), (40, 8), (128, 32), (500, 32), (3000, 128)]
)
def test_automatic_batches_hold_eight_samples_or_all(n, size):
    assert resolve_batch_size("auto", n) == size


def test_the_best_losses_are_those_of_all_epochs_so_far(rows):
    X, y = rows
    model = ResNetClassifier(4, max_epochs=6, n_estimators=1, lr=0.3, batch_size=16)
    model.set_params(validation_split=0.3, warm_start=True, random_state=0)
    model.fit(X, y).fit(X, y)
    history = model.net_.history
    for name in ("train_loss", "valid_loss"):
        losses = history[:, name]
        expected = [v < min([np.inf, *losses[:i]]) for i, v in enumerate(losses)]
        assert history[:, f"{name}_best"] == expected
        assert not all(expected)


def test_the_best_losses_are_those_of_the_epochs_that_are_left(rows):
    X, y = rows
    model = ResNetClassifier(4, max_epochs=6, n_estimators=1, batch_size=16)
    model.set_params(warm_start=True, random_state=0, schedule="constant").fit(X, y)
    del model.net_.history[1:]  # as behind Ctrl-C and errors
    model.net_.history[0]["train_loss"] = 100.0
    others = np.random.default_rng(0).permutation(y)  # whose loss is above those before
    model.set_params(validation_split=0.3, lr=1e-3).fit(X, others)
    history = model.net_.history
    losses = history[:, "train_loss"]
    expected = [v < min([np.inf, *losses[:i]]) for i, v in enumerate(losses)]
    assert history[:, "train_loss_best"] == expected
    assert "valid_loss" not in history[0]
    assert history[1, "valid_loss_best"]
