"""Residual networks as scikit-learn estimators."""

from sk_resnet._callbacks import EarlyStopping
from sk_resnet._classifier import ResNetClassifier, WideResNetClassifier
from sk_resnet._embedder import ResNetEmbedder
from sk_resnet._files import load, save
from sk_resnet._path import RegularizationPath, regularization_path
from sk_resnet._persist import ModelFileError
from sk_resnet._version import __version__

__all__ = [
    "EarlyStopping",
    "ModelFileError",
    "RegularizationPath",
    "ResNetClassifier",
    "ResNetEmbedder",
    "WideResNetClassifier",
    "__version__",
    "load",
    "regularization_path",
    "save",
]
