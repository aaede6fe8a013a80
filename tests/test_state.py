import copy
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest

import sk_resnet
from sk_resnet import (
    EarlyStopping,
    ResNetClassifier,
    ResNetRegressor,
    WideResNetClassifier,
)
from sk_resnet._state import (
    FORMAT,
    arrays_to_weights,
    check_versions,
    n_bytes,
    packed,
    unpacked,
    versions,
)

LOAD = """
import sys
import joblib
import numpy as np
model = joblib.load(sys.argv[1], mmap_mode=sys.argv[3] or None)
np.save(sys.argv[2] + ".out.npy", model.predict_proba(np.load(sys.argv[2])))
assert "torch._dynamo" not in sys.modules  # which takes seconds to import
"""


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2, 6, 6)).astype(np.float32)
    y = np.array(["ant", "bee"])[np.arange(40) % 2]
    model = WideResNetClassifier(
        depth=10, width=1, dropout=0.1, max_epochs=2, random_state=0, batch_size=16
    )
    model.set_params(validation_split=0.2, callbacks=[EarlyStopping()])
    return model.fit(X, y), X


@pytest.mark.parametrize("mmap_mode", ["", "c", "r"])
def test_a_new_process_predicts_the_same_bits(fitted, tmp_path, mmap_mode):
    model, X = fitted
    path, data = tmp_path / "model.joblib", tmp_path / "X.npy"
    joblib.dump(model, path)
    np.save(data, X)
    arguments = [sys.executable, "-c", LOAD, path, data, mmap_mode]
    root = Path(sk_resnet.__file__).parents[1]
    subprocess.run(list(map(str, arguments)), check=True, cwd=root)
    np.testing.assert_array_equal(np.load(f"{data}.out.npy"), model.predict_proba(X))


def test_memory_mapped_weights_are_not_copied(fitted, tmp_path, monkeypatch):
    model, X = fitted
    path = tmp_path / "model.joblib"
    joblib.dump(model, path)
    seen = {}

    def spy(network, arrays, device):
        seen.update(arrays)
        return arrays_to_weights(network, arrays, device)

    monkeypatch.setattr("sk_resnet._state.arrays_to_weights", spy)
    loaded = joblib.load(path, mmap_mode="c")
    mapped = seen["classifier.weight"]
    assert isinstance(mapped, np.memmap)
    assert mapped.ctypes.data == loaded.module_.classifier.weight.data_ptr()
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_training_does_not_write_into_the_file(fitted, tmp_path, mode):
    model, X = fitted
    path = tmp_path / "model.joblib"
    joblib.dump(model, path)
    before = path.read_bytes()
    loaded = joblib.load(path, mmap_mode=mode)
    loaded.partial_fit(X, model.predict(X))
    assert not np.array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert path.read_bytes() == before


def test_the_state_is_arrays_and_plain_values_without_optimizer_or_batches(fitted):
    model, _ = fitted
    allowed = (np.ndarray, str, int, float, bool, type(None), EarlyStopping, np.generic)
    to_visit = [model.__getstate__()]
    while to_visit:
        value = to_visit.pop()
        if isinstance(value, dict):
            to_visit += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple)):
            to_visit += value
        else:
            assert isinstance(value, allowed), type(value)
    n_bytes = sum(w.nbytes for w in model.__getstate__()["_saved"]["weights"].values())
    assert n_bytes < 1.1 * 4 * model.n_parameters_


def test_a_loaded_model_keeps_its_history_and_trains_on(fitted, tmp_path):
    model, X = fitted
    path = tmp_path / "model.joblib"
    joblib.dump(model, path)
    loaded = joblib.load(path)
    assert loaded.history_ == model.history_
    y = model.classes_[np.arange(40) % 2]
    before = loaded.predict_proba(X)
    loaded.partial_fit(X, y)
    assert loaded.n_epochs_ == model.n_epochs_ + 1
    assert [row["epoch"] for row in loaded.history_] == [1, 2, 3]
    assert not np.array_equal(loaded.predict_proba(X), before)


def test_a_deep_copy_is_independent(fitted):
    model, X = fitted
    before = model.predict_proba(X)
    other = copy.deepcopy(model)
    other.partial_fit(X, model.classes_[np.arange(40) % 2])
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_parameters_set_after_the_fit_do_not_change_a_saved_model(fitted, tmp_path):
    model, X = fitted
    changed = copy.deepcopy(model).set_params(depth=16, width=2, batch_size=7)
    path = tmp_path / "model.joblib"
    joblib.dump(changed, path)
    np.testing.assert_array_equal(
        joblib.load(path).predict_proba(X), model.predict_proba(X)
    )


def test_skew_of_versions_warns(fitted):
    state = fitted[0].__getstate__()
    state["_saved"]["versions"] = {**versions(), "torch": "1.0"}
    model = ResNetClassifier.__new__(ResNetClassifier)
    with pytest.warns(UserWarning, match=r"saved with torch 1\.0 \(here "):
        model.__setstate__(state)


def test_a_newer_format_is_refused():
    with pytest.raises(ValueError, match=r"reads formats up to .*: upgrade sk_resnet"):
        check_versions(FORMAT + 1, versions())


def test_an_unfitted_model_is_saved_too(tmp_path):
    path = tmp_path / "model.joblib"
    joblib.dump(ResNetClassifier(depth=8), path)
    assert joblib.load(path).depth == 8


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.9, 1.0])
def test_packing_keeps_every_bit(share):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(17, 5, 3)).astype(np.float32)
    a[rng.random(a.shape) < share] = 0
    a[0, 0] = [-0.0, np.nan, 1e-45]
    stored = packed({"a": a, "count": np.array(7)})
    assert isinstance(stored["a"], dict) == (share > 0.1)
    again = unpacked(stored)
    assert again["a"].tobytes() == a.tobytes()
    assert again["count"] == 7
    if share == 0.9:
        n_kept = (a.ravel().view(np.uint32) != 0).sum()
        assert n_bytes(stored) == 4 * n_kept + -(-a.size // 8) + 8


def test_sparse_models_are_small_and_the_same(images, tmp_path):
    X, y = images
    sizes = {}
    for l1 in (0.0, 0.05):
        model = ResNetClassifier(8, max_epochs=15, batch_size=8, random_state=0, l1=l1)
        joblib.dump(model.fit(X, y), tmp_path / "model.joblib")
        sizes[l1] = (tmp_path / "model.joblib").stat().st_size
        again = joblib.load(tmp_path / "model.joblib")
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert model.sparsity_ > 0.8
    assert sizes[0.05] < sizes[0.0] / 2


GOLDEN = Path(__file__).parent / "golden"


GOLDEN_FILES = sorted(path.name for path in GOLDEN.glob("format*.[js]*"))


@pytest.mark.parametrize("name", GOLDEN_FILES)
@pytest.mark.filterwarnings("ignore:This model was saved with")
def test_files_of_earlier_versions_are_read(name):
    X, path = golden_samples(name), GOLDEN / name
    model = sk_resnet.load(path) if name.endswith("skr") else joblib.load(path)
    expected = np.load(path.with_suffix(".npy"))
    predict = getattr(model, "predict_proba", model.predict)
    np.testing.assert_allclose(predict(X), expected, atol=1e-4)
    assert model.partial_fit(X, golden_y(name)).n_epochs_ == 3


def golden_samples(name):
    shape = (12, 2, 60) if "series" in name else (12, 2, 5, 5)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def golden_y(name):
    if "numbers" in name:
        return np.linspace(-5, 5, 24).reshape(12, 2)
    if "sets" in name:
        return np.eye(3, dtype=int)[np.arange(12) % 3]
    return np.array(["a", "b", "c"])[np.arange(12) % 3]


def write_golden_files():
    """Files of the present format; called once by hand for a new format."""
    settings = {"width": 0.25, "max_epochs": 2, "channel_axis": 1, "random_state": 0}
    for kind, name, form in (
        (WideResNetClassifier, "labels", "skr"),
        (ResNetClassifier, "sets", "joblib"),
        (ResNetRegressor, "numbers", "skr"),
        (ResNetClassifier, "ensemble", "skr"),
        (ResNetClassifier, "series", "skr"),
    ):
        X = golden_samples(name)
        path = GOLDEN / f"format{FORMAT}_{name}.{form}"
        depth = 10 if kind is WideResNetClassifier else 8
        n = 2 if name == "ensemble" else 1
        model = kind(depth=depth, n_estimators=n, **settings).fit(X, golden_y(name))
        (sk_resnet.save if form == "skr" else joblib.dump)(model, path)
        np.save(path.with_suffix(".npy"), getattr(model, "predict_proba", model.predict)(X))


BREAKS = [
    ("numbers", ("target", "mean"), None),
    ("numbers", ("target", "scale"), "x"),
    ("numbers", ("target", "mean"), np.array([np.nan, 0.0])),
    ("numbers", ("target", "mean"), np.zeros(7)),
    ("numbers", ("target", "loss"), "foo"),
    ("numbers", ("target", "quantile"), 2.0),
    ("numbers", ("target", "is_flat"), True),
    ("labels", ("target", "classes"), ["a", "b", "c"]),
    ("labels", ("target", "classes"), np.array(["b", "a", "c"])),
    ("labels", ("target", "classes"), np.array(["a", "b", "z"])),
    ("labels", ("target", "kind"), "label_sets"),
    ("labels", ("input", "mean"), np.zeros(1)),
    ("labels", ("input", "scale"), None),
    ("labels", ("input", "scale"), np.zeros(2)),
    ("labels", ("input", "input_shape"), (3,)),
    ("labels", ("input", "channel_axis"), 5),
    ("labels", ("network", "members"), 0),
    ("labels", ("network", "members"), -1),
    ("labels", ("network", "members"), 2),
    ("labels", ("network", "members"), 10**12),
    ("labels", ("network", "members"), "x"),
]


def of_golden_file(kind, version=3):
    """State of a model that was saved with whatever versions were new then."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This model was saved with", UserWarning)
        return sk_resnet.load(GOLDEN / f"format{version}_{kind}.skr").__getstate__()


@pytest.mark.parametrize(("kind", "place", "value"), BREAKS)
def test_states_whose_parts_do_not_fit_together(kind, place, value):
    state = of_golden_file(kind)
    part, name = place
    state["_saved"][part] = {**state["_saved"][part], name: value}
    fresh = (ResNetRegressor if kind == "numbers" else WideResNetClassifier)()
    with pytest.raises(sk_resnet.ModelFileError):
        fresh.__setstate__(state)


@pytest.mark.parametrize("dilation", [0, 3, 4, 1.0, 2.0, True, "x"])
def test_states_of_no_dilation(dilation):
    state = of_golden_file("series", version=5)
    network = state["_saved"]["network"]
    stages = [dict(stage) for stage in network["stages"]]
    stages[1]["dilation"] = dilation
    state["_saved"]["network"] = {**network, "stages": stages}
    with pytest.raises(sk_resnet.ModelFileError, match="has dilations that no network"):
        ResNetClassifier().__setstate__(state)


@pytest.mark.parametrize("size", ["a", 0, -1, 10**12])
def test_states_of_no_batch_size(size):
    state = of_golden_file("labels")
    with pytest.raises(sk_resnet.ModelFileError, match="batch size"):
        WideResNetClassifier().__setstate__({**state, "batch_size_": size})


def test_a_state_of_another_kind_of_estimator():
    state = of_golden_file("numbers")
    del state["loss"], state["quantile"]
    with pytest.raises(sk_resnet.ModelFileError, match="kind of estimator"):
        ResNetClassifier().__setstate__(state)


def test_weights_of_another_precision():
    state = of_golden_file("labels")
    weights = state["_saved"]["weights"]
    name = "classifier.weight"
    changed = {**weights, name: np.asarray(weights[name], dtype=np.float64)}
    state["_saved"] = {**state["_saved"], "weights": changed}
    with pytest.raises(sk_resnet.ModelFileError, match="needs float32 of shape"):
        WideResNetClassifier().__setstate__(state)
