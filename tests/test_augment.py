"""Each augmentation against its definition."""

import numpy as np
import pytest
import torch

from sk_resnet import ResNetClassifier, ResNetRegressor
from sk_resnet._augment import (
    AUGMENTATIONS,
    cutmix,
    cutout,
    jitter,
    mixed_targets,
    mixup,
    random_crop,
    random_erasing,
    random_flip,
    random_scaling,
    random_shift,
    random_window,
)
from sk_resnet._target import Labels

SHAPES = {0: (5,), 1: (2, 20), 2: (2, 8, 10), 3: (2, 6, 5, 8)}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def samples(n_dims, n=200, seed=7):
    return torch.randn(n, *SHAPES[n_dims], generator=generator(seed))


CASES = [(name, d) for name, row in AUGMENTATIONS.items() for d in row.dims]


@pytest.mark.parametrize(("name", "n_dims"), CASES)
def test_one_seed_gives_one_result_and_the_input_stays(name, n_dims):
    x, row = samples(n_dims, 16), AUGMENTATIONS[name]
    kept = x.clone()
    results = [row.apply(x, generator(seed)) for seed in (3, 3, 4)]
    results = [r if row.mixes else (r,) for r in results]
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    assert not torch.equal(results[0][0], results[2][0])
    assert torch.equal(x, kept)
    assert results[0][0].shape == x.shape
    assert results[0][0].dtype == x.dtype


@pytest.mark.parametrize(("name", "n_dims"), CASES)
def test_every_augmentation_trains(name, n_dims):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(24, *SHAPES[n_dims])), np.arange(24) % 3
    depth = 4 if n_dims == 0 else 8
    settings = {"depth": depth, "max_epochs": 1, "batch_size": 12, "random_state": 0}
    one = ResNetClassifier(**settings, augment=name).fit(X, y)
    again = ResNetClassifier(**settings, augment=[name]).fit(X, y)
    none = ResNetClassifier(**settings).fit(X, y)
    np.testing.assert_array_equal(one.predict_proba(X), again.predict_proba(X))
    assert not np.array_equal(one.predict_proba(X), none.predict_proba(X))


@pytest.mark.parametrize(
    "shape", [(3, 1, 12, 12), (1, 1, 28, 28), (2, 2, 9), (2, 1, 8, 8, 8), (2, 1, 1, 1)]
)
def test_crop_shifts_over_a_reflected_border(shape):
    x = torch.randn(shape, generator=generator())
    out = random_crop(x.repeat(40, *(1,) * (len(shape) - 1)), generator())
    side = shape[-1]
    p = min(4, max(1, side // 7), side - 1)
    padded = torch.nn.functional.pad(x, (p, p) * (len(shape) - 2), mode="reflect")
    windows = padded
    for axis in range(2, len(shape)):
        windows = windows.unfold(axis, side, 1)
    n_axes = len(shape) - 2
    windows = windows.flatten(2, 1 + n_axes).transpose(1, 2).flatten(1, 1)
    for i, sample in enumerate(out):
        candidates = windows[i % shape[0]]
        assert any(torch.equal(sample, candidate) for candidate in candidates)


def test_all_shifts_of_a_crop_are_as_likely():
    x = torch.arange(64 * 1000.0).reshape(1000, 1, 8, 8)
    out = random_crop(x, generator())
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


def test_flip_mirrors_about_half():
    x = samples(2, 1000)
    out = random_flip(x, generator())
    flipped = (out == x.flip(-1)).flatten(1).all(1)
    assert (flipped ^ (out == x).flatten(1).all(1)).all()
    assert 0.45 < flipped.float().mean() < 0.55


@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_random_erasing_fills_a_box_of_its_share_with_noise(n_dims):
    x = torch.full((3000, 2, *(24,) * n_dims), 99.0)
    out = random_erasing(x, generator())
    changed = out != x
    assert torch.equal(changed[:, 0], changed[:, 1])
    touched = changed.flatten(1).any(1)
    assert 0.46 < touched.float().mean() < 0.54
    share = changed[touched].flatten(1).float().mean(1)
    assert share.max() < 0.5
    assert 0.17 < share.mean() < 0.25  # U(0.02, 0.4), some cut off
    noise = out[changed]
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert_boxes(changed[touched][:, 0])


def assert_boxes(masks):
    """Each mask is the product of its projections."""
    product = torch.ones_like(masks)
    for axis in range(1, masks.ndim):
        others = [a for a in range(1, masks.ndim) if a != axis]
        along = masks.amax(others, keepdim=True) if others else masks
        product = product & along
    assert torch.equal(product, masks)


def test_cutout_zeroes_half_the_side_and_cuts_off_at_the_border():
    x = torch.ones(2000, 3, 16, 16)
    zeros = cutout(x, generator()) == 0
    assert torch.equal(zeros[:, 0], zeros[:, 2])
    assert_boxes(zeros[:, 0])
    n = zeros[:, 0].flatten(1).sum(1)
    assert n.max() == 64
    assert n.min() >= 16
    whole = (n == 64).float().mean()
    assert abs(whole - (9 / 16) ** 2) < 0.05  # centres from 4 to 12


def test_shift_moves_and_repeats_the_border():
    x = torch.arange(20.0).expand(500, 2, 20)
    out = random_shift(x, generator())
    by = out[:, 0, 10] - 10
    assert set(by.tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    expected = (torch.arange(20.0) + by[:, None]).clamp(0, 19)
    assert torch.equal(out[:, 0], expected)
    assert torch.equal(out[:, 1], expected)


def test_scaling_and_jitter_have_their_deviations():
    x = torch.ones(4000, 2, 5)
    factors = random_scaling(x, generator())
    assert torch.equal(factors[..., :1].expand_as(factors), factors)
    assert abs(factors[..., 0].std() - 0.1) < 0.005
    assert abs(factors.mean() - 1) < 0.005
    noise = jitter(x, generator()) - x
    assert abs(noise.std() - 0.05) < 0.002


def test_a_window_of_a_line_is_a_line():
    x = torch.arange(101.0).expand(300, 1, 101)
    out = random_window(x, generator())[:, 0]
    steps = out.diff(dim=1)
    torch.testing.assert_close(steps, torch.full_like(steps, 0.9), atol=1e-4, rtol=0)
    assert out.min() >= 0
    assert out.max() <= 100
    assert out[:, 0].std() > 2


@pytest.mark.parametrize("n_dims", SHAPES)
def test_mixup_is_the_weighted_mean(n_dims):
    x = samples(n_dims)
    out, partner, share = mixup(x, generator())
    assert sorted(partner.tolist()) == list(range(200))
    assert 0.4 < share.mean() < 0.6
    s = share.view(-1, *(1,) * n_dims, 1)
    torch.testing.assert_close(out, s * x + (1 - s) * x[partner])


@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_cutmix_puts_a_box_of_the_partner_in(n_dims):
    x = samples(n_dims)
    out, partner, share = cutmix(x, generator())
    own = (out == x).all(1)
    assert (own | (out == x[partner]).all(1)).all()
    fixed = partner == torch.arange(200)
    assert_boxes(~own[~fixed])
    counted = own.flatten(1).float().mean(1)
    torch.testing.assert_close(counted[~fixed], share[~fixed])
    assert 0.5 < share.mean() < 0.85


soft = Labels(np.arange(3)).soft


def test_mixed_labels_give_the_mixed_loss():
    logits = torch.randn(6, 3, generator=generator())
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    weight = torch.tensor([1.0, 2, 0.5, 1, 3, 0.1])
    partner, share = torch.randperm(6, generator=generator()), torch.linspace(0.1, 0.9, 6)
    target, total = mixed_targets(soft(y), weight, partner, share)
    torch.testing.assert_close(target.sum(1), torch.ones(6))
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="none") * total

    def plain(labels):
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    expected = share * weight * plain(y) + (1 - share) * weight[partner] * plain(y[partner])
    torch.testing.assert_close(loss, expected)
    # Weights may vanish in float32.
    target, total = mixed_targets(soft(y), torch.zeros(6), partner, share)
    assert torch.isfinite(target).all()
    assert (total == 0).all()
    # Mixing mixed samples again is linear in their probabilities.
    again, total = mixed_targets(soft(target), torch.ones(6), partner, share)
    expected = share[:, None] * target + (1 - share)[:, None] * target[partner]
    torch.testing.assert_close(again, expected)


# At prediction


def shifted(X):
    """X, and all of it moved by one place along each axis that has places, and back."""
    views = [X]
    for axis in [axis for axis in range(2, X.ndim) if X.shape[axis] > 1]:
        widths = [(0, 0)] * X.ndim
        widths[axis] = (1, 1)
        wide = np.pad(X, widths, mode="reflect")
        n = X.shape[axis]
        views += [np.take(wide, np.arange(start, start + n), axis) for start in (0, 2)]
    return views


VIEWS = {
    "crop": shifted,
    "flip": lambda X: [X, X[..., ::-1]],
    "both": lambda X: [view[..., ::-1] for view in shifted(X)] + shifted(X),
}


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("kind", ["labels", "label sets", "numbers"])
@pytest.mark.parametrize("name", VIEWS)
def test_predictions_are_means_over_views(name, kind, members):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(24, 1, 5, 6)), np.arange(24) % 3
    settings = {"depth": 8, "max_epochs": 1, "n_estimators": members, "random_state": 0}
    make = ResNetRegressor if kind == "numbers" else ResNetClassifier
    if kind == "label sets":
        y = y[:, None] == [0, 1]
    model = make(**settings).fit(X, y)
    if kind == "numbers":
        predict, of_members = "predict", "member_predictions"
    else:
        predict, of_members = "predict_proba", "member_probabilities"
    expected, by_member = (
        np.mean([getattr(model, act)(view) for view in VIEWS[name](X)], axis=0)
        for act in (predict, of_members)
    )
    plain = getattr(model, predict)(X)
    model.set_params(test_time_augmentation=["crop", "flip"] if name == "both" else name)
    np.testing.assert_allclose(getattr(model, predict)(X), expected, atol=1e-6)
    np.testing.assert_allclose(getattr(model, of_members)(X), by_member, atol=1e-6)
    assert not np.allclose(plain, expected, atol=1e-4)


def test_views_of_volumes_and_of_sides_of_one_place():
    rng = np.random.default_rng(0)
    for shape in ((1, 4, 5, 6), (1, 1, 6)):
        X = rng.normal(size=(20, *shape))
        model = ResNetClassifier(8, max_epochs=1, random_state=0).fit(X, np.arange(20) % 2)
        expected = np.mean([model.predict_proba(view) for view in shifted(X)], axis=0)
        model.set_params(test_time_augmentation="crop")
        np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-6)


def test_views_that_do_not_exist_or_come_twice_are_refused_after_the_fit_too():
    X, y = np.random.default_rng(0).normal(size=(20, 1, 6, 6)), np.arange(20) % 2
    model = ResNetClassifier(8, n_estimators=1, max_epochs=1, random_state=0).fit(X, y)
    for wrong, message in (
        (5, r"must name some of \['crop', 'flip'\], got \['5'\]"),
        (["flip", "flip"], "names a view twice"),
    ):
        with pytest.raises(ValueError, match=message):
            model.set_params(test_time_augmentation=wrong).predict(X)


def test_views_of_series_are_refused_before_training():
    X, y = np.random.default_rng(0).normal(size=(20, 1, 9)), np.arange(20) % 2
    model = ResNetClassifier(8, max_epochs=1, test_time_augmentation="flip")
    with pytest.raises(ValueError, match="needs images or volumes, but .* are series"):
        model.fit(X, y)
    assert not hasattr(model, "net_")
