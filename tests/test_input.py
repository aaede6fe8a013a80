from dataclasses import replace

import numpy as np
import pytest
import torch

from sk_resnet import ModelFileError, ResNetClassifier
from sk_resnet._batches import ArrayDataset
from sk_resnet._data import split_rows
from sk_resnet._input import input_spec, with_quantiles, with_statistics
from sk_resnet._target import Labels


@pytest.mark.parametrize("channel_axis", [1, -1])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_statistics_are_the_weighted_moments(channel_axis, dtype, monkeypatch):
    monkeypatch.setattr("sk_resnet._input.CHUNK_BYTES", 1000)
    rng = np.random.default_rng(0)
    X = rng.integers(0, 255, size=(50, 3, 4, 3)).astype(dtype)
    weight = rng.integers(0, 3, size=50)
    spec = input_spec(X, input_shape=None, channel_axis=channel_axis)
    spec = with_statistics(spec, X, weight)
    repeated = np.moveaxis(np.repeat(X.astype(float), weight, axis=0), channel_axis, -1)
    np.testing.assert_allclose(spec.mean, repeated.reshape(-1, 3).mean(axis=0))
    np.testing.assert_allclose(spec.scale, repeated.reshape(-1, 3).std(axis=0))


@pytest.mark.parametrize("channel_axis", [1, -1])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_robust_statistics_are_the_weighted_quantiles(channel_axis, dtype):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 255, size=(50, 3, 4, 3)).astype(dtype)
    weight = rng.integers(0, 3, size=50)
    spec = input_spec(X, input_shape=None, channel_axis=channel_axis)
    spec = with_quantiles(spec, X, weight)
    repeated = np.repeat(X.astype(float), weight, axis=0)
    repeated = np.moveaxis(repeated, channel_axis, -1).reshape(-1, 3)
    low, median, high = np.quantile(
        repeated, [0.25, 0.5, 0.75], axis=0, method="inverted_cdf"
    )
    np.testing.assert_array_equal(spec.mean, median)
    np.testing.assert_array_equal(spec.scale, high - low)
    scaled = (np.moveaxis(X.astype(float), channel_axis, -1) - median) / (high - low)
    expected = np.moveaxis(scaled / np.sqrt(1 + (scaled / 3) ** 2), -1, 1)
    np.testing.assert_allclose(spec.transform(X), expected, rtol=1e-5, atol=1e-6)
    exported = spec.transform_tensor(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(exported, expected, rtol=1e-5, atol=1e-6)
    dataset = ArrayDataset(X, spec)
    dataset.load(torch.device("cpu"))  # bytes are scaled batch by batch
    found = dataset.inputs(torch.arange(50)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_outliers_do_not_reach_far():
    X = np.random.default_rng(0).normal(size=(200, 2))
    far = X.copy()
    far[0, 0] = 1e6
    spec, other = (
        with_quantiles(input_spec(x, input_shape=None, channel_axis=1), x, np.ones(200))
        for x in (X, far)
    )
    np.testing.assert_allclose(spec.transform(X[1:]), other.transform(far[1:]), atol=0.05)
    assert abs(other.transform(far)).max() == pytest.approx(3)


def test_columns_whose_quartiles_are_equal_are_scaled_by_their_range():
    X = np.zeros((20, 3))
    X[3, 0], X[:2, 1] = 8, -1
    X[:, 2] = 1e9 + 1e-7 * np.random.default_rng(0).normal(size=20)  # rounding errors
    spec = with_quantiles(input_spec(X, input_shape=None, channel_axis=1), X, np.ones(20))
    np.testing.assert_array_equal(spec.scale, [4, 0.5, 1])


def test_quantiles_of_many_samples_are_those_of_some(monkeypatch):
    X = np.random.default_rng(0).normal(size=(30, 2, 3))
    spec = input_spec(X, input_shape=None, channel_axis=1)
    some = np.sort(np.random.default_rng(0).choice(30, 6, replace=False))
    of_some = with_quantiles(spec, X[some], np.ones(6))
    monkeypatch.setattr("sk_resnet._input.MOST_FOR_QUANTILES", 40)
    found = with_quantiles(spec, X, np.ones(30))
    np.testing.assert_array_equal(found.mean, of_some.mean)
    np.testing.assert_array_equal(found.scale, of_some.scale)


def test_quantiles_leave_out_what_follows_series():
    X = np.random.default_rng(0).normal(size=(9, 2, 12))
    X[::2, :, 7:] = np.nan
    spec = replace(input_spec(X, input_shape=None, channel_axis=1), unequal=True)
    found = with_quantiles(spec, X, np.ones(9))
    values = np.moveaxis(X, 1, 0).reshape(2, -1)
    expected = np.nanquantile(values, 0.5, axis=1, method="inverted_cdf")
    np.testing.assert_array_equal(found.mean, expected)


def test_values_too_far_apart_to_be_scaled():
    X = np.array([[-1e308], [1e308], [0]])
    with pytest.raises(ValueError, match="whose range is too large for float64"):
        ResNetClassifier(scale="robust").fit(X, [0, 1, 0])


@pytest.mark.parametrize("standardize", [True, False])
def test_files_name_scale_by_an_earlier_parameter(standardize):
    X = np.random.default_rng(0).normal(size=(20, 3)) * 5
    scale = "standard" if standardize else None
    model = ResNetClassifier(4, scale=scale, n_estimators=1, max_epochs=1).fit(
        X, np.arange(20) % 2
    )
    state = model.__getstate__()
    del state["scale"]
    earlier = ResNetClassifier()
    earlier.__setstate__({**state, "standardize": standardize})
    assert earlier.scale == scale
    assert not hasattr(earlier, "standardize")
    np.testing.assert_array_equal(earlier.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("robust", [1, "yes", None])
def test_files_that_do_not_say_how_they_scale_are_refused(robust):
    X = np.random.default_rng(0).normal(size=(20, 3))
    model = ResNetClassifier(4, n_estimators=1, max_epochs=1).fit(X, np.arange(20) % 2)
    state = model.__getstate__()
    state["_saved"]["input"]["robust"] = robust
    with pytest.raises(ModelFileError, match="describes other samples"):
        ResNetClassifier().__setstate__(state)


def test_constant_features_are_only_centred():
    X = np.full((9, 2), 0.1) * [1, 1e9]
    spec = with_statistics(input_spec(X, input_shape=None, channel_axis=1), X, np.ones(9))
    np.testing.assert_array_equal(spec.scale, 1)
    np.testing.assert_allclose(spec.transform(X), 0, atol=1e-6)


def test_large_offsets_do_not_swallow_small_differences():
    X = 1e9 + np.arange(8.0)[:, None]
    spec = with_statistics(input_spec(X, input_shape=None, channel_axis=1), X, np.ones(8))
    expected = (X - X.mean()) / X.std()
    np.testing.assert_allclose(spec.transform(X), expected, rtol=1e-5)


def test_a_transform_never_shares_memory():
    X = np.ones((3, 2), dtype=np.float32)
    spec = input_spec(X, input_shape=None, channel_axis=1)
    assert not np.shares_memory(spec.transform(X), X)


@pytest.mark.parametrize("counts", [(5, 5), (1, 9), (2, 2, 2), (97, 3), (1, 1, 30)])
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_a_fraction_is_held_out_by_class(counts, fraction):
    y = np.repeat(np.arange(len(counts)), counts)
    X = np.zeros((len(y), 1))
    target = Labels(np.unique(y))
    ((train, valid),) = split_rows(
        fraction, X, y, y, None, target=target, seed=0, n_members=3
    )
    assert sorted([*train, *valid]) == list(range(len(y)))
    assert set(y[train]) == set(y)
    possible = len(y) - len(counts)
    assert len(valid) == min(max(1, round(fraction * len(y))), possible)
    held = np.bincount(y[valid], minlength=len(counts))
    assert (abs(held - fraction * np.array(counts)) <= 1).all() or len(valid) == possible


def test_groups_stay_together():
    y = np.arange(60) % 2
    groups = np.arange(60) // 6
    target = Labels(np.unique(y))
    X = np.zeros((60, 1))
    ((train, valid),) = split_rows(0.3, X, y, y, groups, target=target, seed=0, n_members=3)
    assert len(valid) == 18
    assert not set(groups[train]) & set(groups[valid])


READINGS = [
    # shape of a sample, bytes, channel_axis: shape of the network's input
    ((24, 24, 3), False, "auto", (3, 24, 24)),
    ((24, 20, 1), True, "auto", (1, 24, 20)),
    ((9, 8, 7, 4), False, "auto", (4, 9, 8, 7)),
    ((3, 24, 24), True, "auto", (3, 24, 24)),
    ((3, 40), False, "auto", (3, 40)),
    ((12, 25), False, "auto", (12, 25)),
    ((28, 50), False, "auto", (28, 50)),
    ((64, 8, 4), False, "auto", (4, 64, 8)),
    ((7,), False, "auto", (7,)),
    ((3, 3, 3), False, "auto", (3, 3, 3)),
    ((28, 28), True, None, (1, 28, 28)),
    ((28, 28), True, 1, (28, 28)),
    ((28, 28, 3), True, 1, (28, 28, 3)),
    ((150, 3), False, -1, (3, 150)),
    ((40,), False, None, (1, 40)),
]


@pytest.mark.parametrize(("shape", "is_bytes", "axis", "expected"), READINGS)
def test_channels_are_read_where_they_are(shape, is_bytes, axis, expected):
    dtype = np.uint8 if is_bytes else np.float32
    X = np.arange(2 * np.prod(shape)).reshape(2, *shape).astype(dtype)
    spec = input_spec(X, input_shape=None, channel_axis=axis)
    assert spec.network_shape == expected
    first = spec.transform(X)
    assert first.shape == (2, *expected)
    if spec.channel_axis == -1:
        np.testing.assert_array_equal(first[0, 1 % shape[-1]], X[0, ..., 1 % shape[-1]])


@pytest.mark.parametrize(
    ("shape", "is_bytes", "read_as", "maybe"),
    [
        ((28, 28), False, "series of 28 channels", "grey images"),
        ((28, 20), True, "series of 28 channels", "grey images"),
        ((64, 64, 10), False, "64 channels", "10 channels at the end"),
        ((4, 28, 3), False, "4 channels", "3 channels at the end"),
        ((150, 3), False, "series of 150 channels", "series of 3 channels at the end"),
        ((100, 12), False, "series of 100 channels", "series of 12 channels at the end"),
        ((28, 30), False, "series of 28 channels", "grey images"),
        ((9, 9, 9, 2), False, "9 channels", "2 channels at the end"),
        ((32, 32, 32), False, "32 channels", "grey volumes"),
        ((24, 32, 32), True, "24 channels", "grey volumes"),
        ((30, 40, 5), False, "30 channels", "5 channels at the end"),
        ((30, 40, 2), True, "30 channels", "2 channels at the end"),
        ((60, 64, 10), False, "60 channels", "10 channels at the end"),
        ((128, 1000, 2), False, "128 channels", "2 channels at the end"),
        ((16, 16, 12, 2), False, "16 channels", "2 channels at the end"),
        ((14, 3), False, "series of 14 channels", "series of 3 channels at the end"),
        ((12, 2), False, "series of 12 channels", "series of 2 channels at the end"),
    ],
)
def test_two_readings_are_a_warning(shape, is_bytes, read_as, maybe):
    X = np.zeros((2, *shape), dtype=np.uint8 if is_bytes else np.float32)
    with pytest.warns(UserWarning, match=f"{read_as}; they may be {maybe}.*channel_axis"):
        spec = input_spec(X, input_shape=None, channel_axis="auto")
    assert spec.network_shape == shape


@pytest.mark.parametrize(
    "shape",
    [
        *[(1, 28, 28), (3, 32, 32), (13, 64, 64), (3, 480, 640), (2, 8, 4), (16, 128, 60)],
        *[(64, 8, 8), (512, 7, 7), (64, 20, 10), (8, 8, 16), (5, 5, 5)],
        *[(3, 16, 112, 112), (1, 32, 32, 32), (64, 8, 8, 6), (32, 10, 10, 8)],
        *[(16, 100), (12, 1000), (64, 100), (9, 128), (2, 12), (6, 3), (1, 2), (10, 8)],
    ],
    ids=str,
)
def test_channels_in_front_are_no_warning(shape):
    X = np.zeros((2, *shape), dtype=np.float32)
    spec = input_spec(X, input_shape=None, channel_axis="auto")
    assert spec.network_shape == shape


def test_photos_are_learned_from_their_colours():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = rng.normal(size=(60, 12, 12, 3)).astype(np.float32)
    X[..., 1] += 2 * y[:, None, None]
    model = ResNetClassifier(8, width=0.5, max_epochs=10, random_state=0).fit(X, y)
    assert model.module_.spec.in_channels == 3
    first = ResNetClassifier(8, width=0.5, max_epochs=10, random_state=0, channel_axis=1)
    moved = np.ascontiguousarray(np.moveaxis(X, -1, 1))
    same = first.fit(moved, y).predict_proba(moved)
    np.testing.assert_allclose(model.predict_proba(X), same, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_robust_values_stay_finite_however_far_out_they_lie(dtype):
    most = float(np.finfo(dtype).max)
    X = np.random.default_rng(0).normal(size=(50, 2)).astype(dtype)
    spec = input_spec(X, input_shape=None, channel_axis="auto")
    spec = with_quantiles(spec, X, np.ones(50))
    far = np.array([1e9, 1e18, most**0.5, most / 1e3]).astype(dtype)
    found = spec.transform(np.column_stack([far, -far]))
    np.testing.assert_allclose(found, [[3, -3]] * 4, rtol=1e-6)
    found = spec.transform_tensor(torch.tensor(np.column_stack([far, -far])))
    np.testing.assert_allclose(found, [[3, -3]] * 4, rtol=1e-6)
