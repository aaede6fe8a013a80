import pickle
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from skorch.helper import SliceDataset
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from sk_resnet import ResNetClassifier, ResNetEmbedder, ResNetRegressor, _samples

DIGITS, LABELS = load_digits(return_X_y=True)
IMAGES = (DIGITS[:80].reshape(-1, 8, 8) * 15).astype(np.uint8)
LABELS = LABELS[:80] % 3
MODEL = ResNetClassifier(8, width=0.5, max_epochs=2, random_state=0, device="cpu")
COLOUR = IMAGES[..., None].repeat(3, axis=3)
FLOATS = (COLOUR.transpose(0, 3, 1, 2) / 255).astype(np.float32)


class Pairs:
    """A plain class, with no end that Python's own iteration would find."""

    def __init__(self, X=COLOUR, y=LABELS):
        self.X, self.y, self.n_read = X, y, 0

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        self.n_read += 1
        return self.X[i], self.y[i]


class Alone(Pairs):
    """Samples without y."""

    def __getitem__(self, i):
        return self.X[i]


class Fields(Pairs):
    """Dicts, as the datasets of Hugging Face give them."""

    def __getitem__(self, i):
        return {"image": self.X[i], "label": self.y[i]}


class Files(Dataset):
    """Reads images of files, with the attributes of torchvision's ImageFolder."""

    def __init__(self, folder):
        self.samples = [(file, int(file.parent.name)) for file in folder.glob("*/*.png")]
        self.samples.sort(key=lambda pair: pair[0].name)
        self.targets = [label for _, label in self.samples]

    def __len__(self):
        return len(self.samples)

    def given(self, i):
        return self.targets[i]

    def __getitem__(self, i):
        file, label = self.samples[i]
        return Image.open(file).convert("RGB"), label


def files(folder):
    for i, (image, label) in enumerate(zip(COLOUR, LABELS, strict=True)):
        (folder / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{i:03}.png")
    return Files(folder)


def hugging_face(folder):
    datasets = pytest.importorskip("datasets")
    columns = {"image": FLOATS.reshape(80, -1).tolist(), "label": LABELS.tolist()}
    table = datasets.table.InMemoryTable(datasets.table.pa.table(columns))
    # A fingerprint given, or it would be made from a pickle of everything.
    return datasets.Dataset(table, fingerprint="digits").with_format("torch")


DATASETS = {
    "plain": lambda folder: Pairs(),
    "tensors": lambda folder: TensorDataset(
        torch.from_numpy(FLOATS), torch.from_numpy(LABELS)
    ),
    "subset": lambda folder: Subset(Pairs(), range(len(COLOUR))),
    "dicts": lambda folder: Fields(FLOATS),
    "files": files,
    "hugging face": hugging_face,
}


@pytest.fixture(params=[True, False], ids=["in memory", "batch by batch"])
def in_memory(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(_samples, "RESIDENT_BYTES", 0)
    return request.param


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_is_the_array_of_its_samples(name, in_memory, tmp_path):
    dataset = DATASETS[name](tmp_path)
    X = FLOATS if name in ("tensors", "dicts", "hugging face") else COLOUR
    model = clone(MODEL)
    if name == "hugging face":
        X = X.reshape(80, -1)
        model.set_params(input_shape=(3, 8, 8))
    expected = clone(model).fit(X, LABELS)
    found = clone(model).fit(dataset)
    proba = expected.predict_proba(X)
    np.testing.assert_array_equal(found.predict_proba(X), proba)
    np.testing.assert_array_equal(found.predict_proba(dataset), proba)
    np.testing.assert_array_equal(found.classes_, [0, 1, 2])
    assert found.input_shape_ == expected.input_shape_
    assert found.score(dataset, LABELS) == expected.score(X, LABELS)
    assert clone(model).fit(dataset, LABELS[::-1]).n_epochs_ == 2


def test_rows_and_numbers(in_memory):
    X, y = DIGITS[:60], DIGITS[:60, 10] * 3.0
    model = ResNetRegressor(4, n_estimators=2, max_epochs=2, random_state=0)
    expected = clone(model).fit(X, y)
    found = clone(model).fit(Pairs(X, y))
    np.testing.assert_array_equal(found.predict(Alone(X)), expected.predict(X))
    assert found.n_features_in_ == 64
    with pytest.raises(ValueError, match="64"):
        found.predict(Alone(X[:, 1:]))
    assert not hasattr(
        found.set_params(depth=8).fit(Pairs(X[:, None], y)), "n_features_in_"
    )


def test_partial_fit_and_validation(in_memory):
    expected, found = clone(MODEL), clone(MODEL)
    for _ in range(2):
        expected.partial_fit(COLOUR, LABELS, classes=[0, 1, 2])
        found.partial_fit(Pairs(), classes=[0, 1, 2])
    proba = expected.predict_proba(COLOUR)
    np.testing.assert_array_equal(found.predict_proba(COLOUR), proba)
    expected.fit(COLOUR[:60], LABELS[:60], X_val=COLOUR[60:], y_val=LABELS[60:])
    found.fit(Pairs(COLOUR[:60], LABELS[:60]), X_val=Pairs(COLOUR[60:], LABELS[60:]))
    assert found.history_[-1]["valid_loss"] == expected.history_[-1]["valid_loss"]
    for model, data in ((expected, (COLOUR, LABELS)), (found, (Pairs(),))):
        model.set_params(validation_split=0.25).fit(*data)
    assert found.history_[-1]["valid_loss"] == expected.history_[-1]["valid_loss"]


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_jobs_read_it(backend, in_memory):
    expected = clone(MODEL).fit(COLOUR, LABELS).predict_proba(COLOUR)
    with joblib.parallel_config(backend, n_jobs=2):
        found = clone(MODEL).fit(Pairs())
        np.testing.assert_array_equal(found.predict_proba(Pairs()), expected)


def test_processes_read_what_only_cloudpickle_can_send():
    dataset = Pairs()
    dataset.transform = lambda x: x
    with joblib.parallel_config("loky", n_jobs=2):
        assert len(clone(MODEL).fit(dataset).history_) == 2
    assert dataset.n_read == 1  # the first; the others were read elsewhere


def test_searches_take_a_slice_of_it(in_memory):
    dataset = Pairs()
    X, y = SliceDataset(dataset, 0), SliceDataset(dataset, 1)
    grid = {"l2": [1e-3, 1e-2]}
    expected = GridSearchCV(MODEL, grid, cv=2).fit(COLOUR, LABELS)
    found = GridSearchCV(MODEL, grid, cv=2).fit(X, np.array(list(y)))
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(found.cv_results_[name], expected.cv_results_[name])
    scores = cross_val_score(MODEL, COLOUR, LABELS, cv=2)
    np.testing.assert_array_equal(cross_val_score(MODEL, X, LABELS, cv=2), scores)


def test_labels_that_are_known_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(_samples, "RESIDENT_BYTES", 0)
    read = []
    monkeypatch.setattr(
        Files,
        "__getitem__",
        lambda self, i: (read.append(i), (COLOUR[i], self.given(i)))[1],
    )
    dataset = files(tmp_path)
    _, y = _samples.read_dataset(dataset)
    assert (y, len(read)) == (LABELS.tolist(), 5)
    monkeypatch.setattr(Files, "given", lambda self, i: 9)  # as by a target_transform
    _, y = _samples.read_dataset(dataset)
    assert set(y) == {9}


def test_a_model_holds_no_samples(in_memory):
    model = clone(MODEL).fit(Pairs())
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(COLOUR), model.predict(COLOUR))
    assert b"Pairs" not in pickle.dumps(model)


def test_a_checkpoint_knows_the_dataset(in_memory, tmp_path):
    model = clone(MODEL).set_params(checkpoint=tmp_path / "fit")
    model.fit(Pairs())
    assert clone(model).fit(Pairs()).n_epochs_ == 2
    with pytest.raises(ValueError, match="of a fit with another X"):
        clone(model).fit(Pairs(COLOUR[::-1]))


class Stream(IterableDataset):
    def __len__(self):
        return 3

    def __iter__(self):
        yield from ()


class Endless(Dataset):
    def __getitem__(self, place):
        return FLOATS[place % len(FLOATS)], 0


class Listed(Dataset):
    """Pairs in a list, which may as well be rows of an array."""

    def __len__(self):
        return 3

    def __getitem__(self, place):
        return [FLOATS[place], place % 2]


def changed(i, value):
    """Samples of which one is something else."""
    X = list(FLOATS)
    X[i] = value
    return Pairs(X)


BROKEN = FLOATS[0].copy()
BROKEN[0, 0, 0] = np.inf


@pytest.mark.parametrize(
    ("dataset", "error", "match"),
    [
        (Stream(), TypeError, "shuffled: Stream has not both"),
        (Endless(), TypeError, "shuffled: Endless has not both"),
        (DataLoader(Pairs()), TypeError, "got a DataLoader: give its"),
        (Listed(), TypeError, "of type list that NumPy cannot make an array of"),
        (pd.DataFrame(FLOATS[:, 0, 0]).groupby(0), TypeError, "of type SeriesGroupBy"),
        (make_pipeline(None), ValueError, "Expected 2D array|requires y"),
        (Pairs(COLOUR[:0]), ValueError, "dataset of none"),
        (changed(0, Image.new("P", (8, 8))), TypeError, r'give image.convert\("RGB"\)'),
        (Alone(), ValueError, "requires y to be passed"),
        (changed(5, FLOATS[0, :, 1:]), ValueError, r"got \(3, 7, 8\) at 5 and \(3, 8, 8\)"),
        (changed(5, FLOATS[0] * 1j), TypeError, "got one of type complex"),
        (changed(0, FLOATS[0].astype(int)), TypeError, "float32 at 1 and int64 at 0"),
        (changed(0, "file.png"), TypeError, "convert them in the dataset"),
        (changed(7, BROKEN), ValueError, "infinity"),
        (changed(5, FLOATS[0].astype(float)), TypeError, "float64 at 5 and float32 at 0"),
        (Pairs(FLOATS[:, 0, 0, 0]), ValueError, "single numbers|Expected 2D array"),
        (TensorDataset(*[torch.zeros(4, 3)] * 3), TypeError, "got a tuple of 3"),
        (
            Subset([{"a": 0, "b": 1, "label": 2}], [0]),
            TypeError,
            r"got \['a', 'b', 'label'\]: select",
        ),
    ],
)
def test_what_is_wrong_is_named(dataset, error, match, in_memory):
    model = clone(MODEL).fit(FLOATS, LABELS)
    with pytest.raises(error, match=match):
        clone(model).fit(dataset)
    if "requires y" not in match:
        with pytest.raises(error, match=match):
            model.predict(dataset)


def test_samples_are_not_cut_to_smaller_types():
    for first, later in (("u1", "u4"), ("f2", "f8"), ("u1", "?"), ("i1", "i8")):
        X = [np.ones(2, first), np.full(2, 70_000).astype(later)]
        with pytest.raises(TypeError, match="Samples must have one type"):
            _samples.read_dataset(Alone(X), [0, 1])


@pytest.mark.parametrize("odd", [float("nan"), 1, None])
def test_labels_are_checked_as_those_of_arrays(odd, in_memory):
    y = ["a", odd] * 40
    with pytest.raises(TypeError, match="y must hold values of one kind"):
        clone(MODEL).fit(Pairs(COLOUR, y))


class Reuses(Pairs):
    """Gives one array again and again, with other values."""

    place = np.zeros_like(COLOUR[0])

    def __getitem__(self, i):
        self.place[...] = self.X[i]
        return self.place, int(self.y[i])


def test_an_array_may_be_given_again(in_memory):
    expected = clone(MODEL).fit(COLOUR, LABELS).predict_proba(COLOUR)
    np.testing.assert_array_equal(
        clone(MODEL).fit(Reuses()).predict_proba(Reuses()), expected
    )


def test_targets_that_are_other_labels_are_not_believed(monkeypatch):
    monkeypatch.setattr(_samples, "RESIDENT_BYTES", 0)
    dataset = Pairs()
    dataset.targets = [f"class {label}" for label in LABELS]
    assert set(clone(MODEL).fit(dataset).classes_) == {0, 1, 2}


def test_studies_refuse_datasets():
    from sk_resnet.search import CrossValidationObjective, search_space

    for X in (Pairs(), SliceDataset(Pairs(), 0)):
        with pytest.raises(TypeError, match="must be an array in a study"):
            search_space(MODEL, X)
        with pytest.raises(TypeError, match="must be an array in a study"):
            CrossValidationObjective(MODEL, X, LABELS, space={})


def test_numbers_of_y_must_be_those_of_the_samples(in_memory):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clone(MODEL).fit(Alone(), LABELS[1:])
    with pytest.raises(ValueError, match="y contains NaN|Input y contains NaN"):
        ResNetRegressor(8, max_epochs=1).fit(Alone(), np.full(len(COLOUR), np.nan))


OF_ANY_SIZE = """
import re, numpy as np
from pathlib import Path
from sk_resnet import ResNetClassifier

class Large:
    # 4 GB as bytes, 16 as the network reads them.
    def __len__(self):
        return 20_000

    def __getitem__(self, i):
        return np.full((3, 256, 256), i % 200, dtype=np.uint8), i % 2

model = ResNetClassifier(8, width=0.1, max_epochs=1, scale=None, batch_size=8)
data = Large()
chosen = np.zeros(20_000)
chosen[::100] = 1
model.fit(data, sample_weight=chosen)
# Not by getrusage, which begins with the size of the process that started this one.
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_does_not_fit_into_memory_is_read_batch_by_batch():
    out = subprocess.run(
        [sys.executable, "-c", OF_ANY_SIZE], capture_output=True, text=True, check=True
    )
    assert int(out.stdout) < 1_000_000  # KiB


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("kind", [ResNetClassifier, ResNetRegressor])
def test_score_takes_y_from_a_dataset_of_pairs(kind, resident, monkeypatch):
    y = LABELS if kind is ResNetClassifier else LABELS + 0.5
    model = kind(8, width=0.25, n_estimators=1, max_epochs=1, random_state=0)
    model.fit(COLOUR, y)
    weights = np.arange(len(y)) % 3
    expected = model.score(COLOUR, y, weights)
    if not resident:
        monkeypatch.setattr(_samples, "RESIDENT_BYTES", 0)
    assert model.score(Pairs(COLOUR, y), sample_weight=weights) == pytest.approx(expected)
    assert model.score(Alone(COLOUR, y), y) == pytest.approx(model.score(COLOUR, y))
    with pytest.raises(ValueError, match="score needs y, got None"):
        model.score(COLOUR)


def test_an_embedder_takes_a_dataset_of_pairs():
    network = ResNetClassifier(8, width=0.25, n_estimators=1, max_epochs=1, random_state=0)
    embedder = ResNetEmbedder(network).fit(Pairs(COLOUR, LABELS))
    expected = ResNetEmbedder(network).fit(COLOUR, LABELS).transform(COLOUR)
    np.testing.assert_array_equal(embedder.transform(COLOUR), expected)
    with pytest.raises(ValueError, match="requires y to be passed"):
        embedder.fit(COLOUR)
