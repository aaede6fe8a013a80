"""What `load` and `checkpoint` make of files that were changed at random.

    python benchmarks/fuzz/run.py                   # 100,000 files, some 20 minutes
    python benchmarks/fuzz/run.py --cases 5000 --seed 1

Each file is that of one of four models with a change: of bytes, with the old checksum or a
new one, of the members of the zip file, of the schema that names types and values, or of an
array; or a checkpoint of one of three fits, with other values under a checksum that fits.
It must end in a model or in ModelFileError, or for a checkpoint in the error that it is of
another fit. Any other error, more than ten seconds of the processor or a minute, and more
than 200 MB beside the model are faults, and their files are kept.
"""

import argparse
import hashlib
import io
import json
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from sklearn.exceptions import InconsistentVersionWarning

sys.path.append(str(Path(__file__).parents[1]))
from results import add_option, record

from sk_resnet import (
    EarlyStopping,
    ModelFileError,
    ResNetClassifier,
    ResNetRegressor,
    load,
    save,
)
from sk_resnet._archive import DIGEST, sealed
from sk_resnet._net import DivergenceError

JUNK = [
    None,
    -1,
    0,
    1,
    "x",
    "",
    [],
    {},
    1e99,
    True,
    "numpy.ndarray",
    10**12,
    [[]],
    {"a": 1},
]
# Of the processor, and on the clock, where others may use the machine.
MOST_SECONDS, MOST_SECONDS_TO_WAIT = 10, 60
MOST_BYTES = 200 * 2**20


def models(folder):
    """Files of fitted models, and of one in a pipeline."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 5)), np.arange(40) % 2
    small = {"max_epochs": 1, "random_state": 0, "width": 0.1}
    made = {
        "classifier": ResNetClassifier(4, n_estimators=1, **small),
        "ensemble": ResNetClassifier(4, n_estimators=3, **small),
        "regressor": ResNetRegressor(4, n_estimators=1, l1=1e-2, **small),
        "pipeline": make_pipeline(StandardScaler(), ResNetClassifier(4, **small)),
    }
    for name, model in made.items():
        save(model.fit(X, y), folder / name)
    return X, {name: (folder / name).read_bytes() for name in made}


FITS = {"one": 1, "ensemble": 2, "ended": 2}


def estimator_of(name, **given):
    """Estimator of a fit with a checkpoint."""
    small = {"max_epochs": 3, "random_state": 0, "width": 0.1, "batch_size": 16}
    if name == "one":
        small |= {"callbacks": [EarlyStopping(patience=2)], "validation_split": 0.2}
    return ResNetClassifier(4, n_estimators=FITS[name], l1=1e-3, **small, **given)


def checkpoints(folder, X, y):
    """Files of fits that their time broke off, and of one that is done."""
    for name in FITS:
        limit = None if name == "ended" else 1e-9
        estimator_of(name, checkpoint=folder / name, max_seconds=limit).fit(X, y)
    return {name: (folder / name).read_bytes() for name in FITS}


def members(content):
    """Members of a zip file by their name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts, rng):
    """Sealed zip file of some members, stored or deflated."""
    buffer = io.BytesIO()
    kind = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that stand twice
        with zipfile.ZipFile(buffer, "w", kind) as archive:
            for name, part in parts:
                archive.writestr(name, part)
    return sealed(buffer.getvalue())


def with_bytes(content, rng, *, n_most=8):
    """The same with some bytes changed, cut out, doubled or put in."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, n_most)):
        place = rng.randrange(max(1, len(changed)))
        act, n = rng.randrange(4), rng.choice([1, 1, 2, 8, 64])
        if act == 0 and changed:
            changed[min(place, len(changed) - 1)] ^= 1 << rng.randrange(8)
        elif act == 1:
            del changed[place : place + n]
        elif act == 2:
            changed[place:place] = changed[place : place + n]
        else:
            changed[place:place] = rng.randbytes(n)
    return bytes(changed)


def raw(content, rng):
    """Bytes that the checksum finds."""
    return with_bytes(content, rng)


def under_checksum(content, rng):
    """Bytes under a checksum that fits."""
    body = content[:-DIGEST]
    head, mark = body[: -len(b"sk_resnet-0001")], body[-len(b"sk_resnet-0001") :]
    body = with_bytes(head, rng) + mark
    return body + hashlib.sha256(body).hexdigest().encode()


def of_members(content, rng):
    """Members left out, doubled, renamed or exchanged."""
    parts = list(members(content).items())
    for _ in range(rng.randint(1, 3)):
        i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
        (name, part), (other, its) = parts[i], parts[j]
        act = rng.randrange(5)
        if act == 0 and len(parts) > 1:
            del parts[i]
        elif act == 1:
            parts.append((name, its))
        elif act == 2:
            parts[i] = (rng.choice(["../x", "/x", "x" * 300, other]), part)
        elif act == 3:
            parts[i], parts[j] = (name, its), (other, part)
        else:
            parts[i] = (name, with_bytes(part, rng))
    return zipped(parts, rng)


def places(tree):
    """Every container of a tree of JSON, with each of its keys."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from places(value)


def change(tree, rng):
    """Leave out values of a tree, exchange them, or give some of another kind."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        container, key = rng.choice(list(places(tree)))
        act = rng.random()
        if act < 0.25:
            del container[key]
        elif act < 0.5:
            other, its = rng.choice(list(places(tree)))
            container[key] = json.loads(json.dumps(other[its]))
        elif act < 0.6 and isinstance(container[key], int):
            container[key] += rng.choice([-1, 1, 2**31, 2**63])
        else:
            container[key] = rng.choice(JUNK)
        if not list(places(tree)):
            break


def of_schema(content, rng):
    """Other values in the schema."""
    parts = members(content)
    tree = json.loads(parts["schema.json"])
    change(tree, rng)
    parts["schema.json"] = json.dumps(tree).encode()
    return zipped(list(parts.items()), rng)


def of_checkpoint(content, rng):
    """Other values in what a checkpoint holds as text, but what names its fit."""
    parts = members(content)
    tree = json.loads(parts["schema.json"])
    text = tree["content"]["plain"]
    plain = json.loads(json.loads(text["content"]))
    identity = plain.pop("identity")
    change(plain, rng)
    text["content"] = json.dumps(json.dumps({"identity": identity, **plain}))
    parts["schema.json"] = json.dumps(tree).encode()
    return zipped(list(parts.items()), rng)


def of_arrays(content, rng):
    """Arrays of other shapes, types, sizes and values."""
    parts = members(content)
    names = [name for name in parts if name.endswith(".npy")]
    name = rng.choice(names)
    array = np.load(io.BytesIO(parts[name]))
    draw = np.random.default_rng(rng.randrange(2**32))
    act = rng.randrange(8)
    if act == 0:
        array = array.astype(rng.choice(["f2", "f8", "i1", "u8", "c8", "S3", "U2", ">f4"]))
    elif act == 1:
        array = array.reshape(rng.choice([(-1,), (1, *array.shape), (*array.shape, 1)]))
    elif act == 2:
        array = array.ravel()[: rng.randrange(array.size + 1)]
    elif act == 3:
        array = np.full(array.shape, rng.choice([np.nan, np.inf, 1e38]), dtype=np.float32)
    elif act == 4:
        array = draw.permutation(array.ravel()).reshape(array.shape)
    elif act == 5:
        array = np.asfortranarray(array.T)
    elif act == 6:
        array = np.repeat(array, rng.choice([2, 3]), axis=0) if array.ndim else array
    buffer = io.BytesIO()
    np.save(buffer, array)
    written = buffer.getvalue()
    if act == 7:  # a header that promises more than there is
        n = rng.choice([10**6, 10**9, 10**12, 2**63])
        head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({n},), }}"
        written = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode()
    parts[name] = written
    return zipped(list(parts.items()), rng)


CHANGES = {
    "bytes": raw,
    "bytes under a checksum": under_checksum,
    "members": of_members,
    "schema": of_schema,
    "arrays": of_arrays,
    "checkpoint": of_checkpoint,
}


KNOWN = (
    "refused",
    "a model",
    "a model of other data, or none that is fitted",
    "a fit that diverges",
)


def outcome(path, X):
    """What loading a file ends in."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # scikit-learn and we say of which version a file claims to be: that is right.
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            warnings.filterwarnings("ignore", "This model was saved with")
            model = load(path)
    except ModelFileError:
        return "refused"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.predict(X)
    except (ValueError, TypeError, AttributeError, LookupError):
        return "a model of other data, or none that is fitted"
    except BaseException as error:
        return f"{type(error).__name__} in predict: {error}"
    return "a model"


def outcome_of_fit(path, name, X, y):
    """What a fit that goes on from a checkpoint ends in."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = estimator_of(name, checkpoint=path).fit(X, y)
        if np.isfinite(model.predict_proba(X)).all():
            return "a model"
        return "a model that predicts NaN"
    except ModelFileError:
        return "refused"
    except DivergenceError:
        return "a fit that diverges"  # at the learning rate that the file holds
    except ValueError as error:
        is_other = "is of a fit" in str(error)
        return "refused" if is_other else f"ValueError: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def too_long(number, frame):
    """End a case that hangs."""
    raise TimeoutError("more than ten seconds of the processor, or a minute")


def main():
    """Load the changed files, and count what they end in."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("faults"), help="files of faults")
    parser.add_argument("--only", choices=[*CHANGES], help="one kind of change")
    add_option(parser, __file__)
    options = parser.parse_args()
    for one in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(one, too_long)
    rng, found, faults = random.Random(options.seed), Counter(), 0
    longest, before = 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        X, contents = models(Path(folder))
        y, path = np.arange(len(X)) % 2, Path(folder) / "changed"
        for name in contents:  # what loading a whole one needs
            load(Path(folder) / name).predict(X)
        (Path(folder) / "fits").mkdir()
        begun = checkpoints(Path(folder) / "fits", X, y)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for case in range(options.cases):
            change = rng.choice([options.only] if options.only else list(CHANGES))
            is_fit = change == "checkpoint"
            name, content = rng.choice(list((begun if is_fit else contents).items()))
            content = CHANGES[change](content, rng)
            path.write_bytes(content)
            signal.alarm(MOST_SECONDS_TO_WAIT)
            signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
            started = time.process_time()
            ends = outcome_of_fit(path, name, X, y) if is_fit else outcome(path, X)
            longest = max(longest, time.process_time() - started)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            known = ends in KNOWN
            found[change, ends if known else "fault"] += 1
            if not known:
                faults += 1
                options.keep.mkdir(exist_ok=True)
                (options.keep / f"{options.seed}-{case}").write_bytes(content)
                print(f"case {case}, {change}: {ends[:200]}", flush=True)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for change in CHANGES:
        counts = {ends: n for (of, ends), n in found.items() if of == change}
        print(f"{change:24} " + ", ".join(f"{ends} {n}" for ends, n in counts.items()))
        record(
            options.json,
            table="fuzz",
            case=change,
            arm="fit" if change == "checkpoint" else "load",
            measures=counts,
            seeds=[options.seed],
        )
    grown = (after - before) / 1024
    print(f"{faults} faults; {longest:.2f} s at most; {grown:.0f} MB more at the peak")
    if faults or grown * 2**20 > MOST_BYTES:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
