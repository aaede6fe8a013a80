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
from sk_resnet.inspection import summary

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(60, 3)).astype(np.float32)
ALONE = {"n_estimators": 1, "max_epochs": 2, "batch_size": 16, "device": "cpu"}
SMALL = {**ALONE, "random_state": 0}


def jumps(n):
    """Rows whose class changes at eight values of the second feature."""
    X = np.random.default_rng(1).uniform(-1, 1, size=(n, 2)).astype(np.float32)
    return X, np.floor(4 * X[:, 1]).astype(int) % 2


def by_rank(x):
    """Edges of 16 bins of each column, which are values of it."""
    shares = np.linspace(0, 1, 17)
    return np.quantile(x, shares, axis=0, method="inverted_cdf").T


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
    edges = np.quantile(x, np.linspace(0, 1, 17), axis=0)
    layer.set_bins(torch.from_numpy(edges))
    new = np.concatenate([x, x + 0.3, x - 40])
    found = layer(torch.from_numpy(new)).numpy().reshape(180, 4, 17)
    for i in range(4):
        expected = of_bins(new[:, i], edges[:, i])
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
        new_network(
            spec,
            device=torch.device("cpu"),
            seed=i,
            edges=lambda n, i=i: x[i].quantile(torch.linspace(0, 1, n + 1), dim=0),
        )
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
            4, embedding=embedding, n_estimators=2, max_epochs=12, l2=0.01, random_state=0
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
    edges = by_rank(scaled)
    layer = model.module_.embedding
    np.testing.assert_allclose(layer.slope, 2 / np.diff(edges), rtol=1e-3)
    np.testing.assert_allclose(-(1 + layer.offset) / layer.slope, edges[:, :-1], atol=1e-4)
    before = {name: values.clone() for name, values in layer.named_buffers()}
    model.partial_fit(ROWS + 5, np.arange(60) % 2)
    for name, values in model.module_.embedding.named_buffers():
        assert torch.equal(values, before[name])


def edges_of(layer):
    """Edges of the bins of a fitted layer."""
    slope, offset = layer.slope.numpy().astype(float), layer.offset.numpy().astype(float)
    return np.column_stack([(-1 - offset) / slope, (1 - offset[:, -1]) / slope[:, -1]])


def test_bins_are_of_the_rows_that_each_member_is_trained_on():
    X = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    model = ResNetClassifier(
        4, embedding="piecewise_linear", **{**SMALL, "n_estimators": 3}
    ).fit(X, np.arange(60) % 2)
    spec = model.net_.input_spec
    scaled = (X - spec.mean) / spec.scale
    found = [edges_of(net.module_.embedding) for net in model.nets_]
    # Each leaves another third out, so that no two have the same quantiles.
    for i, edges in enumerate(found):
        assert np.isin(np.round(edges, 3), np.round(scaled.T, 3)).all()
        assert not any(np.allclose(edges, other) for other in found[:i])


def test_bins_go_by_weight():
    X, y = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
    weight = np.where(X[:, 0] > 0, 3, 1)
    model = ResNetClassifier(4, embedding="piecewise_linear", scale=None, **SMALL)
    weighted = model.fit(X, y, sample_weight=weight).module_.embedding
    expected = by_rank(np.repeat(X, weight, axis=0))
    np.testing.assert_allclose(edges_of(weighted), expected, atol=1e-4)


@pytest.mark.parametrize(
    "parameter", [{"embedding": "piecewise_linear"}, {"scale": "robust"}]
)
def test_quantiles_of_some_samples_see_those_that_come_in_turns(parameter, monkeypatch):
    monkeypatch.setattr("sk_resnet._input.MOST_FOR_QUANTILES", 200)
    X = np.random.default_rng(0).normal(size=(800, 1))
    X[1::2] += 100
    model = ResNetClassifier(4, **parameter, **SMALL).fit(X, np.arange(800) % 2)
    spec = model.net_.input_spec
    if "scale" in parameter:
        assert spec.scale == pytest.approx(100, abs=5)
    else:
        edges = edges_of(model.module_.embedding) * spec.scale + spec.mean
        assert edges[0, :7].max() < 5
        assert edges[0, -7:].min() > 95


def test_numbers_too_close_to_each_other_have_no_bin():
    X, y = ROWS * 1e-39, np.arange(60) % 2
    model = ResNetClassifier(4, embedding="piecewise_linear", scale=None, **SMALL)
    assert np.isfinite(model.fit(X, y).predict_proba(X)).all()


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_the_summary_counts_it(name):
    model = ResNetClassifier(4, embedding=name, **SMALL).fit(ROWS, np.arange(60) % 2)
    n_weights = sum(p.numel() for p in model.module_.parameters())
    text = summary(model)
    assert "embedding" in text
    assert f"{n_weights:,}" in text


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
