"""Settings of the machine: they act where they should, and are put back."""

import resource
import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from sk_resnet import ResNetClassifier, _machine

CPU = torch.device("cpu")


def test_a_failed_compilation_warns_and_goes_on(monkeypatch):
    def broken(forward, **kwargs):
        def call(x):
            raise torch._dynamo.exc.TorchDynamoException("no C++ compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    forward = _machine.compiled(lambda x: x + 1, batch_size=3)
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler.*compile=False"):
        assert torch.equal(forward(torch.zeros(3)), torch.ones(3))
    assert torch.equal(forward(torch.zeros(3)), torch.ones(3))  # and is silent then


@pytest.mark.parametrize(("feature", "wins"), [(True, True), (True, False), (False, True)])
def test_fast_bfloat16_needs_the_feature_and_the_probe(monkeypatch, feature, wins):
    monkeypatch.setattr(_machine, "cpu_has_bfloat16", lambda: feature)
    monkeypatch.setattr(_machine, "_bfloat16_wins", lambda: wins)
    assert _machine.has_fast_bfloat16(CPU) == (feature and wins)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_bfloat16_is_tried_out_within_a_mode_without_gradients(mode):
    with mode():
        assert _machine._bfloat16_wins.__wrapped__() in (False, True)


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_needs_a_fast_processor_and_enough_work(monkeypatch, fast):
    monkeypatch.setattr(_machine, "has_fast_bfloat16", lambda device: fast)
    assert _machine.pays_in_bfloat16(31_000_000, CPU) == fast
    assert not _machine.pays_in_bfloat16(2_000_000, CPU)
    assert _machine.pays_in_bfloat16(2_000_000, torch.device("cuda")) == fast


class Threads(Callback):
    """Notes the number of threads in every epoch."""

    def on_epoch_end(self, net, **kwargs):
        net.history.record("threads", torch.get_num_threads())


def test_small_networks_train_on_one_thread_which_leaves_the_number_as_it_was(rows):
    X, y = rows
    settings = {"max_epochs": 1, "callbacks": [Threads()], "random_state": 0}
    settings |= {"n_estimators": 1}
    torch.set_num_threads(2)
    try:
        small = ResNetClassifier(depth=4, **settings).fit(X, y)
        assert torch.get_num_threads() == 2
        wide = ResNetClassifier(depth=4, width=40, **settings, batch_size=64).fit(X, y)
    finally:
        torch.set_num_threads(1)
    assert small.history_[0]["threads"] == 1
    assert wide.history_[0]["threads"] == 2


def test_predictions_take_the_threads_that_training_takes(rows):
    X, y = rows
    settings = {"max_epochs": 1, "n_estimators": 1, "random_state": 0}
    small = ResNetClassifier(depth=4, **settings).fit(X, y)
    wide = ResNetClassifier(depth=4, width=40, **settings, batch_size=64).fit(X, y)
    found = []
    for model in (small, wide):
        model.module_.head.register_forward_hook(
            lambda *_: found.append(torch.get_num_threads())
        )
    torch.set_num_threads(2)
    try:
        small.predict(X[:1])
        wide.predict(X)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert set(found[:1]) == {1}
    assert set(found[1:]) == {2}


def test_a_fit_inside_another_or_beside_it_has_the_right_number_of_threads():
    found = []

    def large():
        with _machine.one_thread(False):
            found.append(torch.get_num_threads())

    torch.set_num_threads(2)
    try:
        with _machine.one_thread(True):
            with _machine.one_thread(True):
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
        with _machine.one_thread(True):
            inside.set()
            leave.wait(10)

    def second():
        inside.wait(10)
        with _machine.one_thread(True):
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


@pytest.mark.skipif(_machine._glibc() is None, reason="needs glibc's allocator")
def test_freed_memory_is_kept_until_the_last_fit_ends():
    with _machine.kept_memory(True):
        with _machine.kept_memory(True):
            # Small things may lie above what is freed first, but not above the last.
            low, _, top = torch.ones(25_000_000), torch.ones(1000), torch.ones(25_000_000)
            del low, top
        kept = resident_bytes()
    assert kept - resident_bytes() > 190e6
    with _machine.kept_memory(False):
        before = resident_bytes()
        torch.ones(25_000_000)
        assert resident_bytes() - before < 10e6


def test_few_samples_are_not_padded_to_a_batch():
    size = _machine.prediction_size
    assert size(3, 128, 31_000_000, CPU) == 16
    assert size(3, 10, 31_000_000, CPU) == 10
    assert size(33, 128, 31_000_000, CPU) == 48
    assert size(300, 128, 31_000_000, CPU) == 128
    assert size(1, 128, 2_000_000, CPU) == 16
    assert size(16, 128, 2_000_000, CPU) == 16
    assert size(1, 10, 2_000_000, CPU) == 10
    assert size(17, 128, 2_000_000, CPU) == 128
    assert size(3, 128, 2_000_000, torch.device("cuda")) == 128


SHAPES = [(5,), (70,), (2, 21), (1, 8, 8), (3, 9, 7), (1, 5, 5, 5)]


@pytest.mark.parametrize("n_estimators", [1, 3])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_sample_alone_is_predicted_as_among_others(shape, block, n_estimators):
    settings = {"block": block, "n_estimators": n_estimators, "batch_size": 40}
    settings |= {"order": "full_preactivation", "shortcut": "projection"}
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(90, *shape)).astype(np.float32), np.arange(90) % 3
    model = ResNetClassifier(
        "auto" if len(shape) == 1 else {"basic": 8, "bottleneck": 11}[block],
        width=1 if len(shape) == 1 else 0.5,
        max_epochs=1,
        channel_axis=1,
        random_state=0,
        **settings,
    ).fit(X, y)
    whole = model.predict_log_proba(X)
    for rows in (slice(0, 1), slice(37, 41), slice(20, 36), slice(50, 90)):
        alone = model.predict_log_proba(X[rows])
        np.testing.assert_allclose(alone, whole[rows], rtol=0, atol=1e-7)
    # By now the network is kept ready, and passes of fewer samples were tried.
    for i in range(90):
        alone = model.predict_log_proba(X[i : i + 1])
        np.testing.assert_allclose(alone, whole[i : i + 1], rtol=0, atol=1e-7)


def test_a_pass_has_as_few_samples_as_give_the_same_bits():
    class OfSize(torch.nn.Module):
        """Rounds otherwise in passes of less than some samples."""

        def __init__(self, least):
            super().__init__()
            self.least = least

        def forward(self, x):
            return x.sum(1, keepdim=True) + (1e-6 if len(x) < self.least else 0)

    found = {n: _machine.fewest_alike(OfSize(n), (16, 3)) for n in (1, 2, 3, 8, 9, 16)}
    assert found == {1: 2, 2: 2, 3: 4, 8: 8, 9: 16, 16: 16}
    assert _machine.fewest_alike(OfSize(1), (1, 3)) == 1
    assert _machine.fewest_alike(OfSize(1), (3, 3)) == 2
    size = _machine.prediction_size
    assert size(1, 128, 2_000_000, CPU, fewest=4) == 4
    assert size(4, 128, 2_000_000, CPU, fewest=4) == 4
    assert size(5, 128, 2_000_000, CPU, fewest=4) == 16
    assert size(1, 128, 2_000_000, torch.device("cuda"), fewest=4) == 128


def test_denormals_are_flushed_in_training_alone():
    tiny = torch.full((1,), 1e-40)
    with _machine.flushed_denormals():
        assert (tiny * 1.0).item() == 0
    assert (tiny * 1.0).item() > 0
    torch.set_flush_denormal(True)
    try:
        with _machine.flushed_denormals():
            pass
        assert (tiny * 1.0).item() == 0
    finally:
        torch.set_flush_denormal(False)


class Denormals(Callback):
    """Notes in every epoch whether denormal numbers are zero."""

    def on_epoch_end(self, net, **kwargs):
        net.history.record("flushed", (torch.full((1,), 1e-40) * 1.0).item() == 0)


def test_a_fit_flushes_denormals(rows):
    model = ResNetClassifier(depth=4, max_epochs=1, callbacks=[Denormals()]).fit(*rows)
    assert model.history_[0]["flushed"]
    assert (torch.full((1,), 1e-40) * 1.0).item() > 0


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
    with pytest.raises(KeyboardInterrupt), _machine.own_stream(torch.device("cuda")):
        raise KeyboardInterrupt
    (own,) = outer.waited_for
    assert own.waited_for == [outer]
