"""What holds for all inputs and parameters, tried on those that hypothesis draws.

    SK_RESNET_EXAMPLES=1000 pytest tests/test_properties.py

draws other examples each time; by default few are drawn, and always the same.
"""

import os
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from sk_resnet import ResNetClassifier, ResNetRegressor, WideResNetClassifier, load, save

N_EXAMPLES = int(os.environ.get("SK_RESNET_EXAMPLES", "0"))
TRIED = settings(
    max_examples=N_EXAMPLES or 25,
    derandomize=not N_EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
RNG = np.random.default_rng(0)
# Multiples of 1/8 below 16 are exact in every type of floating point numbers.
ROWS = np.round(8 * RNG.normal(size=(40, 5))) / 8
CLASSES = np.arange(40) % 3
TINY = {"depth": 4, "max_epochs": 1, "n_estimators": 1, "random_state": 0}


@pytest.fixture(scope="module")
def fitted():
    return ResNetClassifier(**TINY).fit(ROWS, CLASSES)


LAYOUTS = {
    "rows outermost": np.ascontiguousarray,
    "columns outermost": np.asfortranarray,
    "every second row": lambda X: np.repeat(X, 2, axis=0)[::2],
    "backwards": lambda X: X[::-1].copy()[::-1],
    "other bytes first": lambda X: X.astype(X.dtype.newbyteorder()),
    "read only": lambda X: np.frombuffer(X.tobytes(), X.dtype).reshape(X.shape),
    "list": lambda X: X.tolist(),
    "tensor": lambda X: torch.from_numpy(X.copy()),
    "table": pd.DataFrame,
}


@TRIED
@given(
    layout=st.sampled_from(sorted(LAYOUTS)),
    dtype=st.sampled_from([np.float16, np.float32, np.float64, np.longdouble]),
    order=st.permutations(range(40)),
    n=st.integers(1, 40),
)
def test_predictions_depend_on_the_values_of_a_row_alone(fitted, layout, dtype, order, n):
    assume(not (layout == "tensor" and dtype is np.longdouble))
    expected = fitted.predict_proba(ROWS)
    some = list(order[:n])
    X = LAYOUTS[layout](ROWS[some].astype(dtype))
    # Of two bytes, rows are standardized in float32.
    close = 1e-6 if dtype is np.float16 else 1e-7
    np.testing.assert_allclose(fitted.predict_proba(X), expected[some], atol=close)


LABELS = {
    "int8": lambda y: y.astype(np.int8),
    "uint64": lambda y: y.astype(np.uint64) + 2**63,
    "negative": lambda y: y - 5,
    "float": lambda y: y.astype(float),
    "str": lambda y: np.array(["no", "perhaps", "yes"])[y],
    "objects": lambda y: np.array(["no", "perhaps", "yes"], dtype=object)[y],
    "column": lambda y: pd.Series(y, index=range(7, 47)),
    "categories": lambda y: pd.Series(np.array(["a", "b", "c"])[y]).astype("category"),
    "list": lambda y: y.tolist(),
    "tensor": lambda y: torch.from_numpy(y),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_type_are_learned_alike(fitted, kind):
    y = LABELS[kind](CLASSES)
    model = ResNetClassifier(**TINY).fit(ROWS, y)
    expected = fitted.predict_proba(ROWS)
    np.testing.assert_array_equal(model.predict_proba(ROWS), expected)
    np.testing.assert_array_equal(model.classes_, np.unique(np.asarray(y)))
    np.testing.assert_array_equal(
        model.predict(ROWS), model.classes_[fitted.predict(ROWS).astype(int)]
    )


def numbers(*edges):
    """Numbers of a parameter: its edges, what lies between, and what it refuses."""
    wrong = [-1, 0, -0.5, 1e-300, 1e300, np.inf, np.nan, True, None, "many"]
    return st.one_of(st.sampled_from([*edges, *wrong]), st.floats(0, 1), st.integers(1, 5))


VALUES = {
    "depth": numbers("auto", 2, 4, 5, 8),
    "width": numbers("auto", 0.01, 1, 2.5),
    "block": st.sampled_from(["auto", "basic", "bottleneck", (1,), (2, 3), (), 3]),
    "order": st.sampled_from(["auto", "original", "full_preactivation", "none"]),
    "shortcut": st.sampled_from(["projection", "zero_pad", "none", None]),
    "layout": st.sampled_from(["auto", "small", "imagenet"]),
    "dropout": numbers(0.0, 0.999),
    "stochastic_depth": numbers(0.0, 0.5),
    "n_estimators": st.sampled_from([1, 2, 0, "auto", 1.5]),
    "l1": numbers(0.0, 1e-3, 1e3),
    "l1_structure": st.sampled_from(["weight", "channel", "all"]),
    "finetune_epochs": st.sampled_from([0, 1, -1]),
    "l2": numbers("auto", 0.0, 1e3),
    "l2_on": st.sampled_from(["kernels", "all"]),
    "optimizer": st.sampled_from(["sgd", "heavy_ball", "adamw", "adam"]),
    "lr": numbers("auto", 1e-6, 1e6),
    "momentum": numbers(0.0, 0.999),
    "schedule": st.sampled_from(["one_cycle", "cosine", "constant", "steps"]),
    "max_epochs": st.sampled_from([1, 2, 0, "auto2"]),
    "max_seconds": numbers(None, 1e-9),
    "batch_size": st.sampled_from(["auto", 2, 3, 39, 40, 41, 10**6, 1, 0]),
    "input_shape": st.sampled_from([None, (5,), (1, 5), (5, 1), (1, 6), (5, 1, 1)]),
    "channel_axis": st.sampled_from(["auto", 1, -1, None, 0]),
    "scale": st.sampled_from(["standard", "robust", None]),
    "validation_split": st.sampled_from(["auto", None, 0.1, 0.9, 1e-9, 1.0]),
    "augment": st.sampled_from([None, "jitter", ["mixup"], "crop", "none", []]),
    "test_time_augmentation": st.sampled_from([None, "flip", ["crop", "flip"], [], "x"]),
    "precision": st.sampled_from(["auto", "float32", "bfloat16"]),
    "warm_start": st.booleans(),
    "random_state": st.sampled_from([0, None, 2**32 - 1, -1, "seed"]),
}
# Few of them at once, or one is wrong in nearly every fit.
PARAMETERS = st.lists(st.sampled_from(sorted(VALUES)), max_size=4, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: VALUES[name] for name in names})
)
SHAPES = st.sampled_from([(5,), (1,), (2, 7), (1, 1), (3, 4, 4), (1, 2, 3, 2)])


@TRIED
@given(
    make=st.sampled_from([ResNetClassifier, WideResNetClassifier, ResNetRegressor]),
    parameters=PARAMETERS,
    shape=SHAPES,
    n=st.integers(1, 12),
)
def test_a_fit_ends_in_finite_predictions_or_an_error_that_can_be_read(
    make, parameters, shape, n
):
    X = np.random.default_rng(0).normal(size=(n, *shape))
    y = np.arange(n) % 2
    given_parameters = {**TINY, "depth": "auto", "width": 0.25, **parameters}
    model = make(**given_parameters)
    before = dict(vars(model))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The one warning of ours: shapes that can be read in two ways, and bfloat16.
        warnings.filterwarnings("ignore", "Samples of shape|On the CPU, gradients")
        refused = None
        try:
            model.fit(X, y)
        except (ValueError, TypeError) as error:
            refused = error
    if refused is not None:
        assert len(str(refused)) > 10
        assert vars(model) == before, "a failed fit left something behind"
        return
    for name, value in before.items():
        assert getattr(model, name) is value, f"fit changed {name}"
    assert np.isfinite(np.asarray(model.predict(X), dtype=float)).all()
    again = clone(model)
    assert again.get_params().keys() == model.get_params().keys()


@TRIED
@given(
    shape=st.sampled_from([(5,), (2, 7), (3, 4, 4)]),
    n_estimators=st.integers(1, 3),
    multilabel=st.booleans(),
    seed=st.integers(0, 100),
)
def test_files_give_the_same_bits(tmp_path, shape, n_estimators, multilabel, seed):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(12, *shape)), np.arange(12) % 3
    y = np.eye(3, dtype=int)[y] if multilabel else y
    settings = {"max_epochs": 1, "width": 0.25, "random_state": seed}
    model = ResNetClassifier(**settings, n_estimators=n_estimators).fit(X, y)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.get_params() == model.get_params()
