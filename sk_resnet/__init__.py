"""Residual networks as scikit-learn estimators."""

from sk_resnet._callbacks import EarlyStopping
from sk_resnet._classifier import ResNetClassifier, WideResNetClassifier
from sk_resnet._version import __version__

__all__ = ["EarlyStopping", "ResNetClassifier", "WideResNetClassifier", "__version__"]
