"""Oracles: scikit-learn's metrics and weights, torch's losses, closed forms."""

import copy
import functools
import pickle
from dataclasses import fields

import matplotlib as mpl
import numpy as np
import onnxruntime
import pytest
import torch
from scipy import sparse
from sklearn.metrics import (
    accuracy_score,
    log_loss,
    mean_absolute_error,
    mean_pinball_loss,
    mean_squared_error,
    r2_score,
)
from sklearn.utils import compute_class_weight

import sk_resnet
from sk_resnet import ResNetClassifier, ResNetRegressor, _estimators
from sk_resnet._target import (
    KINDS,
    LOSSES,
    Labels,
    LabelSets,
    Numbers,
    target_from_dict,
)
from sk_resnet.inspection import AttributionDisplay, diagnose

mpl.use("agg")
RNG = np.random.default_rng(0)
CPU = torch.device("cpu")


def labels_case():
    y = np.array(["ant", "bee", "cow"])[RNG.integers(3, size=50)]
    return Labels(np.unique(y)), y, RNG.normal(size=(50, 3)).astype(np.float32)


def label_sets_case():
    y = RNG.integers(2, size=(50, 2))
    return LabelSets(np.arange(2)), y, RNG.normal(size=(50, 2)).astype(np.float32)


def numbers_case(n_outputs=2, **options):
    y = RNG.normal(3, 10, size=(50, n_outputs))
    y = y[:, 0] if n_outputs == 1 else y
    target = Numbers(n_outputs, n_outputs == 1, **options)
    target = target.fitted(target.encode(y), np.ones(50))
    outputs = target.encode(y) + RNG.normal(0, 0.5, size=(50, n_outputs))
    return target, y, outputs.astype(np.float32)


CASES = {
    "labels": labels_case,
    "label_sets": label_sets_case,
    "numbers": numbers_case,
    "number": lambda: numbers_case(1),
}
every_kind = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def sums(target, outputs, encoded, weight):
    parts = []
    for rows in (slice(0, 20), slice(20, None)):  # as two batches
        tensors = (torch.from_numpy(a[rows]) for a in (outputs, encoded, weight))
        parts.append(target.sums(torch.tensor(1.5), *tensors))
    loss, *found = (parts[0] + parts[1]).tolist()
    assert loss == 3.0
    assert len(found) == target.n_sums
    return found


@every_kind
def test_the_score_is_that_of_scikit_learn(case):
    target, y, outputs = case()
    weight = RNG.random(50).astype(np.float32)
    found = target.score(sums(target, outputs, target.encode(y), weight))
    metric = {"accuracy": accuracy_score, "r2": r2_score}[target.score_name]
    expected = metric(y, target.decode(outputs), sample_weight=weight)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@every_kind
def test_sample_scores_have_the_score_as_their_mean(case):
    target, y, outputs = case()
    metric = {"accuracy": accuracy_score, "r2": r2_score}[target.score_name]
    found = target.sample_scores(outputs, target.encode(y)).mean()
    np.testing.assert_allclose(found, metric(y, target.decode(outputs)), rtol=1e-4)


@every_kind
def test_targets_come_back_from_their_values(case):
    target, y, outputs = case()
    again = target_from_dict(target.to_dict())
    np.testing.assert_array_equal(again.decode(outputs), target.decode(outputs))
    np.testing.assert_array_equal(again.encode(y), target.encode(y))


@every_kind
def test_nothing_constant_is_better_than_the_constant(case):
    target, y, _ = case()
    encoded = target.encode(y)
    score, loss = target.constant(encoded)
    for _ in range(200):
        guess = RNG.normal(0, 1, size=target.n_outputs).astype(np.float32)
        outputs = np.broadcast_to(guess, (50, target.n_outputs)).copy()
        losses = target.losses(torch.from_numpy(outputs), torch.from_numpy(encoded))
        assert float(losses.mean()) >= loss - 1e-6
        assert target.sample_scores(outputs, encoded).mean() <= score + 1e-6


def test_cross_entropy_of_labels_and_label_sets():
    target, y, outputs = labels_case()
    losses = target.losses(torch.from_numpy(outputs), torch.from_numpy(target.encode(y)))
    expected = log_loss(y, target.probabilities(outputs))
    np.testing.assert_allclose(losses.mean(), expected, rtol=1e-5)
    target, y, outputs = label_sets_case()
    losses = target.losses(torch.from_numpy(outputs), torch.from_numpy(target.encode(y)))
    p = target.probabilities(outputs)
    expected = sum(log_loss(y[:, j], p[:, j]) for j in range(2))
    np.testing.assert_allclose(losses.mean(), expected, rtol=1e-5)


METRICS = {
    "squared_error": lambda y, p: mean_squared_error(y, p) / 2,
    "absolute_error": mean_absolute_error,
    "quantile": lambda y, p: mean_pinball_loss(y, p, alpha=0.2),
    "huber": lambda y, p: np.where(
        np.abs(y - p) < 1, (y - p) ** 2 / 2, np.abs(y - p) - 0.5
    ).mean(),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_numbers(loss):
    target, y, outputs = numbers_case(loss=loss, quantile=0.2)
    outputs *= 3
    encoded = target.encode(y)
    losses = target.losses(torch.from_numpy(outputs), torch.from_numpy(encoded))
    np.testing.assert_allclose(losses.mean(), METRICS[loss](encoded, outputs), rtol=1e-5)


def test_numbers_are_standardized_by_weight():
    y = RNG.normal(5, 3, size=(40, 2))
    weight = RNG.integers(0, 3, size=40).astype(float)
    target = Numbers(2, False)
    target = target.fitted(target.encode(y), weight)
    repeated = np.repeat(y, weight.astype(int), axis=0)
    np.testing.assert_allclose(target.mean, repeated.mean(axis=0))
    np.testing.assert_allclose(target.scale, repeated.std(axis=0))
    np.testing.assert_allclose(target.decode(target.encode(y)), y, rtol=1e-5)


def test_a_constant_number_stays_finite():
    y = np.full(10, 0.1)
    target = Numbers(1, True)
    target = target.fitted(target.encode(y), np.ones(10))
    np.testing.assert_allclose(target.encode(y), 0, atol=1e-12)
    outputs = np.zeros((10, 1), dtype=np.float32)
    np.testing.assert_allclose(target.decode(outputs), y)
    score = target.score(sums(target, outputs, target.encode(y), np.ones(10, np.float32)))
    assert score == r2_score(y, target.decode(outputs)) == 1.0


@pytest.mark.parametrize("unit", [1e-150, 1e-162, 1e-200, 1e-300])
def test_numbers_whose_squares_underflow_are_no_constant(unit):
    y = np.random.default_rng(0).normal(5, 2, size=(50, 2))
    weight = np.random.default_rng(1).uniform(size=50)
    tiny = Numbers(2, False).fitted(y * [1, unit], weight)
    usual = Numbers(2, False).fitted(y, weight)
    np.testing.assert_array_equal(tiny.scale[0], usual.scale[0])
    np.testing.assert_array_equal(tiny.mean[0], usual.mean[0])
    np.testing.assert_allclose(tiny.scale, usual.scale * [1, unit], rtol=1e-12)
    np.testing.assert_allclose(tiny.encode(y * [1, unit]), usual.encode(y), atol=1e-6)
    constant = Numbers(1, True).fitted(np.full((10, 1), unit), np.ones(10))
    assert constant.scale == 1


@pytest.mark.parametrize("middle", [0.0, 3.0, 1e6])
def test_usual_numbers_are_standardized_to_the_same_bits(middle):
    y = np.random.default_rng(0).normal(middle, 2, size=(50, 1))
    weight = np.random.default_rng(1).uniform(size=50)
    target = Numbers(1, True).fitted(y, weight)
    mean = np.average(y, axis=0, weights=weight)
    variance = np.average((y - mean) ** 2, axis=0, weights=weight)
    np.testing.assert_array_equal(target.mean, mean)
    np.testing.assert_array_equal(target.scale, np.sqrt(variance))


def test_numbers_too_large_to_be_standardized():
    with pytest.raises(ValueError, match="y has values whose squares are too large"):
        Numbers(1, True).fitted(np.array([[1e200], [-1e200]]), np.ones(2))


@pytest.mark.parametrize("kind", [Labels, LabelSets])
def test_probabilities_do_not_underflow_where_float32_would(kind):
    outputs = np.array([[0.0, -150.0, -600.0]], dtype=np.float32)
    target = kind(np.arange(3))
    p = target.probabilities(outputs)
    assert (p > 0).all()
    np.testing.assert_allclose(np.log(p), target.log_probabilities(outputs), atol=1e-12)


def test_class_weights_of_labels_are_those_of_scikit_learn():
    target, y, _ = labels_case()
    for given in ("balanced", {"ant": 3.0}, None):
        weights = target.weighted_for(given, y).weights(target.encode(y))
        expected = compute_class_weight(given, classes=target.classes, y=y)
        np.testing.assert_allclose(weights, expected[target.encode(y)])


def test_balanced_label_sets_weigh_presence_and_absence_alike():
    target, _, _ = label_sets_case()
    y = (RNG.random((200, 2)) < [0.1, 0.6]).astype(int)
    weighted = target.weighted_for("balanced", y).to(CPU)
    outputs = torch.zeros(200, 2)
    presence = y.sum(axis=0)
    losses = weighted.losses(outputs, torch.from_numpy(target.encode(y)))
    # Each label: as many nats from those that have it as from those that do not.
    expected = 2 * np.log(2) * (200 - presence).sum()
    np.testing.assert_allclose(losses.sum(), expected, rtol=1e-5)


def test_weights_of_labels_that_are_no_columns():
    target, y, _ = label_sets_case()
    with pytest.raises(ValueError, match=r"names \[7\], but the labels are the columns"):
        target.weighted_for({7: 2.0}, y)
    with pytest.raises(ValueError, match="finite weights of at least 0"):
        target.weighted_for({1: -2.0}, y)


def test_smoothing_of_label_sets_is_that_of_two_classes():
    y = torch.tensor([[1.0], [0.0]])
    outputs = torch.tensor([[0.3], [-1.2]])
    ours = LabelSets(np.arange(1), label_smoothing=0.2).training_losses(outputs, y)
    pair = torch.cat([torch.zeros_like(outputs), outputs], dim=1)
    expected = torch.nn.functional.cross_entropy(
        pair, y[:, 0].long(), label_smoothing=0.2, reduction="none"
    )
    torch.testing.assert_close(ours, expected)


def test_sparse_indicators_come_back_sparse():
    y = sparse.csr_matrix(RNG.integers(2, size=(6, 3)))
    target = LabelSets(np.arange(3), is_sparse=True)
    encoded = target.encode(y)
    np.testing.assert_array_equal(encoded, y.toarray())
    decoded = target.decode(2 * encoded - 1)
    assert sparse.issparse(decoded)
    assert (decoded != y).nnz == 0


@every_kind
def test_a_fraction_is_held_out(case):
    target, y, _ = case()
    rows = target.hold_out(target.encode(y), 0.2, np.random.default_rng(0))
    assert len(np.unique(rows)) == 10
    again = target.hold_out(target.encode(y), 0.2, np.random.default_rng(1))
    assert not np.array_equal(rows, again)


# A new kind of y: a class in `KINDS`, and an estimator. Here it is the copy of one of ours
# that no isinstance, and no name of a kind or a score, takes for the original.


def converted(target, kind):
    return kind(**{field.name: getattr(target, field.name) for field in fields(kind)})


def copy_of(kind):
    body = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    return type("Own", (), {**body, "kind": "own", "score_name": "own_score"})


@functools.cache  # skl2onnx keeps all classes that it was told of, by their names
def estimator_of(original, base):
    """Public class of a copied kind of y, as it would stand in the package."""
    own, name = copy_of(original), f"ResNetOf{original.__name__}"

    class ResNetOfOwn(base):
        __module__ = "sk_resnet._estimators"
        __qualname__ = name
        target_kind = own

        def _new_target(self, y, classes, *, in_part):
            target = super()._new_target(y, classes, in_part=in_part)
            return converted(target, own)

        def _check_known(self, y, target, name):
            super()._check_known(y, converted(target, original), name)

    ResNetOfOwn.__name__ = name
    return ResNetOfOwn


ROWS = {"depth": 4, "width": 0.25, "n_estimators": 1, "max_epochs": 3, "batch_size": 16}
ORIGINALS = {
    "labels": (Labels, ResNetClassifier, lambda y: np.array(["ant", "bee", "cow"])[y]),
    "label_sets": (LabelSets, ResNetClassifier, lambda y: np.eye(3, dtype=int)[y][:, :2]),
    "numbers": (Numbers, ResNetRegressor, lambda y: np.stack([y, y**2], axis=1)),
    "number": (Numbers, ResNetRegressor, lambda y: 10.0 * y),
}


@pytest.fixture(params=ORIGINALS.values(), ids=ORIGINALS)
def new_kind(request, rows, monkeypatch):
    """Estimator of a new kind of y, one of the kind that it copies, X and y."""
    original, base, y_of = request.param
    estimator = estimator_of(original, base)
    monkeypatch.setitem(KINDS, "own", estimator.target_kind)
    monkeypatch.setattr(_estimators, estimator.__name__, estimator, raising=False)
    sk_resnet.trusted_types.cache_clear()
    X, y = rows[0].astype(np.float32), y_of(rows[1])
    yield *(kind(**ROWS, random_state=0) for kind in (estimator, base)), X, y
    sk_resnet.trusted_types.cache_clear()


def test_a_new_kind_of_y_is_fitted_shown_and_copied(new_kind, tmp_path, capfd):
    own, original, X, y = new_kind
    expected = original.fit(X, y).predict(X)
    own.set_params(verbose=1).fit(X, y, X_val=X, y_val=y)
    assert "valid_own_score=" in capfd.readouterr().err
    path = tmp_path / "model.skr"
    sk_resnet.save(own, path)
    pickled = pickle.loads(pickle.dumps(own))
    for model in (own, pickled, copy.deepcopy(own), sk_resnet.load(path)):
        assert model.net_.target.kind == "own"
        np.testing.assert_array_equal(model.predict(X), expected)
        classes = (getattr(net, "classes_", None) for net in (model.net_, original.net_))
        np.testing.assert_array_equal(next(classes), next(classes))


def test_a_new_kind_of_y_is_held_out_as_its_target_says(new_kind, monkeypatch):
    own, original, X, y = new_kind
    found, expected = (
        sk_resnet.regularization_path(model, X, y, [1e-3]) for model in (own, original)
    )
    np.testing.assert_array_equal(found.scores, expected.scores)
    held_out = []
    strata = np.repeat([0, 1], [55, 5])
    monkeypatch.setattr(own.target_kind, "strata", lambda target, encoded: strata)
    monkeypatch.setattr(type(own), "score", lambda self, X, y: held_out.append(X) or 0.0)
    for seed in range(3):
        sk_resnet.regularization_path(own.set_params(random_state=seed), X, y, [1e-3])
    rare = [(part[:, None] == X[55:]).all(2).any(1).sum() for part in held_out]
    assert rare == [1, 1, 1]


def test_a_new_kind_of_y_is_inspected(new_kind):
    own, original, X, y = new_kind
    own.fit(X, y)
    original.fit(X, y)
    found, expected = (
        AttributionDisplay.from_estimator(model, X[:2], method="saliency")
        for model in (own, original)
    )
    np.testing.assert_array_equal(found.attributions, expected.attributions)
    np.testing.assert_array_equal(found.targets, expected.targets)
    titles = ([ax.get_title() for ax in display.axes_] for display in (found, expected))
    assert next(titles) == next(titles)
    found, expected = (str(diagnose(model, X, y, X, y)) for model in (own, original))
    assert found == expected.replace(original.net_.target.score_name, "own_score")


def test_a_new_kind_of_y_is_exported(new_kind):
    own, _, X, y = new_kind
    content = sk_resnet.to_onnx(own.fit(X, y)).SerializeToString()
    first, *others = onnxruntime.InferenceSession(content).run(None, {"X": X})
    expected = own.predict(X)
    if others:
        np.testing.assert_array_equal(first, expected)
        np.testing.assert_allclose(others[0], own.predict_proba(X), atol=1e-5)
    else:
        np.testing.assert_allclose(first.reshape(expected.shape), expected, atol=1e-3)
