import copy
import gc
import importlib.util
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import optuna
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial, TrialState
from scipy import sparse
from sklearn import config_context, get_config
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.callback import ProgressBar
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from skorch import callbacks as skorch_callbacks
from skorch.callbacks import Callback

import sk_resnet
from sk_resnet import (
    EarlyStopping,
    ResNetClassifier,
    ResNetRegressor,
    WideResNetClassifier,
    WideResNetRegressor,
)
from sk_resnet._net import DivergenceError, ResidualNet
from sk_resnet._optim import OPTIMIZERS
from sk_resnet._spec import FAMILIES
from sk_resnet.search import (
    CrossValidationObjective,
    Only,
    PruningCallback,
    create_study,
    retry_stale_trials,
    search_space,
    suggest,
)
from sk_resnet.search._pruning import TrialReports

optuna.logging.set_verbosity(optuna.logging.ERROR)
ROOT = Path(sk_resnet.__file__).parents[1]
ROWS = {"depth": 4, "max_epochs": 2, "batch_size": 16, "random_state": 0, "width": 0.25}
ROWS |= {"n_estimators": 1}
GRID = {"model__depth": [4, 6], "model__l2": [0.0, 0.1]}


# A pruner that scores are reported to, and that ends no trial.
READS_ALL = optuna.pruners.ThresholdPruner(lower=-np.inf)


def pipeline(**changes):
    model = ResNetClassifier(**{**ROWS, **changes})
    return Pipeline([("scale", StandardScaler()), ("model", model)])


def scores_of(search, X, y):
    results = search.fit(X, y).cv_results_
    return np.array([results[f"split{i}_test_score"] for i in range(search.n_splits_)])


# Searches of scikit-learn


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = rng.normal(size=(60, 5))
    X[:, 0] += 2 * y
    return X, y


@pytest.fixture(scope="module")
def sequential(data):
    return scores_of(GridSearchCV(pipeline(), GRID, cv=3), *data)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_a_grid_gives_the_sequential_result(data, sequential, backend):
    with joblib.parallel_config(backend, n_jobs=2):
        found = scores_of(GridSearchCV(pipeline(), GRID, cv=3), *data)
    np.testing.assert_array_equal(found, sequential)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_grid_on_a_dask_cluster_gives_the_sequential_result(data, sequential):
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask", scatter=list(data)),
    ):
        found = scores_of(GridSearchCV(pipeline(), GRID, cv=3), *data)
    np.testing.assert_array_equal(found, sequential)


@pytest.mark.parametrize("kind", ["random", "halving"])
def test_other_searches_work(data, kind):
    if kind == "random":
        make = lambda n: RandomizedSearchCV(  # noqa: E731
            pipeline(), GRID, n_iter=2, cv=2, random_state=0, n_jobs=n
        )
    else:
        make = lambda n: HalvingGridSearchCV(  # noqa: E731
            pipeline(),
            GRID,
            resource="model__max_epochs",
            min_resources=1,
            max_resources=4,
            factor=2,
            cv=StratifiedKFold(2),
            n_jobs=n,
            random_state=0,
        )
    np.testing.assert_array_equal(scores_of(make(1), *data), scores_of(make(2), *data))


def test_a_diverging_fold_scores_nan_and_the_search_goes_on(data):
    X, y = data
    grid = {"lr": [0.05, 1e30]}
    model = ResNetClassifier(**ROWS, scale=None)
    search = GridSearchCV(model, grid, cv=2, refit=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = scores_of(search, X, y)
    assert np.isnan(found).tolist() == [[False, True], [False, True]]
    assert any("The training loss became" in str(w.message) for w in caught)


def test_progress_bars_of_scikit_learn_go_over_all_fits(data, capsys):
    pytest.importorskip("rich")
    model = ResNetClassifier(**ROWS)
    search = GridSearchCV(model, {"l2": [0.0, 0.1]}, cv=2)
    search.set_callbacks(ProgressBar()).fit(*data)
    out = capsys.readouterr().out
    assert "GridSearchCV - search" in out
    fits = re.findall(r"split-evaluation \| ResNetClassifier - fit #\d +.*100%", out)
    assert len(set(fits)) == 4


class Epochs:
    """Counts what a progress bar of scikit-learn advances by."""

    def __init__(self):
        self.n_tasks, self.n_of_fits = Counter(), []

    def setup(self, estimator, context):
        """Nothing to prepare."""

    def teardown(self, estimator, context):
        """Nothing to clean."""

    def on_fit_task_begin(self, estimator, context, **kwargs):
        if context.max_subtasks is not None and "ResNet" in type(estimator).__name__:
            self.n_of_fits.append(context.max_subtasks)

    def on_fit_task_end(self, estimator, context, **kwargs):
        self.n_tasks[type(estimator).__name__] += 1

    max_propagation_depth = None


def test_progress_advances_by_candidates_folds_and_epochs(data):
    counts = Epochs()
    search = GridSearchCV(ResNetClassifier(**ROWS), {"l2": [0.0, 0.1]}, cv=2, refit=False)
    search.set_callbacks(counts).fit(*data)
    assert counts.n_of_fits.count(2) == 2 * 2  # candidates and folds, of 2 epochs
    assert counts.n_tasks["ResNetClassifier"] >= 2 * 2 * 2


def place_and_threads(_):
    import torch

    from sk_resnet._machine import worker_number

    time.sleep(1)  # so that both workers get one
    return worker_number() % 2, torch.get_num_threads()


def test_workers_run_one_thread_each_and_take_the_devices_in_turn():
    found = joblib.Parallel(2, backend="loky")(
        joblib.delayed(place_and_threads)(i) for i in range(2)
    )
    assert {place for place, _ in found} == {0, 1}
    assert max(n for _, n in found) <= max(1, (os.cpu_count() or 1) // 2)


# Spaces


@pytest.mark.parametrize(
    ("model", "X", "depths"),
    [
        (ResNetClassifier(), None, [4, 6, 8, 10]),
        (ResNetClassifier(), np.zeros((2, 3, 32, 32)), [8, 14, 20, 26]),
        (ResNetClassifier(block="bottleneck"), np.zeros((2, 1, 99)), [11, 20, 29, 38]),
        (WideResNetClassifier(input_shape=(1, 8, 8)), np.zeros((2, 64)), [10, 16, 22, 28]),
        (ResNetClassifier(layout="imagenet"), np.zeros((2, 3, 64, 64)), [18, 34]),
        (WideResNetRegressor(), None, [4, 6, 8, 10]),
        (ResNetRegressor(channel_axis=None), np.zeros((2, 8, 8)), [8, 14, 20, 26]),
    ],
)
def test_depths_fit(model, X, depths):
    found = search_space(model, X)["depth"]
    if isinstance(found, CategoricalDistribution):
        assert list(found.choices) == depths
    else:
        assert list(range(found.low, found.high + 1, found.step)) == depths


def test_widths_are_bounded_by_memory():
    small = search_space(ResNetClassifier(), np.zeros((2, 1, 8, 8)))["width"].choices
    large = search_space(ResNetClassifier(), np.zeros((2, 3, 224, 224)))["width"].choices
    assert max(small) == 10
    assert max(large) < 1
    # Its stem leaves 16 by 16 places of 64 by 64: 1.99 GiB at depth 34 and width 2.
    stem = search_space(ResNetClassifier(layout="imagenet"), np.zeros((2, 3, 64, 64)))
    assert max(stem["width"].choices) >= 2


def widest(X, **parameters):
    space = search_space(ResNetClassifier(**parameters), X)
    return max(space["width"].choices)


def test_spaces_read_the_channels_as_fit_does():
    # The fewer places, the wider the networks that fit: 96 x 96 of 3 channels, or 96 x 3
    # of 96. A warning would be an error here.
    X = np.zeros((2, 96, 96, 3))
    first, last = widest(np.moveaxis(X, -1, 1)), widest(X)
    assert first == last == widest(X, channel_axis=-1)
    assert widest(X, channel_axis=1) > last
    assert widest(np.zeros((2, 96, 96)), channel_axis=None) == last
    assert widest(np.zeros((2, 96, 96)), channel_axis=1) > last
    square = search_space(ResNetClassifier(), np.zeros((2, 64, 64)))  # fit warns
    assert square["depth"].low == 8


@pytest.mark.parametrize(
    ("model", "rows", "images"),
    [(ResNetClassifier(), 0.5, 0.01), (ResNetRegressor(), 1.0, 0.01)],
)
def test_penalties_reach_beyond_the_defaults(model, rows, images):
    assert search_space(model)["l2"].high == rows
    assert search_space(model, np.zeros((2, 1, 8, 8)))["l2"].high == images


def test_the_first_trial_has_the_penalty_of_a_fold():
    X, y = np.zeros((600, 2)), np.arange(600.0)
    model = ResNetRegressor()
    space = {"l2": search_space(model, X)["l2"]}
    objective = CrossValidationObjective(model, X, y, space=space, cv=3)
    assert objective.own_parameters()["l2"] == pytest.approx(60 / 400)


def test_what_no_depth_fits_says_why():
    with pytest.raises(ValueError, match=r"No depth fits .* stochastic_depth drops"):
        search_space(ResNetClassifier(stochastic_depth=0.1, shortcut="none"))
    with pytest.raises(ValueError, match="Samples must have 1 to 4 dimensions"):
        search_space(ResNetClassifier(), np.zeros((2, 3, 4, 4, 4, 4)))


@pytest.mark.parametrize(
    "make",
    [ResNetClassifier, WideResNetClassifier, ResNetRegressor, WideResNetRegressor],
)
@pytest.mark.parametrize("shape", [(4,), (1, 8, 8)])
def test_studies_start_with_what_auto_stands_for(make, shape):
    X = np.random.default_rng(0).normal(size=(20, *shape))
    y = np.arange(20) % 2
    family = FAMILIES[make._family]
    defaults = family.defaults(len(shape) - 1)
    names = ("depth", "width", "order", "lr", "l2")
    model = make(**dict.fromkeys(names, "auto"))
    space = {
        "depth": CategoricalDistribution([8, 10, 16, 22]),
        "width": CategoricalDistribution([1, 2, 4]),
        "order": CategoricalDistribution(["original", "full_preactivation"]),
        "lr": FloatDistribution(1e-3, 1, log=True),
        "l2": FloatDistribution(1e-6, 1, log=True),
    }
    if len(shape) > 1:  # where 16 or 20 is no depth
        space["depth"] = CategoricalDistribution([defaults.depth])
    objective = CrossValidationObjective(model, X, y, space=space, cv=2)
    assert objective.own_parameters() == {
        "depth": defaults.depth,
        "width": defaults.width,
        "order": defaults.order,
        "lr": 0.1 * defaults.lr_factor,
        "l2": defaults.l2,
    }


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_draw_of_a_space_can_be_fitted(data, optimizer):
    X, y = data
    model = make_pipeline(StandardScaler(), ResNetClassifier(**ROWS, optimizer=optimizer))
    space = search_space(model, X)
    assert all(name.startswith("resnetclassifier__") for name in space)
    study = create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(3):
        clone(model).set_params(**suggest(study.ask(), space)).fit(X[:30], y[:30])
    assert set(search_space(model[-1], X, prefix="a__b__")) == {
        f"a__b__{name.split('__')[1]}" for name in space
    }


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_spaces_work_in_optuna_search_cv(data):
    from optuna_integration import OptunaSearchCV

    X, y = data
    model = ResNetClassifier(**ROWS)
    space = {k: v for k, v in search_space(model, X).items() if k in ("lr", "l2")}
    search = OptunaSearchCV(
        model, space, n_trials=2, cv=2, enable_pruning=True, max_iter=3, random_state=0
    )
    search.fit(X, y)
    assert set(search.best_params_) == {"lr", "l2"}
    assert max(search.study_.trials[0].intermediate_values) == 2


def test_conditions_hold():
    space = {
        "width": CategoricalDistribution([1, 4]),
        "dropout": Only(FloatDistribution(0.1, 0.5), lambda d: d["width"] > 1, 0.0),
    }
    assert suggest(FixedTrial({"width": 1}), space)["dropout"] == 0
    drawn = suggest(FixedTrial({"width": 4, "dropout": 0.3}), space)
    assert drawn == {"width": 4, "dropout": 0.3}


def test_studies_start_with_the_parameters_of_the_estimator(data):
    model = pipeline(depth=20, lr="auto", dropout=0.12)
    space = {
        "model__depth": IntDistribution(4, 10, step=2),  # 20 is above
        "model__width": CategoricalDistribution([0.5, 1]),  # 0.25 is not among them
        "model__lr": FloatDistribution(1e-3, 1, log=True),
        "model__l1": FloatDistribution(1e-6, 1, log=True),  # 0 is below
        "model__l2": FloatDistribution(1e-6, 1, log=True),
        "model__dropout": Only(
            FloatDistribution(0, 0.5, step=0.1), lambda d: d["model__depth"] > 4, 0.0
        ),
    }
    objective = objective_of(data, space=space)
    objective.estimator = model
    own = {"depth": 10, "lr": 0.1, "l1": 1e-6, "l2": 0.05, "dropout": 0.1}
    assert objective.own_parameters() == {f"model__{k}": v for k, v in own.items()}
    study = create_study(objective=objective)
    drawn = suggest(study.ask(), space)
    assert {k: drawn[f"model__{k}"] for k in own} == own
    space["model__dropout"] = Only(FloatDistribution(0.1, 0.5), lambda d: False, 0.0)
    assert "model__dropout" not in objective.own_parameters()


# The objective


def objective_of(data, model=None, **changes):
    model = model or pipeline()
    settings = {"space": {"model__l2": FloatDistribution(1e-4, 1e-1, log=True)}, "cv": 3}
    return CrossValidationObjective(model, *data, **{**settings, **changes})


def test_the_objective_is_cross_val_score(data):
    objective = objective_of(data)
    study = create_study(pruner=READS_ALL)
    study.optimize(objective, n_trials=2)
    for trial in study.trials:
        model = pipeline().set_params(**trial.params)
        expected = cross_val_score(model, *data, cv=3)
        np.testing.assert_allclose(trial.user_attrs["fold_scores"], expected)
        assert trial.value == pytest.approx(expected.mean())
        assert trial.user_attrs["fold_epochs"] == [2, 2, 2]
        assert sorted(trial.intermediate_values) == [1, 2]
        assert trial.intermediate_values[2] == pytest.approx(trial.value)
    model = objective.refit(study)
    expected = pipeline().set_params(**study.best_params).fit(*data)
    np.testing.assert_array_equal(
        model.predict_proba(data[0]), expected.predict_proba(data[0])
    )


L2 = {"l2": FloatDistribution(1e-4, 1e-1, log=True)}
L2_OF_MODEL = {"model__l2": FloatDistribution(1e-4, 1e-1, log=True)}


def check_fold_scores(model, X, y, *, cv, **changes):
    """The scores of an objective are those of cross_val_score."""
    objective = CrossValidationObjective(model, X, y, space=L2, cv=3, **changes)
    study = create_study(objective=objective, pruner=READS_ALL)
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    other = clone(model).set_params(**trial.params)
    # It refuses a sparse y.
    dense = y.toarray() if sparse.issparse(y) else y
    expected = cross_val_score(other, X, dense, cv=cv)
    np.testing.assert_allclose(trial.user_attrs["fold_scores"], expected, rtol=1e-4)
    assert len(trial.intermediate_values) == 2
    return objective.refit(study)


@pytest.mark.parametrize("make", [ResNetRegressor, WideResNetRegressor])
@pytest.mark.parametrize("n_outputs", [None, 2])
def test_regressors_are_scored_by_r2_on_plain_folds(data, make, n_outputs):
    X = data[0]
    y = X[:, 0] if n_outputs is None else X[:, :n_outputs]
    model = check_fold_scores(make(**ROWS), X, y, cv=KFold(3))
    assert model.predict(X).shape == y.shape
    # Numbers that could be classes are no reason to stratify.
    check_fold_scores(make(**ROWS), X, np.arange(60) // 20 % 2, cv=KFold(3))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.coo_array])
def test_sets_of_labels_are_scored(data, form):
    X = data[0]
    y = (X[:, :3] > 0).astype(int)
    model = check_fold_scores(ResNetClassifier(**ROWS), X, form(y), cv=KFold(3))
    predicted = model.predict(X)
    assert sparse.issparse(predicted) == (form is not np.asarray)
    assert predicted.shape == y.shape


def test_studies_of_other_sets_of_labels_are_refused(data):
    X = data[0]
    y = sparse.csr_matrix((X[:, :3] > 0).astype(int))
    model = ResNetClassifier(**ROWS)
    study = create_study(objective=CrossValidationObjective(model, X, y, space=L2))
    create_study(objective=CrossValidationObjective(model, X, y, space=L2))
    other = CrossValidationObjective(model, X, y[:, [1, 0, 2]], space=L2)
    with pytest.raises(ValueError, match="was started with other data"):
        study.optimize(other, n_trials=1)


def test_parameters_of_named_callbacks_are_drawn(data):
    model = pipeline(max_epochs=9, lr=1e-9)
    model.set_params(model__callbacks=[("stop", EarlyStopping("valid_loss"))])
    name = "model__callbacks__stop__patience"
    space = {name: IntDistribution(1, 9)}
    objective = CrossValidationObjective(model, *data, space=space, cv=2)
    assert objective.own_parameters() == {name: 9}  # 10 is above
    study = create_study(pruner=READS_ALL)
    for patience in (1, 3):
        study.enqueue_trial({name: patience})
    study.optimize(objective, n_trials=2)
    short, long = (sum(trial.user_attrs["fold_epochs"]) for trial in study.trials)
    assert short < long
    unknown = {"model__callbacks__halt__patience": IntDistribution(1, 9)}
    with pytest.raises(ValueError, match="callbacks need a name"):
        CrossValidationObjective(model, *data, space=unknown)


def test_trials_without_a_study_are_scored(data):
    objective = objective_of(data, cv=5)
    study = create_study(pruner=READS_ALL)
    study.optimize(objective, n_trials=1)
    assert objective(FixedTrial(study.best_params)) == study.best_value
    assert objective(study.best_trial) == study.best_value


def test_the_scoring_fold_takes_no_part_in_training(data):
    X, y = data
    seen = []

    class Spy(StandardScaler):
        def fit(self, X, y=None, sample_weight=None):
            seen.append(len(X))
            return super().fit(X, y, sample_weight)

    model = Pipeline([("scale", Spy()), ("model", ResNetClassifier(**ROWS))])
    model.set_params(model__callbacks=[EarlyStopping(patience=1)])
    space = {"model__l2": FloatDistribution(1e-4, 1e-1, log=True)}
    objective = CrossValidationObjective(model, X, y, space=space, cv=3)
    seen.clear()  # a copy has found out the shape behind it
    create_study().optimize(objective, n_trials=1)
    assert seen == [40, 40, 40]


def test_groups_weights_and_scorings_are_used(data):
    X, y = data
    groups = np.arange(60) // 6
    objective = objective_of(data, cv=GroupKFold(2), groups=groups, scoring="neg_log_loss")
    assert all(not set(groups[a]) & set(groups[b]) for a, b in objective.folds)
    study = create_study()
    study.optimize(objective, n_trials=1)
    assert study.best_value < 0
    weight = np.where(y == 2, 0.0, 1.0)
    weighted = objective_of(data, sample_weight=weight, cv=2)
    other = create_study()
    other.optimize(weighted, n_trials=1)
    assert other.best_value <= 2 / 3
    assert 2 not in weighted.refit(other).predict(X)


def test_groups_stay_whole_where_a_fold_holds_samples_out_to_validate(data):
    groups = np.arange(60) // 6
    seen = []

    class Spy(GroupKFold):
        def split(self, X, y=None, groups=None):
            seen.append(groups)
            return super().split(X, y, groups)

    model = pipeline(validation_split=Spy(2))
    space = {"model__l2": FloatDistribution(1e-4, 1e-1, log=True)}
    objective = CrossValidationObjective(
        model, *data, space=space, cv=GroupKFold(2), groups=groups
    )
    study = create_study(pruner=READS_ALL)
    study.optimize(objective, n_trials=1)
    objective.refit(study)
    expected = [groups[train] for train, _ in objective.folds] + [groups]
    # The folds begin in threads, in any order.
    assert sorted(map(list, seen[:2])) == sorted(map(list, expected[:2]))
    assert list(seen[2]) == list(expected[2])


def test_bad_trials_are_pruned_after_few_epochs(data):
    space = {"model__lr": CategoricalDistribution([0.1, 1e-9])}
    model = pipeline(max_epochs=8)
    objective = CrossValidationObjective(model, *data, space=space)
    study = create_study(pruner=optuna.pruners.MedianPruner(1, 2))
    for lr in (0.1, 1e-9):
        study.enqueue_trial({"model__lr": lr})
    study.optimize(objective, n_trials=2)
    good, bad = study.trials
    assert (good.state, bad.state) == (TrialState.COMPLETE, TrialState.PRUNED)
    assert max(bad.intermediate_values) < 8
    assert objective.best_parameters(study) == {"model__lr": 0.1}


def test_steps_are_epochs(data):
    space = {"model__max_epochs": CategoricalDistribution([1, 3])}
    model = pipeline(finetune_epochs=1)
    objective = CrossValidationObjective(model, *data, space=space, cv=2)
    assert objective.report_every == 1
    study = create_study(pruner=READS_ALL)
    for n in (1, 3):
        study.enqueue_trial({"model__max_epochs": n})
    study.optimize(objective, n_trials=2)
    steps = [sorted(trial.intermediate_values) for trial in study.trials]
    assert steps == [[1, 2], [1, 2, 3, 4]]
    auto = objective_of(data)
    auto.estimator.set_params(model__max_epochs="auto", model__batch_size="auto")
    fitted = clone(auto.estimator).fit(data[0][:40], data[1][:40])[-1]
    assert auto._most_epochs() == fitted.n_epochs_
    n = auto._most_epochs()
    for splits in ([0.1, 0.8], [0.8, None], [0.8, 0.1]):
        auto.space = {"model__validation_split": CategoricalDistribution(splits)}
        fitted.set_params(validation_split=0.8).fit(data[0][:40], data[1][:40])
        assert auto._most_epochs() == fitted.n_epochs_ > n


def test_trials_are_pruned_at_their_first_report_where_asked_for(data):
    space = {"model__lr": CategoricalDistribution([0.1, 0.05, 1e-9])}
    objective = CrossValidationObjective(pipeline(max_epochs=8), *data, space=space)
    once = optuna.pruners.PercentilePruner(75, interval_steps=10**6)
    study = create_study(objective=objective, pruner=once)
    for lr in (0.05, 0.05, 0.1, 0.05, 1e-9, 0.1):
        study.enqueue_trial({"model__lr": lr})
    study.optimize(objective, n_trials=7)
    assert study.trials[0].params == {"model__lr": 0.1}  # its own parameters
    *complete, pruned, last = study.trials
    assert {trial.state for trial in (*complete, last)} == {TrialState.COMPLETE}
    assert pruned.state == TrialState.PRUNED
    assert list(pruned.intermediate_values) == [1]


def test_a_grid_of_optuna_gets_no_trial_of_its_own(data):
    values = [0.05, 0.2]  # the estimator's own is another one
    objective = objective_of(data, space={"model__lr": CategoricalDistribution(values)})
    sampler = optuna.samplers.GridSampler({"model__lr": values})
    study = create_study(objective=objective, sampler=sampler)
    study.optimize(objective, n_trials=3)
    assert sorted(trial.params["model__lr"] for trial in study.trials) == values
    own = objective_of(data, space={"model__lr": CategoricalDistribution([0.05, 0.1])})
    assert own.own_parameters() == {"model__lr": 0.1}
    assert create_study(objective=own, sampler=sampler).get_trials() == []
    # Nothing of the estimator's own is in the space.
    study = create_study(objective=objective)
    assert study.get_trials() == []


def test_nothing_is_scored_between_without_a_pruner(data):
    n_scored = []

    def scoring(model, X, y):
        n_scored.append(1)
        return model.score(X, y)

    objective = objective_of(data, scoring=scoring)
    study = create_study(objective=objective)
    study.optimize(objective, n_trials=2)
    assert len(n_scored) == 2 * 3  # once a fold
    assert [trial.intermediate_values for trial in study.trials] == [{}, {}]


def test_reports_begin_where_a_pruner_came_later():
    trial = create_study(pruner=READS_ALL).ask()
    reports = TrialReports(trial, n_folds=1, every=2)
    reports.add(0, 1, 0.5)  # the first two epochs had none
    reports.add(0, 2, 0.7)
    assert trial.study.trials[0].intermediate_values == {2: 0.5, 4: 0.5, 6: 0.7}


def test_tables_keep_the_names_of_their_columns(data):
    pd = pytest.importorskip("pandas")
    X = pd.DataFrame(data[0], columns=list("abcde")).assign(kind=["u", "v"] * 30)
    columns = make_column_transformer(
        (OneHotEncoder(), ["kind"]), (StandardScaler(), list("abcde"))
    )
    model = Pipeline([("columns", columns), ("model", ResNetClassifier(**ROWS))])
    space = {"model__l2": FloatDistribution(1e-4, 1e-1, log=True)}
    objective = CrossValidationObjective(model, X, data[1], space=space, cv=2)
    study = create_study(objective=objective)
    study.optimize(objective, n_trials=1)
    assert study.best_value == pytest.approx(
        cross_val_score(model.set_params(**study.best_params), X, data[1], cv=2).mean()
    )
    assert objective.refit(study).predict(X).shape == (60,)


RNG = np.random.default_rng(0)
ROWS_OF_64 = RNG.normal(size=(40, 64))
TEXTS = [f"word{i % 3} is number {i % 5}" for i in range(40)]
DICTS = [{"a": i % 3, "b": float(i)} for i in range(40)]
SERIES = [RNG.normal(size=5 + i % 3) for i in range(40)]


def moments(X):
    return np.array([[np.mean(x), np.std(x)] for x in X])


def squares(X):
    return X.reshape(-1, 1, 8, 8)


def flat(X):
    return X.reshape(len(X), -1)


def fails(X):
    raise ValueError("too few")


@pytest.mark.parametrize(
    ("steps", "X", "l2", "depth"),
    [
        ([TruncatedSVD(3)], sparse.random(40, 10, 0.5, "coo", random_state=0), 0.05, 10),
        ([TfidfVectorizer(), TruncatedSVD(2)], TEXTS, 0.05, 10),
        ([DictVectorizer(sparse=False)], DICTS, 0.05, 10),
        ([FunctionTransformer(moments)], SERIES, 0.05, 10),
        ([StandardScaler(), FunctionTransformer(squares)], ROWS_OF_64, 5e-4, 26),
        ([FunctionTransformer(flat), PCA(5)], squares(ROWS_OF_64), 0.05, 10),
        # Nothing is known then, and nothing refused.
        ([FunctionTransformer(fails)], ROWS_OF_64, None, 10),
    ],
    ids=["sparse", "texts", "dicts", "series", "images", "flat", "unknown"],
)
def test_searches_take_what_pipelines_take(steps, X, l2, depth):
    y = np.arange(40) % 2
    settings = {"max_epochs": 1, "batch_size": 16, "n_estimators": 1, "random_state": 0}
    model = make_pipeline(*steps, ResNetClassifier(**settings))
    if l2 is not None:
        assert search_space(model, X, y)["resnetclassifier__depth"].high == depth
    space = {"resnetclassifier__l2": FloatDistribution(1e-6, 0.1, log=True)}
    model.set_params(resnetclassifier__depth=4 if depth == 10 else 8)
    objective = CrossValidationObjective(model, X, y, space=space, cv=2)
    own = objective.own_parameters()
    assert own == ({"resnetclassifier__l2": l2} if l2 is not None else {})
    if l2 is not None:
        study = create_study(objective=objective)
        study.optimize(objective, n_trials=1)
        assert objective.refit(study).score(X, y) >= 0


# Folds at once


class Alone(Callback):
    """A callback of a user, with which a fit trains alone; notes folds and epochs."""

    def __init__(self, seen, fails_in=None):
        self.seen, self.fails_in = seen, fails_in

    def __sklearn_clone__(self):
        return self

    def on_epoch_end(self, net, **kwargs):
        fold, epoch = float(kwargs["dataset_train"].X.sum()), net.history[-1]["epoch"]
        self.seen.append((fold, epoch))
        if epoch == self.fails_in and fold == max(self.seen)[0]:
            raise DivergenceError("what a divergence says")


class Joining(Alone):
    """Stands for a callback of ours, with which folds train together."""


Joining.__module__ = "sk_resnet.tests"


class Scores(Callback):
    """Notes the accuracy on other samples after each epoch."""

    def __init__(self, model, X, y):
        self.model, self.X, self.y, self.found = model, X, y, []

    def on_epoch_end(self, net, **kwargs):
        self.found.append(float((net.predict(self.X) == self.y).mean()))


@pytest.mark.parametrize("is_alone", [False, True])
def test_the_mean_of_all_folds_is_reported_after_each_epoch(data, is_alone, monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)  # or epochs would overlap
    X, y = data
    seen = []
    model = ResNetClassifier(**{**ROWS, "max_epochs": 5})
    callbacks = [Alone(seen)] if is_alone else []
    objective = CrossValidationObjective(
        clone(model).set_params(callbacks=callbacks), X, y, space={}, cv=KFold(3)
    )
    study = create_study(pruner=READS_ALL)
    study.optimize(objective, n_trials=1)
    expected = []
    for train, test in KFold(3).split(X):
        scores = Scores(model, X[test], y[test])
        clone(model).set_params(callbacks=[scores]).fit(X[train], y[train])
        expected.append(scores.found)
    reported = study.trials[0].intermediate_values
    assert list(reported.values()) == pytest.approx(np.mean(expected, 0).tolist())
    if is_alone:  # each fold does an epoch in its turn
        assert [epoch for _, epoch in seen] == sorted(epoch for _, epoch in seen)
        assert [fold for fold, _ in seen] == 5 * [fold for fold, _ in seen[:3]]
        assert len(set(seen)) == 15


def test_long_trials_are_scored_every_few_epochs(data):
    model = pipeline(max_epochs=29)
    objective = CrossValidationObjective(model, *data, space={}, cv=2)
    study = create_study(pruner=READS_ALL)
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert sorted(trial.intermediate_values) == list(range(3, 28, 3))
    assert trial.user_attrs["fold_epochs"] == [29, 29]


@pytest.mark.parametrize("is_alone", [False, True])
def test_a_pruned_trial_ends_all_folds_at_once(data, is_alone, monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    seen = []
    end_epoch = ResidualNet.end_epoch

    def noted(self, *args):
        seen.append(self.history[-1]["epoch"])
        end_epoch(self, *args)

    monkeypatch.setattr(ResidualNet, "end_epoch", noted)
    model = pipeline(max_epochs=9, callbacks=[Alone([])] if is_alone else [])
    objective = CrossValidationObjective(model, *data, space={}, cv=3)
    study = create_study(pruner=optuna.pruners.ThresholdPruner(lower=2.0, n_warmup_steps=3))
    study.optimize(objective, n_trials=1)
    assert study.trials[0].state == TrialState.PRUNED
    assert list(study.trials[0].intermediate_values) == [1, 2, 3]
    assert sorted(seen) == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_a_fold_that_stopped_counts_with_its_last_score():
    trial = optuna.create_study(direction="maximize").ask()
    reports = TrialReports(trial, n_folds=3)
    for fold, scores in enumerate([[0.1, 0.2], [0.3, 0.4, 0.5], [0.5]]):
        reports.begin(fold)
        for place, score in enumerate(scores):
            reports.add(fold, place, score)
    values = trial.study.trials[0].intermediate_values
    assert values == {1: pytest.approx(0.3)}
    reports.end(2)
    assert values == {1: pytest.approx(0.3)}
    values = trial.study.trials[0].intermediate_values
    assert values == pytest.approx({1: 0.3, 2: 1.1 / 3})
    reports.begin(0)  # a second part of the fit, such as fine-tuning
    reports.end(1)
    assert len(trial.study.trials[0].intermediate_values) == 2
    reports.add(0, 2, 0.6)
    assert trial.study.trials[0].intermediate_values[3] == pytest.approx(1.6 / 3)


def test_scores_of_an_earlier_run_are_counted_once():
    trial = optuna.create_study(direction="maximize").ask()
    reports = TrialReports(trial, n_folds=1)
    for scores in ([0.1, 0.2], [0.1]):  # of two networks that are not equally far
        reports.go_on(0, scores, has_ended=False)
    for place, score in enumerate([0.7, 0.8, 0.9]):
        reports.add(0, place, score)
    assert trial.study.trials[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.9}


class Remembers(StandardScaler):
    """A step that notes what joblib would do in its thread."""

    def fit(self, X, y=None, sample_weight=None):
        backend, n_jobs = joblib.parallel.get_active_backend()
        self.found_ = type(backend).__name__, n_jobs
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_a_function_scores_the_pipeline_with_its_steps(data, tmp_path, memory, nested):
    X, y = data
    model = Pipeline(
        [("scale", Remembers()), ("model", ResNetClassifier(**ROWS))],
        memory=str(tmp_path) if memory else None,
    )
    if nested:
        model = Pipeline([("shift", FunctionTransformer(np.negative)), ("model", model)])
    seen = []

    def scoring(model, X, y):
        inner = model[-1] if nested else model
        seen.append((len(model), inner["scale"].found_))
        return float(np.mean(model.predict(X) == y))

    objective = CrossValidationObjective(model, X, y, space={}, cv=3, scoring=scoring)
    with joblib.parallel_config("threading", n_jobs=3):
        score = objective(FixedTrial({}))
    named = CrossValidationObjective(model, X, y, space={}, cv=3, scoring="accuracy")
    assert score == named(FixedTrial({})) == cross_val_score(model, X, y, cv=3).mean()
    assert set(seen) == {(2, ("ThreadingBackend", 3))}


def test_scorers_have_the_backend_of_the_trial(data):
    seen = []

    def scoring(model, X, y):
        backend, n_jobs = joblib.parallel.get_active_backend()
        seen.append((type(backend).__name__, n_jobs))
        return 0.5

    objective = objective_of(data, scoring=scoring)
    with joblib.parallel_config("threading", n_jobs=5):
        objective(FixedTrial({"model__l2": 1e-3}))
    assert set(seen) == {("ThreadingBackend", 5)}
    seen.clear()
    objective(FixedTrial({"model__l2": 1e-3}))
    backend, n_jobs = joblib.parallel.get_active_backend()
    assert set(seen) == {(type(backend).__name__, n_jobs)}


@pytest.mark.filterwarnings("ignore:Trial 0")
@pytest.mark.parametrize("kind", [Alone, Joining])
def test_a_fold_that_fails_ends_the_others(data, kind):
    seen = []
    model = ResNetClassifier(**{**ROWS, "max_epochs": 50})
    model.set_params(callbacks=[kind(seen, fails_in=2)])
    objective = CrossValidationObjective(model, *data, space={}, cv=KFold(3))
    study = create_study()
    study.optimize(objective, n_trials=1)
    assert study.trials[0].state == TrialState.FAIL
    assert study.trials[0].user_attrs["error"] == "what a divergence says"
    assert {epoch for _, epoch in seen} == {1, 2}


def test_an_error_of_a_step_ends_a_trial(data, monkeypatch):
    monkeypatch.setattr(FailsInTheSecondFit, "n_fits", 0)
    before = threading.active_count()
    model = ResNetClassifier(**ROWS)
    broken = make_pipeline(FailsInTheSecondFit(), model)
    objective = CrossValidationObjective(broken, *data, space={}, cv=3)
    with pytest.raises(RuntimeError, match="of a step"):
        objective(FixedTrial({}))
    assert threading.active_count() == before


class FailsInTheSecondFit(StandardScaler):
    n_fits = 0

    def fit(self, X, y=None, sample_weight=None):
        FailsInTheSecondFit.n_fits += 1
        if FailsInTheSecondFit.n_fits == 2:
            raise RuntimeError("an error of a step")
        return super().fit(X, y, sample_weight)


class Studies(StandardScaler):
    """A step that does a study of its own."""

    def fit(self, X, y=None, sample_weight=None):
        objective = CrossValidationObjective(
            ResNetClassifier(**ROWS), X, np.arange(len(X)) % 2, space={}, cv=2
        )
        self.score_ = objective(FixedTrial({}))
        return super().fit(X, y, sample_weight)


def test_a_study_within_a_study_does_not_wait(data):
    model = make_pipeline(Studies(), ResNetClassifier(**ROWS))
    objective = CrossValidationObjective(model, *data, space={}, cv=3)
    assert 0 <= objective(FixedTrial({})) <= 1

    def scoring(model, X, y):
        return objective_of(data)(FixedTrial({"model__l2": 1e-3}))

    nested = objective_of(data, scoring=scoring, cv=2)
    assert 0 <= nested(FixedTrial({"model__l2": 1e-3})) <= 1


class StudiesInThreads(StandardScaler):
    """A step that does a study whose trials run in two threads."""

    def fit(self, X, y=None, sample_weight=None):
        y = np.arange(len(X)) % 2
        objective = CrossValidationObjective(ResNetClassifier(**ROWS), X, y, space={}, cv=2)
        create_study().optimize(objective, n_trials=2, n_jobs=2)
        return super().fit(X, y, sample_weight)


def test_a_study_in_other_threads_within_a_study_does_not_wait(data):
    model = make_pipeline(StudiesInThreads(), ResNetClassifier(**ROWS))
    objective = CrossValidationObjective(model, *data, space={}, cv=3)
    assert 0 <= objective(FixedTrial({})) <= 1


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_thread_that_cannot_start_ends_the_trial(data, monkeypatch, fails_at):
    objective, start, n_started = objective_of(data), threading.Thread.start, []

    def fails(self):
        n_started.append(1)
        if len(n_started) == fails_at:
            raise RuntimeError("can't start new thread")
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        with pytest.raises(RuntimeError, match="can't start"):
            objective(FixedTrial({"model__l2": 1e-3}))
    assert 0 <= objective(FixedTrial({"model__l2": 1e-3})) <= 1


def test_a_thread_of_turns_that_cannot_start_ends_the_trial(data, monkeypatch):
    start, n_started = threading.Thread.start, []
    model = pipeline(callbacks=[Alone([])])
    objective = CrossValidationObjective(model, *data, space={}, cv=3)

    def fails(self):
        n_started.append(1)
        if len(n_started) == 3 + 2:  # behind those of the folds
            raise RuntimeError("can't start new thread")
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        with pytest.raises(RuntimeError, match="can't start"):
            objective(FixedTrial({}))
    assert 0 <= objective(FixedTrial({})) <= 1


class Stateless(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X


def test_a_step_without_a_state_may_stand_in_front(data):
    model = make_pipeline(Stateless(), ResNetClassifier(**ROWS))
    objective = CrossValidationObjective(model, *data, space={}, cv=3)
    expected = cross_val_score(model, *data, cv=3).mean()
    assert objective(FixedTrial({})) == pytest.approx(expected)


def test_search_space_says_that_a_step_fails():
    model = make_pipeline(FunctionTransformer(fails), ResNetClassifier())
    with pytest.raises(ValueError, match="not known, as a step .* fails on .*: too few"):
        search_space(model, np.zeros((9, 4)))


class ReadsConfig(Callback):
    def __init__(self, seen):
        self.seen = seen

    def __sklearn_clone__(self):
        return self

    def on_epoch_end(self, net, **kwargs):
        self.seen.append(get_config()["working_memory"])


def test_callbacks_and_scorers_have_the_configuration_of_the_trial(data):
    seen = []

    def scoring(model, X, y):
        seen.append(get_config()["working_memory"])
        return 0.5

    model = pipeline(callbacks=[ReadsConfig(seen)])
    objective = CrossValidationObjective(model, *data, space={}, scoring=scoring)
    with config_context(working_memory=77):
        objective(FixedTrial({}))
    assert set(seen) == {77}


def test_seeds_of_the_global_generator_repeat(data):
    objective = CrossValidationObjective(
        pipeline(random_state=None), *data, space={}, scoring="neg_log_loss"
    )
    scores = []
    for _ in range(3):
        np.random.seed(0)  # noqa: NPY002
        scores.append(objective(FixedTrial({})))
    # The order of the folds in their network changes the last digits.
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-6)


def test_errors_keep_their_cause_and_trials_no_networks(data):
    def scoring(model, X, y):
        raise RuntimeError("the scorer") from KeyError("its cause")

    objective = objective_of(data, scoring=scoring)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(RuntimeError) as found:
            objective(FixedTrial({"model__l2": 1e-3}))
        assert isinstance(found.value.__cause__, KeyError)
        del found
        good = objective_of(data)
        n = sum(type(o) is ResidualNet for o in gc.get_objects())
        for _ in range(3):
            good(FixedTrial({"model__l2": 1e-3}))
        assert sum(type(o) is ResidualNet for o in gc.get_objects()) == n
    finally:
        gc.enable()


def test_objectives_are_copied(data):
    again = pickle.loads(pickle.dumps(objective_of(data)))
    trial = FixedTrial({"model__l2": 1e-3})
    assert again(trial) == objective_of(data)(trial)


CTRL_C = """
import numpy as np, optuna, signal
# What runs behind a shell's "&" starts with the signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from sk_resnet import ResNetClassifier
from sk_resnet.search import CrossValidationObjective
X = np.random.default_rng(0).normal(size=(60, 5))
model = ResNetClassifier(4, max_epochs=100_000, batch_size=16, n_estimators=1)
objective = CrossValidationObjective(model, X, np.arange(60) % 2, space={})
print("begin", flush=True)
try:
    optuna.create_study(direction="maximize").optimize(objective, 9, n_jobs={n_jobs})
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("n_jobs", [1, 4])
def test_ctrl_c_ends_a_study(n_jobs):
    rng = np.random.default_rng(n_jobs)
    for _ in range(int(os.environ.get("REPEATS", "1"))):
        script = CTRL_C.replace("{n_jobs}", str(n_jobs))
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "begin\n"
        time.sleep(rng.uniform(1, 5))
        process.send_signal(signal.SIGINT)
        try:
            out, _ = process.communicate(timeout=100)
        finally:
            process.kill()
        assert out == "interrupted\n"
        assert process.returncode == 0


def test_divergence_fails_the_trial_and_the_study_goes_on(data):
    space = {"lr": CategoricalDistribution([0.1, 1e30])}
    model = ResNetClassifier(**ROWS, scale=None)
    objective = CrossValidationObjective(model, *data, space=space)
    study = create_study()
    for lr in (1e30, 0.1):
        study.enqueue_trial({"lr": lr})
    with pytest.warns(UserWarning, match="Trial 0: The training loss became"):
        study.optimize(objective, n_trials=2)
    assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert "learning rate" in study.trials[0].user_attrs["error"]


def test_a_network_that_diverges_in_the_last_step_fail_the_trial_only(data):
    # The loss of the only batch is finite, and log_loss refuses NaN.
    model = pipeline(batch_size=64, max_epochs=1, lr=1e30)
    objective = CrossValidationObjective(model, *data, space={}, scoring="neg_log_loss")
    study = create_study(objective=objective)
    with pytest.warns(UserWarning, match="Trial 0: The network became infinite or NaN"):
        study.optimize(objective, n_trials=1)
    assert "error" in study.trials[0].user_attrs

    def broken(model, X, y):
        raise ValueError("what a scorer says")

    objective = objective_of(data, scoring=broken)
    with pytest.raises(ValueError, match="what a scorer says"):
        create_study().optimize(objective, n_trials=1)


def test_regressors_that_diverge_in_the_last_step_fail_the_trial_only(data):
    model = ResNetRegressor(**{**ROWS, "batch_size": 64, "max_epochs": 1}, lr=1e30)
    objective = CrossValidationObjective(model, data[0], data[0][:, :2], space={})
    study = create_study(objective=objective)
    with pytest.warns(UserWarning, match="Trial 0: The network became infinite or NaN"):
        study.optimize(objective, n_trials=1)
    assert study.trials[0].state == TrialState.FAIL


IMPOSSIBLE = {
    "monitor": (["valid_auc", "valid_loss"], "'valid_auc', which is not recorded"),
    "patience": ([0, 2], "patience must be a number of epochs, at least 1, got 0"),
    "min_delta": ([-1.0, 0.0], "min_delta must be a number, at least 0, got -1.0"),
}


@pytest.mark.parametrize("parameter", IMPOSSIBLE)
def test_a_drawn_callback_that_cannot_be_fails_the_trial_only(data, parameter):
    choices, reason = IMPOSSIBLE[parameter]
    name = f"model__callbacks__stop__{parameter}"
    model = pipeline(callbacks=[("stop", EarlyStopping())])
    space = {name: CategoricalDistribution(choices)}
    objective = CrossValidationObjective(model, *data, space=space, cv=2)
    study = optuna.create_study(direction="maximize")
    for choice in choices:
        study.enqueue_trial({name: choice})
    with pytest.warns(UserWarning, match=f"Trial 0: .*{reason}"):
        study.optimize(objective, n_trials=2)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE]
    assert reason in study.trials[0].user_attrs["error"]


OF_SKORCH = {
    "threshold_mode": (skorch_callbacks.EarlyStopping(), ["none", "rel"]),
    "monitor": (skorch_callbacks.EarlyStopping(), ["valid_auc", "train_loss"]),
    "policy": (skorch_callbacks.LRScheduler("StepLR", step_size=1), ["Steps", "StepLR"]),
    "gradient_clip_value": (skorch_callbacks.GradientNormClipping(), ["x", 1.0]),
}


@pytest.mark.parametrize("parameter", OF_SKORCH)
def test_a_drawn_callback_of_skorch_that_cannot_be_fails_the_trial_only(data, parameter):
    callback, choices = OF_SKORCH[parameter]
    name = f"model__callbacks__one__{parameter}"
    model = pipeline(callbacks=[("one", callback)])
    objective = CrossValidationObjective(
        model, *data, space={name: CategoricalDistribution(choices)}, cv=2
    )
    study = optuna.create_study(direction="maximize")
    for choice in choices:
        study.enqueue_trial({name: choice})
    with pytest.warns(UserWarning, match="Trial 0: .* of a callback: "):
        study.optimize(objective, n_trials=2)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE]
    assert " of a callback: " in study.trials[0].user_attrs["error"]


def test_errors_beside_a_drawn_callback_end_the_study(data):
    model = pipeline(callbacks=[("one", skorch_callbacks.EarlyStopping("train_loss"))])
    space = {"model__callbacks__one__patience": CategoricalDistribution([2, 3])}

    def score(model, X, y):
        raise ValueError("of the score")

    objective = CrossValidationObjective(model, *data, space=space, cv=2, scoring=score)
    with pytest.raises(ValueError, match="of the score"):
        optuna.create_study(direction="maximize").optimize(objective, n_trials=1)


def test_a_callback_that_cannot_be_and_is_not_drawn_ends_the_study(data):
    model = pipeline(callbacks=[("stop", EarlyStopping("valid_auc"))])
    space = {"model__l2": FloatDistribution(0, 1)}
    objective = CrossValidationObjective(model, *data, space=space, cv=2)
    with pytest.raises(ValueError, match="'valid_auc', which is not recorded"):
        optuna.create_study(direction="maximize").optimize(objective, n_trials=2)


def test_the_epoch_that_stops_a_fit_is_reported_too(data):
    stop = EarlyStopping("valid_loss", patience=1)
    model = pipeline(max_epochs=9, lr=1e-9, callbacks=[stop])
    objective = CrossValidationObjective(model, *data, space={}, cv=2)
    study = create_study(pruner=READS_ALL)
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    n = trial.user_attrs["fold_epochs"]
    assert max(n) < 9
    assert sorted(trial.intermediate_values) == list(range(1, max(n) + 1))


def test_the_pruning_callback_survives_clones(data):
    X, y = data
    study = create_study(pruner=optuna.pruners.ThresholdPruner(lower=2.0))
    trial = study.ask()
    model = ResNetClassifier(**ROWS, callbacks=[PruningCallback(trial)])
    again = clone(clone(model))
    assert again.callbacks[0].trial is trial
    assert copy.deepcopy(model).callbacks[0].trial is trial
    with pytest.raises(optuna.TrialPruned, match="pruned in epoch 1"):
        again.fit(X, y)
    with pytest.raises(ValueError, match="'loss', which is not recorded: use one of"):
        model.set_params(callbacks=[PruningCallback(trial, "loss")]).fit(X, y)


@pytest.mark.parametrize(
    ("direction", "column"), [("minimize", "loss"), ("maximize", "r2")]
)
def test_the_pruning_callback_follows_the_direction_of_the_study(data, direction, column):
    def objective(trial):
        model = ResNetRegressor(**ROWS, validation_split=0.2)
        model.set_params(callbacks=[PruningCallback(trial)])
        return model.fit(data[0], data[0][:, 0]).history_[-1][f"valid_{column}"]

    study = optuna.create_study(direction=direction, pruner=READS_ALL)
    study.optimize(objective, n_trials=1)
    assert study.trials[0].intermediate_values[2] == study.trials[0].value
    wrong = PruningCallback(study.ask(), "valid_r2" if column == "loss" else "train_loss")
    verb = direction.replace("ize", "ises")
    with pytest.raises(ValueError, match=f"monitors .*, and the study {verb}: monitor a"):
        ResNetRegressor(**ROWS, callbacks=[wrong], validation_split=0.2).fit(
            data[0], data[0][:, 0]
        )
    both = optuna.create_study(directions=["minimize", "maximize"]).ask()
    with pytest.raises(ValueError, match="the study has 2 directions"):
        ResNetRegressor(**ROWS, callbacks=[PruningCallback(both)]).fit(
            data[0], data[0][:, 0]
        )


@pytest.mark.filterwarnings("ignore:Trial")
def test_what_no_network_has_together_fails_the_trial_only(data):
    space = {
        "model__block": CategoricalDistribution(["basic", "bottleneck"]),
        "model__depth": IntDistribution(4, 8, step=2),
    }
    objective = CrossValidationObjective(pipeline(), *data, space=space, cv=2)
    study = create_study()
    for block, depth in (("bottleneck", 6), ("basic", 4)):
        study.enqueue_trial({"model__block": block, "model__depth": depth})
    study.optimize(objective, n_trials=2)
    failed, complete = study.trials
    assert (failed.state, complete.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert "depth must be" in failed.user_attrs["error"]
    fixed = CrossValidationObjective(pipeline(depth=5), *data, space=L2_OF_MODEL, cv=2)
    with pytest.raises(ValueError, match="depth must be"):
        create_study().optimize(fixed, n_trials=1)


@pytest.mark.filterwarnings("ignore:Trial")
@pytest.mark.parametrize(
    ("name", "choices", "match"),
    [
        ("augment", [None, "crop"], "augment='crop' needs series or images"),
        ("test_time_augmentation", [None, "flip"], "='flip' needs images"),
        ("input_shape", [None, [1, 100]], "needs 100 values a sample"),
    ],
)
def test_what_samples_do_not_fit_fails_the_trial_only(data, name, choices, match):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's, of choices that are lists
        space = {f"model__{name}": CategoricalDistribution(choices)}
        objective = CrossValidationObjective(pipeline(), *data, space=space, cv=2)
        study = create_study()
        for choice in reversed(choices):
            study.enqueue_trial({f"model__{name}": choice})
        study.optimize(objective, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
    assert match in study.trials[0].user_attrs["error"]


def test_a_device_that_is_not_there_is_refused_at_once(data):
    space = {"model__device": CategoricalDistribution(["cpu", "cuda:99"])}
    with pytest.raises(ValueError, match="device='cuda:99' was asked for"):
        CrossValidationObjective(pipeline(), *data, space=space, cv=2)


def test_the_best_of_a_study_of_several_directions(data):
    objective = CrossValidationObjective(pipeline(), *data, space=L2_OF_MODEL, cv=2)
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.optimize(lambda trial: (1.0, 2.0), n_trials=1)
    with pytest.raises(ValueError, match="must maximise one score: .*MAXIMIZE, MINIMIZE"):
        objective.refit(study)


@pytest.mark.filterwarnings("ignore:Trial")
def test_a_study_without_a_complete_trial_says_why(data):
    model = ResNetClassifier(**ROWS, scale=None, lr=1e30)
    objective = CrossValidationObjective(model, *data, space={}, cv=2)
    study = create_study()
    with pytest.raises(ValueError, match=r"no complete trial: 0 began\.$"):
        objective.refit(study)
    study.optimize(objective, n_trials=2)
    with pytest.raises(ValueError, match="2 began, 2 failed, the last: The train"):
        objective.refit(study)
    two = optuna.create_study(directions=["maximize", "maximize"])
    with pytest.raises(ValueError, match="The study must maximise"):
        two.optimize(objective, n_trials=1)


# Studies that last


def test_a_retried_trial_has_the_same_parameters(data):
    objective = objective_of(data)
    study = create_study()
    trial = study.ask()
    suggest(trial, objective.space)
    assert retry_stale_trials(study, older_than=1e6) == 0
    assert retry_stale_trials(study, older_than=0) == 1
    study.optimize(objective, n_trials=1)
    failed, retried = study.trials
    assert (failed.state, retried.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert retried.params == failed.params
    assert retried.user_attrs["fold_epochs"] == [2, 2, 2]


def test_a_trial_is_not_retried_for_ever():
    study = create_study()
    study.ask().suggest_float("l2", 0, 1)
    assert [retry_stale_trials(study, older_than=0, max_retry=2) for _ in "1"] == [1]
    study.ask()
    assert retry_stale_trials(study, older_than=0, max_retry=2) == 1
    study.ask()
    assert retry_stale_trials(study, older_than=0, max_retry=2) == 0
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 3
    assert len({trial.params["l2"] for trial in study.trials}) == 1


OBJECTIVE = """
import os, time
import numpy as np
from optuna.distributions import FloatDistribution
from sk_resnet import ResNetClassifier
from sk_resnet.search import CrossValidationObjective

def make():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 4)), np.arange(30) % 2
    model = ResNetClassifier(4, width=0.1, max_epochs=1, batch_size=10, random_state=0)
    model.set_params(n_estimators=1)
    space = {"l2": FloatDistribution(1e-4, 1e-1, log=True)}
    objective = CrossValidationObjective(model, X, y, space=space)

    def call(trial):
        if os.environ.get("HANG"):
            trial.suggest_float("l2", 1e-4, 1e-1, log=True)
            print("hanging", flush=True)
            time.sleep(600)
        return objective(trial)

    return call
"""


def worker(folder, storage, *, n_trials=3, hang=False):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["HANG"] = "1" if hang else ""
    command = [sys.executable, "-m", "sk_resnet.worker", "task:make", "--study", "s"]
    command += ["--storage", storage, "--n-trials", str(n_trials), "--heartbeat", "1"]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def has_heartbeat(backend):
    with backend.engine.connect() as connection:
        rows = connection.execute(sqlalchemy.text("SELECT * FROM trial_heartbeats"))
        return rows.first() is not None


def check_a_killed_worker(folder, storage):
    (folder / "task.py").write_text(OBJECTIVE)
    victim = worker(folder, storage, hang=True)
    assert victim.stdout.readline() == "hanging\n"
    study = create_study(storage, name="s", heartbeat=1)
    backend = getattr(study._storage, "_backend", study._storage)
    # A loaded machine may print before it writes the first heartbeat, and without one a
    # trial never counts as stale.
    wait_for(lambda: has_heartbeat(backend))
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    wait_for(lambda: backend._get_stale_trial_ids(study._study_id))
    helper = worker(folder, storage)
    out, _ = helper.communicate(timeout=120)
    assert out.startswith("s: best ")
    states = [trial.state for trial in study.trials]
    assert states[0] == TrialState.FAIL
    ended = [t for t in study.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(ended) == 3
    (retried,) = [t for t in study.trials[1:] if t.params == study.trials[0].params]
    assert len(retried.user_attrs["fold_scores"]) == 3
    backend.remove_session()
    backend.engine.dispose()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_sqlite_gives_each_trial_to_one_worker(tmp_path):
    def worker():
        return create_study(f"sqlite:///{tmp_path}/study.db", name="shared")

    first = worker()
    for n in range(12):
        first.enqueue_trial({"n": n})
    # As a process gets it from a scheduler, and as the others open it.
    studies = [pickle.loads(pickle.dumps(first)), worker(), worker(), worker()]
    together = threading.Barrier(len(studies))

    def asked(study):
        together.wait()
        return [study.ask().number for _ in range(5)]

    with ThreadPoolExecutor(len(studies)) as pool:
        taken = [number for found in pool.map(asked, studies) for number in found]
    assert sorted(taken) == list(range(20))


# Threads share the filters of warnings.
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_sqlite_files_are_made_by_many_workers(tmp_path):
    together = threading.Barrier(4, timeout=60)

    def name_of(n):
        together.wait()
        return create_study(f"sqlite:///{tmp_path}/{n // 4}.db", name="s").study_name

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(name_of, range(12))) == ["s"] * 12


def test_sqlite_outlives_a_killed_worker(tmp_path):
    check_a_killed_worker(tmp_path, f"sqlite:///{tmp_path}/study.db")


def postgres_programs():
    found = shutil.which("initdb") and Path(shutil.which("initdb")).parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if not found else [found]
    return folders[-1] if folders and (folders[-1] / "initdb").exists() else None


@pytest.fixture
def postgres(tmp_path):
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    folder = Path("/tmp") / f"pg{os.getpid()}"  # sockets have short paths
    folder.mkdir()
    prefix = []
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "nobody")
        prefix = ["setpriv", "--reuid=nobody", "--clear-groups"]
    run = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run["cwd"] = folder
    base = folder / "data"
    subprocess.run(
        [*prefix, programs / "initdb", "-D", base, "-U", "me", "-A", "trust"], **run
    )
    server = [*prefix, programs / "pg_ctl", "-D", base, "-w"]
    options = f"-k {folder} -c listen_addresses=''"
    subprocess.run([*server, "-o", options, "-l", folder / "log", "start"], **run)
    try:
        yield f"postgresql+psycopg://me@/postgres?host={folder}"
    finally:
        subprocess.run([*server, "-m", "immediate", "stop"], **run)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_postgresql_outlives_a_killed_worker(tmp_path, postgres):
    check_a_killed_worker(tmp_path, postgres)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_paths_and_storages_of_optuna_are_storages(tmp_path):
    create_study(tmp_path / "study.journal", name="s").ask()
    assert len(create_study(str(tmp_path / "study.journal"), name="s").trials) == 1
    storage = optuna.storages.InMemoryStorage()
    create_study(storage, name="s").ask()
    assert len(create_study(storage, name="s").trials) == 1


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_journals_are_cleaned_of_stale_trials(tmp_path, data):
    storage = str(tmp_path / "study.journal")
    study = create_study(storage, name="s")
    objective = objective_of(data)
    suggest(study.ask(), objective.space)
    again = create_study(storage, name="s")
    assert retry_stale_trials(again, older_than=0) == 1
    again.optimize(objective, n_trials=2)
    states = [trial.state for trial in again.trials]
    assert states[0] == TrialState.FAIL
    assert TrialState.RUNNING not in states
    assert again.trials[1].params == again.trials[0].params


# Bad input


def test_studies_of_other_data_are_refused(data, tmp_path):
    X, y = data
    storage = f"sqlite:///{tmp_path}/study.db"
    create_study(storage, name="s").optimize(objective_of(data), n_trials=1)
    create_study(storage, name="s").optimize(objective_of(data), n_trials=1)
    space = {"model__l2": FloatDistribution(1e-4, 1e-2, log=True)}
    for other in (
        objective_of((X + 1, y)),
        objective_of(data, cv=4),
        objective_of(data, space=space),
        objective_of(data, scoring="neg_log_loss"),
        objective_of(data, pipeline().set_params(model__momentum=0.5)),
        objective_of(data, pipeline().set_params(scale__with_mean=False)),
        objective_of(data, Pipeline([("model", pipeline()[-1])])),
    ):
        with pytest.raises(ValueError, match="'s' was started with other data"):
            create_study(storage, name="s", objective=other)
        with pytest.raises(ValueError, match="'s' was started with other data"):
            create_study(storage, name="s").optimize(other, n_trials=1)
    for same in (
        pipeline().set_params(model__verbose=1, model__device="cpu"),
        pipeline().set_params(**dict.fromkeys(objective_of(data).space, 0.5)),
    ):
        create_study(storage, name="s", objective=objective_of(data, same))
    assert len(create_study(storage, name="s").trials) >= 2
    with pytest.raises(ValueError, match="The study must maximise"):
        optuna.create_study().optimize(objective_of(data), n_trials=1)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        (
            {"space": {"deep": IntDistribution(4, 6)}},
            ValueError,
            r"\['deep'\], which are",
        ),
        ({"space": {"depth": IntDistribution(4, 6)}}, ValueError, "such as 'model__depth'"),
        ({"space": {"model__l2": (0, 1)}}, TypeError, "must be a distribution of Optuna"),
        (
            {"space": {"model__depth": IntDistribution(3, 7, step=2)}},
            ValueError,
            r"do not fit, \[3, 5, 7\]: use \[4, 6, 8",
        ),
        ({"space": ["model__l2"]}, TypeError, "space must be a dict of distributions"),
        (
            {"space": {"model__l2": Only((0, 1), lambda d: True, 0.0)}},
            TypeError,
            "a distribution of Optuna or Only one, got Only",
        ),
        (
            {"space": {"model__dropout": FloatDistribution(0, 2)}},
            ValueError,
            r"'dropout' parameter .* Got 2.0 instead",
        ),
        (
            {"space": {"model__order": CategoricalDistribution(["original", "new"])}},
            ValueError,
            "'order' parameter .* Got 'new' instead",
        ),
        ({"scoring": ["accuracy", "f1_macro"]}, ValueError, "one score, got several"),
        ({"cv": 30}, ValueError, "n_splits=30 cannot be greater"),
        (
            {"cv": [([0, 1], [60])]},
            ValueError,
            "got 2 and 1 rows: is it a cv of other data",
        ),
        ({"cv": [([0, 1], [])]}, ValueError, "both below 60, got 2 and 0 rows"),
        ({"cv": GroupKFold(2)}, ValueError, "'groups' parameter should not be None"),
        ({"sample_weight": np.ones(3)}, ValueError, "inconsistent numbers of samples"),
    ],
)
def test_bad_objectives(data, changes, error, match):
    with pytest.raises(error, match=match):
        objective_of(data, **changes)


def test_other_bad_input(monkeypatch, tmp_path):
    four = "ResNetClassifier, WideResNetClassifier, ResNetRegressor or WideResNetRegressor"
    with pytest.raises(TypeError, match=f"{four}, or .* ends in one, got StandardScaler"):
        search_space(make_pipeline(StandardScaler()))
    with pytest.raises(ConnectionError, match="cannot be reached .* check the address"):
        create_study(f"sqlite:///{tmp_path}/no/folder/study.db")
    with pytest.raises(ConnectionError, match="cannot be reached"):
        create_study("nonsense")
    with pytest.raises(ConnectionError, match="cannot be reached .* No such file"):
        create_study(f"{tmp_path}/no/folder/study.journal")
    (tmp_path / "broken.journal").write_text("{\n{\n")
    with pytest.raises(ConnectionError, match="cannot be reached"):
        create_study(tmp_path / "broken.journal", name="s")
    names = "", "/:memory:", "/file::memory:?uri=true", "/file:s?mode=memory&uri=true"
    for in_memory in (f"sqlite://{name}" for name in names):
        with pytest.raises(ValueError, match="use None for a study in memory"):
            create_study(in_memory)
    if importlib.util.find_spec("psycopg"):
        with pytest.raises(ConnectionError, match=r"me:\*\*\*@127.0.0.1:1/") as found:
            create_study("postgresql+psycopg://me:secret@127.0.0.1:1/studies")
        assert "secret" not in str(found.value)
    with pytest.raises(ValueError, match=r"No depth fits samples of shape \(32,\)"):
        search_space(ResNetClassifier(layout="imagenet"))
    with pytest.raises(ValueError, match=r"at least one dimension, got shape \(5,\)"):
        search_space(ResNetClassifier(), np.zeros(5))
    with pytest.raises(ValueError, match="'optimizer' parameter .* Got 'adam' instead"):
        search_space(ResNetClassifier(optimizer="adam"))
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'sk-resnet\[tune\]'"):
        search_space(ResNetClassifier())


DIVERGING = """
import numpy as np
from optuna.distributions import CategoricalDistribution
from sk_resnet import ResNetClassifier
from sk_resnet.search import CrossValidationObjective

def make():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 4)), np.arange(30) % 2
    model = ResNetClassifier(4, max_epochs=2, scale=None, random_state=0)
    model.set_params(n_estimators=1)
    space = {"lr": CategoricalDistribution([1e30])}
    return CrossValidationObjective(model, X, y, space=space)
"""


@pytest.fixture
def work(monkeypatch, tmp_path):
    """Runs a worker on a journal, with an objective that the given text makes."""
    from sk_resnet.worker import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(module, text, *options):
        (tmp_path / f"{module}.py").write_text(text)
        main([f"{module}:make", "--storage", "s.journal", "--study", "s", *options])

    return run


@pytest.mark.filterwarnings("ignore:Trial")
def test_workers_end_where_every_trial_diverges(work, capsys):
    work("diverging", DIVERGING, "--n-trials", "2")
    assert capsys.readouterr().out == "s: no trial was completed\n"


@pytest.mark.filterwarnings("ignore")
def test_workers_end_where_every_score_is_nan(work):
    work("no_score", "def make():\n    return lambda t: float('nan')\n", "--n-trials", "2")
    study = create_study("s.journal", name="s")
    assert [t.user_attrs["error"] for t in study.trials] == ["The score is NaN."] * 2


def test_workers_take_over_stale_trials(work):
    create_study("s.journal", name="s").ask().suggest_float("l2", 0, 1)
    text = "def make():\n    return lambda t: t.suggest_float('l2', 0, 1)\n"
    work("shallow", text, "--n-trials", "1", "--stale-after", "0")
    dead, retried = create_study("s.journal", name="s").trials
    assert (dead.state, retried.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert retried.params == dead.params


COUNTED = """
n_calls = 0

def make():
    def call(trial):
        global n_calls
        n_calls += 1
        return trial.suggest_float("l2", 0, 1)

    return call
"""


def test_workers_begin_no_trial_beyond_those_of_others(work, capsys):
    study = create_study("s.journal", name="s")
    study.ask()  # of a worker that lives
    work("counted", COUNTED, "--n-trials", "3")
    assert "other workers have begun what is left" in capsys.readouterr().out
    assert Counter(t.state.name for t in study.trials) == {"RUNNING": 1, "COMPLETE": 2}


@pytest.fixture
def too_early(monkeypatch):
    """The first look of a worker misses the other one."""
    from sk_resnet import worker

    n_taken, looks = worker._n_taken, []

    def look(study, before=None):
        looks.append(before)
        return 0 if len(looks) == 1 else n_taken(study, before)

    monkeypatch.setattr(worker, "_n_taken", look)


def test_of_workers_that_begin_at_once_the_first_go_on(work, too_early):
    study = create_study("s.journal", name="s")
    study.ask()
    work("counted_again", COUNTED, "--n-trials", "1")
    assert sys.modules["counted_again"].n_calls == 0
    assert Counter(t.state.name for t in study.trials) == {"RUNNING": 1, "FAIL": 1}


def test_a_retry_that_is_one_too_many_stays_in_the_queue(work, too_early):
    study = create_study("s.journal", name="s")
    died = study.ask()
    value = died.suggest_float("l2", 0, 1)
    died.set_user_attr("checkpoint", "trial-1")
    assert retry_stale_trials(study, older_than=0) == 1
    study.add_trial(optuna.create_trial(state=TrialState.RUNNING))  # of another worker
    work("counted_retry", COUNTED, "--n-trials", "1")
    assert sys.modules["counted_retry"].n_calls == 0
    states = [t.state.name for t in study.trials]
    assert states == ["FAIL", "FAIL", "RUNNING", "WAITING"]
    assert study.trials[3].system_attrs == study.trials[1].system_attrs
    again = study.ask()
    assert again.suggest_float("l2", 0, 1) == value
    assert again.user_attrs == {"checkpoint": "trial-1"}


def test_a_chosen_trial_that_is_one_too_many_stays_in_the_queue(work, too_early):
    study = create_study("s.journal", name="s")
    study.add_trial(optuna.create_trial(state=TrialState.RUNNING))
    study.enqueue_trial({"l2": 0.5})
    work("counted_chosen", COUNTED, "--n-trials", "1")
    assert [t.state.name for t in study.trials] == ["RUNNING", "FAIL", "WAITING"]
    assert study.ask().suggest_float("l2", 0, 1) == 0.5


def test_workers_wait_for_what_others_may_leave(work, monkeypatch):
    from sk_resnet import worker

    study = create_study("s.journal", name="s")
    trial, looks = study.ask(), []
    trial.suggest_float("l2", 0, 1)

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            study.tell(trial, 1.0)

    monkeypatch.setattr(worker.time, "sleep", sleep)
    work("waiting", COUNTED, "--n-trials", "1", "--stale-after", "1e6")
    assert len(looks) == 2
    assert [t.state.name for t in study.trials] == ["COMPLETE"]


def test_what_cannot_be_drawn_is_named():
    early = {
        "dropout": Only(FloatDistribution(0, 0.5), lambda d: d["width"] > 1, 0.0),
        "width": FloatDistribution(0.5, 4),
    }
    with pytest.raises(ValueError, match="reads 'width', which must stand before it"):
        suggest(FixedTrial({"width": 1.0}), early)
    with pytest.raises(TypeError, match=r"space\['l2'\] must be a distribution"):
        suggest(FixedTrial({"l2": 1.0}), {"l2": (0, 1)})


def test_workers_need_an_objective():
    from sk_resnet.worker import main

    with pytest.raises(SystemExit, match="must be module:function, got 'task'"):
        main(["task", "--storage", "x", "--study", "s", "--n-trials", "1"])
