"""Files: every damage is found, and an old file outlives every failure."""

import errno
import hashlib
import importlib
import io
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import (
    RepeatedStratifiedKFold,
    ShuffleSplit,
    StratifiedKFold,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Freezer

import sk_resnet
from sk_resnet import EarlyStopping, ModelFileError, ResNetClassifier, ResNetEmbedder
from sk_resnet._archive import DIGEST, MARK, sealed

ROWS = {"depth": 4, "width": 0.25, "max_epochs": 2, "batch_size": 16, "random_state": 0}
ROOT = Path(sk_resnet.__file__).parents[1]


@pytest.fixture
def saved(rows, tmp_path):
    X, y = rows
    model = ResNetClassifier(**ROWS, l1=0.02, callbacks=[EarlyStopping(patience=2)])
    path = tmp_path / "model.skr"
    sk_resnet.save(model.fit(X, np.array(["a", "b", "c"])[y]), path)
    return path, model, X


def test_a_loaded_model_is_the_same(saved):
    path, model, X = saved
    again = sk_resnet.load(path)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.history_ == model.history_
    assert again.get_params(deep=False).keys() == model.get_params(deep=False).keys()
    assert again.callbacks[0].patience == 2


def test_a_link_stays_a_link(saved, tmp_path):
    path, model, _ = saved
    link = tmp_path / "latest.skr"
    link.symlink_to(path)
    sk_resnet.save(model.set_params(l2=0.5), link)
    assert link.is_symlink()
    assert sk_resnet.load(path).l2 == 0.5


def test_a_pipeline_is_saved_whole(rows, tmp_path):
    X, y = rows
    pipeline = make_pipeline(StandardScaler(), ResNetClassifier(**ROWS)).fit(X, y)
    sk_resnet.save(pipeline, str(tmp_path / "pipeline.skr"))
    again = sk_resnet.load(str(tmp_path / "pipeline.skr"))
    np.testing.assert_array_equal(again.predict_proba(X), pipeline.predict_proba(X))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: make_pipeline(ResNetEmbedder(model), KNeighborsClassifier()),
        lambda model: make_pipeline(StandardScaler(), FrozenEstimator(model)),
        lambda model: model.set_params(device=torch.device("cpu")),
        *(
            lambda model, split=split: model.set_params(validation_split=split)
            for split in [
                StratifiedKFold(3),
                RepeatedStratifiedKFold(n_splits=2),
                ShuffleSplit(1, random_state=0),
            ]
        ),
    ],
)
def test_what_holds_our_models_needs_no_trust(rows, wrap, tmp_path):
    X, y = rows
    model = wrap(ResNetClassifier(**ROWS).fit(X, y)).fit(X, y)
    sk_resnet.save(model, tmp_path / "model.skr")
    again = sk_resnet.load(tmp_path / "model.skr")
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("name", sk_resnet.trusted_types())
def test_trusted_types_are_there(name):
    module, _, attribute = name.rpartition(".")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_the_file_is_a_zip_file_with_one_type_to_trust(saved):
    path, _, _ = saved
    assert zipfile.ZipFile(path).testzip() is None
    import skops.io

    assert set(skops.io.get_untrusted_types(file=path)) == {
        "sk_resnet._estimators.ResNetClassifier",
        "sk_resnet._callbacks.EarlyStopping",
    }


def test_every_flipped_bit_is_found(saved, tmp_path):
    path, _, _ = saved
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    n_bits = 8 * len(content)
    # At random places, and everywhere in the end of the file, which tells its format.
    bits = {*rng.integers(n_bits, size=300), *range(n_bits - 8 * 80, n_bits)}
    damaged = tmp_path / "damaged.skr"
    for bit in bits:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << (bit % 8)
        damaged.write_bytes(changed)
        with pytest.raises(ModelFileError, match=r"is damaged|is no model"):
            sk_resnet.load(damaged)


def test_every_truncation_is_found(saved, tmp_path):
    path, _, _ = saved
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    cut = tmp_path / "cut.skr"
    for length in {0, 1, len(content) - 1, *rng.integers(len(content), size=60)}:
        cut.write_bytes(content[:length])
        with pytest.raises(
            ModelFileError, match="is no model that sk_resnet wrote, or is cut off"
        ):
            sk_resnet.load(cut)


def test_other_files_and_newer_formats_are_refused(saved, tmp_path, monkeypatch):
    path, _, _ = saved
    other = tmp_path / "other.skr"
    other.write_text("accuracy, loss")
    with pytest.raises(ModelFileError, match="is no model"):
        sk_resnet.load(other)
    monkeypatch.setattr("sk_resnet._archive.FILE_FORMAT", 2)
    other.write_bytes(sealed(path.read_bytes()))
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match=r"of format 2, .* up to 1: upgrade"):
        sk_resnet.load(other)
    with pytest.raises(FileNotFoundError):
        sk_resnet.load(tmp_path / "nothing.skr")


def test_models_of_a_newer_format_are_refused(saved, monkeypatch):
    path, model, _ = saved
    monkeypatch.setattr("sk_resnet._state.FORMAT", 99)
    sk_resnet.save(model, path)
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match=r"in format 99 .*: upgrade sk_resnet"):
        sk_resnet.load(path)


def test_other_types_need_trust(saved, tmp_path):
    _, model, X = saved
    model.set_params(callbacks=[Freezer("stem*")])
    path = tmp_path / "own.skr"
    with pytest.warns(UserWarning, match="Freezer"):
        sk_resnet.save(model, path)
    with pytest.raises(ModelFileError, match=r"not trusted: .*Freezer.*name them in trust"):
        sk_resnet.load(path)
    import skops.io

    names = skops.io.get_untrusted_types(file=path)
    again = sk_resnet.load(path, trusted=names)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_a_full_disk_leaves_the_old_file(saved, monkeypatch):
    path, model, _ = saved
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"not saved: No space left .* is as it was"):
        sk_resnet.save(model, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_flushed(saved, monkeypatch):
    path, model, _ = saved
    flush = os.fsync

    def only_files(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    sk_resnet.save(model.set_params(verbose=1), path)
    assert sk_resnet.load(path).verbose == 1


@pytest.mark.skipif(os.name != "posix", reason="there are no modes of files")
def test_files_have_the_mode_that_open_gives(saved):
    path, model, _ = saved
    by_open = path.with_suffix(".txt")
    by_open.write_text("")
    assert path.stat().st_mode == by_open.stat().st_mode
    path.chmod(0o600)
    sk_resnet.save(model, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_names_may_be_long(saved):
    path, model, _ = saved
    path = path.with_name("ä" * 126)
    sk_resnet.save(model, path)
    assert sk_resnet.load(path).depth == 4


@pytest.mark.parametrize("model", [ResNetClassifier, "model.skr", None])
def test_only_estimators_are_saved(saved, model):
    with pytest.raises(TypeError, match="must be an estimator or a pipeline, got "):
        sk_resnet.save(model, saved[0])
    assert sk_resnet.load(saved[0]).depth == 4


def test_a_folder_that_is_not_there(saved):
    path, model, _ = saved
    with pytest.raises(OSError, match="The model was not saved: No such file or directory"):
        sk_resnet.save(model, path.parent / "nowhere" / "model.skr")


@pytest.mark.skipif(os.name != "posix", reason="there are no modes of folders")
def test_a_folder_that_is_read_only(saved):
    path, model, _ = saved
    folder = Path(tempfile.mkdtemp())  # pytest's own is closed to other users
    kept, before = folder / path.name, path.read_bytes()
    kept.write_bytes(before)
    folder.chmod(0o555)
    user = os.geteuid()
    try:
        if user == 0:  # root may write all
            os.seteuid(65534)
        with pytest.raises(PermissionError, match="was not saved: Permission denied"):
            sk_resnet.save(model, kept)
        assert kept.read_bytes() == before
    finally:
        os.seteuid(user)
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_without_skops(saved, monkeypatch):
    path, model, _ = saved
    monkeypatch.setitem(sys.modules, "skops", None)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ImportError, match=r"pip install 'sk-resnet\[secure\]'"):
        sk_resnet.save(model, path)
    with pytest.raises(ImportError, match="secure"):
        sk_resnet.load(path)


SAVE_WITHIN = """
import resource
import signal
import sys
import sk_resnet
model = sk_resnet.load(sys.argv[1])
model.set_params(max_epochs=99)
signal.signal(signal.SIGXFSZ, getattr(signal, sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
sk_resnet.save(model, sys.argv[1])
"""


@pytest.mark.skipif(os.name != "posix", reason="there are no limits of a file's size")
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize(
    ("on_limit", "code"),
    [("SIG_DFL", -signal.SIGXFSZ), ("SIG_IGN", 1)],
    ids=["kill", "error"],
)
def test_a_save_that_ends_in_the_middle_leaves_the_old_file(saved, share, on_limit, code):
    path, model, X = saved
    before = path.read_bytes()
    arguments = [path, on_limit, int(share * len(before))]
    command = [sys.executable, "-c", SAVE_WITHIN, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code
    assert path.read_bytes() == before
    np.testing.assert_array_equal(sk_resnet.load(path).predict(X), model.predict(X))
    if on_limit == "SIG_IGN":
        assert "OSError: [Errno 27] The model was not saved: File too large" in done.stderr
        assert list(path.parent.iterdir()) == [path]


SAVE_FOR_EVER = """
import sys
import sk_resnet
model = sk_resnet.load(sys.argv[1])
print("ready", flush=True)
while True:
    sk_resnet.save(model, sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_a_killed_save_leaves_a_whole_file(saved):
    path, model, X = saved
    expected = model.predict_proba(X)
    command = [sys.executable, "-c", SAVE_FOR_EVER, str(path)]
    for i in range(4):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.05 + 0.013 * i)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        np.testing.assert_array_equal(sk_resnet.load(path).predict_proba(X), expected)


def test_the_digest_is_the_end_of_the_file(saved):
    content = saved[0].read_bytes()
    assert content[-DIGEST - 4 - len(MARK) :].startswith(MARK)


def resealed(path, changes, target):
    """The file with some of its members changed, under a checksum that fits."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {**members, **changes}.items():
            archive.writestr(name, content)
    target.write_bytes(sealed(buffer.getvalue()))
    return target


def places(tree):
    """Every container of a tree of JSON, with each of its keys."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from places(value)


JUNK = [None, -1, "x", [], {}, 1e99, True, "numpy.ndarray", 10**12]


def test_crafted_files_end_in_errors_of_model_files(saved, tmp_path):
    path, _, _ = saved
    schema = zipfile.ZipFile(path).read("schema.json")
    rng = random.Random(0)
    n_refused = 0
    for _ in range(300):
        tree = json.loads(schema)
        container, key = rng.choice(list(places(tree)))
        if rng.random() < 0.3:
            del container[key]
        else:
            container[key] = rng.choice(JUNK)
        crafted = resealed(path, {"schema.json": json.dumps(tree)}, tmp_path / "crafted")
        try:
            sk_resnet.load(crafted)  # what was changed may not matter
        except ModelFileError:
            n_refused += 1
    assert n_refused > 60


@pytest.mark.parametrize(
    "a",
    [
        np.zeros((3, 3), np.float32),
        np.array([{}], dtype=object),
        np.array(["x"]),
        np.zeros(0, np.float32),
        None,
    ],
    ids=["shape", "objects", "strings", "empty", "NaN"],
)
def test_weights_that_are_not_those_of_the_network(saved, tmp_path, a):
    path, _, _ = saved
    buffer = io.BytesIO()
    np.save(buffer, a, allow_pickle=True)
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        arrays = {name: np.load(io.BytesIO(archive.read(name))) for name in names}
    weights = [name for name in names if arrays[name].dtype == np.float32]
    assert len(weights) > 5
    for name in weights:
        if a is None:
            buffer = io.BytesIO()
            np.save(buffer, np.full_like(arrays[name], np.nan))
        crafted = resealed(path, {name: buffer.getvalue()}, tmp_path / "crafted")
        with pytest.raises(ModelFileError):
            sk_resnet.load(crafted)


@pytest.mark.parametrize("holder", ["network", "input"])
def test_rows_that_claim_to_be_series_of_unequal_lengths(saved, tmp_path, holder):
    path, _, _ = saved
    tree = json.loads(zipfile.ZipFile(path).read("schema.json"))
    n_changed = 0
    for container, key in list(places(tree)):
        if key == holder and "unequal" in (container[key].get("content") or {}):
            flag = container[key]["content"]["unequal"]
            del flag["__id__"]  # by which all that are False are one
            flag["content"] = "true"
            n_changed += 1
    assert n_changed == 1
    crafted = resealed(path, {"schema.json": json.dumps(tree)}, tmp_path / "crafted")
    with pytest.raises(ModelFileError, match="other samples than its network reads"):
        sk_resnet.load(crafted)


def test_complex_numbers_in_place_of_real_ones(saved, tmp_path):
    path, model, _ = saved
    model.history_[0]["lr"] = np.float64(0.5)
    sk_resnet.save(model, path)
    buffer = io.BytesIO()
    np.save(buffer, np.array(0.5 + 1j))
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        numbers = [
            name
            for name in names
            if np.load(io.BytesIO(archive.read(name))).shape == ()
            and np.load(io.BytesIO(archive.read(name))) == 0.5
        ]
    assert numbers
    crafted = resealed(path, {numbers[0]: buffer.getvalue()}, tmp_path / "crafted")
    with pytest.raises(ModelFileError, match="ComplexWarning"):
        sk_resnet.load(crafted)


def test_headers_of_python_2_are_refused_without_a_warning(saved, tmp_path, recwarn):
    path, _, _ = saved
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".npy"))
        array = archive.read(name)
    at = array.index(b"'shape': (") + len(b"'shape': (")
    end = array.index(b",", at)
    crafted = array[:end] + b"L" + array[end:].replace(b" \n", b"\n", 1)
    file = resealed(path, {name: crafted}, tmp_path / "crafted")
    with pytest.raises(ModelFileError, match="created on Python 2"):
        sk_resnet.load(file)
    assert not recwarn


def test_flipped_bits_under_a_checksum_that_fits(saved, tmp_path):
    path, _, _ = saved
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    crafted, n_refused = tmp_path / "crafted", 0
    end = len(content) - DIGEST - len(MARK) - 4
    for place in rng.integers(end, size=300):
        body = bytearray(content[:-DIGEST])
        body[place] ^= 1 << rng.integers(8)
        digest = hashlib.sha256(bytes(body)).hexdigest().encode()
        crafted.write_bytes(bytes(body) + digest)
        try:
            sk_resnet.load(crafted)
        except ModelFileError:
            n_refused += 1
    assert n_refused > 100


@pytest.mark.parametrize(
    "header", ["{'descr': '<f4', (", "{'descr': '<f4'}\n  x", "{'shape': (10**30,)}"]
)
def test_headers_of_arrays_that_are_no_python(saved, header, tmp_path):
    path, _, _ = saved
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".npy"))
    size = len(header).to_bytes(2, "little")
    array = b"\x93NUMPY\x01\x00" + size + header.encode()
    with pytest.raises(ModelFileError):
        sk_resnet.load(resealed(path, {name: array}, tmp_path / "crafted"))


@pytest.mark.parametrize("kind", [12, 14, 93])  # bzip2, LZMA and Zstandard
@pytest.mark.parametrize("name", ["schema.json", ".npy"])
def test_members_that_claim_another_compression(saved, kind, name, tmp_path):
    path, _, _ = saved
    content = bytearray(path.read_bytes()[:-DIGEST])
    with zipfile.ZipFile(path) as archive:
        member = next(one for one in archive.infolist() if one.filename.endswith(name))
        central = content.index(b"PK\x01\x02", archive.start_dir)
    while not content[central + 46 :].startswith(member.filename.encode()):
        central = content.index(b"PK\x01\x02", central + 4)
    for place in (member.header_offset + 8, central + 10):
        content[place : place + 2] = kind.to_bytes(2, "little")
    crafted = tmp_path / "crafted"
    crafted.write_bytes(content + hashlib.sha256(content).hexdigest().encode())
    with pytest.raises(ModelFileError, match="compressed in another way"):
        sk_resnet.load(crafted)


@pytest.mark.parametrize("number", [b"abcd", b"-001", b"1.00"])
def test_a_format_that_is_no_number(saved, tmp_path, number):
    path, _, _ = saved
    body = path.read_bytes()[: -DIGEST - 4] + number
    crafted = tmp_path / "crafted"
    crafted.write_bytes(body + hashlib.sha256(body).hexdigest().encode())
    with pytest.raises(ModelFileError, match="no number of its format"):
        sk_resnet.load(crafted)
