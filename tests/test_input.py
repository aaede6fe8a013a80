import numpy as np
import pytest
import torch

from sk_resnet._augment import random_crop, random_flip
from sk_resnet._input import input_spec, with_statistics
from sk_resnet._split import split_rows


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
    train, valid = split_rows(fraction, X, y, None, seed=0)
    assert sorted([*train, *valid]) == list(range(len(y)))
    assert set(y[train]) == set(y)
    possible = len(y) - len(counts)
    assert len(valid) == min(max(1, round(fraction * len(y))), possible)
    held = np.bincount(y[valid], minlength=len(counts))
    assert (abs(held - fraction * np.array(counts)) <= 1).all() or len(valid) == possible


def test_groups_stay_together():
    y = np.arange(60) % 2
    groups = np.arange(60) // 6
    train, valid = split_rows(0.3, np.zeros((60, 1)), y, groups, seed=0)
    assert len(valid) == 18
    assert not set(groups[train]) & set(groups[valid])


def test_a_crop_is_a_shift_over_a_reflected_border():
    x = torch.arange(64 * 1000.0).reshape(1000, 1, 8, 8)
    out = random_crop(x, torch.Generator().manual_seed(0))
    again = random_crop(x, torch.Generator().manual_seed(0))
    assert torch.equal(out, again)
    padded = np.pad(x.numpy(), [(0, 0), (0, 0), (1, 1), (1, 1)], mode="reflect")
    shifts = {}
    for i in range(1000):
        found = [
            (a, b)
            for a in range(3)
            for b in range(3)
            if np.array_equal(padded[i, :, a : a + 8, b : b + 8], out[i].numpy())
        ]
        assert len(found) == 1
        shifts[found[0]] = shifts.get(found[0], 0) + 1
    assert len(shifts) == 9
    assert min(shifts.values()) > 70


@pytest.mark.parametrize("shape", [(2, 9), (1, 32, 32), (1, 5, 5, 5), (1, 1, 1)])
def test_a_crop_works_in_every_dimension(shape):
    x = torch.randn(6, *shape)
    assert random_crop(x, torch.Generator().manual_seed(0)).shape == x.shape


def test_a_flip_mirrors_half_of_the_samples():
    x = torch.randn(1000, 2, 4, 5)
    out = random_flip(x, torch.Generator().manual_seed(0))
    flipped = (out == x.flip(-1)).flatten(1).all(1)
    kept = (out == x).flatten(1).all(1)
    assert (flipped ^ kept).all()
    assert 430 < flipped.sum() < 570
