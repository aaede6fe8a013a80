"""What a file may hold is read again, or `save` says which names `load` will need."""

import ast
import inspect
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.callback import ProgressBar
from sklearn.compose import (
    TransformedTargetRegressor,
    make_column_selector,
    make_column_transformer,
)
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_selection import (
    SelectKBest,
    chi2,
    f_classif,
    mutual_info_classif,
    r_regression,
)
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, fbeta_score, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    SplineTransformer,
    StandardScaler,
)
from sklearn.utils import all_estimators
from skorch.callbacks import (
    EarlyStopping,
    EpochScoring,
    GradientNormClipping,
    LRScheduler,
    PrintLog,
)

from sk_resnet import ModelFileError, ResNetClassifier, ResNetRegressor, load, save

SMALL = {"depth": 4, "width": 0.1, "n_estimators": 1, "max_epochs": 1, "random_state": 0}
# Compiled code that does not check what it reads, and what executes texts.
NOT_TRUSTED = (
    "scipy.interpolate.",
    "scipy._lib.array_api_compat.",
    "scipy.sparse.",
    "scipy.stats.",
    "sklearn.ensemble._hist_gradient_boosting.predictor.",
    "sklearn.metrics._dist_metrics.",
    "sklearn.neighbors.",
    "sklearn.tree._tree.",
)


def rows():
    rng = np.random.default_rng(0)
    return rng.uniform(1, 2, size=(30, 4)), np.arange(30) % 3


def table():
    X, _ = rows()
    return pd.DataFrame(X, columns=list("abcd")).assign(kind=["u", "v", "w"] * 10)


def network(**parameters):
    return ResNetClassifier(**SMALL, **parameters)


def after(*steps):
    return make_pipeline(*steps, network())


def with_callback(callback, **parameters):
    return network(callbacks=[callback], **parameters)


def columns(numbers):
    return make_column_transformer(
        (SimpleImputer(), make_column_selector(dtype_include=numbers)),
        (OneHotEncoder(), make_column_selector("kind")),
    )


def found_names(model, path):
    """Save; return the names that a warning tells."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        save(model, path)
    texts = [str(w.message) for w in caught if "load refuses" in str(w.message)]
    assert len(texts) <= 1
    return (
        ast.literal_eval(texts[0].partition("trusted=")[2].partition(":")[0])
        if texts
        else []
    )


HELD = {
    "imputer": lambda: after(SimpleImputer(add_indicator=True), StandardScaler()),
    "imputer of rounds": lambda: after(IterativeImputer(max_iter=1)),
    "bins": lambda: after(KBinsDiscretizer(3, encode="onehot-dense")),
    "function": lambda: after(FunctionTransformer(np.log1p)),
    **{
        score.__name__: lambda score=score: after(SelectKBest(score, k=2))
        for score in (f_classif, chi2, mutual_info_classif, r_regression)
    },
    "search": lambda: GridSearchCV(network(), {"l2": [0.0, 0.1]}, cv=2),
    "search of a loss": lambda: GridSearchCV(
        network(), {"l2": [0.0]}, cv=2, scoring="neg_log_loss"
    ),
    "search of several scores": lambda: GridSearchCV(
        network(), {"l2": [0.0]}, cv=2, scoring=["accuracy", "f1_macro"], refit="accuracy"
    ),
    "search of a score with parameters": lambda: GridSearchCV(
        network(),
        {"l2": [0.0]},
        cv=2,
        scoring=make_scorer(fbeta_score, beta=2, average="macro"),
    ),
    **{
        f"calibration by {method}": lambda method=method: CalibratedClassifierCV(
            network(), cv=2, method=method
        )
        for method in ("sigmoid", "isotonic", "temperature")
    },
    "vote": lambda: VotingClassifier(
        [("net", network()), ("line", LogisticRegression())], voting="soft"
    ),
    "stack": lambda: StackingClassifier(
        [("net", network()), ("process", GaussianProcessClassifier())], cv=2
    ),
    "mean of outputs": lambda: TransformedTargetRegressor(
        ResNetRegressor(**SMALL), func=np.log1p, inverse_func=np.expm1
    ),
    "epoch scoring": lambda: with_callback(EpochScoring("f1_macro"), validation_split=0.3),
    "scoring of a function": lambda: with_callback(
        EpochScoring(accuracy_score), validation_split=0.3
    ),
    "schedule by name": lambda: with_callback(LRScheduler("StepLR", step_size=1)),
    "schedule": lambda: with_callback(
        LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=1)
    ),
    "early stopping of skorch": lambda: with_callback(
        EarlyStopping(), validation_split=0.3
    ),
    "clipping": lambda: with_callback(GradientNormClipping(1.0)),
    "log": lambda: with_callback(PrintLog()),
    "bar of scikit-learn": lambda: network().set_callbacks(ProgressBar()),
}


@pytest.mark.parametrize("name", HELD)
def test_what_only_holds_data_needs_no_trust(name, tmp_path):
    X, y = rows()
    model = HELD[name]().fit(X, y)
    save(model, tmp_path / "model")  # a warning is an error
    again = load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


@pytest.mark.parametrize("numbers", ["number", np.number, [np.floating, np.integer]])
def test_the_pipeline_of_a_table(numbers, tmp_path):
    X, (_, y) = table(), rows()
    model = after(columns(numbers)).fit(X, y)
    save(model, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(X), model.predict(X))
    threshold = TunedThresholdClassifierCV(clone(model), cv=2).fit(X, y == 1)
    save(threshold, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(X), threshold.predict(X))


def own_function(X):
    return X


def test_save_names_what_load_will_need(tmp_path):
    (X, y), path = rows(), tmp_path / "model"
    model = after(FunctionTransformer(own_function), SplineTransformer()).fit(X, y)
    with pytest.warns(UserWarning, match=r"load refuses .*trusted=\['scipy\..*own_funct"):
        save(model, path)
    names = found_names(model, path)
    for name in names:
        with pytest.raises(ModelFileError, match=f"not trusted: .*{name}"):
            load(path, trusted=[other for other in names if other != name])
    np.testing.assert_array_equal(load(path, trusted=names).predict(X), model.predict(X))


def test_distributions_of_scipy_are_not_trusted(tmp_path):
    # Their state has a text that scipy executes.
    from scipy.stats import loguniform

    search = RandomizedSearchCV(network(), {"l2": loguniform(1e-4, 1e-2)}, n_iter=1)
    with pytest.warns(UserWarning, match="scipy.stats"):
        save(search, tmp_path / "model")
    with pytest.raises(ModelFileError, match=r"not trusted: .*scipy\.stats"):
        load(tmp_path / "model")


def constructed(kind):
    """Estimator around a network of ours, where it takes one."""
    parts = {
        "estimator": ResNetClassifier(**SMALL),
        "estimators": [("net", ResNetClassifier(**SMALL))],
        "steps": [("net", ResNetClassifier(**SMALL))],
        "transformer_list": [("scale", StandardScaler())],
        "transformers": [("scale", StandardScaler(), [0, 1])],
        "param_grid": {"l2": [0.0]},
        "param_distributions": {"l2": [0.0]},
        "dictionary": np.eye(4),
    }
    few = {"n_estimators": 2, "max_iter": 5}
    parameters = inspect.signature(kind).parameters
    needed = [name for name, p in parameters.items() if p.default in (p.empty, None)]
    model = kind(**{name: parts[name] for name in needed if name in parts})
    model.set_params(**{k: v for k, v in few.items() if k in parameters})
    return model


def fitted(model):
    """The same, on the first data that it takes."""
    X, y = rows()
    texts, dicts = ["a b", "b c", "a c"] * 10, [{"a": 1.0, "b": 2.0}] * 30
    for data in (
        (X, y),
        (X, (y == 1).astype(int)),
        (X, np.eye(3, dtype=int)[y]),
        (X[:, 0], y),
        (y,),
        (np.eye(3, dtype=int)[y],),
        ([["a"], ["b"]],),
        (texts,),
        (dicts,),
        (np.eye(30),),
    ):
        try:
            return clone(model).fit(*data)
        except (ValueError, TypeError, AttributeError, IndexError):
            continue
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "kind"), all_estimators())
def test_every_estimator_of_sklearn_is_read_or_named(name, kind, tmp_path):
    if name == "Birch":  # which skops does not write
        with pytest.raises(TypeError, match="Birch"):
            save(fitted(kind()), tmp_path / "model")
        return
    model = fitted(constructed(kind))
    names = found_names(model, tmp_path / "model")
    if names:
        with pytest.raises(ModelFileError, match="not trusted"):
            load(tmp_path / "model")
    assert all(one.startswith(NOT_TRUSTED) for one in names)
    again = load(tmp_path / "model", trusted=names)
    assert type(again) is type(model)
    assert vars(again).keys() == vars(model).keys()
