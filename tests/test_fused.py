"""Fits that meet under joblib's backend "fused"."""

import faulthandler
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    ShuffleSplit,
    cross_val_predict,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch.callbacks import Callback

import sk_resnet._fused as fused
from sk_resnet import EarlyStopping, ResNetClassifier, ResNetRegressor
from sk_resnet._fused import present_settings, same_settings
from sk_resnet._group import Group

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.6)
ALONE = {"max_epochs": 2, "batch_size": 16, "n_estimators": 1, "random_state": 0}
MODEL = ResNetClassifier(4, **ALONE, device="cpu")
# Seconds that nothing here takes.
LIMIT = 120


@pytest.fixture
def meetings(monkeypatch):
    """Sizes of the groups that trained together."""
    sizes = []
    groups_of = fused.groups_of

    def noted(trainings, n_processors):
        groups = groups_of(trainings, n_processors)
        sizes.append([len(group) for group in groups])
        return groups

    monkeypatch.setattr(fused, "groups_of", noted)
    return sizes


@pytest.fixture(autouse=True)
def limit():
    """End a test that waits for ever, with the stacks of its threads."""
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def times(n):
    """Count repetitions, each of which has the time limit of a test."""
    for i in range(n):
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        yield i


@pytest.fixture
def interruptible():
    """Ctrl-C as in the foreground: a shell ignores it for what runs behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_grid_trains_as_one_and_finds_the_same(meetings):
    grid = {"l2": [1e-3, 1e-1], "lr": [0.02, 0.05]}
    alone = GridSearchCV(MODEL, grid, cv=3).fit(X, Y)
    with joblib.parallel_config("fused", n_jobs=64):
        together = GridSearchCV(MODEL, grid, cv=3).fit(X, Y)
    assert sum(meetings[0]) == 12
    assert len(meetings) == 1  # the refit is not in a task
    np.testing.assert_allclose(
        together.cv_results_["mean_test_score"],
        alone.cv_results_["mean_test_score"],
        atol=0.02,
    )
    assert (together.predict(X) == alone.predict(X)).all()


def test_every_search_and_validation_of_scikit_learn_joins(meetings):
    piped = make_pipeline(StandardScaler(), MODEL)
    grid = {"resnetclassifier__lr": [0.02, 0.05]}
    with joblib.parallel_config("fused"):
        RandomizedSearchCV(piped, grid, n_iter=2, cv=2, refit=False).fit(X, Y)
        assert meetings.pop() == [4]
        HalvingGridSearchCV(piped, grid, cv=2, min_resources=20, refit=False).fit(X, Y)
        meetings.clear()
        assert len(cross_validate(piped, X, Y, cv=3)["test_score"]) == 3
        assert meetings.pop() == [3]
        assert cross_val_predict(piped, X, Y, cv=3).shape == (60,)
        assert meetings.pop() == [3]
        sizes = {"train_sizes": [0.5, 1.0], "shuffle": True, "random_state": 0}
        learning_curve(MODEL, X, Y > 0, cv=2, **sizes)
        assert sorted(meetings.pop()) == [2, 2]  # of two sizes
        validation_curve(MODEL, X, Y, param_name="l2", param_range=[0.1, 0.2], cv=2)
        assert meetings.pop() == [4]
        BaggingClassifier(MODEL, n_estimators=3, n_jobs=8).fit(X, Y)
        assert sum(sum(sizes) for sizes in meetings) == 3
        meetings.clear()
        OneVsRestClassifier(MODEL, n_jobs=8).fit(X, Y)
        assert meetings.pop() == [3]
        MultiOutputClassifier(MODEL, n_jobs=8).fit(X, np.stack([Y > 0, Y > 1], 1))
        assert meetings.pop() == [2]


def test_other_architectures_group_among_themselves(meetings):
    with joblib.parallel_config("fused"):
        GridSearchCV(MODEL, {"depth": [4, 6], "lr": [0.1, 0.05]}, cv=3, refit=False).fit(
            X, Y
        )
    assert sorted(meetings.pop()) == [6, 6]


def test_fits_with_callbacks_of_others_train_alone(meetings):
    from skorch.callbacks import EpochScoring

    model = clone(MODEL).set_params(callbacks=[EpochScoring("accuracy")])
    with joblib.parallel_config("fused"):
        cross_validate(model, X, Y, cv=3)
    assert meetings.pop() == [1, 1, 1]


def test_early_stopping_works_within(meetings):
    model = clone(MODEL).set_params(max_epochs=10, callbacks=[EarlyStopping(patience=1)])
    alone = cross_validate(model, X, Y, cv=3, return_estimator=True)["estimator"]
    with joblib.parallel_config("fused"):
        found = cross_validate(model, X, Y, cv=3, return_estimator=True)["estimator"]
    assert sum(meetings.pop()) == 3
    for one, other in zip(alone, found, strict=True):
        assert one.best_epoch_ == other.best_epoch_
        np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=1e-3)


def test_the_progress_of_scikit_learn_counts_epochs(capsys):
    from sklearn.callback import ProgressBar

    pytest.importorskip("rich")
    search = GridSearchCV(MODEL, {"lr": [0.1, 0.05]}, cv=2, refit=False)
    search.set_callbacks(ProgressBar())
    with joblib.parallel_config("fused"):
        search.fit(X, Y)
    assert search.cv_results_["mean_test_score"].shape == (2,)


def test_ensembles_join_with_all_their_members(meetings):
    model = clone(MODEL).set_params(n_estimators=2)
    with joblib.parallel_config("fused"):
        cross_validate(model, X, Y, cv=3)
    assert sum(meetings.pop()) == 6


def test_networks_larger_than_the_caches_train_alone():
    def sizes(side, n=8):
        images = RNG.normal(size=(40, 1, side, side)).astype(np.float32)
        model = ResNetClassifier(8, max_epochs=1, batch_size=32, precision="float32")
        found = []

        def note(trainings):
            found.extend(trainings)
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sk_resnet._base.train", note)
            for _ in range(n):
                with pytest.raises(KeyboardInterrupt):
                    clone(model).fit(images, np.arange(40) % 2)
        return [len(group) for group in fused.groups_of(found, 1)]

    assert sizes(28) == [1] * 8
    assert max(sizes(8)) >= 4


def test_trials_that_run_at_once_meet(meetings):
    optuna = pytest.importorskip("optuna")
    from sk_resnet.search import CrossValidationObjective

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {"lr": optuna.distributions.FloatDistribution(0.01, 0.1)}

    def scores(n_jobs):
        objective = CrossValidationObjective(MODEL, X, Y, space=space, cv=3)
        pruner = optuna.pruners.NopPruner()
        study = optuna.create_study(direction="maximize", pruner=pruner)
        for lr in np.linspace(0.01, 0.1, 6):
            study.enqueue_trial({"lr": lr})
        study.optimize(objective, n_trials=6, n_jobs=n_jobs)
        return {trial.params["lr"]: trial.value for trial in study.trials}

    alone = scores(1)
    assert meetings == [[3]] * 6
    meetings.clear()
    together = scores(3)
    sizes = [sum(sizes) for sizes in meetings]
    # How many begin in time to meet is the machine's: three trials of three folds, mostly.
    assert sum(sizes) == 18
    assert max(sizes) > 3
    for lr, score in alone.items():
        assert together[lr] == pytest.approx(score, abs=0.04)


def test_a_trial_with_an_ensemble_reports_each_epoch_once(recwarn):
    optuna = pytest.importorskip("optuna")
    from sk_resnet.search import CrossValidationObjective

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Reports come before the calibration, the score behind it.
    model = clone(MODEL).set_params(n_estimators=2, calibrate=False)
    space = {"lr": optuna.distributions.FloatDistribution(0.01, 0.1)}
    study = optuna.create_study(direction="maximize")
    study.optimize(CrossValidationObjective(model, X, Y, space=space, cv=2), n_trials=1)
    assert not [w for w in recwarn if "already reported" in str(w.message)]
    (trial,) = study.trials
    assert sorted(trial.intermediate_values) == [1, 2]
    assert trial.intermediate_values[2] == pytest.approx(trial.value, abs=1e-9)


# Nothing waits for ever, whatever fails

N_TIMES = int(os.environ.get("REPEATS", "20"))
N_PROCESSES = int(os.environ.get("REPEATS", "3"))


class Odd(ClassifierMixin, BaseEstimator):
    """A task that fits as often as it is told to, fails, or does something else."""

    def __init__(self, acts="once", lr=0.05):
        self.acts, self.lr = acts, lr

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        if self.acts == "never":
            self.model_ = LogisticRegression().fit(X, y)
            return self
        if self.acts == "error":
            raise RuntimeError("an error before the fit")
        for _ in range(2 if self.acts == "twice" else 1):
            self.model_ = clone(MODEL).set_params(lr=self.lr).fit(X, y)
        if self.acts == "error behind":
            raise RuntimeError("an error behind the fit")
        if self.acts == "nested":
            cross_validate(MODEL, X, y, cv=2, n_jobs=4)
        if self.acts == "thread":
            inside = threading.Thread(target=lambda: clone(MODEL).fit(X, y))
            inside.start()
            inside.join()
        return self

    def predict(self, X):
        return self.model_.predict(X)


@pytest.mark.filterwarnings("ignore:One or more of the test scores")
@pytest.mark.parametrize("n_jobs", [2, 5, 64])
def test_no_task_waits_for_ever(n_jobs):
    acts = ["once", "never", "error", "twice", "error behind", "nested", "thread"]
    for _ in times(N_TIMES):
        with (
            joblib.parallel_config("fused", n_jobs=n_jobs),
            pytest.warns(FitFailedWarning, match="fits failed"),
        ):
            search = GridSearchCV(Odd(), {"acts": acts}, cv=2, refit=False).fit(X, Y)
        scores = search.cv_results_["mean_test_score"]
        assert (np.isnan(scores) == ["error" in act for act in acts]).all()


def test_an_error_that_is_raised_ends_the_search():
    for _ in times(N_TIMES):
        acts = ["once", "error", "twice", "once"]
        search = GridSearchCV(Odd(), {"acts": acts}, cv=2, error_score="raise", refit=False)
        with (
            joblib.parallel_config("fused", n_jobs=64),
            pytest.raises(RuntimeError, match="an error before the fit"),
        ):
            search.fit(X, Y)
    assert clone(MODEL).fit(X, Y).n_epochs_ == 2


@pytest.mark.filterwarnings("ignore:One or more of the test scores")
def test_a_member_that_diverges_fails_alone(meetings):
    model = ResNetRegressor(4, **{**ALONE, "max_epochs": 3})
    search = GridSearchCV(model, {"lr": [0.01, 1e30, 0.02]}, cv=2, refit=False)
    for _ in times(N_TIMES):
        with (
            joblib.parallel_config("fused"),
            pytest.warns(FitFailedWarning, match="2 fits failed"),
        ):
            search.fit(X, X[:, 0])
        scores = search.cv_results_["mean_test_score"]
        assert np.isnan(scores).tolist() == [False, True, False]
        assert sum(meetings.pop()) == 6


@pytest.mark.parametrize("n_fit", [1, 2])
def test_a_search_that_does_not_fit_into_memory_at_once_goes_on(
    meetings, monkeypatch, n_fit
):
    search = GridSearchCV(MODEL, {"lr": [0.05, 0.1]}, cv=3, scoring="neg_log_loss")
    expected = clone(search).fit(X, Y).cv_results_["mean_test_score"]
    gradients = Group._gradients

    def limited(self, *args):
        if len(self.members) > n_fit:
            raise MemoryError
        gradients(self, *args)

    monkeypatch.setattr(Group, "_gradients", limited)
    with (
        joblib.parallel_config("fused"),
        pytest.warns(UserWarning, match="networks .* do not fit"),
    ):
        search.fit(X, Y)
    assert sum(meetings[0]) == 6
    found = search.cv_results_["mean_test_score"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


class FitsToo(Callback):
    """A callback that fits another model."""

    def on_epoch_end(self, net, **kwargs):
        clone(MODEL).fit(X, Y)


def test_a_fit_within_a_callback_does_not_wait(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    model = clone(MODEL).set_params(callbacks=[FitsToo()])
    with joblib.parallel_config("fused"):
        assert len(cross_validate(model, X, Y, cv=3)["test_score"]) == 3


def test_a_task_within_a_task_is_one(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    meeting = fused.Meeting()
    meeting.open(True)
    meeting.begin_tasks()
    with meeting.attended(0), meeting.attended(0):
        assert clone(MODEL).fit(X, Y).n_epochs_ == 2


# The second: many tasks, which take longer together than one waits where none ends.
@pytest.mark.parametrize(("n_tasks", "seconds", "wait"), [(8, 0.02, 600), (16, 0.1, 0.5)])
def test_few_tasks_act_at_once(monkeypatch, n_tasks, seconds, wait):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(fused, "SECONDS_TO_ACT", wait)
    acting, most = [0], [0]

    def score(model, X, y):
        acting[0] += 1
        most[0] = max(most[0], acting[0])
        time.sleep(seconds)
        acting[0] -= 1
        return 1.0

    with joblib.parallel_config("fused", n_jobs=n_tasks):
        cv = ShuffleSplit(n_tasks, test_size=0.2, random_state=0)
        cross_validate(MODEL, X, Y, cv=cv, scoring=score)
    assert most[0] <= 2  # of those that have their models at the same time


def test_tasks_may_wait_for_each_other(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    barrier = threading.Barrier(3)

    def task():
        barrier.wait(30)
        return clone(MODEL).fit(X, Y).n_epochs_

    with joblib.parallel_config("fused", n_jobs=3):
        assert joblib.Parallel()(joblib.delayed(task)() for _ in range(3)) == [2] * 3


def test_tasks_that_wait_do_not_begin_behind_an_error(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    monkeypatch.setattr(fused, "SECONDS_TO_ACT", 60)
    begun = []

    def task(i):
        begun.append(i)
        time.sleep(0.5)
        raise ZeroDivisionError

    with joblib.parallel_config("fused", n_jobs=6), pytest.raises(ZeroDivisionError):
        joblib.Parallel()(joblib.delayed(task)(i) for i in range(6))
    n = len(begun)
    time.sleep(1)
    assert len(begun) == n <= 2


def test_fused_searches_are_equal_bit_by_bit():
    rng = np.random.default_rng()

    def late(X):  # so that fits come in another order each time
        time.sleep(rng.uniform(0, 0.02))
        return X

    def scores():
        model = Pipeline([("late", FunctionTransformer(late)), ("model", MODEL)])
        grid = {"model__lr": [0.03, 0.1], "model__dropout": [0.0, 0.2]}
        with joblib.parallel_config("fused", n_jobs=8):
            search = GridSearchCV(model, grid, cv=3, scoring="neg_log_loss", refit=False)
            return search.fit(X, Y).cv_results_["mean_test_score"]

    expected = scores()
    for _ in range(4):
        np.testing.assert_array_equal(scores(), expected)


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_a_process_that_is_forked_off_does_not_wait():
    meeting = fused.Meeting()
    with meeting.attended(0):
        meeting._process += 1  # as it is for a child
        assert clone(MODEL).fit(X, Y).n_epochs_ == 2
        meeting._process -= 1


def test_one_job_trains_as_always():
    with joblib.parallel_config("fused", n_jobs=1):
        found = cross_validate(MODEL, X, Y, cv=2)
    expected = cross_validate(MODEL, X, Y, cv=2)
    assert (found["test_score"] == expected["test_score"]).all()


def n_here():
    """Number of threads that are in this file, or in what it calls."""
    stacks = [traceback.walk_stack(frame) for frame in sys._current_frames().values()]
    names = [{frame.f_code.co_filename for frame, _ in stack} for stack in stacks]
    return sum(any("sk_resnet" in n or n == __file__ for n in of) for of in names)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
# Python drops an interrupt that comes while it clears a weak reference, and says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_moment_ends_a_search_and_its_fits(interruptible):
    model = clone(MODEL).set_params(max_epochs=100_000)
    search = GridSearchCV(model, {"lr": [0.1, 0.05]}, cv=3, refit=False)
    rng, here = np.random.default_rng(0), threading.get_ident()
    for _ in times(N_TIMES):
        at = float(rng.uniform(0, 0.5))
        timer = threading.Timer(at, signal.pthread_kill, (here, signal.SIGINT))
        timer.start()
        with joblib.parallel_config("fused"), pytest.raises(KeyboardInterrupt):
            search.fit(X, Y)
        timer.join()
        until = time.monotonic() + 10
        while n_here() > 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert n_here() == 1
    with joblib.parallel_config("fused"):
        assert len(cross_validate(MODEL, X, Y, cv=3)["test_score"]) == 3


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_ends_a_search_and_the_process():
    code = """
    import joblib, numpy as np, signal
    # What runs behind a shell's "&" starts with the signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from sklearn.model_selection import GridSearchCV
    from sk_resnet import ResNetClassifier
    X = np.random.default_rng(0).normal(size=(60, 5))
    model = ResNetClassifier(4, max_epochs=100_000, batch_size=16, n_estimators=1)
    search = GridSearchCV(model, {"lr": [0.1, 0.05]}, cv=3)
    print("begin", flush=True)
    try:
        with joblib.parallel_config("fused"):
            search.fit(X, np.arange(60) % 2)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    """
    rng = np.random.default_rng(0)
    for _ in times(N_PROCESSES):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "begin\n"
        time.sleep(rng.uniform(0, 3))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=100)
        assert out == "interrupted\n"
        assert process.returncode == 0


def test_threads_have_a_backend_of_their_own():
    """It holds the call of Parallel that it works for, which may be one of each thread."""
    with joblib.parallel_config("threading", n_jobs=2):
        given = present_settings()
        with same_settings(*given):
            own = present_settings()[1]
    assert type(own["backend"]) is type(given[1]["backend"])
    assert own["backend"] is not given[1]["backend"]
    assert own["n_jobs"] == 2


class Locked(ClassifierMixin, BaseEstimator):
    """Fits one at a time."""

    lock = threading.Lock()

    def fit(self, X, y):
        with self.lock:
            self.model_ = clone(MODEL).fit(X, y)
        self.classes_ = self.model_.classes_
        return self

    def predict(self, X):
        return self.model_.predict(X)


def test_fits_that_exclude_each_other_come_to_an_end(monkeypatch, meetings):
    monkeypatch.setattr(fused, "SECONDS_TO_STALL", 0.5)
    with joblib.parallel_config("fused", n_jobs=3):
        found = cross_validate(Locked(), X, Y, cv=3, error_score="raise")
    assert meetings == [[1], [1], [1]]
    expected = cross_validate(Locked(), X, Y, cv=3)
    np.testing.assert_array_equal(found["test_score"], expected["test_score"])


def test_a_step_that_takes_long_is_waited_for(monkeypatch, meetings):
    monkeypatch.setattr(fused, "SECONDS_TO_STALL", 0.2)

    def computes(X):
        ends = time.monotonic() + 0.5
        while time.monotonic() < ends:
            np.linalg.norm(X)
        return X

    model = make_pipeline(FunctionTransformer(computes), MODEL)
    with joblib.parallel_config("fused", n_jobs=3):
        cross_validate(model, X, Y, cv=3, error_score="raise")
    assert meetings == [[3]]


def test_fits_that_train_together_share_no_checkpoint(tmp_path):
    model = clone(MODEL).set_params(checkpoint=tmp_path / "one.ck")
    refused = pytest.raises(ValueError, match="checkpoint must be a folder where fits")
    with joblib.parallel_config("fused", n_jobs=3), refused:
        cross_validate(model, X, Y, cv=3, error_score="raise")
    assert not list(tmp_path.iterdir())
