"""What a network reads beside each number of a row."""

import pickle
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import sk_resnet
from sk_resnet import ResNetClassifier, ResNetRegressor, WideResNetClassifier
from sk_resnet._layers import embedding
from sk_resnet._network import new_network
from sk_resnet._spec import EMBEDDINGS, FAMILIES, Architecture, network_spec
from sk_resnet._surgery import compacted, folded, members, stacked

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(60, 3)).astype(np.float32)
ALONE = {"n_estimators": 1, "max_epochs": 2, "batch_size": 16, "device": "cpu"}
SMALL = {**ALONE, "random_state": 0}


def jumps(n):
    """Rows whose class changes at eight values of the second feature."""
    X = np.random.default_rng(1).uniform(-1, 1, size=(n, 2)).astype(np.float32)
    return X, np.floor(4 * X[:, 1]).astype(int) % 2


def of_bins(x, edges):
    """Place of the numbers x in each bin, by NumPy alone."""
    places = [
        np.interp(x, [a, b], [-1, 1]) if b > a else np.zeros(len(x))
        for a, b in pairwise(edges)
    ]
    return np.column_stack([x, *places])


def test_bins_are_those_of_quantiles():
    layer = embedding("piecewise_linear", 4, members=1)
    x = np.column_stack(
        [ROWS[:, 0], np.arange(60) % 2, np.arange(60) % 5, np.full(60, 3)]
    ).astype(np.float32)
    layer.set_bins(torch.from_numpy(x))
    new = np.concatenate([x, x + 0.3, x - 40])
    found = layer(torch.from_numpy(new)).numpy().reshape(180, 4, 17)
    for i in range(4):
        edges = np.quantile(x[:, i], np.linspace(0, 1, 17))
        expected = of_bins(new[:, i], edges)
        np.testing.assert_allclose(found[:, i], expected, rtol=1e-4, atol=1e-4)
    assert (found[:, 3, 1:] == 0).all()  # a constant has no bins


def test_waves_are_cosines():
    layer = embedding("periodic", 2, members=1)
    with torch.no_grad():
        layer.slope.copy_(torch.arange(16.0).reshape(2, 8))
        layer.offset.copy_(torch.linspace(-1, 1, 16).reshape(2, 8))
    x = ROWS[:, :2]
    found = layer(torch.from_numpy(x)).detach().numpy().reshape(60, 2, 9)
    line = x[:, :, None] * np.arange(16).reshape(2, 8)
    line = line + np.linspace(-1, 1, 16).reshape(2, 8)
    np.testing.assert_array_equal(found[:, :, 0], x)
    np.testing.assert_allclose(found[:, :, 1:], np.cos(line), atol=1e-5)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_a_stack_gives_what_its_members_give(name):
    shape = Architecture(4, embedding=name)
    spec = network_spec(shape, FAMILIES["resnet"], input_shape=(3,), n_outputs=2)
    x = torch.from_numpy(ROWS.reshape(3, 20, 3))
    networks = [
        new_network(spec, device=torch.device("cpu"), seed=i, samples=lambda i=i: x[i])
        for i in range(3)
    ]
    whole = stacked(networks)
    for mode in (True, False):
        whole.train(mode)
        with torch.no_grad():
            expected = torch.stack([n.train(mode)(x[i]) for i, n in enumerate(networks)])
            torch.testing.assert_close(whole(x), expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        alike = torch.stack([n(x[0]) for n in networks])
        torch.testing.assert_close(whole(x[0]), alike, atol=1e-5, rtol=1e-5)
        for twin in (folded(whole), compacted(whole)):
            torch.testing.assert_close(twin(x), expected, atol=1e-5, rtol=1e-5)
        for i, member in enumerate(members(whole)):
            torch.testing.assert_close(member(x[i]), expected[i], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_jumps_are_learned(name):
    """Where one line after another is needed, plain numbers take far longer."""
    X, y = jumps(1200)
    scores = {
        embedding: ResNetClassifier(
            4, embedding=embedding, n_estimators=2, max_epochs=12, random_state=0
        )
        .fit(X[:800], y[:800])
        .score(X[800:], y[800:])
        for embedding in (None, name)
    }
    assert scores[name] > scores[None] + 0.05
    assert scores[name] > 0.9


def test_bins_are_of_the_training_part_and_stay():
    split = [(np.arange(40), np.arange(40, 60))]
    model = ResNetClassifier(
        4, embedding="piecewise_linear", validation_split=split, l2_on="all", **SMALL
    ).fit(ROWS, np.arange(60) % 2)
    spec = model.net_.input_spec
    scaled = (ROWS[:40] - spec.mean) / spec.scale
    edges = np.quantile(scaled, np.linspace(0, 1, 17), axis=0).T
    layer = model.module_.embedding
    np.testing.assert_allclose(layer.slope, 2 / np.diff(edges), rtol=1e-3)
    np.testing.assert_allclose(-(1 + layer.offset) / layer.slope, edges[:, :-1], atol=1e-4)
    before = {name: values.clone() for name, values in layer.named_buffers()}
    model.partial_fit(ROWS + 5, np.arange(60) % 2)
    for name, values in model.module_.embedding.named_buffers():
        assert torch.equal(values, before[name])


def test_bins_of_many_samples_are_those_of_some(monkeypatch):
    monkeypatch.setattr("sk_resnet._batches.MOST_FOR_QUANTILES", 25)
    model = ResNetClassifier(4, embedding="piecewise_linear", **SMALL)
    model.fit(ROWS, np.arange(60) % 2)
    spec, layer = model.net_.input_spec, model.module_.embedding
    edges = np.quantile(((ROWS - spec.mean) / spec.scale)[::3], [0, 1 / 16], axis=0)
    np.testing.assert_allclose(layer.slope[:, 0], 2 / (edges[1] - edges[0]), rtol=1e-3)


def test_waves_are_learned_and_not_penalized():
    y = np.arange(60) % 2
    trained, start = (
        ResNetClassifier(4, embedding="periodic", l1=0.1, **SMALL).set_params(lr=lr)
        for lr in (0.1, 1e-12)
    )
    trained, start = (
        m.fit(ROWS, y).module_.embedding.requires_grad_(False) for m in (trained, start)
    )
    moved = (trained.slope - start.slope).abs()
    assert (moved > 1e-5).all()
    assert (trained.slope != 0).all()
    assert float(start.slope.std()) == pytest.approx(0.2 * np.pi, rel=0.5)
    assert start.offset.abs().max() <= np.pi


@pytest.mark.parametrize("name", EMBEDDINGS)
@pytest.mark.parametrize("n_estimators", [1, 2])
def test_models_are_kept_and_shown(name, n_estimators, tmp_path):
    settings = {**SMALL, "n_estimators": n_estimators}
    model = WideResNetClassifier(10, width=1, embedding=name, **settings)
    model.fit(ROWS, np.arange(60) % 2)
    sk_resnet.save(model, tmp_path / "model")
    expected = model.predict_proba(ROWS)
    for copy in (
        pickle.loads(pickle.dumps(model)),
        sk_resnet.load(tmp_path / "model"),
        model.compact(),
    ):
        np.testing.assert_array_equal(copy.predict_proba(ROWS), expected)
    one_by_one = np.concatenate([model.predict_proba(row[None]) for row in ROWS[:5]])
    np.testing.assert_allclose(one_by_one, expected[:5], atol=1e-7)
    exported = torch.export.export(model.module_, (torch.from_numpy(ROWS),))
    assert "embedding" in repr(exported.graph_signature)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_searches_and_regressors_take_it(name):
    y = np.sin(5 * ROWS[:, 0]) + np.arange(60) / 60
    search = GridSearchCV(
        ResNetRegressor(4, **SMALL), {"embedding": [None, name]}, cv=2, error_score="raise"
    )
    search.fit(ROWS, y)
    best = clone(search.best_estimator_).fit(ROWS, y)
    np.testing.assert_array_equal(best.predict(ROWS), search.predict(ROWS))


@pytest.mark.parametrize("name", EMBEDDINGS)
@pytest.mark.parametrize("shape", [(1, 9), (2, 6, 6)])
def test_only_rows_are_embedded(name, shape):
    X = np.random.default_rng(0).normal(size=(20, *shape))
    message = f"embedding='{name}' is for the numbers of rows, got samples of shape {shape}"
    with pytest.raises(ValueError, match=re.escape(message)):
        ResNetClassifier(8, embedding=name, **SMALL).fit(X, np.arange(20) % 2)


def test_another_embedding_needs_another_network():
    model = ResNetClassifier(4, embedding="periodic", warm_start=True, **SMALL)
    y = np.arange(60) % 2
    model.fit(ROWS, y).set_params(embedding=None)
    with pytest.raises(ValueError, match="a parameter of the architecture"):
        model.fit(ROWS, y)
