"""What a fit leaves behind when it is interrupted, fails, or runs beside others."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn import get_config
from sklearn.base import clone
from skorch.callbacks import Callback

from sk_resnet import EarlyStopping, ResNetClassifier

N_TIMES = int(os.environ.get("REPEATS", "30"))
RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
ONE = ResNetClassifier(4, n_estimators=1, max_epochs=20, random_state=0, device="cpu")
MODELS = {
    "one": ONE,
    "ensemble": clone(ONE).set_params(n_estimators=3, dropout=0.1),
    "l1": clone(ONE).set_params(l1=1e-3, finetune_epochs=5),
    "stopping": clone(ONE).set_params(
        validation_split=0.2, callbacks=[EarlyStopping(patience=5)]
    ),
}


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C as in the foreground: a shell ignores it for what runs behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def surroundings():
    """All that a fit changes meanwhile, or might."""
    denormal = torch.full((1,), 1e-40)
    return {
        "threads": threading.active_count(),
        "threads of torch": torch.get_num_threads(),
        "keeps denormals": bool((denormal * 1.0 != 0).all()),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "handlers": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        "torch": torch.get_rng_state().tolist(),
        "numpy": [str(part) for part in np.random.get_state()],  # noqa: NPY002
        "python": random.getstate(),
        "config": get_config(),
        "errors of numpy": np.geterr(),
    }


def weights(model):
    return [w.numpy().copy() for w in model.module_.state_dict().values()]


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
# Python drops an interrupt that comes while it clears a weak reference, and says so; the
# fit has noted it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", MODELS)
def test_ctrl_c_at_any_moment_leaves_everything_as_it_was(name):
    model = MODELS[name]
    started = time.perf_counter()
    expected = weights(clone(model).fit(X, Y))
    seconds = time.perf_counter() - started
    before, rng, n_interrupted = surroundings(), np.random.default_rng(1), 0
    for _ in range(N_TIMES):
        tried = clone(model)
        at = float(rng.uniform(0, seconds))
        # To this thread, which cannot go on before it has come.
        here = threading.get_ident()
        timer = threading.Timer(at, signal.pthread_kill, (here, signal.SIGINT))
        timer.start()
        try:
            tried.fit(X, Y)
            timer.join()
            time.sleep(0.01)  # of an interrupt that is on its way
        except KeyboardInterrupt:
            n_interrupted += 1
        timer.cancel()
        timer.join()
        assert surroundings() == before
        if hasattr(tried, "net_"):  # the epochs that were done
            assert np.isfinite(tried.predict_proba(X)).all()
            assert len(tried.history_) == tried.n_epochs_ > 0
        assert_equal(weights(clone(model).fit(X, Y)), expected)
    assert n_interrupted > N_TIMES / 3


HOOKS = [
    *("initialize", "on_train_begin", "on_epoch_begin", "on_batch_begin"),
    *("on_grad_computed", "on_batch_end", "on_epoch_end", "on_train_end"),
]


def failing(hook, error, at):
    """Callback whose hook fails when it is called for that time."""
    calls = []

    def act(self, *args, **kwargs):
        calls.append(hook)
        if len(calls) == at:
            raise error
        return self

    return type("Failing", (Callback,), {hook: act})()


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("name", ["one", "ensemble"])
def test_an_error_of_a_callback_leaves_everything_as_it_was(name, hook, at, error):
    model = clone(MODELS[name]).set_params(max_epochs=4)
    expected, before = weights(clone(model).fit(X, Y)), surroundings()
    tried = clone(model).set_params(callbacks=[failing(hook, error, at)])
    once = hook in ("initialize", "on_train_begin", "on_train_end")
    if once and at > (1 if name == "one" else 3):
        tried.fit(X, Y)
    else:
        with pytest.raises(error):
            tried.fit(X, Y)
    assert surroundings() == before
    if hasattr(tried, "net_"):
        assert np.isfinite(tried.predict_proba(X)).all()
    assert_equal(weights(clone(model).fit(X, Y)), expected)


def test_fits_in_eight_threads_beside_predictions():
    fitted = clone(MODELS["ensemble"]).fit(X, Y)
    proba = fitted.predict_proba(X)
    expected = {name: weights(clone(model).fit(X, Y)) for name, model in MODELS.items()}
    before, is_over = surroundings(), threading.Event()

    def predict():
        n = 0
        while not is_over.is_set() or n == 0:
            np.testing.assert_array_equal(fitted.predict_proba(X), proba)
            n += 1
        return n

    names = [*MODELS] * 2
    with ThreadPoolExecutor(10) as threads:
        predictions = [threads.submit(predict) for _ in range(2)]
        fits = [threads.submit(clone(MODELS[name]).fit, X, Y) for name in names]
        found = [fit.result() for fit in fits]
        is_over.set()
        assert all(one.result() > 0 for one in predictions)
    for name, model in zip(names, found, strict=True):
        assert_equal(weights(model), expected[name])
    assert surroundings() == before


def test_fits_and_predictions_within_asyncio():
    expected = weights(clone(ONE).fit(X, Y))
    before = surroundings()

    async def all_at_once():
        here = clone(ONE).fit(X, Y)  # which blocks the loop
        others = [asyncio.to_thread(clone(ONE).fit, X, Y) for _ in range(3)]
        proba = asyncio.to_thread(here.predict_proba, X)
        *fitted, _ = await asyncio.gather(*others, proba)
        return [here, *fitted]

    for model in asyncio.run(all_at_once()):
        assert_equal(weights(model), expected)
    assert surroundings() == before


FORK = """
import os, sys
import numpy as np
import torch
from sk_resnet import ResNetClassifier

def child_of(act):
    child = os.fork()
    if child == 0:
        os._exit(0 if act() else 1)
    return child

torch.set_num_threads(2)
rng = np.random.default_rng(0)
X = {"rows": rng.normal(size=(80, 6)), "images": rng.normal(size=(80, 1, 24, 24))}
y = np.arange(80) % 2
for kind, samples in X.items():  # the second on two threads
    model = ResNetClassifier(8, n_estimators=1, max_epochs=1, random_state=0)
    proba = model.fit(samples, y).predict_proba(samples)
    children = [
        child_of(lambda: np.allclose(model.predict_proba(samples), proba, atol=1e-5)),
        child_of(lambda: model.fit(samples, y).n_epochs_ == 1),
    ]
    for child in children:
        assert os.waitpid(child, 0)[1] == 0, kind
    assert np.array_equal(model.predict_proba(samples), proba)
    assert torch.get_num_threads() == 2
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_forks_behind_a_fit_predict_and_fit():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "done\n"


class CtrlCAt(Callback):
    """Sends Ctrl-C behind so many epochs of members that train one after the other."""

    def __init__(self, n_left):
        self.n_left = n_left  # a list, which copies share

    def on_epoch_end(self, net, **kwargs):
        self.n_left[0] -= 1
        if self.n_left[0] == 0:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("n_epochs", "lengths"), [(2, 2), (4, [3, 1]), (7, [3, 3, 1])])
def test_ctrl_c_leaves_an_ensemble_of_those_that_were_trained(n_epochs, lengths):
    whole = clone(ONE).set_params(n_estimators=3, max_epochs=3, calibrate=False)
    whole.set_params(callbacks=[CtrlCAt([99])]).fit(X, Y)
    model = clone(whole).set_params(callbacks=[CtrlCAt([n_epochs])])
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    np.testing.assert_array_equal(model.best_epoch_, lengths)
    n_left = np.size(lengths)
    assert len(model.nets_) == model.module_.spec.members == n_left
    alone = [net.outputs(X) for net in model.nets_]
    np.testing.assert_allclose(
        model.net_.outputs(X).reshape(n_left, *alone[0].shape), alone, rtol=1e-4, atol=1e-5
    )
    for net, expected, n in zip(
        model.nets_, whole.nets_[:n_left], np.atleast_1d(lengths), strict=True
    ):
        if n == 3:
            assert_equal(
                net.module_.state_dict().values(), expected.module_.state_dict().values()
            )
    model.set_params(warm_start=True, callbacks=None)
    if n_left < 3:
        with pytest.raises(ValueError, match=f"set n_estimators={n_left}, or"):
            model.fit(X, Y)
    model.set_params(n_estimators=n_left).fit(X, Y)
    assert len(model.nets_) == n_left
    assert model.score(X, Y) > 0.8


def test_ctrl_c_in_a_further_fit_leaves_all_members():
    model = clone(ONE).set_params(n_estimators=3, max_epochs=3, warm_start=True)
    model.fit(X, Y).set_params(callbacks=[CtrlCAt([2])])
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    np.testing.assert_array_equal(model.best_epoch_, [5, 3, 3])
