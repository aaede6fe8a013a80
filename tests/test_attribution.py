import pickle
import random
import sys
from functools import cache

import joblib
import matplotlib as mpl
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.ndimage import uniform_filter
from scipy.special import expit, log_expit, logit, logsumexp, softmax
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch.utils.data import TensorDataset

import sk_resnet
from sk_resnet import (
    ResNetClassifier,
    ResNetEmbedder,
    ResNetRegressor,
    WideResNetClassifier,
    _samples,
)
from sk_resnet._target import Labels, LabelSets, Numbers
from sk_resnet.inspection import AttributionDisplay
from sk_resnet.inspection._attribution import METHODS, _over_the_input, attributed
from sk_resnet.inspection._attribution_display import MOST_BARS, PICTURES

mpl.use("agg")
SMALL = {"max_epochs": 2, "batch_size": 16, "random_state": 0, "n_estimators": 1}
explain = AttributionDisplay.from_estimator


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


# Evidence that was planted


SIDE_AND_WIDTH = {1: (64, 16), 2: (24, 8), 3: (12, 6)}


def planted(n_dims, n, seed):
    """Noise with a bright or a dark patch, or none: which of them is the class.

    A third class keeps networks from seeing one kind of patch alone.
    """
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    if n_dims == 0:
        X = rng.normal(size=(n, 6))
        X[:, 2] = rng.uniform(2, 4, size=n) * np.array([-1, 1, 0])[y]
        return X, y, np.broadcast_to(np.arange(6) == 2, X.shape)
    side, width = SIDE_AND_WIDTH[n_dims]
    per_sample = (n, *(1,) * n_dims)
    corners = rng.integers(0, side - width + 1, size=(n, n_dims))
    grid, corners = (
        np.indices((side,) * n_dims),
        corners.reshape(n, n_dims, *per_sample[1:]),
    )
    inside = ((grid >= corners) & (grid < corners + width)).all(1)
    noise = rng.normal(size=(n, *(side,) * n_dims))
    sign = np.array([-1, 1, 0])[y].reshape(per_sample)
    return (0.3 * noise + 2 * sign * inside)[:, None], y, inside[:, None]


@pytest.fixture(scope="module")
def learned():
    """A model for each number of dimensions that has learned the patch."""
    models = {}
    for n_dims, epochs in enumerate((20, 6, 6, 8)):
        block = "basic" if n_dims else "auto"
        model = ResNetClassifier(8, block=block, **{**SMALL, "max_epochs": epochs})
        models[n_dims] = model.fit(*planted(n_dims, 150, seed=0)[:2])
        assert model.score(*planted(n_dims, 60, seed=1)[:2]) > 0.95
    return models


@pytest.mark.parametrize(
    ("n_dims", "method"),
    [(n, name) for n in range(4) for name, m in METHODS.items() if n or not m.needs_places],
)
def test_the_patch_that_decides_has_the_largest_attribution(learned, n_dims, method):
    X, y, inside = planted(n_dims, 60 if n_dims < 3 else 30, seed=2)
    X, inside = X[y < 2], inside[y < 2]
    width = SIDE_AND_WIDTH.get(n_dims, (0, 1))[1]
    options = {"integrated_gradients": {"n_steps": 20}}
    options |= {"occlusion": {"window": 4}} if n_dims else {}
    given = options.get(method, {})
    found = attributed(learned[n_dims], X, method=method, **given).attributions
    if n_dims and method == "saliency":  # a single gradient is noisy: means of windows
        found = uniform_filter(found, (0, 0, *(width // 2,) * n_dims), mode="constant")
    peaks = found.reshape(len(X), -1).argmax(1)
    hit = inside.reshape(len(X), -1)[np.arange(len(X)), peaks]
    assert hit.mean() >= 0.95


# Against other ways to compute the same


KINDS = {
    "labels": (ResNetClassifier, lambda y, rng: np.array(["a", "b", "c"])[y]),
    "label sets": (ResNetClassifier, lambda y, rng: rng.integers(0, 2, (len(y), 3))),
    "number": (ResNetRegressor, lambda y, rng: 50.0 * y + 7),
    "numbers": (ResNetRegressor, lambda y, rng: np.stack([y * 5.0, 3 - y * 90.0], 1)),
}


@cache
def fitted(kind="labels", n_dims=2, *, offset=100.0, n=24, **settings):
    """Small estimator, and samples far from 0 of two channels of different scales."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    shape = (5,) if n_dims == 0 else (2, *(6,) * n_dims)
    X = rng.normal(size=(n, *shape)) + y.reshape(n, *(1,) * len(shape))
    X[:, 0] *= 30
    X += offset
    make, target = KINDS[kind]
    model = make(**{"depth": 8, **SMALL, **settings})
    return model.fit(X, target(y, rng)), X


def scores(model, X, target):
    """What is attributed, by the public predictions."""
    if isinstance(model, ResNetRegressor):
        return model.predict(X).reshape(len(X), -1)[np.arange(len(X)), target]
    return logit(model.predict_proba(X)[np.arange(len(X)), target])


def means(X):
    """Samples without evidence: each feature or channel at its mean."""
    axes = (0, *range(2, X.ndim))
    return np.broadcast_to(X.mean(axes, keepdims=True), X.shape)


@pytest.mark.parametrize("n_estimators", [1, 3])
@pytest.mark.parametrize("n_dims", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_integrated_gradients_add_up_to_the_change_of_the_prediction(
    kind, n_dims, n_estimators
):
    model, X = fitted(kind, n_dims, n_estimators=n_estimators)
    target = 1 if kind != "number" else 0
    wanted = {"labels": "b"}.get(kind, target)
    found = attributed(
        model, X[:4], method="integrated_gradients", target=wanted, n_steps=100
    )
    at = np.full(4, target)
    np.testing.assert_allclose(found.scores, scores(model, X[:4], at), rtol=1e-4, atol=1e-5)
    change = found.scores - scores(model, means(X)[:4], at)
    total = found.attributions.reshape(4, -1).sum(1)
    np.testing.assert_allclose(total, change, rtol=0.02, atol=0.02 * np.abs(change).max())
    np.testing.assert_array_equal(found.samples, X[:4])


def test_temperatures_are_in_what_is_attributed():
    model, X = fitted(n_dims=0, n=90, n_estimators=2, max_epochs=30)
    assert model.temperature_ != 1
    found = attributed(model, X[:5], method="saliency")
    at = model.predict_proba(X[:5]).argmax(1)
    np.testing.assert_allclose(found.scores, scores(model, X[:5], at), rtol=1e-4)


def log_odds_by_torch(model, x, target):
    """From the network alone: log-odds of the mean probability of the members."""
    outputs = model.module_(x.float()).double()
    outputs = outputs if outputs.ndim == 3 else outputs[None]
    logs = outputs.log_softmax(2)  # also where a probability is 1 to float64
    rest = [k for k in range(logs.shape[2]) if k != target]
    return logs[..., target].logsumexp(0) - logs[..., rest].logsumexp((0, 2))


@pytest.mark.parametrize("n_estimators", [1, 2])
@pytest.mark.parametrize("n_dims", range(4))
def test_gradients_are_those_of_the_network_in_the_units_of_x(n_dims, n_estimators):
    model, X = fitted(n_dims=n_dims, n_estimators=n_estimators)
    found = attributed(model, X[:5], method="saliency", target="c")
    x = torch.from_numpy(model.network_input(X[:5])).requires_grad_()
    (gradient,) = torch.autograd.grad(log_odds_by_torch(model, x, 2).sum(), x)
    deviation = X.std((0, *range(2, X.ndim)), keepdims=True)
    expected = np.abs(gradient.numpy()) / deviation
    np.testing.assert_allclose(found.attributions, expected, rtol=1e-3, atol=1e-8)


def test_integrated_gradients_are_the_integral_of_the_gradients():
    model, X = fitted(n_dims=1)
    n = 1000
    found = attributed(model, X[:3], method="integrated_gradients", target="a", n_steps=n)
    z = torch.from_numpy(model.network_input(X[:3]))
    total = torch.zeros_like(z)
    for share in (np.arange(n) + 0.5) / n:
        x = (share * z).float().requires_grad_()
        total += torch.autograd.grad(log_odds_by_torch(model, x, 0).sum(), x)[0]
    expected = (z * total / n).numpy()
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found.attributions, expected, atol=0.01 * largest)


def test_occluded_features_are_at_their_means():
    model, X = fitted(n_dims=0)
    found = attributed(model, X[:4], method="occlusion", target="b")
    at = np.ones(4, dtype=int)
    for i in range(5):
        covered = X[:4].copy()
        covered[:, i] = X[:, i].mean()
        expected = scores(model, X[:4], at) - scores(model, covered, at)
        np.testing.assert_allclose(found.attributions[:, i], expected, atol=1e-5)


def test_occluded_places_have_the_mean_loss_of_the_windows_over_them():
    model, X = fitted(n_dims=2)
    window, steps = (2, 4), (1, 2)
    found = attributed(
        model, X[:3], method="occlusion", target="b", window=window, baseline=90.0
    )
    at = np.ones(3, dtype=int)
    total, count = np.zeros((2, 3, 6, 6))
    for top in range(0, 5, steps[0]):
        for left in range(0, 3, steps[1]):
            covered = X[:3].copy()
            place = (..., slice(top, top + 2), slice(left, left + 4))
            covered[place] = 90.0
            lost = scores(model, X[:3], at) - scores(model, covered, at)
            total[place] += lost[:, None, None]
            count[place] += 1
    assert found.attributions.shape == (3, 1, 6, 6)
    np.testing.assert_allclose(found.attributions[:, 0], total / count, atol=1e-4)


def maps_of_the_last_stage(model, X):
    """Activations that the last layer averages, and its weights."""
    kept = []
    last = model.module_.head if len(model.module_.head) else model.module_.stages[-1]
    hook = last.register_forward_hook(lambda layer, x, out: kept.append(out.detach()))
    model.module_(torch.from_numpy(model.network_input(X)))
    hook.remove()
    return kept[0].numpy(), model.module_.classifier.weight.detach().numpy()


@pytest.mark.parametrize("make", [ResNetClassifier, WideResNetClassifier])
def test_grad_cam_weighs_the_maps_of_the_last_stage_as_the_last_layer_does(make):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 1, 12, 10)), np.arange(20) % 3
    X += y[:, None, None, None]
    model = make(8 if make is ResNetClassifier else 10, **SMALL).fit(X, y)
    found = attributed(model, X[:4], method="grad_cam").attributions
    maps, weights = maps_of_the_last_stage(model, X[:4])
    p = model.predict_proba(X[:4])
    at = np.arange(4), p.argmax(1)
    # The slope of log(p_c / (1 - p_c)) is 1 for logit c, -p_k / (1 - p_c) for others.
    slopes = -p / (1 - p[at])[:, None]
    slopes[at] = 1
    by_channel = slopes @ weights / maps[0, 0].size
    coarse = np.maximum(np.einsum("nc,nchw->nhw", by_channel, maps), 0)
    assert coarse.max() > 0
    for one, expected in zip(found[:, 0], coarse, strict=True):
        expected = np.stack([np.interp(np.arange(10) / 4, range(3), r) for r in expected])
        expected = np.stack([np.interp(np.arange(12) / 4, range(3), c) for c in expected.T])
        np.testing.assert_allclose(one, expected.T, rtol=1e-3, atol=1e-6 * coarse.max())


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8, 13, 16])
@pytest.mark.parametrize("n_halvings", range(4))
def test_coarse_values_stay_at_the_places_that_they_were_computed_from(side, n_halvings):
    n = side
    for _ in range(n_halvings):
        n = -(-n // 2)
    coarse = np.random.default_rng(0).normal(size=n)
    found = _over_the_input(torch.from_numpy(coarse).reshape(1, 1, n), (side,))
    expected = np.interp(np.arange(side) / 2**n_halvings, np.arange(n), coarse)
    if n > 1:
        np.testing.assert_allclose(found[0, 0], expected)
    else:
        np.testing.assert_array_equal(found[0, 0], coarse[0])


def test_targets_explain_what_members_predict_on_average():
    rng = np.random.default_rng(0)
    outputs = 8 * rng.normal(size=(3, 5, 4))
    places = np.array([0, 3, 1, 2, 2])
    at = np.arange(5), places
    given = torch.from_numpy(outputs), torch.from_numpy(places)
    labels = Labels(np.arange(4)).explained(*given)
    np.testing.assert_allclose(labels, logit(softmax(outputs, axis=2).mean(0)[at]))
    sets = LabelSets(np.arange(4)).explained(*given)
    np.testing.assert_allclose(sets, logit(expit(outputs).mean(0)[at]))
    mean, scale = rng.normal(size=4), rng.uniform(1, 9, size=4)
    numbers = Numbers(4, is_flat=False, mean=mean, scale=scale).explained(*given)
    np.testing.assert_allclose(numbers, (outputs.mean(0) * scale + mean)[at])


def test_sure_predictions_have_finite_log_odds_and_gradients():
    outputs = torch.tensor([[[300.0, -300.0, 0.0]]], dtype=torch.float64).requires_grad_()
    for place, expected in ((0, 300.0), (1, -600.0)):
        score = Labels(np.arange(3)).explained(outputs, torch.tensor([place]))
        assert score.item() == pytest.approx(expected)
        assert torch.autograd.grad(score, outputs)[0].isfinite().all()
    score = LabelSets(np.arange(3)).explained(outputs, torch.tensor([1]))
    expected = logsumexp(log_expit([-300.0])) - logsumexp(log_expit([300.0]))
    assert score.item() == pytest.approx(expected)


# What the arguments do


def test_targets_are_those_of_predict_by_default():
    model, X = fitted("labels")
    assert attributed(model, X, method="saliency").targets.tolist() == list(
        model.predict(X)
    )
    model, X = fitted("label sets")
    likeliest = model.predict_proba(X).argmax(1)
    assert attributed(model, X, method="saliency").targets.tolist() == likeliest.tolist()
    model, X = fitted("numbers")
    found = attributed(model, X, method="saliency")
    assert set(found.targets.tolist()) == {0}
    np.testing.assert_allclose(found.scores, model.predict(X)[:, 0], rtol=1e-5)


def test_the_default_target_is_what_the_attributed_score_is_best_for():
    X = np.random.default_rng(0).normal(size=(60, 1, 6, 6))
    model = ResNetClassifier(8, **SMALL).fit(X, np.arange(60) % 3)
    plain = model.predict(X)
    model.set_params(test_time_augmentation=["crop", "flip"])
    assert (model.predict(X) != plain).any()
    assert attributed(model, X, method="saliency").targets.tolist() == plain.tolist()


def test_each_sample_may_have_a_target_of_its_own():
    model, X = fitted()
    mixed = attributed(model, X[:3], method="saliency", target=["c", "a", "b"])
    for i, label in enumerate("cab"):
        alone = attributed(model, X[i : i + 1], method="saliency", target=label)
        np.testing.assert_allclose(
            mixed.attributions[i], alone.attributions[0], rtol=1e-3, atol=1e-9
        )
    assert mixed.targets.tolist() == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        ("integrated_gradients", "baseline", 120.0),
        ("integrated_gradients", "n_steps", 3),
        ("occlusion", "baseline", 120.0),
        ("occlusion", "window", 3),
        ("grad_cam", "stage", 1),
    ],
)
def test_options_change_what_is_found(method, option, value):
    model, X = fitted()
    plain = attributed(model, X[:3], method=method)
    other = attributed(model, X[:3], method=method, **{option: value})
    assert not np.allclose(plain.attributions, other.attributions, rtol=1e-2)


def test_defaults_of_options_are_what_their_docstrings_say():
    model, X = fitted()
    mean = X.mean((0, 2, 3)).reshape(2, 1, 1) * np.ones((2, 6, 6))
    for method, option, value in (
        ("integrated_gradients", "n_steps", 50),
        ("integrated_gradients", "baseline", mean),
        ("occlusion", "window", (1, 1)),
        ("grad_cam", "stage", -1),
        ("grad_cam", "stage", 2),
    ):
        plain = attributed(model, X[:2], method=method).attributions
        same = attributed(model, X[:2], method=method, **{option: value}).attributions
        np.testing.assert_allclose(plain, same, rtol=1e-3, atol=1e-6 * np.abs(plain).max())
    model, X = fitted(scale=None, offset=0.0)
    plain = attributed(model, X[:2], method="occlusion").attributions
    zero = attributed(model, X[:2], method="occlusion", baseline=0).attributions
    np.testing.assert_array_equal(plain, zero)


@pytest.mark.parametrize("scale", ["standard", "robust"])
def test_attributions_add_up_whatever_the_scale(scale):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), np.arange(60) % 2
    X[:, 0] += 2 * y
    X[::9] *= 8  # which "robust" bends in
    settings = {**SMALL, "depth": 4, "max_epochs": 5, "calibrate": False}
    model = ResNetClassifier(scale=scale, **settings).fit(X, y)
    target = np.zeros(60, dtype=int)
    found = attributed(
        model, X, method="integrated_gradients", target=0, n_steps=400
    ).attributions
    baseline = model.net_.input_spec.mean[None]
    gain = scores(model, X, target) - scores(model, baseline, target[:1])
    np.testing.assert_allclose(found.sum(1), gain, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("scale", ["standard", "robust"])
def test_units_of_x_change_gradients_and_no_attributions(scale):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), np.arange(60) % 2
    X[:, 0] += 2 * y
    settings = {**SMALL, "depth": 4, "max_epochs": 5, "scale": scale}
    near = ResNetClassifier(**settings).fit(X, y)
    far = ResNetClassifier(**settings).fit(1000 * X + 1e6, y)
    for method, factor in (
        ("integrated_gradients", 1),
        ("occlusion", 1),
        ("saliency", 1000),
    ):
        a = attributed(near, X[:9], method=method).attributions
        b = attributed(far, 1000 * X[:9] + 1e6, method=method).attributions
        np.testing.assert_allclose(a, factor * b, rtol=1e-2, atol=1e-3 * np.abs(a).max())


# Layouts of X


def test_channels_stand_in_front_whatever_the_layout():
    first, X = fitted()
    y = KINDS["labels"][1](np.arange(24) % 3, None)
    last = ResNetClassifier(8, channel_axis=-1, **SMALL).fit(np.moveaxis(X, 1, -1), y)
    flat = ResNetClassifier(8, input_shape=(2, 6, 6), **SMALL)
    flat.fit(X.reshape(len(X), -1), y)
    baseline = X[5]
    expected = attributed(first, X[:3], method="occlusion", baseline=baseline)
    turned = attributed(
        last,
        np.moveaxis(X[:3], 1, -1),
        method="occlusion",
        baseline=np.moveaxis(baseline, 0, -1),
    )
    rows = attributed(
        flat, X[:3].reshape(3, -1), method="occlusion", baseline=baseline.ravel()
    )
    for other in (turned, rows):
        np.testing.assert_allclose(other.samples, expected.samples)
        np.testing.assert_allclose(
            other.attributions, expected.attributions, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("method", METHODS)
def test_series_of_unequal_length_have_nothing_behind_their_ends(method):
    rng = np.random.default_rng(0)
    series = [rng.normal(size=(2, n)) for n in rng.integers(9, 16, size=24)]
    y = np.arange(24) % 2
    model = ResNetClassifier(8, **SMALL).fit(series, y)
    window = {"window": 3} if method == "occlusion" else {}
    found = attributed(model, series[:4], method=method, **window)
    for i, one in enumerate(series[:4]):
        n = one.shape[1]
        assert np.isnan(found.attributions[i, :, n:]).all()
        given = {"method": method, "target": found.targets[i], **window}
        alone = attributed(model, one[None], **given)
        np.testing.assert_allclose(
            found.attributions[i, :, :n],
            alone.attributions[0],
            rtol=1e-3,
            atol=1e-5 * np.nanmax(found.attributions),
        )
    display = explain(model, series[:4], method=method)
    display.figure_.canvas.draw()


def test_windows_end_where_short_series_end():
    rng = np.random.default_rng(0)
    series = [rng.normal(size=(1, n)) for n in [9, 15] * 12]
    model = ResNetClassifier(8, **SMALL).fit(series, np.arange(24) // 2 % 2)
    found = attributed(model, series[:2], method="occlusion", window=12, target=1)
    # All of the short one is covered by each window.
    covered = np.full((1, 1, 9), np.concatenate(series, axis=1).mean())
    lost = scores(model, series[0][None], [1]) - scores(model, covered, [1])
    np.testing.assert_allclose(found.attributions[0, 0, :9], lost[0], atol=1e-5)


def test_bytes_are_explained_as_they_are():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, size=(24, 3, 8, 8), dtype=np.uint8)
    model = ResNetClassifier(8, **SMALL).fit(X, np.arange(24) % 2)
    found = attributed(model, X[:2], method="saliency")
    np.testing.assert_array_equal(found.samples, X[:2])


def test_batches_do_not_change_what_is_found():
    model, X = fitted(n=24)
    whole = attributed(model, X, method="saliency").attributions
    assert model.batch_size_ == 16
    last = attributed(model, X[20:], method="saliency").attributions
    np.testing.assert_allclose(whole[20:], last, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_a_compact_network_has_the_attributions_of_the_whole(method):
    model, X = fitted(l1=0.3, l1_structure="channel", max_epochs=6, lr=0.02)
    small = model.compact()
    assert small.n_parameters_ < model.n_parameters_
    whole = attributed(model, X[:3], method=method).attributions
    cut = attributed(small, X[:3], method=method).attributions
    np.testing.assert_allclose(cut, whole, rtol=1e-2, atol=1e-3 * np.abs(whole).max())


def test_a_model_from_a_mapped_file_is_explained(tmp_path):
    model, X = fitted()
    joblib.dump(model, tmp_path / "model")
    mapped = joblib.load(tmp_path / "model", mmap_mode="r")
    before = attributed(model, X[:2], method="grad_cam").attributions
    np.testing.assert_array_equal(
        attributed(mapped, X[:2], method="grad_cam").attributions, before
    )


# The estimator and its surroundings stay as they are


def global_states():
    of_numpy = np.random.get_state()[1].tolist()  # noqa: NPY002
    return torch.get_rng_state().tolist(), of_numpy, random.getstate()


@pytest.mark.parametrize("n_estimators", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_the_estimator_and_the_generators_stay_as_they_are(method, n_estimators):
    model, X = fitted(dropout=0.2, n_estimators=n_estimators)
    before = model.predict_proba(X).tobytes(), pickle.dumps(model)
    states = global_states()
    attributed(model, X[:3], method=method)
    assert (model.predict_proba(X).tobytes(), pickle.dumps(model)) == before
    assert global_states() == states
    for layer in model.module_.modules():
        assert not layer._forward_hooks
        assert not layer.training
    for weight in model.module_.parameters():
        assert weight.requires_grad
        assert weight.grad is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", METHODS)
def test_callers_without_gradients_get_the_same(method, mode):
    model, X = fitted()
    expected = attributed(model, X[:2], method=method).attributions
    with mode():
        found = attributed(model, X[:2], method=method).attributions
    np.testing.assert_array_equal(found, expected)


# Pipelines


def test_the_last_step_of_a_pipeline_is_explained():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(40, 3)), columns=["a", "b", "c"])
    y = np.arange(40) % 2
    last = ResNetClassifier(4, **SMALL)
    pipeline = make_pipeline(make_pipeline(StandardScaler()), make_pipeline(last))
    pipeline.fit(table, y)
    display = explain(pipeline, table[:2])
    scaled = pipeline[:-1].transform(table[:2])
    expected = attributed(pipeline[-1][-1], scaled, method="integrated_gradients")
    np.testing.assert_array_equal(display.attributions, expected.attributions)
    assert list(display.feature_names) == ["a", "b", "c"]
    pipeline[0].set_output(transform="pandas")
    assert list(explain(pipeline.fit(table, y), table[:2]).feature_names) == ["a", "b", "c"]
    nameless = make_pipeline(FunctionTransformer(np.asarray), last).fit(table, y)
    assert explain(nameless, table[:2]).feature_names is None


def test_a_table_gives_its_names():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), columns=["u", "v"])
    model = ResNetClassifier(4, **SMALL).fit(table, np.arange(40) % 2)
    display = explain(model, table[:1])
    labels = [text.get_text() for text in display.axes_[0].get_yticklabels()]
    assert sorted(label.split(" = ")[0] for label in labels) == ["u", "v"]


# Errors


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "lime"}, r"method must be one of \['grad_cam', .*\], got 'lime'"),
        ({"target": "z"}, r"target must be among \['a', 'b', 'c'\], got 'z'"),
        (
            {"target": ["a", "b"]},
            r"one for each of the 3 samples, got an array of shape \(2,\)",
        ),
        ({"target": ["a", "b", "q"]}, "got 'q'"),
        ({"n_steps": 0}, "n_steps must be an integer of at least 1, got 0"),
        ({"n_steps": 2.5}, "n_steps must be an integer of at least 1, got 2.5"),
        (
            {"baseline": np.zeros(3)},
            r"baseline must be a number, or have the shape \(2, 6, 6\)",
        ),
        ({"baseline": np.nan}, "baseline must hold finite numbers, got nan"),
        ({"baseline": "black"}, "baseline must hold finite numbers, got 'black'"),
        ({"stage": 1}, "stage is read by method='grad_cam' only, got"),
        ({"window": 1}, "window is read by method='occlusion' only, got"),
        (
            {"baseline": 0, "method": "saliency"},
            "baseline is read by method='integrated_gradients' or 'occlusion' only",
        ),
        (
            {"stage": 3, "method": "grad_cam"},
            "stage must be an integer from 0 to 2, or .* 3",
        ),
        ({"stage": "last", "method": "grad_cam"}, "stage must be .* got 'last'"),
        (
            {"window": 7, "method": "occlusion"},
            r"window must be .* sides \(6, 6\) .* got 7",
        ),
        ({"window": (1, 2, 3), "method": "occlusion"}, "window must be .* 2 of them"),
        ({"window": "big", "method": "occlusion"}, "window must be .* got 'big'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(given, message):
    model, X = fitted()
    with pytest.raises(ValueError, match=message):
        explain(model, X[:3], **given)


def test_rows_have_no_places_and_no_windows():
    model, X = fitted(n_dims=0)
    with pytest.raises(ValueError, match="marks places, and the rows of a table have none"):
        explain(model, X[:1], method="grad_cam")
    with pytest.raises(ValueError, match="window must be None for the rows of a table"):
        explain(model, X[:1], method="occlusion", window=2)


def test_outputs_that_a_model_does_not_have_are_refused():
    model, X = fitted("number")
    with pytest.raises(ValueError, match=r"target must be among \[0\], got 1"):
        explain(model, X[:1], target=1)
    model, X = fitted("label sets")
    with pytest.raises(ValueError, match=r"target must be among \[0, 1, 2\], got 3"):
        explain(model, X[:1], target=3)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(36, 3)), np.arange(36) % 12
    model = ResNetClassifier(4, **SMALL).fit(X, y)
    with pytest.raises(ValueError, match=r"8, 9\] and 2 more, got 12"):
        explain(model, X[:1], target=12)


def test_series_of_unequal_length_have_a_number_as_baseline():
    series = [np.random.default_rng(0).normal(size=(1, 9 + i % 2)) for i in range(20)]
    model = ResNetClassifier(8, **SMALL).fit(series, np.arange(20) % 2)
    with pytest.raises(ValueError, match="baseline must be a number, got an array"):
        explain(model, series[:2], baseline=np.zeros((1, 10)))
    explain(model, series[:2], baseline=0.5)


def test_other_estimators_are_refused():
    X, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    with pytest.raises(
        TypeError, match="Pipeline that ends in one, got LogisticRegression"
    ):
        explain(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y), X)
    search = GridSearchCV(ResNetClassifier(4, **SMALL), {"l2": [1e-3]}, cv=2).fit(X, y)
    with pytest.raises(TypeError, match="got GridSearchCV: pass its best_estimator_"):
        explain(search, X)
    explain(search.best_estimator_, X[:1])
    embedder = ResNetEmbedder(ResNetClassifier(4, **SMALL)).fit(X, y)
    with pytest.raises(TypeError, match="got ResNetEmbedder: pass its estimator_"):
        explain(embedder, X)


def test_unfitted_estimators_are_refused():
    X = np.zeros((2, 3))
    with pytest.raises(NotFittedError):
        explain(ResNetClassifier(), X)
    with pytest.raises(NotFittedError):
        explain(make_pipeline(StandardScaler(), ResNetClassifier()), X)


def test_samples_are_checked_as_by_predict():
    model, _ = fitted()
    with pytest.raises(ValueError, match=r"shape \(2, 5, 5\)"):
        explain(model, np.zeros((1, 2, 5, 5)))


def test_without_captum_an_error_says_how_to_install_it(monkeypatch):
    model, X = fitted()
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(ImportError, match=r"pip install 'sk-resnet\[explain\]'"):
        explain(model, X[:1])


# Pictures


def display_of(attributions, samples=None, **others):
    attributions = np.asarray(attributions, dtype=float)
    samples = attributions if samples is None else samples
    n = len(attributions)
    given = {"scores": np.zeros(n), "targets": np.zeros(n, dtype=int), **others}
    return AttributionDisplay(samples, attributions, **given)


def test_bars_are_sorted_and_the_rest_is_added_up():
    values = np.arange(1.0, 13) * (-1) ** np.arange(12)
    display = display_of([values], np.ones((1, 12)), feature_names=list("abcdefghijkl"))
    ax = display.plot().axes_[0]
    widths = [bar.get_width() for bar in ax.patches]
    assert len(widths) == MOST_BARS
    assert widths[:3] == [-12, 11, -10]
    assert sum(widths) == pytest.approx(values.sum())
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels[0] == "l = 1"
    assert labels[-1] == "3 others"
    red, blue = ax.patches[1].get_facecolor(), ax.patches[0].get_facecolor()
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert ax.get_xlabel() == "integrated gradients"
    few = display_of([[1.0, -2.0]]).plot().axes_[0]
    labels = [text.get_text() for text in few.get_yticklabels()]
    assert labels == ["feature 1 = -2", "feature 0 = 1"]
    large = display_of([[1.0, -2.0, 0.5]], np.array([[32610.4, 1e12, 0.1234567]]))
    labels = [text.get_text() for text in large.plot().axes_[0].get_yticklabels()]
    assert labels == ["feature 1 = 1e+12", "feature 0 = 32,610", "feature 2 = 0.1235"]


def test_series_are_lines_in_the_colours_of_their_attributions():
    samples = np.stack([np.sin(np.arange(20.0)), np.cos(np.arange(20.0))])[None]
    found = np.zeros((1, 1, 20))
    found[0, 0, 7] = 3.0
    ax = display_of(found, samples).plot().axes_[0]
    assert len(ax.collections) == len(ax.get_lines()) == 2
    for line in ax.collections:
        expected = (found[0, 0, :-1] + found[0, 0, 1:]) / 2
        np.testing.assert_array_equal(line.get_array(), expected)
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels == ["channel 0", "channel 1"]
    # One below the other, without touching.
    upper, lower = (line.get_ydata() for line in ax.get_lines())
    assert upper.min() > lower.max()


def test_images_are_grey_where_nothing_was_found_and_coloured_elsewhere():
    rng = np.random.default_rng(0)
    found = np.zeros((1, 3, 10, 10))
    found[0, :, 2, 3], found[0, :, 7, 8] = 5.0, -5.0
    samples = rng.normal(size=found.shape)
    picture = display_of(found, samples).plot().axes_[0].images[0].get_array()
    np.testing.assert_allclose(np.ptp(np.delete(picture.reshape(-1, 3), [23, 78], 0), 1), 0)
    assert picture[2, 3, 0] > picture[2, 3, 2]
    assert picture[7, 8, 2] > picture[7, 8, 0]
    grey, brightness = picture[0, :, 0], samples[0].mean(0)[0]
    assert (np.argsort(grey) == np.argsort(brightness)).all()


@pytest.mark.parametrize(("method", "lowest"), [("occlusion", -1), ("grad_cam", 0)])
def test_colours_are_centred_on_0_or_begin_there(method, lowest):
    found = np.zeros((2, 1, 8, 8))
    found[1, 0, :4] = 2.0
    figure = display_of(found, method=method).plot().figure_
    bar = figure.axes[-1]
    assert bar.get_ylabel() == METHODS[method].label
    assert bar.get_ylim() == (2 * lowest, 2)


def test_nothing_found_is_drawn_too():
    for shape in ((1, 4), (1, 1, 9), (1, 1, 8, 8), (1, 1, 4, 4, 4)):
        display_of(np.zeros(shape)).plot().figure_.canvas.draw()


def test_volumes_are_cut_through_the_largest_attribution():
    found = np.zeros((2, 1, 5, 6, 7))
    found[0, 0, 1, 2, 3], found[1, 0, 4, 5, 6] = -9, 8
    display = display_of(found).plot()
    assert display.axes_.shape == (6,)
    labels = [ax.get_xlabel() for ax in display.axes_]
    assert labels[:3] == ["axis 0 at 1", "axis 1 at 2", "axis 2 at 3"]
    assert labels[3:] == ["axis 0 at 4", "axis 1 at 5", "axis 2 at 6"]
    for ax, place in zip(display.axes_[:3], ((2, 3), (1, 3), (1, 2)), strict=True):
        picture = ax.images[0].get_array()
        blue = picture[..., 2] - picture[..., 0]
        assert np.unravel_index(blue.argmax(), blue.shape) == place


def test_titles_say_what_was_explained():
    found = np.ones((2, 3))
    given = {"scores": logit([0.9, 0.25]), "targets": ["cat", "dog"]}
    display = display_of(found, **given).plot()
    assert [ax.get_title() for ax in display.axes_] == ["class cat: 90%", "class dog: 25%"]
    given = {"scores": [12.3456, 2.0], "targets": [1, 0], "target_name": "output"}
    display = display_of(found, **given).plot()
    assert [ax.get_title() for ax in display.axes_] == ["output 1: 12.35", "output 0: 2"]
    display = display_of(found, **{**given, "target_name": "prediction"}).plot()
    assert display.axes_[0].get_title() == "prediction: 12.35"


@pytest.mark.parametrize(
    ("kind", "name"), [("labels", "class"), ("label sets", "label"), ("numbers", "output")]
)
def test_targets_have_the_name_of_their_kind(kind, name):
    model, X = fitted(kind)
    assert explain(model, X[:1]).axes_[0].get_title().startswith(name)


@pytest.mark.parametrize(
    ("kind", "titles"),
    [
        ("label sets", ("label wet: ", "label hot: ")),
        ("numbers", ("output b: ", "output a: ")),
    ],
)
@pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
def test_columns_of_y_are_named(kind, titles, library, tmp_path):
    rng = np.random.default_rng(0)
    X, make, target = rng.normal(size=(24, 3)), *KINDS[kind]
    y = target(np.arange(24) % 3, rng)
    names = ["hot", "wet", "windy"] if kind == "label sets" else ["a", "b"]
    columns = dict(zip(names, y.T, strict=True))
    model = make(4, **SMALL).fit(X, library.DataFrame(columns))
    assert model.target_names_.tolist() == names
    sk_resnet.save(model, tmp_path / "model.skr")
    target = [title.split()[1][:-1] for title in titles]
    for kept in (model, sk_resnet.load(tmp_path / "model.skr")):
        shown = [ax.get_title() for ax in explain(kept, X[:2], target=target).axes_]
        for title, start in zip(shown, titles, strict=True):
            assert title.startswith(start)
    # Numbers still do, and a fit on an array forgets the names.
    by_name = explain(model, X[:2], target=names[1])
    assert by_name.targets.tolist() == [1, 1]
    np.testing.assert_array_equal(
        by_name.attributions, explain(model, X[:2], target=1).attributions
    )
    with pytest.raises(ValueError, match=rf"'{names[-1]}'\], got 'cold'"):
        explain(model, X[:2], target="cold")
    assert not hasattr(model.fit(X, y), "target_names_")


def test_names_that_are_not_all_strings_are_not_kept():
    X = np.random.default_rng(0).normal(size=(24, 3))
    table = pd.DataFrame((X > 0).astype(int))
    assert not hasattr(ResNetClassifier(4, **SMALL).fit(X, table), "target_names_")
    one = pd.DataFrame({"a": np.arange(24) % 2})
    with pytest.warns(DataConversionWarning):
        model = ResNetClassifier(4, **SMALL).fit(X, one)
    assert not hasattr(model, "target_names_")


def test_the_only_output_of_a_regressor_is_its_prediction():
    X = np.random.default_rng(0).normal(size=(30, 3))
    display = explain(ResNetRegressor(4, **SMALL).fit(X, X[:, 0]), X[:1])
    assert display.axes_[0].get_title().startswith("prediction: ")


def test_displays_check_what_they_are_made_of():
    with pytest.raises(ValueError, match="method must be one of"):
        display_of(np.ones((3, 2)), method="shap")
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        display_of(np.ones((3, 2)), scores=[1.0, 2.0])


@pytest.mark.parametrize("n_dims", PICTURES)
def test_the_first_samples_are_shown_or_those_that_are_asked_for(n_dims):
    found = np.random.default_rng(0).normal(size=(9, 1, *(4,) * n_dims))
    found = found if n_dims else found.reshape(9, 1)
    display = display_of(found, targets=np.arange(9))
    picture = PICTURES[n_dims]
    assert len(display.plot().axes_) == picture.n_axes * picture.n_shown
    drawn = display.plot(shown=[8, -2])
    assert len(drawn.axes_) == 2 * picture.n_axes
    titles = [ax.get_title() for ax in drawn.axes_]
    assert [title for title in titles if title] == ["class 8: 50%", "class 7: 50%"]
    again = display.plot(shown=[1, 2], ax=drawn.axes_)
    assert again.axes_[0] is drawn.axes_[0]
    with pytest.raises(ValueError, match=f"ax must hold {3 * picture.n_axes} axes, got 2"):
        display.plot(shown=[0, 1, 2], ax=drawn.axes_[:2])


def test_a_mask_shows_some_samples():
    display = display_of(np.ones((3, 2)), targets=["a", "b", "c"])
    drawn = display.plot(shown=[True, False, True]).axes_
    assert [ax.get_title()[:7] for ax in drawn] == ["class a", "class c"]


@pytest.mark.parametrize(
    "shown", [[], [0, 3], [-4], [0.9], "ab", [True, False], [False] * 3]
)
def test_samples_that_are_not_there_cannot_be_shown(shown):
    with pytest.raises(ValueError, match="shown must hold numbers of samples, from 0 to 2"):
        display_of(np.ones((3, 2))).plot(shown=shown)


@pytest.mark.parametrize("n_bytes", [10**9, 0])
def test_samples_of_datasets_are_attributed(n_bytes, monkeypatch):
    monkeypatch.setattr(_samples, "RESIDENT_BYTES", n_bytes)
    X, y = np.random.default_rng(0).normal(size=(30, 1, 6, 6)), np.arange(30) % 3
    model = ResNetClassifier(8, max_epochs=1, random_state=0).fit(X, y)
    expected = attributed(model, X[:4], method="integrated_gradients", n_steps=4)
    dataset = TensorDataset(torch.from_numpy(X[:4]), torch.from_numpy(y[:4]))
    found = attributed(model, dataset, method="integrated_gradients", n_steps=4)
    np.testing.assert_array_equal(found.attributions, expected.attributions)
