"""Model files that are checked when they are read, and written whole or not at all."""

import functools
import inspect
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklearn import model_selection

from sk_resnet._archive import UNREADABLE, checked, replace_files, sealed, skops_io
from sk_resnet._base import public_estimators
from sk_resnet._callbacks import EarlyStopping
from sk_resnet._embedder import ResNetEmbedder
from sk_resnet._state import BROKEN, ModelFileError


@functools.cache
def trusted_types() -> tuple[str, ...]:
    """Full names of types that `load` reads, beside those that skops trusts by itself.

    Our estimators and callbacks, and what their parameters may hold: the splitters of
    scikit-learn. None of them calls what a file names.

    Returns
    -------
    tuple of str
        For ``trusted`` of skops, or ``skops_trusted_types`` of mlflow.

    Examples
    --------
    >>> from sk_resnet import trusted_types
    >>> "sk_resnet._estimators.ResNetClassifier" in trusted_types()
    True
    """
    ours = [*public_estimators(), ResNetEmbedder, EarlyStopping]
    splitters = [
        kind
        for kind in vars(model_selection).values()
        if isinstance(kind, type)
        and hasattr(kind, "get_n_splits")
        and not inspect.isabstract(kind)
    ]
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in (*ours, *splitters)]
    # Where the classifiers stood up to file format 1.
    earlier = [f"sk_resnet._classifier.{name}" for name in EARLIER_NAMES]
    return (*names, *earlier, "torch.device")


EARLIER_NAMES = ("ResNetClassifier", "WideResNetClassifier")


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write an estimator, or a pipeline around one, to a file that needs no pickle.

    The file is a zip file of skops with a checksum. It is written under another name,
    flushed to the disk and then renamed, so that a file of that name from before stays
    whole when anything goes wrong.

    Parameters
    ----------
    model : estimator
        Fitted or not: one of ours, or any estimator of scikit-learn that skops can write.
    path : path-like
        Where to write; an existing file is replaced, and its mode kept.

    Raises
    ------
    TypeError
        For a model that is no estimator.
    OSError
        When the file cannot be written, such as on a full or read-only disk.
    ImportError
        Without skops: ``pip install sk-resnet[secure]``.

    See Also
    --------
    load : Read it back.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import sk_resnet
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "model.skr"
    ...     sk_resnet.save(sk_resnet.ResNetClassifier(depth=8), path)
    ...     sk_resnet.load(path).depth
    8
    """
    if isinstance(model, type) or not hasattr(model, "fit"):
        raise TypeError(
            f"model must be an estimator or a pipeline, got {model!r}: save takes an "
            "instance with a method fit."
        )
    content = sealed(
        skops_io().dumps(model, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
    )
    target = Path(os.path.realpath(path))  # a link stays a link
    try:
        replace_files({target: content})
    except OSError as error:
        raise OSError(
            error.errno,
            f"The model was not saved: {error.strerror}. A file of that name from before "
            "is as it was",
            str(target),
        ) from error


def load(path: str | os.PathLike[str], *, trusted: Sequence[str] = ()) -> Any:
    """Read a model that `save` wrote.

    No code of the file is run: types of sk_resnet are read, and those of scikit-learn and
    NumPy that only hold data; others are refused unless they are named in `trusted`.

    Parameters
    ----------
    path : path-like
        File to read.
    trusted : sequence of str, default=()
        Full names of further types that the file may hold, such as a callback of your
        own: ``"my_package.MyCallback"``.

    Returns
    -------
    estimator
        As it was saved, on the CPU where its device is not available.

    Raises
    ------
    ModelFileError
        For a file that is no model, is damaged or cut off, is of a newer format, or
        holds types that are not trusted.
    OSError
        When the file cannot be read.
    ImportError
        Without skops: ``pip install sk-resnet[secure]``.

    See Also
    --------
    save : Write a model.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import sk_resnet
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "model.skr"
    ...     sk_resnet.save(sk_resnet.WideResNetClassifier(width=2), path)
    ...     sk_resnet.load(path)
    WideResNetClassifier(width=2)
    """
    io_of_skops = skops_io()
    content = checked(Path(path).read_bytes(), path)
    try:
        unknown = set(io_of_skops.get_untrusted_types(data=content))
        if refused := sorted(unknown - set(trusted_types()) - set(trusted)):
            raise ModelFileError(
                f"{path} holds types that are not trusted: {refused}. If you know where "
                "the file comes from, name them in trusted."
            )
        found = io_of_skops.loads(content, trusted=sorted(unknown))
        if not hasattr(found, "fit"):
            raise ModelFileError(f"{path} holds no model: a fit may go on from it.")
        return found
    except ModelFileError:
        raise
    except (*BROKEN, *UNREADABLE) as error:
        raise ModelFileError(
            f"{path} was sealed, but holds no model that can be read "
            f"({type(error).__name__}: {error}): save it again from where it came."
        ) from error
