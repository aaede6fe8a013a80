"""Series of unequal lengths: what NaN follow is read as what it is without them."""

import re

import numpy as np
import pytest
import torch
from joblib import parallel_config
from optuna.distributions import FloatDistribution
from optuna.trial import FixedTrial
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_resnet import (
    ResNetClassifier,
    ResNetEmbedder,
    ResNetRegressor,
    WideResNetClassifier,
    load,
    save,
)
from sk_resnet._augment import AUGMENTATIONS
from sk_resnet._input import input_spec, with_statistics
from sk_resnet._layers import Ends, norm, through
from sk_resnet.inspection import diagnose, summary
from sk_resnet.search import CrossValidationObjective, search_space

TINY = {"depth": 8, "width": 0.25, "block": "basic", "max_epochs": 2, "random_state": 0}
CLOSE = 1e-5
RNG = np.random.default_rng(0)


def listed(n=36, n_channels=2, seed=0, shortest=5, longest=19):
    """Series in 3 classes by the period of a sine, of `shortest` to `longest` places."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    lengths = rng.integers(shortest, longest + 1, size=n)
    lengths[:2] = shortest, longest
    series = []
    for kind, length in zip(y, lengths, strict=True):
        wave = np.sin(np.arange(length) * (0.4 + 0.5 * kind))
        series.append(wave + 0.1 * rng.normal(size=(n_channels, length)))
    return series, y


def in_nan(series, length=None):
    """The same as one array, in which NaN follow each series."""
    length = length or max(x.shape[-1] for x in series)
    X = np.full((len(series), len(series[0]), length), np.nan)
    for row, x in zip(X, series, strict=True):
        row[:, : x.shape[-1]] = x
    return X


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"order": "full_preactivation", "block": "bottleneck", "depth": 11},
        {"order": "norm_after_addition", "block": (4, 3)},
        {"order": "relu_only_preactivation", "shortcut": "zero_pad", "block": (5, 1)},
        {"order": "full_preactivation", "layout": "imagenet", "depth": 18},
        {"block": (4, 7), "layout": "small"},
        {"n_estimators": 2, "dropout": 0.2, "stochastic_depth": 0.2},
    ],
    ids=str,
)
def test_a_series_gives_what_it_gives_alone_whatever_it_is_padded_to(parameters):
    series, y = listed()
    model = ResNetClassifier(**{**TINY, **parameters}).fit(in_nan(series), y)
    whole = model.predict_proba(in_nan(series))
    alone = np.concatenate([model.predict_proba(x[None]) for x in series])
    np.testing.assert_allclose(alone, whole, atol=CLOSE)
    longer = model.predict_proba(in_nan(series, length=33))
    np.testing.assert_allclose(longer, whole, atol=CLOSE)
    np.testing.assert_array_equal(model.predict_proba(series), whole)


def test_lists_and_arrays_are_trained_on_alike():
    series, y = listed()
    of_list = ResNetClassifier(**TINY).fit(series, y)
    of_array = ResNetClassifier(**TINY).fit(in_nan(series, length=24), y)
    expected = of_list.predict_proba(series)
    np.testing.assert_allclose(of_array.predict_proba(series), expected, atol=1e-4)
    held = np.array(series + [0], dtype=object)[:-1]
    of_objects = ResNetClassifier(**TINY).fit(held, y)
    np.testing.assert_array_equal(of_objects.predict_proba(held), expected)
    of_tensors = ResNetClassifier(**TINY).fit([*map(torch.from_numpy, series)], y)
    np.testing.assert_array_equal(of_tensors.predict_proba(series), expected)


def test_series_of_one_channel_need_no_axis_for_it():
    series, y = listed(n_channels=1)
    X = in_nan(series)
    expected = ResNetClassifier(**TINY).fit(X, y).predict_proba(X)
    flat = [x[0] for x in series]
    model = ResNetClassifier(**TINY).fit(flat, y)
    np.testing.assert_array_equal(model.predict_proba(flat), expected)
    np.testing.assert_allclose(
        model.predict_proba([flat[3], flat[3]]), expected[[3, 3]], atol=CLOSE
    )
    for axis in (None, -1):
        model = ResNetClassifier(**TINY, channel_axis=axis).fit(flat, y)
        np.testing.assert_array_equal(model.predict_proba(flat), expected)
    for parameters in ({"channel_axis": None}, {"input_shape": (1, X.shape[-1])}):
        model = ResNetClassifier(**TINY, **parameters).fit(X[:, 0], y)
        np.testing.assert_array_equal(model.predict_proba(X[:, 0]), expected)
        shorter = X[3:4, 0, : len(flat[3])]
        np.testing.assert_allclose(model.predict_proba(shorter), expected[3:4], atol=CLOSE)


def test_channels_may_come_last():
    series, y = listed()
    X = in_nan(series)
    first = ResNetClassifier(**TINY).fit(X, y)
    last = ResNetClassifier(**TINY, channel_axis=-1).fit(X.swapaxes(1, 2), y)
    np.testing.assert_array_equal(
        last.predict_proba(X.swapaxes(1, 2)), first.predict_proba(X)
    )


def test_channels_are_standardized_by_the_values_that_are_there():
    series, _ = listed()
    X = in_nan(series, length=30)
    weight = np.random.default_rng(1).random(len(X))
    spec = input_spec(X, input_shape=None, channel_axis=1)
    spec = with_statistics(spec.__class__(**{**vars(spec), "unequal": True}), X, weight)
    values = np.concatenate(series, axis=1)
    weights = np.repeat(weight, [x.shape[1] for x in series])
    mean = np.average(values, axis=1, weights=weights)
    variance = np.average((values - mean[:, None]) ** 2, axis=1, weights=weights)
    np.testing.assert_allclose(spec.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(spec.scale, np.sqrt(variance), rtol=1e-12)


@pytest.mark.parametrize("members", [1, 2])
def test_batch_norm_takes_the_statistics_of_the_values_that_are_there(members):
    """Against torch's norm over the values of all series in a row, gradients too."""
    series, _ = listed(n_channels=3 * members, n=10)
    ends = Ends(torch.from_numpy(~np.isnan(in_nan(series)[:, :1, None])))
    if members == 2:
        ends = Ends(ends.masks[0].repeat(1, 2, 1, 1))
    x = torch.tensor(np.nan_to_num(in_nan(series), nan=7.0)[:, :, None]).float()
    ours, theirs = (norm(1, 3 * members) for _ in range(2))
    for layer in (ours, theirs):
        layer.reset_running_stats()
        torch.nn.init.uniform_(layer.weight, generator=torch.Generator().manual_seed(0))
        torch.nn.init.uniform_(layer.bias, generator=torch.Generator().manual_seed(1))
    found = through(torch.nn.Sequential(ours), x, ends)
    values = torch.tensor(np.concatenate(series, axis=1))[None, :, None].float()
    expected = theirs(values)
    mask = ends.at(x).expand_as(x).movedim(1, 0).flatten(1)
    torch.testing.assert_close(
        found.movedim(1, 0).flatten(1)[mask].view(3 * members, -1), expected[0, :, 0]
    )
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    ends.filled(found).square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)


def test_members_are_what_they_would_be_alone():
    series, y = listed()
    X = in_nan(series)
    parameters = {**TINY, "validation_split": None}
    both = ResNetClassifier(**parameters, n_estimators=2).fit(X, y)
    found = both.member_probabilities(X)
    first = ResNetClassifier(**parameters, n_estimators=1).fit(X, y)
    np.testing.assert_allclose(found[0], first.predict_proba(X), atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 0.01


@pytest.mark.parametrize("name", [n for n, a in AUGMENTATIONS.items() if 1 in a.dims])
def test_augmentations_keep_the_ends(name):
    series, _ = listed(n=60, shortest=1, longest=40)
    x = torch.tensor(in_nan(series)).float()
    found = AUGMENTATIONS[name].apply(x, torch.Generator().manual_seed(0))
    if not AUGMENTATIONS[name].mixes:
        assert torch.equal(found.isnan(), x.isnan())
        return
    found, partner, share = found
    ends = x.isnan() | x[partner].isnan() if name == "mixup" else x.isnan()
    assert torch.equal(found.isnan(), ends)
    if name == "cutmix":
        changed = (found != x) & ~x.isnan()
        of_partner = changed[:, 0].sum(1) / (~x.isnan())[:, 0].sum(1)
        others = partner != torch.arange(len(x))
        torch.testing.assert_close(share[others], 1 - of_partner[others])


@pytest.mark.parametrize("name", ["crop", "flip", "shift", "window"])
def test_augmentations_move_a_short_series_as_it_is_moved_alone(name):
    """Each place gets a value of the same series, by the rule for its own length."""
    x = torch.arange(12.0)[None, None].repeat(200, 1, 1)
    padded = torch.nn.functional.pad(x, (0, 9), value=torch.nan)
    apply = AUGMENTATIONS[name].apply
    alone = apply(x, torch.Generator().manual_seed(0))
    found = apply(padded, torch.Generator().manual_seed(0))[..., :12]
    kinds = [{tuple(row) for row in a[:, 0].tolist()} for a in (alone, found)]
    if name == "window":  # it starts anywhere
        torch.testing.assert_close(alone, found)
    else:
        assert kinds[0] == kinds[1]


def test_folds_pipelines_and_searches_take_lists():
    series, y = listed()
    model = ResNetClassifier(**TINY)
    scores = cross_val_score(model, series, y, cv=3)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(cross_val_score(model, in_nan(series), y, cv=3), scores)
    steps = make_pipeline(FunctionTransformer(lambda x: [2 * row for row in x]), model)
    assert np.isfinite(cross_val_score(steps, series, y, cv=3)).all()
    search = GridSearchCV(model, {"l2": [1e-4, 1e-3]}, cv=3).fit(series, y)
    assert search.predict(series).shape == y.shape
    with parallel_config("fused", n_jobs=6):
        fused = GridSearchCV(model, {"l2": [1e-4, 1e-3]}, cv=3).fit(series, y)
    np.testing.assert_allclose(
        fused.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"]
    )


def test_studies_and_diagnoses_take_lists():
    series, y = listed()
    model = ResNetClassifier(**TINY)
    assert "depth" in search_space(model, series)
    objective = CrossValidationObjective(
        model, series, y, cv=3, space={"l2": FloatDistribution(1e-4, 1e-3)}
    )
    score = objective(FixedTrial({"l2": 1e-4}))
    of_array = CrossValidationObjective(
        model, in_nan(series), y, cv=3, space={"l2": FloatDistribution(1e-4, 1e-3)}
    )
    assert of_array(FixedTrial({"l2": 1e-4})) == score
    found = diagnose(model.fit(series, y), series, y, series[:9], y[:9])
    assert np.isfinite(list(found.figures.values())).all()
    assert f"{model.n_parameters_:,}" in summary(model)


def test_all_estimators_take_them_and_keep_them_in_files(tmp_path):
    series, y = listed()
    for make in (ResNetClassifier, WideResNetClassifier, ResNetRegressor):
        model = make(**{**TINY, "depth": 10 if make is WideResNetClassifier else 8})
        model.fit(series, y)
        save(model, tmp_path / "model")
        again = load(tmp_path / "model")
        np.testing.assert_array_equal(again.predict(series), model.predict(series))
        longer = [np.tile(x, 3) for x in series]
        np.testing.assert_array_equal(again.predict(longer), model.predict(longer))
        assert model.compact().embed(series).shape == model.embed(series).shape
    embedder = ResNetEmbedder(ResNetClassifier(**TINY)).fit(series, y)
    assert embedder.transform(series).shape[0] == len(y)


def test_training_goes_on_with_other_lengths():
    series, y = listed()
    shorter = [x[:, :6] for x in series]
    model = ResNetClassifier(**TINY).partial_fit(series, y, classes=[0, 1, 2])
    before = model.predict_proba(series)
    model.partial_fit(shorter, y).partial_fit(np.stack([x[:, :5] for x in series]), y)
    assert np.abs(model.predict_proba(series) - before).max() > 0
    model = ResNetClassifier(**TINY, warm_start=True).fit(series, y, None, shorter, y)
    assert "valid_loss" in model.history_[-1]
    model.fit(shorter, y)
    with pytest.raises(ValueError, match="samples of shape"):
        model.set_params(channel_axis=-1).fit([x.T for x in series], y)


@pytest.mark.parametrize("n", [1, 2])
def test_series_of_a_single_value_are_read(n):
    series, y = listed(shortest=n)
    model = ResNetClassifier(**TINY).fit(series, y)
    assert np.isfinite(model.predict_proba([x[:, :1] for x in series])).all()


def test_nan_elsewhere_is_refused():
    series, y = listed()
    X = in_nan(series)
    model = ResNetClassifier(**TINY)
    gap, start, one_channel = X.copy(), X.copy(), X.copy()
    gap[1, :, 3], start[1, :, 0], one_channel[1, 0, 4:] = np.nan, np.nan, np.nan
    whole = np.full_like(X[:1], np.nan)
    for bad in (gap, start, one_channel, np.concatenate([X, whole])[1:]):
        with pytest.raises(ValueError, match="NaN within series"):
            model.fit(bad, y)
    model.fit(X, y)
    for bad in (gap, start, one_channel, whole):
        with pytest.raises(ValueError, match="NaN within series"):
            model.predict(bad)
    with pytest.raises(ValueError, match="shape"):
        model.predict(X[:, :1])
    with pytest.raises(ValueError, match="shape"):
        model.predict(X[:, :, :0])
    with pytest.raises(ValueError, match="infinity"):
        model.predict(np.where(np.isnan(X), np.inf, X))


def test_a_model_of_one_length_refuses_shorter_series():
    series, y = listed(shortest=19)
    X = np.stack(series)
    model = ResNetClassifier(**TINY).fit(X, y)
    assert not model.module_.spec.unequal
    X[1, :, 7:] = np.nan
    with pytest.raises(ValueError, match="series of one length"):
        model.predict(X)
    with pytest.raises(ValueError, match="shape"):
        model.predict(X[..., :7])


def test_images_and_rows_have_no_end():
    X, y = np.zeros((9, 1, 4, 4)), np.arange(9) % 3
    X[3, 0, 3, 3] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        ResNetClassifier(**TINY).fit(X, y)
    with pytest.raises(ValueError, match="Input X contains NaN.*input_shape"):
        ResNetClassifier(depth=4, max_epochs=1).fit(X.reshape(9, -1), y)


@pytest.mark.parametrize(
    "shapes",
    [[(2, 9), (1, 9), (2, 7)], [(3, 8, 8), (3, 9, 9)], [(3, 8, 8), (1, 8, 8)], [(8,), ()]],
    ids=str,
)
@pytest.mark.parametrize("is_object", [False, True])
def test_samples_of_other_shapes_are_refused_by_name(shapes, is_object):
    X = [np.zeros(shape) for shape in shapes] * 6
    if is_object:
        X = np.array([*X, 0], dtype=object)[:-1]
    y = np.arange(len(X)) % 2
    named = "one shape.*" + re.escape(str(min(shapes, key=lambda s: (len(s), s))))
    with pytest.raises(ValueError, match=named):
        ResNetClassifier(**TINY).fit(X, y)
    model = ResNetClassifier(**TINY).fit(np.zeros((6, 3, 8, 8)), np.arange(6) % 2)
    with pytest.raises(ValueError, match=named):
        model.predict(X)


def test_empty_series_are_named():
    series, y = listed()
    series[4] = series[4][:, :0]
    with pytest.raises(ValueError, match="empty one at 4"):
        ResNetClassifier(**TINY).fit(series, y)


def test_lists_of_images_of_one_shape_are_arrays():
    X = RNG.normal(size=(12, 1, 6, 6))
    y = np.arange(12) % 2
    expected = ResNetClassifier(**TINY).fit(X, y).predict_proba(X)
    found = ResNetClassifier(**TINY).fit(list(X), y).predict_proba(list(X))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n_channels", [0, 1, 2])
def test_series_may_be_lists_of_numbers(n_channels):
    series = [[1.0, 2, 3], [3.0, 4], [2, 2, 2, 2]] * 8
    if n_channels:
        series = [[x] * n_channels for x in series]
    labels = [0, 1, 1] * 8
    settings = {"depth": 8, "n_estimators": 1, "max_epochs": 1, "random_state": 0}
    of_lists = ResNetClassifier(**settings).fit(series, labels)
    of_arrays = ResNetClassifier(**settings).fit([np.array(x) for x in series], labels)
    np.testing.assert_array_equal(
        of_lists.predict_proba(series), of_arrays.predict_proba(series)
    )
