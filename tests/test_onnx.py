import functools
import importlib.util
import itertools
import logging
import warnings

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import polars as pl
import pytest
import skl2onnx
import torch
from scipy import sparse
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    StandardScaler,
)
from torch.onnx._internal.exporter import _registration

import sk_resnet
from sk_resnet import (
    ResNetClassifier,
    ResNetEmbedder,
    ResNetRegressor,
    WideResNetClassifier,
    _onnx,
    _onnx_converters,
    register_onnx_converters,
    to_onnx,
)
from sk_resnet._onnx import _initial_types
from sk_resnet._spec import BLOCKS, EMBEDDINGS, ORDERS, SHORTCUTS

SHAPES = {0: (5,), 1: (2, 9), 2: (2, 6, 6), 3: (1, 4, 4, 5)}
SLOW = pytest.mark.slow  # together: each export takes a second
ONE = {"n_estimators": 1, "max_epochs": 2, "random_state": 0}


@pytest.fixture(scope="module", autouse=True)
def registry():
    """Torch's exporter parses hundreds of functions each time: once is enough here."""
    once = functools.cache(_registration.ONNXRegistry.from_torchlib)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_registration.ONNXRegistry, "from_torchlib", staticmethod(once))
        yield once


def samples(n_dims, n=40):
    """Samples in 3 classes."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    X = rng.normal(size=(n, *SHAPES[n_dims])) * 3 + 1
    X[:, 0] += y.reshape(-1, *(1,) * (n_dims or 0))
    return X.astype(np.float32), y


def session(graph):
    onnx.checker.check_model(graph, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph.SerializeToString(), options)


def outputs(graph, *inputs):
    """Outputs by name, for all samples; those for the first one alone are the same."""
    running = session(graph)
    names = [given.name for given in running.get_inputs()]
    assert len(names) == len(inputs)
    found = running.run(None, dict(zip(names, inputs, strict=True)))
    alone = [given[:1] for given in inputs]
    firsts = running.run(None, dict(zip(names, alone, strict=True)))
    for values, first in zip(found, firsts, strict=True):
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values[:1], first, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(values[:1], first)
    return dict(zip([o.name for o in running.get_outputs()], found, strict=True))


def assert_classifies(graph, model, X, *inputs):
    """The graph gives what a classifier predicts."""
    found = outputs(graph, *(inputs or (X,)))
    assert list(found) == ["label", "probabilities"]
    np.testing.assert_array_equal(found["label"], model.predict(X))
    np.testing.assert_allclose(
        found["probabilities"], model.predict_proba(X), rtol=0, atol=1e-5
    )
    return found


# Each row of the tables at least once, and all pairs with a number of dimensions as slow
# tests.
CASES = [
    (0, "original", "basic", "zero_pad"),
    (0, "relu_only_preactivation", "bottleneck", "projection"),
    (1, "full_preactivation", "basic", "none"),
    (1, "norm_after_addition", "bottleneck", "zero_pad"),
    (2, "relu_before_addition", "basic", "projection"),
    (2, "full_preactivation", "bottleneck", "zero_pad"),
    (3, "original", "basic", "projection"),
]
PAIRS = [
    (n_dims, order, block, shortcut)
    for n_dims, order, block, shortcut in itertools.product(
        SHAPES, ORDERS, BLOCKS, SHORTCUTS
    )
    # Every order, and every block with every shortcut.
    if (block, shortcut) == ("basic", "projection") or order == "original"
]


def of_architecture(n_dims, order, block, shortcut):
    depth = 2 + len(BLOCKS[block].kernels) * (3 if n_dims else 1)
    X, y = samples(n_dims)
    model = ResNetClassifier(depth, order=order, block=block, shortcut=shortcut, **ONE)
    return model.fit(X, y), X


def test_the_cases_have_every_row_of_the_tables():
    found = [set(column) for column in zip(*CASES, strict=True)]
    assert found == [set(SHAPES), set(ORDERS), set(BLOCKS), set(SHORTCUTS)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_every_kind_of_network_predicts_the_same(case):
    model, X = of_architecture(*case)
    assert_classifies(to_onnx(model), model, X)


@pytest.mark.slow
@pytest.mark.parametrize("case", PAIRS, ids=lambda case: "-".join(map(str, case)))
def test_every_pair_of_variants_predicts_the_same(case):
    model, X = of_architecture(*case)
    assert_classifies(to_onnx(model), model, X)


def test_ensembles_predict_their_mean():
    X, y = samples(2)
    model = ResNetClassifier(8, **{**ONE, "n_estimators": 3}).fit(X, y)
    assert_classifies(to_onnx(model), model, X)


def test_the_temperature_is_in_the_graph():
    X, y = samples(0)
    model = ResNetClassifier(4, validation_split=0.3, **ONE).fit(X, y)
    assert abs(model.temperature_ - 1) > 0.05
    assert_classifies(to_onnx(model), model, X)


def test_the_views_of_a_prediction_are_in_the_graph():
    X, y = samples(2)
    settings = {"n_estimators": 2, "max_epochs": 1, "random_state": 0}
    model = ResNetClassifier(8, **settings).fit(X, y)
    plain = model.predict_proba(X)
    model.set_params(test_time_augmentation=["crop", "flip"])
    assert np.abs(model.predict_proba(X) - plain).max() > 1e-3
    assert_classifies(to_onnx(model), model, X)


def test_networks_that_were_cut_predict_the_same():
    X, y = samples(2)
    model = ResNetClassifier(8, l1=0.02, l1_structure="channel", **ONE).fit(X, y)
    small = model.compact()
    assert small.n_parameters_ < model.n_parameters_
    graph = to_onnx(small)
    assert_classifies(graph, model, X)
    assert graph.ByteSize() < 4 * model.n_parameters_


def test_wide_networks_with_even_kernels_and_dropout_predict_the_same():
    X, y = samples(1)
    model = WideResNetClassifier(
        10, width=1, block=(2, 3), dropout=0.2, stochastic_depth=0.2, **ONE
    )
    assert_classifies(to_onnx(model.fit(X, y)), model, X)


def test_the_imagenet_layout_predicts_the_same():
    X, y = samples(1)
    kind = {"layout": "imagenet", "block": (15, 7)}
    model = ResNetClassifier(18, width=0.1, **kind, **ONE).fit(X, y)
    assert_classifies(to_onnx(model), model, X)


# Inputs


def test_bytes_with_channels_at_the_end():
    X, y = samples(2)
    X = np.clip(X * 20 + 100, 0, 255).astype(np.uint8).repeat(2, 1)[:, :3]
    X = np.ascontiguousarray(np.moveaxis(X, 1, -1))
    model = ResNetClassifier(8, **ONE).fit(X, y)
    graph = to_onnx(model, X=X)
    assert session(graph).get_inputs()[0].type == "tensor(uint8)"
    assert_classifies(graph, model, X)


def test_what_is_centred_in_float64_is_so_in_the_graph():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 3)) + 1e9, np.arange(40) % 2
    X[:, 0] += y
    model = ResNetClassifier(4, **ONE).fit(X, y)
    found = assert_classifies(to_onnx(model, X=X), model, X)
    assert found["probabilities"].dtype == np.float64


@pytest.mark.parametrize("name", EMBEDDINGS)
@pytest.mark.parametrize("n_estimators", [1, 2])
def test_embeddings_of_numbers_behind_robust_scaling(name, n_estimators):
    X, y = samples(0)
    X[0] = 1000
    settings = {**ONE, "n_estimators": n_estimators}
    model = ResNetClassifier(4, embedding=name, scale="robust", **settings).fit(X, y)
    assert_classifies(to_onnx(model), model, X)


def test_input_that_is_not_scaled():
    X, y = samples(0)
    model = ResNetClassifier(4, scale=None, **ONE).fit(X, y)
    assert_classifies(to_onnx(model), model, X)


def test_unequal_series_of_any_length():
    rng = np.random.default_rng(0)
    series = [rng.normal(size=(2, n)).astype(np.float32) for n in range(3, 23)]
    y = np.arange(20) % 2
    model = ResNetClassifier(8, **{**ONE, "n_estimators": 2}).fit(series, y)
    graph = to_onnx(model, X=series)
    for lengths in (slice(None), slice(0, 7), slice(0, 1)):
        some = series[lengths]
        X = np.full((len(some), 2, max(x.shape[1] for x in some)), np.nan, np.float32)
        for row, x in zip(X, some, strict=True):
            row[:, : x.shape[1]] = x
        assert_classifies(graph, model, X)
    longer = rng.normal(size=(3, 2, 70)).astype(np.float32)
    assert_classifies(graph, model, longer)


@pytest.mark.parametrize("n_most", [2, pytest.param(24, marks=SLOW)])
def test_unequal_series_of_one_channel_without_an_axis_for_it(n_most):
    rng = np.random.default_rng(0)
    series = [rng.normal(size=n).astype(np.float32) for n in range(1, n_most + 1)] * 5
    y = np.arange(len(series)) % 3 > 0
    model = ResNetClassifier(8, channel_axis=None, **ONE).fit(series, y)
    X = rng.normal(size=(4, 31)).astype(np.float32)
    X[0, 7:] = np.nan
    graph = to_onnx(model)
    assert_classifies(graph, model, X)
    assert_classifies(graph, model, X[:, :1])


# Outputs


@pytest.mark.parametrize(
    "labels",
    [
        ["no", "yes", "maybe ü"],
        [7, -3, 2**40],
        pytest.param(np.array(["no", "yes", "?"], dtype=object), marks=SLOW),
        pytest.param([2.0, 1.0, 5.0], marks=SLOW),
        pytest.param([False, True, True], marks=SLOW),
    ],
)
def test_labels_are_integers_or_strings(labels):
    X, y = samples(0)
    model = ResNetClassifier(4, **ONE).fit(X, np.asarray(labels)[y])
    graph = to_onnx(model)
    is_string = isinstance(labels[0], str)
    kind = "tensor(string)" if is_string else "tensor(int64)"
    assert session(graph).get_outputs()[0].type == kind
    assert_classifies(graph, model, X)


def test_sets_of_labels():
    X, y = samples(0)
    Y = np.stack([y == 0, y > 0, X[:, 1] > 1], axis=1).astype(int)
    model = ResNetClassifier(4, **{**ONE, "n_estimators": 3}).fit(X, Y)
    found = assert_classifies(to_onnx(model), model, X)
    assert found["label"].shape == (40, 3)
    assert 0 < found["label"].mean() < 1


@pytest.mark.parametrize(
    ("n_outputs", "n_estimators"), [pytest.param(None, 1, marks=SLOW), (2, 2)]
)
def test_numbers_are_in_the_units_of_y(n_outputs, n_estimators):
    X, _ = samples(0)
    y = 1e4 * X[:, 0] - 5e5 if n_outputs is None else X[:, :2] * (3, 70) + (-2, 1e3)
    model = ResNetRegressor(4, **{**ONE, "n_estimators": n_estimators}).fit(X, y)
    found = outputs(to_onnx(model), X)
    assert list(found) == ["variable"]
    expected = model.predict(X).reshape(40, -1)
    error = np.abs(found["variable"] - expected) / y.std(axis=0)
    assert error.max() < 1e-5


def test_embeddings_alone():
    X, y = samples(0)
    network = ResNetClassifier(4, **{**ONE, "n_estimators": 2})
    embedder = ResNetEmbedder(network).fit(X, y)
    found = outputs(to_onnx(embedder), X)
    assert list(found) == ["variable"]
    np.testing.assert_allclose(found["variable"], embedder.transform(X), atol=1e-5)


def test_embeddings_before_another_model():
    X, y = samples(2)
    frozen = FrozenEstimator(ResNetClassifier(8, **ONE).fit(X, y))
    model = make_pipeline(ResNetEmbedder(frozen), KNeighborsClassifier()).fit(X, y)
    assert_classifies(to_onnx(model), model, X)


# Pipelines


def test_steps_before_the_network():
    X, y = samples(2)
    rows = X.reshape(40, -1)
    network = ResNetClassifier(8, input_shape=(2, 6, 6), **ONE)
    model = make_pipeline(make_pipeline(StandardScaler(), MinMaxScaler()), network)
    model.fit(rows, y)
    assert_classifies(to_onnx(model), model, rows)


def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "city": rng.choice(["Rome", "Oslo"], 40),
            "age": rng.normal(40, 9, 40).astype(np.float32),
            "income": rng.normal(2, 1, 40).astype(np.float32),
        }
    )


def test_columns_of_a_table_are_inputs():
    X = table()
    y = np.where(X["city"] == "Rome", "a", "b")
    columns = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["city"]),
        (StandardScaler(), ["age", "income"]),
    )
    model = make_pipeline(columns, ResNetClassifier(4, **ONE)).fit(X, y)
    graph = to_onnx(model, X=X)
    names = [given.name for given in graph.graph.input]
    assert names == ["city", "age", "income"]
    given = [X[name].to_numpy()[:, None] for name in names]
    assert_classifies(graph, model, X, *given)


def test_tables_of_polars_and_of_objects_have_the_same_types():
    X = table().assign(n=np.arange(40))
    model = StandardScaler()
    expected = [(name, repr(kind)) for name, kind in _initial_types(model, X)]
    assert [kind.partition("(")[0] for _, kind in expected] == [
        "StringTensorType",
        "FloatTensorType",
        "FloatTensorType",
        "Int64TensorType",
    ]
    columns = {name: X[name].to_numpy() for name in X}
    found = _initial_types(model, pl.DataFrame(columns))
    assert [(name, repr(kind)) for name, kind in found] == expected
    objects = X[["city", "n"]].astype(object)
    found = _initial_types(model, objects)
    assert [(name, repr(kind)) for name, kind in found] == [expected[0], expected[3]]


def test_columns_go_into_a_network_side_by_side():
    X = pd.DataFrame({"a": np.arange(40), "b": np.linspace(0, 1, 40, dtype=np.float32)})
    model = ResNetClassifier(4, **ONE).fit(X, np.arange(40) > 20)
    graph = to_onnx(model, X=X)
    assert_classifies(graph, model, X, *(X[[name]].to_numpy() for name in X))
    # Or as one input.
    assert_classifies(to_onnx(model), model, X, X.to_numpy().astype(np.float32))


def test_a_network_among_other_transformers():
    X, y = samples(0)
    features = ColumnTransformer(
        [
            ("net", ResNetEmbedder(ResNetClassifier(4, **ONE)), [0, 2]),
            ("keep", MinMaxScaler(), [1]),
        ]
    )
    union = FeatureUnion([("columns", features), ("all", StandardScaler())])
    model = make_pipeline(union, KNeighborsClassifier(3)).fit(X, y)
    assert_classifies(to_onnx(model), model, X)


def test_the_best_of_a_search():
    X, y = samples(0)
    pipeline = make_pipeline(StandardScaler(), ResNetClassifier(4, **ONE))
    search = GridSearchCV(pipeline, {"resnetclassifier__depth": [4]}, cv=2).fit(X, y)
    assert_classifies(to_onnx(search), search, X)


@pytest.mark.slow
def test_networks_within_another_estimator():
    X, y = samples(0)
    model = CalibratedClassifierCV(ResNetClassifier(4, **ONE), cv=2).fit(X, y)
    assert_classifies(to_onnx(model), model, X)


def test_skl2onnx_converts_our_classes_by_itself():
    X, y = samples(0)
    network = ResNetClassifier(4, **ONE)
    model = make_pipeline(StandardScaler(), network).fit(X, np.array(["a", "b", "c"])[y])
    register_onnx_converters()
    expected = model.predict_proba(X)

    graph = skl2onnx.to_onnx(model, X)
    labels, maps = session(graph).run(None, {"X": X})
    np.testing.assert_array_equal(labels, model.predict(X))
    np.testing.assert_allclose(pd.DataFrame(maps)[["a", "b", "c"]], expected, atol=1e-5)

    options = {id(network): {"zipmap": "columns"}}
    found = outputs(skl2onnx.to_onnx(model, X, options=options), X)
    for i, name in enumerate(["sa", "sb", "sc"]):
        np.testing.assert_allclose(found[name], expected[:, i], atol=1e-5)


@pytest.mark.parametrize(
    "option", ["nocl", pytest.param("output_class_labels", marks=SLOW)]
)
def test_options_of_classifiers_of_skl2onnx(option):
    X, y = samples(0)
    model = ResNetClassifier(4, **ONE).fit(X, np.array(["a", "b", "c"])[y])
    register_onnx_converters()
    graph = skl2onnx.to_onnx(model, X, options={id(model): {"zipmap": False, option: True}})
    found = session(graph).run(None, {"X": X})
    if option == "nocl":
        np.testing.assert_array_equal(found[0], model.predict_proba(X).argmax(1))
    else:
        np.testing.assert_array_equal(found[2], ["a", "b", "c"])


# The file, and what is left alone


def test_the_file_holds_the_graph(tmp_path):
    X, y = samples(0)
    model = ResNetClassifier(4, **ONE).fit(X, y)
    path = tmp_path / "model.onnx"
    path.write_text("earlier")
    graph = to_onnx(model, path, target_opset=18)
    assert onnx.load(path) == graph
    assert [(o.domain, o.version) for o in graph.opset_import] == [("", 18)]
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert_classifies(graph, model, X)


def test_a_file_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    X, y = samples(0)
    model = ResNetClassifier(4, **ONE).fit(X, y)
    monkeypatch.setattr(_onnx, "_converted", lambda *_: onnx.ModelProto())
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        to_onnx(model, tmp_path / "missing" / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_changes(capfd, caplog, registry):
    registry.cache_clear()
    X, y = samples(0)
    model = ResNetClassifier(4, **ONE).fit(X, y)
    before = model.predict_proba(X)
    weights = [w.data_ptr() for w in model.module_.parameters()]
    torch.manual_seed(0)
    state, filters = torch.get_rng_state(), list(warnings.filters)
    level = logging.getLogger("torch.onnx").level
    with torch.inference_mode():
        first = to_onnx(model)
    assert first == to_onnx(model)
    assert capfd.readouterr() == ("", "")
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
    assert torch.equal(torch.get_rng_state(), state)
    assert logging.getLogger("torch.onnx").level == level
    assert list(warnings.filters) == filters
    assert [w.data_ptr() for w in model.module_.parameters()] == weights
    assert all(w.requires_grad for w in model.module_.parameters())
    np.testing.assert_array_equal(model.predict_proba(X), before)


# Errors


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "skl2onnx"])
def test_a_missing_package_is_named(name, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == name else find(n)
    )
    with pytest.raises(ImportError, match=rf"needs {name}: pip install 'sk-resnet\[onnx"):
        to_onnx(ResNetClassifier())


@pytest.mark.parametrize("model", [ResNetClassifier, "model.skr"])
def test_what_is_no_estimator_is_refused(model):
    with pytest.raises(TypeError, match="model must be a fitted estimator or pipeline"):
        to_onnx(model)


@pytest.mark.parametrize(
    "model", [ResNetClassifier(), make_pipeline(StandardScaler(), ResNetRegressor())]
)
def test_a_model_must_be_fitted(model):
    with pytest.raises(NotFittedError):
        to_onnx(model)


class Doubled(StandardScaler):
    """A step that skl2onnx does not know."""


def test_steps_without_a_converter_are_named():
    X, y = samples(0)
    network = ResNetClassifier(4, **ONE)
    inner = make_pipeline(Doubled(), "passthrough", MinMaxScaler())
    model = make_pipeline(StandardScaler(), inner, network).fit(X, y)
    shown = r"'pipeline__doubled' \(Doubled\), 'pipeline__passthrough' \(passthrough\): "
    with pytest.raises(ValueError, match=f"no converter for {shown}leave such steps out"):
        to_onnx(model)


@pytest.mark.parametrize(
    ("step", "dtype"),
    [
        (FunctionTransformer(np.cbrt), np.float32),
        # Its converter makes a graph for double precision that is not valid.
        (PolynomialFeatures(2), np.float64),
        # This graph is valid, but nothing runs it.
        (SimpleImputer(), np.float64),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_steps_that_skl2onnx_fails_on_are_named(step, dtype):
    X, y = samples(0)
    model = make_pipeline(step, ResNetClassifier(4, **ONE)).fit(X, y)
    name = type(step).__name__
    match = (
        rf"one of its steps '{name.lower()}' \({name}\), for inputs of these types; most"
    )
    with pytest.raises(ValueError, match=match):
        to_onnx(model, X=X.astype(dtype))


def test_what_skl2onnx_leaves_out_is_noticed():
    X, y = samples(0)
    X[::7, 1] = np.nan
    steps = SimpleImputer(add_indicator=True), ResNetClassifier(4, **ONE)
    model = make_pipeline(*steps).fit(X, y)
    match = r"shape \(6,\), but gets \(5,\): .* skl2onnx leaves out some of what a step"
    with pytest.raises(ValueError, match=match):
        to_onnx(model)


def test_samples_are_needed_where_no_step_tells_their_shape():
    X = ["red sky", "blue sea", "red", "blue"] * 5
    steps = CountVectorizer(), FunctionTransformer(sparse.csr_matrix.toarray)
    model = make_pipeline(*steps, ResNetClassifier(4, **ONE)).fit(X, [0, 1] * 10)
    with pytest.raises(ValueError, match="which samples it was fitted on: pass some as X"):
        to_onnx(model)


def test_columns_with_names_need_some_rows():
    X, y = table()[["age", "income"]], np.arange(40) % 2
    model = make_pipeline(StandardScaler(), ResNetClassifier(4, **ONE)).fit(X, y)
    with pytest.raises(ValueError, match="columns with names: pass some rows as X"):
        to_onnx(model)


def test_labels_that_onnx_does_not_have_are_refused():
    X, y = samples(0)
    model = ResNetClassifier(4, **ONE).fit(X, y > 0)
    model.classes_ = np.array([0.5, 1.0])
    with pytest.raises(ValueError, match=r"integers or strings, got \[0.5, 1.0\]: convert"):
        to_onnx(model)


def test_samples_of_another_shape_or_type_are_refused():
    X, y = samples(2)
    model = ResNetClassifier(8, **ONE).fit(X, y)
    with pytest.raises(ValueError, match=r"fitted on \(2, 6, 6\)"):
        to_onnx(model, X=X[:, :, :5])
    with pytest.raises(ValueError, match="bool, got int16: convert it"):
        to_onnx(model, X=X.astype(np.int16))
    register_onnx_converters()
    match = r"reads samples of shape \(2, 6, 6\), but gets \(2, 6, 5\): X has another"
    with pytest.raises(ValueError, match=match):
        skl2onnx.to_onnx(model, X[..., :5])
    columns = pd.DataFrame(X[:, 0, 0])
    with pytest.raises(ValueError, match=r"\(2, 6, 6\), but gets \(6,\): X has another"):
        to_onnx(model, X=columns)


def test_columns_are_those_of_the_fit():
    X, y = table(), np.arange(40) % 2
    numbers = X[["age", "income"]]
    for model in (
        ResNetClassifier(4, **ONE).fit(numbers, y),
        make_pipeline(StandardScaler(), ResNetClassifier(4, **ONE)).fit(numbers, y),
    ):
        for other in (numbers[["income", "age"]], numbers.rename(columns={"age": "a"})):
            with pytest.raises(ValueError, match="fitted on, age, income, got "):
                to_onnx(model, X=other[:1])
    columns = make_column_transformer((StandardScaler(), ["income", "age"]))
    model = make_pipeline(columns, ResNetClassifier(4, **ONE)).fit(numbers, y)
    graph = to_onnx(model, X=numbers[["income", "age"]][:1])
    inputs = numbers[["income"]].to_numpy(), numbers[["age"]].to_numpy()
    assert_classifies(graph, model, numbers, *inputs)
    with pytest.raises(ValueError, match="fitted on, age, income, got age\\."):
        to_onnx(model, X=numbers[["age"]])


def test_columns_that_onnx_has_no_type_for_are_named():
    X = table().assign(day=pd.Timestamp("2026-01-01"))
    columns = make_column_transformer((StandardScaler(), ["age", "income"]))
    model = make_pipeline(columns, ResNetClassifier(4, **ONE)).fit(X, np.arange(40) % 2)
    with pytest.raises(ValueError, match="Column 'day' of X has values of type datetime64"):
        to_onnx(model, X=X[:1])
    with pytest.raises(ValueError, match="X has no samples"):
        to_onnx(model, X=X[:0])


def test_names_of_several_graphs_do_not_meet():
    # skl2onnx calls the second view_6 of this graph view_61, as another value is called.
    X = np.random.default_rng(0).integers(0, 256, (20, 8, 10, 3)).astype(np.uint8)
    views = {"test_time_augmentation": ["crop", "flip"]}
    model = ResNetClassifier(8, width=4, **{**ONE, "n_estimators": 3}, **views)
    model.fit(X, np.arange(20) % 2)
    assert_classifies(to_onnx(model, X=X[:1]), model, X)


@pytest.mark.parametrize("opset", [99, "18", 18.5, True])
def test_opsets_that_do_not_exist_are_refused(opset):
    model = ResNetClassifier(4, **ONE).fit(*samples(0))
    with pytest.raises(ValueError, match="target_opset must be an integer from 18, which"):
        to_onnx(model, target_opset=opset)


def test_old_opsets_are_refused():
    X, y = samples(0)
    model = ResNetClassifier(4, **ONE).fit(X, y)
    with pytest.raises(
        ValueError, match="an integer from 18, which torch needs, to .* got 17"
    ):
        to_onnx(model, target_opset=17)


def test_networks_that_no_file_holds_are_refused(monkeypatch):
    X, y = samples(0)
    model = ResNetClassifier(4, **ONE).fit(X, y)
    monkeypatch.setattr(_onnx_converters, "MOST_BYTES", 1000)
    with pytest.raises(
        ValueError, match=r"less than 1,000 bytes, but .* have \d+,\d+: use"
    ):
        to_onnx(model)


# torch.export


@pytest.mark.parametrize(
    ("n_dims", "n_estimators"),
    [(0, 2), (2, 1), pytest.param(1, 1, marks=SLOW), pytest.param(3, 1, marks=SLOW)],
)
def test_torch_exports_the_module(n_dims, n_estimators, tmp_path):
    X, y = samples(n_dims)
    depth = 8 if n_dims else 4
    model = ResNetClassifier(depth, **{**ONE, "n_estimators": n_estimators}).fit(X, y)
    x = torch.from_numpy(model.network_input(X))
    program = torch.export.export(
        model.module_, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    torch.export.save(program, tmp_path / "model.pt2")
    module = torch.export.load(tmp_path / "model.pt2").module()
    with torch.no_grad():
        for some in (x, x[:1], x[:7]):
            torch.testing.assert_close(module(some), model.module_(some))


def test_torch_exports_the_module_of_unequal_series():
    rng = np.random.default_rng(0)
    series = [rng.normal(size=(2, n)) for n in range(3, 23)]
    model = ResNetClassifier(8, **ONE).fit(series, np.arange(20) % 2)
    x = torch.from_numpy(model.network_input(series))
    axes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    module = torch.export.export(model.module_, (x,), dynamic_shapes=(axes,)).module()
    with torch.no_grad():
        for some in (x, x[:3, :, :7]):
            torch.testing.assert_close(module(some), model.module_(some))


def test_the_names_are_public():
    assert {"to_onnx", "register_onnx_converters"} <= set(sk_resnet.__all__)
