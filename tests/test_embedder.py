import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from sk_resnet import (
    ResNetClassifier,
    ResNetEmbedder,
    ResNetRegressor,
    WideResNetRegressor,
)

ROWS = {"depth": 4, "max_epochs": 6, "batch_size": 16, "random_state": 0}
ROWS |= {"n_estimators": 1}


@parametrize_with_checks(
    [
        ResNetEmbedder(ResNetClassifier(4)),
        ResNetEmbedder(ResNetRegressor(4, max_epochs=2, lr=0.01)),
    ]
)
def test_embedders_keep_the_contract_of_scikit_learn(estimator, check):
    check(estimator)


def y_of(kind, X):
    if kind == "number":
        return X[:, 0]
    if kind == "numbers":
        return X[:, :2] * [1, 100]
    indicator = (X[:, :3] > 0).astype(int)
    return csr_array(indicator) if kind == "sparse labels" else indicator


@pytest.mark.parametrize("kind", ["number", "numbers", "labels", "sparse labels"])
def test_embeddings_give_the_predictions(kind):
    X = np.random.default_rng(0).normal(size=(60, 5))
    y = y_of(kind, X)
    estimator = ResNetRegressor if kind.startswith("number") else ResNetClassifier
    embedder = ResNetEmbedder(estimator(**ROWS, lr=0.01)).fit(X, y)
    features = embedder.transform(X)
    assert features.shape == (60, 64)
    model, layer = embedder.estimator_, embedder.estimator_.module_.classifier
    outputs = features @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    if kind.startswith("number"):
        outputs = outputs * np.atleast_1d(y.std(axis=0)) + y.mean(axis=0)
        expected = model.predict(X).reshape(60, -1)
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-3)
    else:
        expected = model.predict_proba(X)
        np.testing.assert_allclose(1 / (1 + np.exp(-outputs)), expected, atol=1e-5)


def test_embeddings_give_the_probabilities(images):
    X, y = images
    model = ResNetClassifier(**{**ROWS, "depth": 8}).fit(X, y)
    layer = model.module_.classifier
    logits = torch.from_numpy(model.embed(X)) @ layer.weight.detach().T
    logits += layer.bias.detach()
    np.testing.assert_allclose(logits.softmax(1), model.predict_proba(X), atol=1e-5)


def test_the_embedder_is_a_transformer(rows):
    X, y = rows
    network = ResNetClassifier(**ROWS)
    pipeline = make_pipeline(ResNetEmbedder(network), LogisticRegression()).fit(X, y)
    assert pipeline.score(X, y) > 0.8
    embedder = pipeline[0]
    assert embedder.n_features_in_ == 5
    assert embedder.get_feature_names_out()[0] == "resnetembedder0"
    assert embedder.set_output(transform="pandas").transform(X).shape == (60, 64)
    frozen = ResNetEmbedder(FrozenEstimator(network.fit(X, y)), random_state=1).fit(X, y)
    np.testing.assert_array_equal(frozen.transform(X), network.embed(X))
    with pytest.raises(NotFittedError):
        ResNetEmbedder().transform(X)


def test_features_of_a_regressor_serve_another(rows):
    X, _ = rows
    y = (X[:, 0] - 2) ** 2
    network = WideResNetRegressor(**{**ROWS, "max_epochs": 30}, lr=0.01)
    model = make_pipeline(ResNetEmbedder(network), Ridge()).fit(X, y)
    assert model.score(X, y) > 0.8 > Ridge().fit(X, y).score(X, y)


def test_random_state_is_that_of_the_clone(rows):
    X, y = rows
    network = ResNetClassifier(**ROWS)

    def features(random_state):
        return ResNetEmbedder(network, random_state=random_state).fit(X, y).transform(X)

    np.testing.assert_array_equal(features(None), features(0))
    assert not np.array_equal(features(None), features(1))
    assert network.random_state == 0


def test_tags_are_those_of_the_estimator_and_of_its_features():
    tags = get_tags(ResNetEmbedder(ResNetRegressor()))
    assert tags.transformer_tags.preserves_dtype == ["float32"]
    assert tags.input_tags == get_tags(ResNetRegressor()).input_tags
    assert tags.target_tags == get_tags(ResNetRegressor()).target_tags
