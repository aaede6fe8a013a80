"""Features before the last layer of a network, as a transformer."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    clone,
)
from sklearn.utils import Tags, get_tags
from sklearn.utils.validation import check_is_fitted

from sk_resnet._estimators import ResNetClassifier


class ResNetEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Transform samples into the features that the last layer of a network reads.

    Parameters
    ----------
    estimator : ResNetClassifier, ResNetRegressor, a wide one or None, default=None
        Estimator whose clone is fitted; None stands for ``ResNetClassifier()``. Wrapped
        in `sklearn.frozen.FrozenEstimator`, a fitted one is used as it is.
    random_state : int, RandomState instance or None, default=None
        Seed of the clone, in place of that of `estimator`; None keeps it. A frozen
        estimator draws nothing.

    Attributes
    ----------
    estimator_ : estimator
        The fitted classifier or regressor.
    n_features_in_ : int
        Number of features, where X has two dimensions.

    See Also
    --------
    ResNetClassifier.embed : The same on a fitted estimator.

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

    def __init__(
        self,
        estimator: BaseEstimator | None = None,
        *,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> "ResNetEmbedder":
        """Fit the classifier or regressor.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Labels or numbers. None only for a dataset that gives pairs.
        **fit_params : dict
            What else ``estimator.fit`` takes, such as sample_weight.

        Returns
        -------
        object
            The fitted transformer.
        """
        estimator = clone(self._estimator())
        if self.random_state is not None and "random_state" in estimator.get_params():
            estimator.set_params(random_state=self.random_state)
        self.estimator_ = estimator.fit(X, y, **fit_params)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the features of samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples of the shape that was fitted on.

        Returns
        -------
        ndarray of shape (n_samples, n_features_out)
            Averages over all places of the last block's activations.
        """
        check_is_fitted(self)
        return self.estimator_.embed(X)

    def _estimator(self) -> BaseEstimator:
        return ResNetClassifier() if self.estimator is None else self.estimator

    @property
    def _n_features_out(self) -> int:
        module = self.estimator_.module_
        return module.spec.members * module.classifier.in_features

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        of_estimator = get_tags(self._estimator())
        tags.target_tags = of_estimator.target_tags
        tags.input_tags = of_estimator.input_tags
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
