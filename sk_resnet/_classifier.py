"""Where the classifiers stood up to file format 2: pickles of then name this module."""

from sk_resnet._estimators import ResNetClassifier, WideResNetClassifier

__all__ = ["ResNetClassifier", "WideResNetClassifier"]
