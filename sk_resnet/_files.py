"""Model files that are checked when they are read, and written whole or not at all."""

import functools
import inspect
import os
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn import feature_selection, metrics, model_selection
from sklearn.gaussian_process import kernels
from torch.optim import lr_scheduler

from sk_resnet._archive import (
    UNREADABLE,
    check_compression,
    checked,
    replace_files,
    sealed,
    skops_io,
    warnings_as_errors,
)
from sk_resnet._base import public_estimators
from sk_resnet._callbacks import EarlyStopping
from sk_resnet._embedder import ResNetEmbedder
from sk_resnet._state import BROKEN, ModelFileError

# Where the classifiers stood up to file format 1.
EARLIER_NAMES = (
    "sk_resnet._classifier.ResNetClassifier",
    "sk_resnet._classifier.WideResNetClassifier",
)
# What estimators of scikit-learn and callbacks of skorch hold. Whatever a file puts into
# them, they call nothing but their own methods and what is trusted itself. Not here:
# - trees, neighbours, splines and sparse matrices, whose compiled code takes places in
#   memory from its values and does not check them;
# - distributions of SciPy, which execute a text of their state.
DATA = (
    "builtins.object",
    "builtins.print",
    "numpy.dtype",
    "numpy.mean",
    *(f"numpy.{kind.__name__}" for kind in (np.number, np.integer, np.floating)),
    "skorch.callbacks.logging.PrintLog",
    "skorch.callbacks.lr_scheduler.LRScheduler",
    "skorch.callbacks.regularization.GradientNormClipping",
    "skorch.callbacks.scoring.BatchScoring",
    "skorch.callbacks.scoring.EpochScoring",
    "skorch.callbacks.scoring.PassthroughScoring",
    "skorch.callbacks.training.EarlyStopping",
    "skorch.utils.to_numpy",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.callback._progressbar.ProgressBar",
    "sklearn.cluster._bisect_k_means._BisectingTree",
    "sklearn.cluster._kmeans._kmeans_single_elkan",
    "sklearn.cluster._kmeans._kmeans_single_lloyd",
    "sklearn.compose._column_transformer.make_column_selector",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.impute._iterative._ImputerTriplet",
    "sklearn.metrics._scorer._CurveScorer",
    "sklearn.metrics._scorer._MultimetricScorer",
    "sklearn.metrics._scorer._PassthroughScorer",
    "sklearn.metrics._scorer._Scorer",
    "sklearn.multiclass._ConstantPredictor",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.utils._bunch.Bunch",
    "sklearn.utils._metadata_requests.MetadataRequest",
    "sklearn.utils._metadata_requests.MethodMetadataRequest",
    "torch.device",
)
# Endings of the names of scikit-learn's measures.
MEASURES = ("_score", "_loss", "_error", "_deviance")


@functools.cache
def trusted_types() -> tuple[str, ...]:
    """Full names of types that `load` reads, beside those that skops trusts by itself.

    Our estimators and callbacks, and what they, pipelines and searches around them hold of
    scikit-learn, skorch, NumPy and torch. None of them calls what a file names.

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
    kinds = [*public_estimators(), ResNetEmbedder, EarlyStopping, *_kinds_of_others()]
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in kinds]
    return (*names, *EARLIER_NAMES, *DATA)


def _kinds_of_others() -> Iterator[Any]:
    """Splitters, measures, tests of features, kernels of processes, and schedules."""
    for kind in vars(model_selection).values():
        is_class = isinstance(kind, type) and not inspect.isabstract(kind)
        if is_class and hasattr(kind, "get_n_splits"):
            yield kind
    for name, function in vars(metrics).items():
        if name.endswith(MEASURES) and inspect.isfunction(function):
            yield function
    for name, function in vars(feature_selection).items():
        if name.endswith(("_classif", "_regression", "chi2")):
            yield function
    for module, base in (
        (kernels, kernels.Kernel),
        (lr_scheduler, torch.optim.lr_scheduler.LRScheduler),
    ):
        for kind in vars(module).values():
            is_class = isinstance(kind, type) and not inspect.isabstract(kind)
            if is_class and issubclass(kind, base):
                yield kind


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

    Warns
    -----
    UserWarning
        For a model that holds what `load` does not trust by itself, such as a tree of
        scikit-learn or a function of your own; it says the names that `load` needs.

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
    if others := _not_trusted(content):
        warnings.warn(
            f"load refuses this file unless it is called with trusted={others}: the model "
            "holds what load does not trust by itself.",
            UserWarning,
            stacklevel=2,
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


def _not_trusted(content: bytes) -> list[str]:
    """Names of types in a file that are not trusted unless the user does."""
    found = skops_io().get_untrusted_types(data=content)
    return sorted(set(found) - set(trusted_types()))


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
    skops_io()  # or the error that it is missing stands behind one of the file
    content = checked(Path(path).read_bytes(), path)
    try:
        check_compression(content)
        if refused := sorted(set(_not_trusted(content)) - set(trusted)):
            raise ModelFileError(
                f"{path} holds types that are not trusted: {refused}. If you know where "
                "the file comes from, name them in trusted."
            )
        with warnings_as_errors():
            found = skops_io().loads(content, trusted=[*trusted_types(), *trusted])
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
