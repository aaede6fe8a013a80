"""Fits that are killed and go on, bit by bit as those that were never interrupted."""

import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from joblib import parallel_config
from optuna.distributions import CategoricalDistribution, FloatDistribution
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, ShuffleSplit, cross_val_score
from skorch.callbacks import Callback, PrintLog
from test_unequal import listed

from sk_resnet import (
    EarlyStopping,
    ModelFileError,
    ResNetClassifier,
    ResNetRegressor,
    WideResNetClassifier,
    _checkpoint,
    _fused,
    load,
    save,
)
from sk_resnet import _base as base
from sk_resnet._group import Group
from sk_resnet._net import ResidualNet
from sk_resnet._snapshot import state_by_name
from sk_resnet._spec import Defaults
from sk_resnet.search import CrossValidationObjective, create_study, retry_stale_trials

RNG = np.random.default_rng(0)
CLASSES = np.arange(90) % 3
ROWS = RNG.normal(size=(90, 7)) + np.eye(7)[0] * CLASSES[:, None]
IMAGES = RNG.normal(size=(40, 1, 8, 8)).astype(np.float32)
SERIES, OF_SERIES = listed()
SMALL = {"depth": 4, "max_epochs": 6, "random_state": 0}


class Killed(BaseException):
    """Ends a fit where no handler of errors sees it."""


@pytest.fixture(autouse=True)
def at_every_epoch(monkeypatch):
    monkeypatch.setattr(_checkpoint, "SECONDS_TO_FIRST", 0)
    monkeypatch.setattr(_checkpoint, "MOST_SHARE", 1e9)


def fit_until(model, n_writes, *data, method="fit", **given):
    """Whether a fit came to its end, before as many files were written."""
    counter = itertools.count(1)
    write = _checkpoint.Checkpoint.write

    def count(*checkpoints):
        write(*checkpoints)
        if next(counter) == n_writes:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_checkpoint.Checkpoint, "write", count)
        try:
            getattr(model, method)(*data, **given)
        except Killed:
            return False
    return True


def history(model):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in model.history_]


def assert_same(found, expected):
    """Weights, history, generators and running averages, bit by bit."""
    pairs = zip(found.nets_, expected.nets_, strict=True)
    for one, other in pairs:
        state = other.module_.state_dict()
        for name, w in one.module_.state_dict().items():
            assert torch.equal(w, state[name]), name
        for name in ("shuffle", "noise"):
            states = [getattr(net, name).get_state() for net in (one, other)]
            assert torch.equal(*states)
        averages = [state_by_name(net) for net in (one, other)]
        assert averages[0].keys() == averages[1].keys()
        for name, values in averages[0].items():
            assert values.keys() == averages[1][name].keys()
            for key, value in values.items():
                assert torch.equal(value, averages[1][name][key]), (name, key)
    assert history(found) == history(expected)
    assert found.n_epochs_ == expected.n_epochs_
    np.testing.assert_array_equal(found.best_epoch_, expected.best_epoch_)


FITS = {
    "one": ({"n_estimators": 1}, ROWS, CLASSES),
    "adamw and l1": (
        {"n_estimators": 1, "optimizer": "adamw", "l1": 1e-3, "schedule": "cosine"},
        ROWS,
        CLASSES,
    ),
    "channels and fine-tuning": (
        {
            "depth": 8,
            "l1": 3e-3,
            "l1_structure": "channel",
            "finetune_epochs": 3,
            "schedule": "wide_steps",
        },
        IMAGES,
        CLASSES[:40],
    ),
    "dropout, mixup, stopping": (
        {
            "n_estimators": 1,
            "dropout": 0.2,
            "augment": ["mixup"],
            "max_epochs": 12,
            "callbacks": [EarlyStopping(patience=3)],
        },
        ROWS,
        CLASSES,
    ),
    "ensemble": ({"n_estimators": 4, "dropout": 0.1}, ROWS, CLASSES),
    # One of them ends first, and keeps its place until others do.
    "ensemble that stops": (
        {
            "n_estimators": 10,
            "max_epochs": 20,
            "callbacks": [EarlyStopping(patience=3)],
            "finetune_epochs": 2,
        },
        ROWS,
        CLASSES,
    ),
    "ensemble of images": (
        {"depth": 8, "n_estimators": 3, "finetune_epochs": 2, "l1": 1e-3},
        IMAGES,
        CLASSES[:40],
    ),
    "bfloat16": ({"depth": 8, "precision": "bfloat16"}, IMAGES, CLASSES[:40]),
    "unequal series": ({"depth": 8, "width": 0.5, "n_estimators": 2}, SERIES, OF_SERIES),
    "without a seed": ({"n_estimators": 2, "random_state": None}, ROWS, CLASSES),
}


@pytest.mark.parametrize("name", FITS)
def test_a_fit_that_is_killed_at_any_epoch_goes_on_to_the_same_bits(name, tmp_path):
    changes, *data = FITS[name]
    parameters = {**SMALL, **changes}
    path = tmp_path / "fit"
    make = ResNetClassifier(**parameters, checkpoint=path)
    if parameters["random_state"] is None:  # as the first run drew it
        fit_until(make, 1, *data)
        seed = _checkpoint.read_archive(path, "checkpoint")["plain"]
        seed = int(seed.partition('"seed": ')[2].partition(",")[0])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ResNetClassifier, "_draw_seed", lambda self: seed)
            expected = ResNetClassifier(**parameters).fit(*data)
        assert_same(make.fit(*data), expected)
        return
    expected = ResNetClassifier(**parameters).fit(*data)
    for n_writes in itertools.count(1):
        path.unlink(missing_ok=True)
        if fit_until(ResNetClassifier(**parameters, checkpoint=path), n_writes, *data):
            break
        again = ResNetClassifier(**parameters, checkpoint=path).fit(*data)
        assert_same(again, expected)
    assert n_writes > 3
    seconds = [row["seconds"] for row in again.history_]
    returned = ResNetClassifier(**parameters, checkpoint=path).fit(*data)
    assert_same(returned, again if n_writes == 1 else expected)
    assert len(seconds) == len(returned.history_)


@pytest.mark.parametrize("size", [1, 2])
def test_groups_of_an_ensemble_go_on_one_after_the_other(size, tmp_path, monkeypatch):
    monkeypatch.setattr(_fused, "MOST_ON_CPU", size)
    parameters = {**SMALL, "n_estimators": 5, "max_epochs": 3, "finetune_epochs": 2}
    parameters |= {"l1": 1e-3, "callbacks": [EarlyStopping(patience=1)]}
    expected = ResNetClassifier(**parameters).fit(ROWS, CLASSES)
    path = tmp_path / "fit"
    for n_writes in itertools.count(1):
        path.unlink(missing_ok=True)
        model = ResNetClassifier(**parameters, checkpoint=path)
        if fit_until(model, n_writes, ROWS, CLASSES):
            break
        again = ResNetClassifier(**parameters, checkpoint=path).fit(ROWS, CLASSES)
        assert_same(again, expected)
    assert n_writes > 10


@pytest.mark.parametrize("make", [ResNetRegressor, WideResNetClassifier])
def test_every_estimator_goes_on(make, tmp_path):
    parameters = {**SMALL, "max_epochs": 3, "width": 0.5, "n_estimators": 2}
    expected = make(**parameters).fit(ROWS, CLASSES)
    assert not fit_until(make(**parameters, checkpoint=tmp_path), 2, ROWS, CLASSES)
    again = make(**parameters, checkpoint=tmp_path).fit(ROWS, CLASSES)
    assert_same(again, expected)
    np.testing.assert_array_equal(again.predict(ROWS), expected.predict(ROWS))


def test_what_goes_on_twice_is_the_same(tmp_path):
    parameters = {**SMALL, "n_estimators": 3}
    expected = ResNetClassifier(**parameters).fit(ROWS, CLASSES)
    path = tmp_path / "fit"
    for _ in range(4):
        assert not fit_until(
            ResNetClassifier(**parameters, checkpoint=path), 1, ROWS, CLASSES
        )
    again = ResNetClassifier(**parameters, checkpoint=path).fit(ROWS, CLASSES)
    assert_same(again, expected)


CHILD = """
import sys
import numpy as np
import torch
torch.set_num_threads(1)
from sk_resnet import ResNetClassifier, _checkpoint, save
_checkpoint.SECONDS_TO_FIRST, _checkpoint.MOST_SHARE = 0, 0.5
rng = np.random.default_rng(0)
X, y = rng.normal(size=(300, 9)), np.arange(300) % 3
model = ResNetClassifier(
    8, n_estimators=4, dropout=0.1, max_epochs=60, random_state=0, checkpoint=sys.argv[1]
)
print("begins", flush=True)
model.fit(X, y)
save(model, sys.argv[2])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_process_that_is_killed_again_and_again_ends_with_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)

    def run(name, seconds):
        """Whether a process came to its end before it was killed."""
        arguments = [tmp_path / f"{name}.checkpoint", tmp_path / f"{name}.model"]
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, *map(str, arguments)],
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        ) as process:
            process.stdout.readline()
            try:
                process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
        return process.returncode == 0

    assert run("whole", None)
    n_killed = 0
    while not run("killed", 0.3 + 0.7 * rng.random() if n_killed < 4 else None):
        n_killed += 1
        time.sleep(0)
    assert n_killed > 0
    models = [load(tmp_path / f"{name}.model") for name in ("whole", "killed")]
    states = [model.module_.state_dict() for model in models]
    assert all(map(torch.equal, *(state.values() for state in states)))
    assert history(models[0]) == history(models[1])


def chain_of_fits(folder):
    """Model of five calls of partial_fit and fit in turn, on parts of the data."""
    parameters = {**SMALL, "n_estimators": 1, "optimizer": "adamw", "dropout": 0.1}
    model = ResNetClassifier(**parameters, warm_start=True, checkpoint=folder)
    for i in range(5):
        rows = slice(30 * (i % 3), 30 * (i % 3) + 30)
        if i % 2:
            model.fit(ROWS[rows], CLASSES[rows])
        else:
            model.partial_fit(ROWS[rows], CLASSES[rows], classes=[0, 1, 2])
    return model


def is_done_by_a_fork(act, seconds):
    """Whether a forked process came to its end before it was killed."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            assert status == 0
            return True
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == 0


N_KILLS = int(os.environ.get("REPEATS", "20"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and needs SIGKILL")
@pytest.mark.parametrize("name", [*sorted(FITS.keys() - {"without a seed"}), "chain"])
def test_fits_that_are_killed_at_random_moments_end_with_the_same_bits(name, tmp_path):
    def run(folder, seconds):
        """Whether a fit with its checkpoints in a folder came to its end."""
        folder.mkdir(exist_ok=True)

        def fit():
            if name == "chain":
                model = chain_of_fits(folder)
            else:
                changes, *data = FITS[name]
                model = ResNetClassifier(**{**SMALL, **changes}, checkpoint=folder)
                model.fit(*data)
            save(model, f"{folder}.model")

        return is_done_by_a_fork(fit, seconds)

    rng, started = np.random.default_rng(), time.monotonic()
    assert run(tmp_path / "whole", 600)
    whole = time.monotonic() - started
    expected = load(tmp_path / "whole.model")
    n_killed = n_fits = 0
    while n_killed < N_KILLS:
        folder = tmp_path / str(n_fits)
        while n_killed < N_KILLS and not run(folder, rng.uniform(0, whole)):
            n_killed += 1
        assert run(folder, 600)
        found = load(f"{folder}.model")
        state = expected.module_.state_dict()
        for key, w in found.module_.state_dict().items():
            assert torch.equal(w, state[key]), key
        assert history(found) == history(expected)
        n_fits += 1


def test_a_finished_fit_returns_at_once(tmp_path, monkeypatch):
    model = ResNetClassifier(**SMALL, checkpoint=tmp_path / "fit").fit(ROWS, CLASSES)
    monkeypatch.setattr(base, "train", None)
    again = ResNetClassifier(**SMALL, checkpoint=tmp_path / "fit").fit(ROWS, CLASSES)
    assert_same(again, model)
    assert again.temperature_ == model.temperature_
    assert again.history_ == model.history_
    np.testing.assert_array_equal(again.predict_proba(ROWS), model.predict_proba(ROWS))
    assert vars(again).keys() == vars(model).keys()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"lr": 0.02}, "lr"),
        ({"random_state": 1, "width": 2}, "random_state, width"),
        ({}, "X"),
    ],
)
def test_another_fit_does_not_go_on_and_leaves_the_file(change, what, tmp_path):
    path = tmp_path / "fit"
    assert not fit_until(ResNetClassifier(**SMALL, checkpoint=path), 2, ROWS, CLASSES)
    before = path.read_bytes()
    other = ROWS if change else ROWS + 1e-9
    model = ResNetClassifier(**{**SMALL, **change}, checkpoint=path)
    with pytest.raises(ValueError, match=f"another {what}:.*a folder"):
        model.fit(other, CLASSES)
    assert path.read_bytes() == before
    assert not hasattr(model, "n_features_in_")
    with pytest.raises(ValueError, match="another sample_weight"):
        ResNetClassifier(**SMALL, checkpoint=path).fit(
            ROWS, CLASSES, sample_weight=np.arange(90)
        )


@pytest.mark.parametrize("more", [1000.0, None])
def test_a_fit_goes_on_with_another_limit_of_time(tmp_path, more):
    parameters = {**SMALL, "n_estimators": 1}
    model = ResNetClassifier(**parameters, checkpoint=tmp_path / "c", max_seconds=100)
    fit_until(model, 3, ROWS, CLASSES)
    model.set_params(max_seconds=more).fit(ROWS, CLASSES)
    assert_same(model, ResNetClassifier(**parameters).fit(ROWS, CLASSES))


@pytest.mark.parametrize("name", sorted(FITS.keys() - {"without a seed"}))
def test_a_fit_whose_time_was_up_goes_on_with_more_to_the_same_bits(name, tmp_path):
    changes, *data = FITS[name]
    parameters = {**SMALL, **changes}
    expected = ResNetClassifier(**parameters).fit(*data)
    model = ResNetClassifier(**parameters, checkpoint=tmp_path / "c")
    for n in range(1, 5):  # each runs out of time at once, and has done one epoch more
        limit = n * 1e-9
        ended = clone(model).set_params(max_seconds=limit).fit(*data)
        assert len(ended.history_) == n + (ended.finetune_epochs > 0)
        again = clone(model).set_params(max_seconds=limit / 2).fit(*data)
        assert_same(again, ended)  # what it has is what was asked for
    assert_same(model.set_params(max_seconds=1000).fit(*data), expected)


def test_members_of_a_group_stop_behind_the_same_epoch(tmp_path, monkeypatch):
    parameters = {**SMALL, "max_epochs": 8, "n_estimators": 3}
    expected = ResNetClassifier(**parameters).fit(ROWS, CLASSES)
    for seconds in range(2, 24, 3):
        path = tmp_path / str(seconds)
        with monkeypatch.context() as patch:  # a clock that moves with every look
            ticks = itertools.count()
            patch.setattr(time, "monotonic", lambda ticks=ticks: float(next(ticks)))
            model = ResNetClassifier(**parameters, checkpoint=path, max_seconds=seconds)
            model.fit(ROWS, CLASSES)
        model = ResNetClassifier(**parameters, checkpoint=path).fit(ROWS, CLASSES)
        assert_same(model, expected)


HASHES = """
import sys
import numpy as np, torch
from torch.utils.data import TensorDataset, random_split
from sk_resnet import _checkpoint

class Set:
    def __init__(self, factor):
        self.data = torch.arange(6.0).reshape(2, 3).T
        self.half = torch.ones(3, dtype=torch.bfloat16)
        self.generator = torch.Generator().manual_seed(3)
        self.transform = lambda x: factor * x + sum([i for i in range(3)])
        self.model = torch.nn.Linear(2, 1)
        torch.nn.init.ones_(self.model.weight), torch.nn.init.zeros_(self.model.bias)

pairs = TensorDataset(torch.arange(8.0), torch.arange(8))
torch.manual_seed(0)
part = random_split(pairs, [5, 3])[0]
for value in (Set(2), Set(3), part, [(torch.arange(3), torch.ones(2))]):
    print(_checkpoint._hash("X", value))
"""


def test_tensors_and_lambdas_have_the_same_hash_in_every_process():
    found = [
        subprocess.run(
            [sys.executable, "-c", HASHES],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for seed in "12"
    ]
    assert found[0] == found[1]
    assert len(set(found[0])) == 4


def test_other_values_have_the_hash_of_joblib():
    value = {"a": np.arange(6).reshape(2, 3), "b": [1, "x", None], "c": clone}
    assert _checkpoint._hash("X", value) == joblib.hash(value)


def test_what_cannot_be_compared_is_named(tmp_path):
    class Locked:
        def __init__(self):
            self.lock = threading.Lock()

    with pytest.raises(TypeError, match="X has a part that cannot be compared"):
        _checkpoint._hash("X", Locked())


def test_groups_whose_time_was_up_go_on_with_more(tmp_path, monkeypatch):
    monkeypatch.setattr(_fused, "MOST_ON_CPU", 2)
    parameters = {**SMALL, "n_estimators": 5, "max_epochs": 12, "random_state": 2}
    parameters["callbacks"] = [EarlyStopping(patience=1)]
    expected = ResNetClassifier(**parameters).fit(ROWS, CLASSES)
    assert min(expected.best_epoch_) < max(expected.best_epoch_)
    model = ResNetClassifier(**parameters, checkpoint=tmp_path / "c")
    for n in range(1, 13):
        model.set_params(max_seconds=n * 1e-9).fit(ROWS, CLASSES)
        assert model.n_epochs_ <= n
    assert_same(model.set_params(max_seconds=None).fit(ROWS, CLASSES), expected)


def test_groups_that_are_done_train_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(_checkpoint, "SECONDS_TO_FIRST", 1000)
    monkeypatch.setattr(_fused, "MOST_ON_CPU", 2)
    clock, epochs, train = itertools.count(), [], Group.train
    monkeypatch.setattr(
        "sk_resnet._callbacks.time", SimpleNamespace(monotonic=lambda: next(clock))
    )
    monkeypatch.setattr(Group, "train", lambda *a: (epochs.append(1), train(*a))[1])
    parameters = {**SMALL, "n_estimators": 4, "max_epochs": 2}
    model = ResNetClassifier(**parameters, checkpoint=tmp_path / "c", max_seconds=3)
    model.fit(ROWS, CLASSES)  # a second goes by for each group and epoch
    assert model.best_epoch_.tolist() == [2, 2, 1, 1]
    del epochs[:]
    model.set_params(max_seconds=None).fit(ROWS, CLASSES)
    assert len(epochs) == 1
    assert_same(model, ResNetClassifier(**parameters).fit(ROWS, CLASSES))


def test_histories_of_finished_fits_are_plain_text(tmp_path):
    """Which skops takes longer to write than all that a short fit leaves beside it."""
    parameters = {**SMALL, "n_estimators": 1}
    n_nodes = []
    for n_epochs in (2, 9):
        path = tmp_path / str(n_epochs)
        changed = {**parameters, "max_epochs": n_epochs, "checkpoint": path}
        ResNetClassifier(**changed).fit(ROWS, CLASSES)
        with zipfile.ZipFile(path) as archive:
            n_nodes.append(archive.read("schema.json").count(b"__class__"))
            assert sum(name.endswith(".npy") for name in archive.namelist()) < 40
    assert n_nodes[0] == n_nodes[1]


@pytest.mark.parametrize("n_estimators", [1, 3])
def test_a_fit_that_came_to_its_end_with_its_time_is_done(
    n_estimators, tmp_path, monkeypatch
):
    parameters = {**SMALL, "n_estimators": n_estimators, "max_epochs": 1}
    model = ResNetClassifier(**parameters, checkpoint=tmp_path / "c", max_seconds=1e-9)
    model.fit(ROWS, CLASSES)
    monkeypatch.setattr(base, "train", None)
    for more in (1.0, None):
        longer = clone(model).set_params(max_seconds=more)
        assert_same(longer.fit(ROWS, CLASSES), model)


def test_what_changes_nothing_may_change(tmp_path):
    path = tmp_path / "fit"
    assert not fit_until(ResNetClassifier(**SMALL, checkpoint=path), 2, ROWS, CLASSES)
    model = ResNetClassifier(**SMALL, checkpoint=str(path), verbose=1).fit(ROWS, CLASSES)
    assert model.n_epochs_ == 6


def test_views_of_predictions_are_no_part_of_a_fit(tmp_path, monkeypatch):
    images = ROWS[:, :4].reshape(-1, 1, 2, 2)
    path = tmp_path / "fit"
    small = {**SMALL, "depth": 8, "n_estimators": 1, "checkpoint": path}
    model = ResNetClassifier(**small).fit(images, CLASSES)
    monkeypatch.setattr(base, "train", None)
    again = ResNetClassifier(**small, test_time_augmentation="flip")
    again.fit(images, CLASSES)
    model.set_params(test_time_augmentation="flip")
    np.testing.assert_array_equal(again.predict_proba(images), model.predict_proba(images))


def test_a_search_goes_on_at_the_fits_that_are_missing(tmp_path, monkeypatch):
    grid = {"l2": [1e-3, 1e-2], "lr": [0.02, 0.05]}
    parameters = {**SMALL, "n_estimators": 1, "max_epochs": 2}

    def search(folder):
        model = ResNetClassifier(**parameters, checkpoint=folder)
        return GridSearchCV(model, grid, cv=3)

    expected = search(None).fit(ROWS, CLASSES)
    n_trained = []
    train = base.train

    def counted(trainings):
        n_trained.append(len(trainings))
        if len(n_trained) == 6:
            raise Killed
        return train(trainings)

    monkeypatch.setattr(base, "train", counted)
    with pytest.raises(Killed):
        search(tmp_path).fit(ROWS, CLASSES)
    found = search(tmp_path).fit(ROWS, CLASSES)
    assert len(n_trained) == 6 + 12 + 1 - 5
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(found.cv_results_[name], expected.cv_results_[name])
    assert_same(found.best_estimator_, expected.best_estimator_)


@pytest.mark.parametrize("n_writes", [1, 3, 5, 7, 9])
def test_a_fused_search_that_is_killed_goes_on_to_the_same_bits(n_writes, tmp_path):
    parameters = {**SMALL, "n_estimators": 2}
    grid = {"l2": [1e-3, 1e-2]}

    def search(folder):
        model = ResNetClassifier(**parameters, checkpoint=folder)
        with parallel_config("fused"):
            search = GridSearchCV(model, grid, cv=2, scoring="neg_log_loss")
            return search.fit(ROWS, CLASSES)

    expected = search(None)
    write, written = _checkpoint.Checkpoint.write, []

    def until(*checkpoints):
        write(*checkpoints)
        written.append(1)
        if len(written) == n_writes:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_checkpoint.Checkpoint, "write", until)
        with pytest.raises(Killed):
            search(tmp_path)
    found = search(tmp_path)
    for name in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(found.cv_results_[name], expected.cv_results_[name])
    assert_same(found.best_estimator_, expected.best_estimator_)
    for file in tmp_path.iterdir():
        plain = json.loads(_checkpoint.read_archive(file, "checkpoint")["plain"])
        lengths = [len(history) for history in plain["histories"]]
        assert [lengths[state["history"]] for state in plain["ended"].values()] == [6, 6]
    assert found.best_estimator_.n_epochs_ == 6


TRIALS = {
    "one": ({"n_estimators": 1}, ROWS, CLASSES),
    "ensemble": ({"n_estimators": 2}, ROWS, CLASSES),
    "stopping": (
        {"n_estimators": 1, "callbacks": [EarlyStopping(patience=1)]},
        ROWS,
        CLASSES,
    ),
    "fine-tuning": ({"n_estimators": 1, "l1": 1e-3, "finetune_epochs": 2}, ROWS, CLASSES),
    "images": ({"n_estimators": 1, "depth": 8, "width": 0.5}, IMAGES, CLASSES[:40]),
    "without a seed": ({"n_estimators": 1, "random_state": None}, ROWS, CLASSES),
}


@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_whose_worker_died_goes_on_to_the_same_bits(name, tmp_path):
    parameters, X, y = TRIALS[name]
    space = {"lr": FloatDistribution(0.01, 0.1)}
    write, written = _checkpoint.Checkpoint.write, []

    def study(n_writes, folder):
        def until(*checkpoints):
            write(*checkpoints)
            written.append(1)
            if len(written) == n_writes:
                raise Killed

        written.clear()
        model = ResNetClassifier(**{**SMALL, **parameters, "checkpoint": folder})
        objective = CrossValidationObjective(
            model, X, y, space=space, cv=2, scoring="neg_log_loss"
        )
        study = create_study()
        study.enqueue_trial({"lr": 0.05})
        np.random.seed(0)  # noqa: NPY002 where a trial draws its seeds
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_checkpoint.Checkpoint, "write", until)
            if n_writes is None:
                study.optimize(objective, n_trials=1)
                return study.trials[-1]
            with pytest.raises(Killed):  # which leaves a trial that runs, as a kill does
                study.optimize(objective, n_trials=1)
        assert retry_stale_trials(study, older_than=0) == 1
        study.optimize(objective, n_trials=1)
        return study.trials[-1]

    expected = study(None, tmp_path)
    n_writes = len(written)
    assert n_writes >= 4
    for n in range(1, n_writes + 1):
        found = study(n, tmp_path)
        assert found.number == 1
        assert found.value == expected.value
        assert found.intermediate_values == expected.intermediate_values
        for key in ("fold_scores", "fold_epochs"):
            assert found.user_attrs[key] == expected.user_attrs[key]
    assert not list(tmp_path.iterdir())


def test_trials_leave_files_behind_errors_alone(tmp_path):
    space = {"lr": CategoricalDistribution([0.1, 1e30])}
    model = ResNetClassifier(**SMALL, n_estimators=1, checkpoint=tmp_path)

    def score(model, X, y):
        if model.get_params()["lr"] == 0.1:
            raise ZeroDivisionError
        return 1.0

    objective = CrossValidationObjective(model, ROWS, CLASSES, space=space, scoring=score)
    study = create_study()
    for lr in (1e30, 0.1):
        study.enqueue_trial({"lr": lr})
    with pytest.warns(UserWarning, match="Trial 0: "):
        study.optimize(objective, n_trials=2, catch=ZeroDivisionError)
    (folder,) = tmp_path.iterdir()
    assert folder.name == study.trials[1].user_attrs["checkpoint"]


def test_inputs_of_other_make_are_the_same(tmp_path):
    path, n = tmp_path / "fit", len(ROWS)
    given = {
        "sample_weight": torch.ones(n, dtype=torch.float64),
        "X_val": torch.zeros(3, 7),
    }
    given["y_val"] = torch.tensor([0, 1, 2])
    model = ResNetClassifier(**SMALL, checkpoint=path)
    assert not fit_until(model, 2, ROWS, CLASSES, **given)
    again = {name: value.clone() for name, value in given.items()}
    ResNetClassifier(**SMALL, checkpoint=path).fit(
        np.asfortranarray(ROWS), torch.from_numpy(CLASSES), **again
    )


def test_a_relative_path_stays_where_the_fit_began(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    model = ResNetClassifier(**SMALL, checkpoint="fit")
    write = _checkpoint.Checkpoint.write
    monkeypatch.setattr(
        _checkpoint.Checkpoint,
        "write",
        lambda *every: (os.chdir(tmp_path / "other"), write(*every)),
    )
    model.fit(ROWS, CLASSES)
    assert (tmp_path / "fit").exists()
    assert not list((tmp_path / "other").iterdir())


class Third(EarlyStopping):
    """Has a state of its own, which a checkpoint does not know."""


def test_folds_need_a_folder(tmp_path):
    model = ResNetClassifier(**SMALL, checkpoint=tmp_path / "fit")
    with pytest.raises(ValueError, match="give checkpoint a folder"):
        cross_val_score(model, ROWS, CLASSES, cv=2, error_score="raise")


@pytest.mark.parametrize("n_estimators", [1, 3])
def test_chains_of_partial_fit_and_warm_starts_go_on(n_estimators, tmp_path):
    parameters = {**SMALL, "n_estimators": n_estimators, "warm_start": True, "dropout": 0.1}
    parameters["max_epochs"] = 3

    def chain(folder, n_calls, last_writes=None):
        model = ResNetClassifier(**parameters, checkpoint=folder)
        for i in range(n_calls):
            rows = slice(30 * (i % 3), 30 * (i % 3) + 30)
            data = (ROWS[rows], CLASSES[rows])
            if i == n_calls - 1 and last_writes:
                assert not fit_until(model, last_writes, *data)
            elif i % 2:
                model.fit(*data)
            else:
                model.partial_fit(*data, classes=[0, 1, 2])
        return model

    expected = chain(None, 5)
    chain(tmp_path, 4, last_writes=2)
    assert_same(chain(tmp_path, 5), expected)


def test_a_disk_that_is_full_costs_the_checkpoint_alone(tmp_path, monkeypatch):
    expected = ResNetClassifier(**SMALL).fit(ROWS, CLASSES)

    def full(contents):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_checkpoint, "write_archives", full)
    with pytest.warns(UserWarning, match="was not written") as warned:
        model = ResNetClassifier(**SMALL, checkpoint=tmp_path / "fit").fit(ROWS, CLASSES)
    assert_same(model, expected)
    assert len(warned) == 1


@pytest.fixture
def interruptible():
    """Ctrl-C as in the foreground: a shell ignores it for what runs behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_a_model_and_a_checkpoint(tmp_path):
    expected = ResNetClassifier(**SMALL).fit(ROWS, CLASSES)
    write = _checkpoint.Checkpoint.write
    model = ResNetClassifier(**SMALL, checkpoint=tmp_path / "fit")

    def interrupted(*checkpoints):
        write(*checkpoints)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_checkpoint.Checkpoint, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.fit(ROWS, CLASSES)
    assert model.n_epochs_ == 1
    assert model.predict(ROWS).shape == (90,)
    assert_same(model.fit(ROWS, CLASSES), expected)


class Drawing(ShuffleSplit):
    """Splitter of a user that draws anew each time, and does not tell."""

    def split(self, X, y=None, groups=None):
        yield from ShuffleSplit(1, random_state=next(DRAWN)).split(X)


DRAWN = itertools.count()


def test_a_fit_goes_on_with_the_split_that_it_began_with(tmp_path):
    settings = {**SMALL, "n_estimators": 1, "random_state": None}
    model = ResNetClassifier(
        **settings, validation_split=ShuffleSplit(1), checkpoint=tmp_path / "fit"
    )
    assert not fit_until(model, 2, ROWS, CLASSES)
    model.fit(ROWS, CLASSES)
    assert model.n_epochs_ == 6


def test_what_a_checkpoint_does_not_hold_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "fit"
    with pytest.raises(ValueError, match="does not hold the state of PrintLog"):
        ResNetClassifier(**SMALL, checkpoint=path, callbacks=[PrintLog()]).fit(
            ROWS, CLASSES
        )
    with pytest.raises(ValueError, match="does not hold the state of Third"):
        ResNetClassifier(**SMALL, checkpoint=path, callbacks=[Third()]).fit(ROWS, CLASSES)
    for missing in (tmp_path / "no" / "fit", f"{tmp_path}/no/"):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            ResNetClassifier(**SMALL, checkpoint=missing).fit(ROWS, CLASSES)
    with pytest.raises(ValueError, match="got an empty string"):
        ResNetClassifier(**SMALL, checkpoint="").fit(ROWS, CLASSES)
    with pytest.raises(ValueError, match="existing folder in a study"):
        CrossValidationObjective(
            ResNetClassifier(**SMALL, checkpoint=path),
            ROWS,
            CLASSES,
            space={"lr": FloatDistribution(0.01, 0.1)},
        )
    changing = {"validation_split": Drawing(1), "n_estimators": 1}
    model = ResNetClassifier(**SMALL, **changing, checkpoint=path)
    assert not fit_until(model, 2, ROWS, CLASSES)
    with pytest.raises(ValueError, match="splitter with a random_state"):
        model.fit(ROWS, CLASSES)
    monkeypatch.setattr(base, "rank_and_size", lambda: (0, 2))
    with pytest.raises(ValueError, match="several processes"):
        ResNetClassifier(**SMALL, checkpoint=tmp_path / "other").fit(ROWS, CLASSES)


def test_damaged_and_other_files_are_named(tmp_path, monkeypatch):
    path = tmp_path / "fit"
    model = ResNetClassifier(**SMALL, checkpoint=path)
    assert not fit_until(model, 2, ROWS, CLASSES)
    content = path.read_bytes()
    middle = len(content) // 2
    for broken in (b"", content[:middle], content[:middle] + b"x" + content[middle + 1 :]):
        path.write_bytes(broken)
        with pytest.raises(ModelFileError, match="delete this one to start anew"):
            model.fit(ROWS, CLASSES)
        assert path.read_bytes() == broken
    save(ResNetClassifier(), path)
    with pytest.raises(ModelFileError, match="holds no checkpoint, but other objects"):
        model.fit(ROWS, CLASSES)
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="holds no model"):
        load(path)
    monkeypatch.setattr(_checkpoint, "CHECKPOINT_FORMAT", 0)
    with pytest.raises(ModelFileError, match="reads formats up to 0"):
        model.fit(ROWS, CLASSES)


def test_models_with_a_checkpoint_are_pickled_and_saved(tmp_path):
    model = ResNetClassifier(**SMALL, checkpoint=Path(tmp_path / "fit")).fit(ROWS, CLASSES)
    save(model, tmp_path / "model")
    for again in (load(tmp_path / "model"), pickle.loads(pickle.dumps(model))):
        assert again.checkpoint == str(tmp_path / "fit")
        np.testing.assert_array_equal(again.predict(ROWS), model.predict(ROWS))


def test_short_fits_write_once(tmp_path, monkeypatch):
    monkeypatch.setattr(_checkpoint, "SECONDS_TO_FIRST", 1000)
    written = []
    write = _checkpoint.write_archives
    monkeypatch.setattr(
        _checkpoint, "write_archives", lambda *a: (written.append(1), write(*a))
    )
    ResNetClassifier(**SMALL, checkpoint=tmp_path / "fit").fit(ROWS, CLASSES)
    assert len(written) == 1


class CtrlC(Callback):
    """Sends Ctrl-C at the end of an epoch, to networks that train as one."""

    __module__ = "sk_resnet.test"  # others train one after the other

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.epoch:
            signal.raise_signal(signal.SIGINT)


class CtrlCOfOne(CtrlC):
    """Sends it to a network that trains alone, with a checkpoint."""

    __module__ = __name__

    def state_dict(self):
        return {"has_best": False}, []


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("n_estimators", [1, 3])
@pytest.mark.parametrize("stop", [[], [EarlyStopping(restore_best=False)]])
def test_a_warm_start_behind_ctrl_c_goes_on_as_behind_a_shorter_fit(
    n_estimators, optimizer, stop
):
    parameters = {**SMALL, "n_estimators": n_estimators, "optimizer": optimizer}
    parameters |= {"warm_start": True, "schedule": "constant", "dropout": 0.1}
    parameters["calibrate"] = False  # which only a fit that comes to its end does
    model = ResNetClassifier(**parameters, callbacks=[*stop, CtrlC(3)])
    with pytest.raises(KeyboardInterrupt):
        model.fit(ROWS, CLASSES)
    shorter = ResNetClassifier(**{**parameters, "max_epochs": 3}, callbacks=stop)
    assert_same(model, shorter.fit(ROWS, CLASSES))
    for one in (model, shorter):
        one.set_params(callbacks=stop, max_epochs=2).fit(ROWS, CLASSES)
    assert_same(model, shorter)
    assert [row["epoch"] for row in model.history_] == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(model.predict_proba(ROWS), shorter.predict_proba(ROWS))


@pytest.mark.usefixtures("interruptible")
def test_a_warm_start_behind_ctrl_c_leaves_the_checkpoint_of_the_fit(tmp_path):
    parameters = {**SMALL, "warm_start": True, "n_estimators": 1}
    path = tmp_path / "fit"
    model = ResNetClassifier(**parameters, checkpoint=path, callbacks=[CtrlCOfOne(3)])
    with pytest.raises(KeyboardInterrupt):
        model.fit(ROWS, CLASSES)
    before, outputs = path.read_bytes(), model.predict_proba(ROWS)
    with pytest.raises(
        ValueError, match="is of a fit with another callbacks, model before"
    ):
        model.set_params(callbacks=None).fit(ROWS, CLASSES)
    assert path.read_bytes() == before
    assert model.n_epochs_ == 3
    np.testing.assert_array_equal(model.predict_proba(ROWS), outputs)
    model.set_params(checkpoint=tmp_path).fit(ROWS, CLASSES)  # with a file of its own
    assert model.n_epochs_ == 9


@pytest.mark.parametrize("reached", ["epoch2", "done"])
@pytest.mark.parametrize(
    ("version", "parameters"),
    [(1, {"n_estimators": 1}), (2, {"n_estimators": 2, "l2": 0.02})],
)
def test_checkpoints_of_all_formats_go_on(
    version, parameters, reached, tmp_path, monkeypatch
):
    begun, begin = [], ResidualNet.begin_epoch
    monkeypatch.setattr(
        ResidualNet, "begin_epoch", lambda net, *of: begun.append(begin(net, *of))
    )
    # What "auto" stood for then.
    monkeypatch.setattr(Defaults, "l2_for", lambda defaults, n: 0.02)
    golden, path = Path(__file__).parent / "golden", tmp_path / "file"
    path.write_bytes((golden / f"format{version}_{reached}.checkpoint").read_bytes())
    X, y = np.arange(40.0).reshape(20, 2) % 7, np.arange(20) % 2
    model = ResNetClassifier(4, width=0.125, max_epochs=4, batch_size=8, random_state=0)
    model.set_params(**parameters, checkpoint=path).fit(X, y)
    assert len(begun) == (0 if reached == "done" else 2 * model.n_estimators)
    assert [row["epoch"] for row in model.history_] == [1, 2, 3, 4]
    expected = np.load(golden / f"format{version}.checkpoint.npy")
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.astype(np.int32),
        lambda values: values.astype(np.float64),
        lambda values: values[:, None],
        lambda values: np.where(np.arange(len(values)) == 5, np.nan, values),
        lambda values: np.where(np.arange(len(values)) == 5, -np.inf, values),
    ],
)
def test_a_state_with_other_arrays_is_refused(change, optimizer, tmp_path):
    path = tmp_path / "fit"
    parameters = {**SMALL, "n_estimators": 1, "optimizer": optimizer}
    model = ResNetClassifier(**parameters, checkpoint=path)
    assert not fit_until(model, 2, ROWS, CLASSES)
    content = _checkpoint.read_archive(path, "checkpoint")
    content["arrays"]["float32"] = change(content["arrays"]["float32"])
    _checkpoint.write_archives({path: content})
    with pytest.raises(ModelFileError, match="is no checkpoint that can be read"):
        model.fit(ROWS, CLASSES)


def test_another_class_is_named_alone(tmp_path):
    path = tmp_path / "fit"
    ResNetClassifier(**SMALL, n_estimators=1, checkpoint=path).fit(ROWS, CLASSES)
    with pytest.raises(ValueError, match="of a fit with another class: go on"):
        ResNetRegressor(**SMALL, n_estimators=1, checkpoint=path).fit(ROWS, CLASSES)


def change_plain(path, change):
    """Change what a checkpoint holds as text."""
    content = _checkpoint.read_archive(path, "checkpoint")
    plain = json.loads(content["plain"])
    change(plain)
    _checkpoint.write_archives({path: {**content, "plain": json.dumps(plain)}})


@pytest.mark.parametrize("n_estimators", [1, 2])
@pytest.mark.parametrize(
    "change",
    [
        lambda plain: plain.update(stage=7),
        lambda plain: plain.update(stage=-1),
        lambda plain: plain["states"].update({"2": plain["states"]["0"]}),
        lambda plain: plain["histories"].__setitem__(0, []),
        lambda plain: plain["states"]["0"].update(held="x"),
        lambda plain: plain["states"]["0"].update(held=7),
        lambda plain: plain["states"]["0"].update(n_done=99),
        lambda plain: plain["states"]["0"].update(n_done="2"),
        lambda plain: plain["states"]["0"].update(n_before=3),
        lambda plain: plain["states"]["0"].update(n_before=2),
        lambda plain: plain["states"]["0"].update(began=-1),
        lambda plain: plain["states"]["0"].update(lr=float("nan")),
        lambda plain: plain["states"]["0"].update(lr=None),
        lambda plain: plain["states"]["0"].update(is_present=None),
        # Which torch's steps would read on behind its end.
        lambda plain: plain["states"]["0"]["optimizer"][0].__setitem__(2, []),
        lambda plain: plain["states"]["0"]["optimizer"][0].__setitem__(2, [1]),
        lambda plain: plain["states"]["0"]["optimizer"][0].__setitem__(1, "step"),
        lambda plain: plain["states"]["0"]["callbacks"][0].update(best_value="x"),
        lambda plain: plain["states"]["0"]["callbacks"][0].update(best_epoch=None),
        lambda plain: plain["states"]["0"]["callbacks"].append({}),
        lambda plain: plain["states"]["0"].update(callbacks=1),
        lambda plain: plain["histories"][0][0].update(train_loss="x"),
        lambda plain: plain["histories"][0][0].pop("dur"),
        lambda plain: plain.update(history="x"),
    ],
)
def test_a_state_that_no_training_reaches_is_refused(change, n_estimators, tmp_path):
    path = tmp_path / "fit"
    parameters = {**SMALL, "n_estimators": n_estimators, "callbacks": [EarlyStopping()]}
    model = ResNetClassifier(**parameters, checkpoint=path)
    assert not fit_until(model, 2, ROWS, CLASSES)
    change_plain(path, change)
    with pytest.raises(ModelFileError, match="is no checkpoint that can be read"):
        ResNetClassifier(**parameters, checkpoint=path).fit(ROWS, CLASSES)


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: plain["histories"].__setitem__(0, 7),
        lambda plain: plain["ended"]["0"].update(history=5),
        lambda plain: plain["ended"]["0"].update(callbacks=[1]),
        lambda plain: plain["ended"]["0"].update(optimizer=None),
        lambda plain: plain["histories"].__setitem__(0, []),
        lambda plain: plain["ended"].clear(),
        lambda plain: plain["ended"].pop("1"),
        lambda plain: plain.update(identity=3),
        lambda plain: plain.update(seed="x"),
        lambda plain: plain.update(seed=-1),
        lambda plain: plain.update(seed=True),
        lambda plain: plain["network"].update(stages=[]),
        lambda plain: plain["fitted_history"][0].update(train_loss=None),
        lambda plain: plain.update(fitted_history=None),
        lambda plain: plain.update(ended_after="x"),
    ],
)
@pytest.mark.parametrize("was_fitted", [False, True])
def test_a_checkpoint_with_other_values_is_refused_and_changes_nothing(
    change, was_fitted, tmp_path
):
    path = tmp_path / "fit"
    parameters = {**SMALL, "n_estimators": 2}
    ResNetClassifier(**parameters, checkpoint=path).fit(ROWS, CLASSES)
    change_plain(path, change)
    model = ResNetClassifier(**parameters)
    if was_fitted:
        model.fit(ROWS, np.array(["a", "b", "c"])[CLASSES])
        before = model.predict(ROWS)
    with pytest.raises(ModelFileError, match="is no checkpoint that can be read"):
        model.set_params(checkpoint=path).fit(ROWS, CLASSES)
    assert hasattr(model, "classes_") == was_fitted
    if was_fitted:
        assert model.classes_.tolist() == ["a", "b", "c"]
        np.testing.assert_array_equal(model.predict(ROWS), before)
