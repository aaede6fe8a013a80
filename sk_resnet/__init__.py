"""Residual networks as scikit-learn estimators."""

from sk_resnet._callbacks import EarlyStopping
from sk_resnet._embedder import ResNetEmbedder
from sk_resnet._estimators import (
    ResNetClassifier,
    ResNetRegressor,
    WideResNetClassifier,
    WideResNetRegressor,
)
from sk_resnet._files import load, save, trusted_types
from sk_resnet._onnx import register_onnx_converters, to_onnx
from sk_resnet._path import RegularizationPath, regularization_path
from sk_resnet._state import ModelFileError
from sk_resnet._version import __version__

__all__ = [
    "EarlyStopping",
    "ModelFileError",
    "RegularizationPath",
    "ResNetClassifier",
    "ResNetEmbedder",
    "ResNetRegressor",
    "WideResNetClassifier",
    "WideResNetRegressor",
    "__version__",
    "load",
    "register_onnx_converters",
    "regularization_path",
    "save",
    "to_onnx",
    "trusted_types",
]
