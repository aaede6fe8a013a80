"""Fitted models, and pipelines around them, as ONNX files.

skl2onnx converts the steps around a network by its own converters, and the network by
those that are registered here: torch exports it with all that stands between raw samples
and predictions.
"""

import importlib.util
import os
from collections.abc import Iterator
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.utils.validation import check_is_fitted

from sk_resnet._archive import replace_files
from sk_resnet._base import BaseResNet, checked_samples, public_estimators
from sk_resnet._embedder import ResNetEmbedder
from sk_resnet._onnx_converters import (
    convert,
    fitted,
    free_axes,
    shape_of_numbers,
    shapes_of_classifier,
    spec_of,
)

PACKAGES = ("onnx", "onnxscript", "skl2onnx")
# The lowest that torch exports to without a converter of versions.
LOWEST_OPSET = 18
# Of samples that go straight into a network: those that skl2onnx finds a type for.
DTYPES = ("float32", "float64", "uint8", "int8", "int32", "int64", "bool")
# Of classifiers, as skl2onnx's own converters have them.
OPTIONS = {
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "output_class_labels": [False, True],
}


def to_onnx(
    model: BaseEstimator,
    path: str | os.PathLike[str] | None = None,
    *,
    X: Any = None,
    target_opset: int | None = None,
) -> Any:
    """Convert a fitted model, or a pipeline around one, to ONNX.

    The result holds everything from raw samples to predictions: the steps of the
    pipeline, the scaling of `scale`, the network with its batch norms folded in,
    the mean over the networks of an ensemble, and labels with their probabilities or
    numbers in the units of y. The number of samples is free; for series of unequal length
    that is their length, too.

    Parameters
    ----------
    model : estimator
        A fitted classifier, regressor or `ResNetEmbedder`, or a pipeline, column
        transformer or search with such in it.
    path : path-like, default=None
        File to write; an existing one is replaced. None writes none.
    X : array-like or DataFrame, default=None
        Some samples, one is enough: the inputs get their types, and each column of a
        DataFrame becomes an input of its name, in which other characters than letters,
        digits and underscores are replaced. None means float32 in the shape of the
        samples that the model was fitted on.
    target_opset : int, default=None
        Version of ONNX's operators, at least 18. None means the newest that skl2onnx is
        tested with; older runtimes need a lower one.

    Returns
    -------
    onnx.ModelProto
        With the outputs "label" and "probabilities" of a classifier, or "variable" of a
        regressor or `ResNetEmbedder`. The names are those that skl2onnx gives: of a column
        transformer "transformed_column", of a union "union".

    Raises
    ------
    ImportError
        Without skl2onnx and onnxscript: ``pip install sk-resnet[onnx]``.
    TypeError
        For a model that is no estimator.
    ValueError
        For steps that skl2onnx cannot convert, for labels that are neither integers nor
        strings, and where X is needed or does not fit.
    OSError
        When the file cannot be written.

    See Also
    --------
    register_onnx_converters : For skl2onnx.to_onnx itself.

    Notes
    -----
    The network computes in float32, also where the estimator predicts in bfloat16.
    Samples are not checked: NaN and infinite values give NaN.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import ResNetClassifier, to_onnx
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ResNetClassifier(4, n_estimators=1, max_epochs=2, random_state=0)
    >>> found = to_onnx(model.fit(X, y))
    >>> [output.name for output in found.graph.output]
    ['label', 'probabilities']
    """
    if isinstance(model, type) or not hasattr(model, "fit"):
        raise TypeError(
            f"model must be a fitted estimator or pipeline, got {model!r}: to_onnx takes "
            "an instance with a method fit."
        )
    register_onnx_converters()
    check_is_fitted(model)
    _check_opset(target_opset)
    _check_steps(model)
    found = _converted(model, _initial_types(model, X), target_opset)
    if path is not None:
        replace_files({Path(os.path.realpath(path)): found.SerializeToString()})
    return found


def _check_opset(opset: Any) -> None:
    from onnx.defs import onnx_opset_version

    highest = onnx_opset_version()
    is_number = isinstance(opset, Integral) and not isinstance(opset, bool)
    if opset is not None and not (is_number and LOWEST_OPSET <= opset <= highest):
        raise ValueError(
            f"target_opset must be an integer from {LOWEST_OPSET}, which torch needs, to "
            f"{highest}, which the installed onnx has, or None, got {opset!r}."
        )


def _converted(model: Any, inputs: list[tuple[str, Any]], opset: int | None) -> Any:
    """Graph that is valid; errors of skl2onnx, which name no step, get their names."""
    import skl2onnx
    from onnx.checker import ValidationError, check_model
    from onnx.shape_inference import InferenceError

    try:
        graph = skl2onnx.to_onnx(
            model,
            initial_types=inputs,
            target_opset=opset,
            # Maps from labels to probabilities cannot be read outside of Python.
            options={id(model): {"zipmap": False}} if is_classifier(model) else None,
        )
        check_model(graph, full_check=True)
        _check_runs(graph)
    except (RuntimeError, ValidationError, InferenceError) as error:
        ours = (BaseResNet, ResNetEmbedder)
        steps = [_shown(*leaf) for leaf in _leaves(model) if not isinstance(leaf[1], ours)]
        if not steps:
            raise
        raise ValueError(
            f"skl2onnx cannot convert this model, one of its steps {', '.join(steps)}, for "
            f"inputs of these types; most of its converters take float32: {error}"
        ) from error
    return graph


def _check_runs(graph: Any) -> None:
    """Refuse what onnxruntime, where it is installed, has no operators of these types for.

    Of the imputer in double precision skl2onnx writes such a graph.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return
    from onnxruntime import InferenceSession
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoOperator

    try:
        InferenceSession(graph.SerializeToString())
    except NoOperator as error:
        raise RuntimeError(f"onnxruntime cannot run it: {error}") from error


def register_onnx_converters() -> None:
    """Let skl2onnx convert the estimators of this package wherever they stand.

    `to_onnx` does so by itself. Call this once before ``skl2onnx.to_onnx``, or
    ``convert_sklearn``, is called with a pipeline that holds one of our estimators.

    Raises
    ------
    ImportError
        Without skl2onnx and onnxscript: ``pip install sk-resnet[onnx]``.

    See Also
    --------
    to_onnx : Convert a model.

    Examples
    --------
    >>> import numpy as np
    >>> import skl2onnx
    >>> from sklearn.datasets import load_iris
    >>> import sk_resnet
    >>> X, y = load_iris(return_X_y=True, as_frame=False)
    >>> model = sk_resnet.ResNetRegressor(4, n_estimators=1, max_epochs=2, random_state=0)
    >>> sk_resnet.register_onnx_converters()
    >>> found = skl2onnx.to_onnx(model.fit(X, y), X[:1].astype(np.float32))
    >>> [output.name for output in found.graph.output]
    ['variable']
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"Conversion to ONNX needs {' and '.join(missing)}: pip install "
            "'sk-resnet[onnx]'."
        )
    from skl2onnx import update_registered_converter

    for kind in (*public_estimators(), ResNetEmbedder):
        classifies = issubclass(kind, ClassifierMixin)
        update_registered_converter(
            kind,
            f"SkResnet{kind.__name__}",
            shapes_of_classifier if classifies else shape_of_numbers,
            convert,
            options=OPTIONS if classifies else None,
        )


# Steps and inputs


def _leaves(model: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Estimators that are not made of others, with their names in the pipeline."""
    if isinstance(model, Pipeline):
        parts = model.steps
    elif isinstance(model, FeatureUnion):
        parts = model.transformer_list
    elif isinstance(model, ColumnTransformer):
        parts = [part[:2] for part in model.transformers_ if not isinstance(part[1], str)]
    elif hasattr(model, "best_estimator_"):
        yield from _leaves(model.best_estimator_, name)
        return
    else:
        yield name or type(model).__name__, model
        return
    for part_name, part in parts:
        yield from _leaves(part, f"{name}__{part_name}" if name else part_name)


def _shown(name: str, step: Any) -> str:
    return f"{name!r} ({step if isinstance(step, str) else type(step).__name__})"


def _check_steps(model: Any) -> None:
    """Refuse a model some step of which skl2onnx has no converter for."""
    unknown = [leaf for leaf in _leaves(model) if not _is_known(type(leaf[1]))]
    if unknown:
        shown = ", ".join(_shown(*leaf) for leaf in unknown)
        raise ValueError(
            f"skl2onnx has no converter for {shown}: "
            "leave such steps out, or register a converter of your own with "
            "skl2onnx.update_registered_converter."
        )


def _is_known(kind: type) -> bool:
    from skl2onnx import get_model_alias

    try:
        return get_model_alias(kind) is not None
    except RuntimeError:
        return False


def _initial_types(model: Any, X: Any) -> list[tuple[str, Any]]:
    """Names and types of the inputs, as skl2onnx takes them."""
    from skl2onnx.algebra.type_helper import guess_initial_types

    first = _first(model)
    is_ours = isinstance(first, (BaseResNet, ResNetEmbedder))
    if X is not None and not is_ours and len(X) == 0:
        raise ValueError("X has no samples: one is enough to tell the types.")
    if hasattr(X, "columns"):  # a DataFrame
        _check_columns(first, [str(name) for name in X.columns])
        return [(str(name), _type_of_column(name, X[name])) for name in X.columns]
    if X is None:
        shape = spec_of(first).sample_shape if is_ours else _fitted_shape(model)
        X = np.zeros((1, *shape), dtype=np.float32)
    elif is_ours:
        X = checked_samples(fitted(first), X)[:1]
        if X.dtype.name not in DTYPES:
            raise ValueError(
                f"X must be of one of the types {', '.join(DTYPES)}, got {X.dtype.name}: "
                "convert it, and later the samples to predict."
            )
    types = guess_initial_types(np.asarray(X))
    for axis in free_axes(spec_of(first)) if is_ours else ():
        types[0][1].shape[axis + 1] = None
    return types


def _first(model: Any) -> Any:
    """What reads the samples: the first step of a pipeline."""
    while isinstance(model, Pipeline) or hasattr(model, "best_estimator_"):
        is_search = hasattr(model, "best_estimator_")
        model = model.best_estimator_ if is_search else model.steps[0][1]
    return model


def _check_columns(first: Any, given: list[str]) -> None:
    """Refuse columns that the step which reads them was not fitted on, as it does itself.

    A column transformer finds its columns by name, in any order.
    """
    expected = getattr(first, "feature_names_in_", None)
    in_order = list if not isinstance(first, ColumnTransformer) else sorted
    if expected is not None and in_order(given) != in_order(expected):
        raise ValueError(
            f"X must have the columns that the model was fitted on, {', '.join(expected)}, "
            f"got {', '.join(given)}."
        )


def _type_of_column(name: Any, column: Any) -> Any:
    """Type of a column of a DataFrame, by its first value."""
    from skl2onnx.algebra.type_helper import guess_initial_types

    values = np.asarray(column[:1])
    if values.dtype == object:
        values = np.asarray(values.tolist())
    try:
        ((_, found),) = guess_initial_types(values.reshape(1, 1))
    except NotImplementedError as error:  # skl2onnx's answer to such types
        raise ValueError(
            f"Column {name!r} of X has values of type {values.dtype.name}, which ONNX does "
            "not have: convert it to numbers or strings before fit."
        ) from error
    return found


def _fitted_shape(model: Any) -> tuple[int, ...]:
    """Shape of a sample that the steps before a network were fitted on."""
    if hasattr(model, "feature_names_in_"):
        raise ValueError(
            "The model was fitted on columns with names: pass some rows as X, so that each "
            "column becomes an input of its name and type."
        )
    if not hasattr(model, "n_features_in_"):
        raise ValueError(
            "The first step does not tell which samples it was fitted on: pass some as X."
        )
    return (model.n_features_in_,)
