"""Features of the layer before the classifier, as a transformer."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    clone,
)
from sklearn.utils.validation import check_is_fitted


class ResNetEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Transform samples into the features that the classifier of a network reads.

    Parameters
    ----------
    estimator : ResNetClassifier, WideResNetClassifier or None, default=None
        Classifier whose clone is fitted; None stands for ``ResNetClassifier()``. Wrapped
        in `sklearn.frozen.FrozenEstimator`, a fitted one is used as it is.

    Attributes
    ----------
    estimator_ : estimator
        The fitted classifier.
    n_features_in_ : int
        Number of features, where X has two dimensions.

    See Also
    --------
    ResNetClassifier.embed : The same on a fitted classifier.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from sk_resnet import ResNetClassifier, ResNetEmbedder
    >>> X, y = load_iris(return_X_y=True)
    >>> network = ResNetClassifier(depth=4, max_epochs=10, random_state=0)
    >>> model = make_pipeline(ResNetEmbedder(network), KNeighborsClassifier())
    >>> model.fit(X, y).score(X, y) > 0.9
    True
    """

    def __init__(self, estimator: Any = None) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: Any, **fit_params: Any) -> "ResNetEmbedder":
        """Fit the classifier.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples.
        y : array-like of shape (n_samples,)
            Labels.
        **fit_params : dict
            What else ``estimator.fit`` takes, such as sample_weight.

        Returns
        -------
        self : object
            The fitted transformer.
        """
        from sk_resnet._classifier import ResNetClassifier

        estimator = ResNetClassifier() if self.estimator is None else self.estimator
        self.estimator_ = clone(estimator).fit(X, y, **fit_params)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Features of samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples of the shape that was fitted on.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features_out)
            Averages over all places of the last block's activations.
        """
        check_is_fitted(self)
        return self.estimator_.embed(X)

    @property
    def _n_features_out(self) -> int:
        return self.estimator_.module_.classifier.in_features

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        return tags
