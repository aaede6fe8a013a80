import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import LearningCurveDisplay, ValidationCurveDisplay

from sk_resnet import (
    EarlyStopping,
    ResNetClassifier,
    ResNetRegressor,
    WideResNetClassifier,
    regularization_path,
)
from sk_resnet._callbacks import wants_batches
from sk_resnet._surgery import multiply_adds
from sk_resnet.inspection import (
    GradientFlow,
    GradientFlowDisplay,
    NetworkDisplay,
    RegularizationPathDisplay,
    TrainingCurveDisplay,
    WeightDisplay,
    diagnose,
    summary,
)
from sk_resnet.inspection._probe import dead_share, probe
from sk_resnet.inspection._summary import network_rows

mpl.use("agg")
ROWS = {"depth": 4, "max_epochs": 6, "batch_size": 16, "random_state": 0}
ROWS |= {"n_estimators": 1}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = rng.normal(size=(60, 1, 6, 6)).astype(np.float32) + y[:, None, None, None]
    model = ResNetClassifier(**{**ROWS, "depth": 8}, l1=1e-3, dropout=0.1)
    model.set_params(callbacks=[GradientFlow(every=1), EarlyStopping(patience=1)])
    return model.fit(X, y), X, y


def cross_entropies(outputs, y):
    return torch.nn.functional.cross_entropy(outputs, y, reduction="none")


def drawn(axes):
    axes.figure.canvas.draw()
    return [line.get_label() for line in axes.get_lines()]


def test_training_curves_show_both_parts_and_mark_the_epochs(fitted):
    model = fitted[0]
    display = TrainingCurveDisplay.from_estimator(model)
    labels = drawn(display.axes_[0])
    assert labels[:3] == ["training", "validation", "best"]
    assert (labels[3:] == ["stopped"]) == (model.n_epochs_ < 6)
    line = display.axes_[0].get_lines()[0]
    np.testing.assert_allclose(line.get_ydata(), [r["train_loss"] for r in model.history_])
    best = display.axes_[1].get_lines()[-1 if model.n_epochs_ == 6 else -2]
    assert best.get_xdata()[0] == model.best_epoch_


def test_training_curves_of_an_ensemble_mark_where_its_last_member_stopped():
    X = np.random.default_rng(0).normal(size=(60, 4))
    y = np.arange(60) % 2
    settings = {"max_epochs": 40, "lr": 1e-6, "random_state": 0, "n_estimators": 2}
    stop = EarlyStopping(patience=1)
    model = ResNetClassifier(4, callbacks=[stop], **settings).fit(X, y)
    display = TrainingCurveDisplay.from_estimator(model)
    assert display.stopped_epoch == model.n_epochs_ < 40
    assert (
        TrainingCurveDisplay.from_estimator(
            ResNetClassifier(4, **{**settings, "max_epochs": 1}).fit(X, y)
        ).stopped_epoch
        is None
    )


def test_training_curves_without_validation(rows):
    model = ResNetClassifier(**ROWS).fit(*rows)
    display = TrainingCurveDisplay.from_estimator(model)
    assert drawn(display.axes_[0]) == ["training"]  # nothing tells which epoch is best
    with pytest.raises(ValueError, match="at least one epoch"):
        TrainingCurveDisplay([]).plot()
    with pytest.raises(ValueError, match="ax must hold 3 axes, got 1"):
        TrainingCurveDisplay(model.history_).plot(ax=display.axes_[0])


def test_weights_of_two_models_share_their_axes(fitted):
    model, X, y = fitted
    display = WeightDisplay.from_estimator(model, label="l1")
    assert sum(len(w) for w in display.weights.values()) == sum(
        w.numel() for name, w in model.module_.named_parameters() if w.ndim > 1
    )
    other = clone(model).set_params(l1=0.0, callbacks=None).fit(X, y)
    second = WeightDisplay.from_estimator(other, ax=display.axes_, label="l2")
    assert second.axes_[0] is display.axes_[0]
    texts = [t.get_text() for t in second.axes_[1].get_legend().get_texts()]
    zeros = (display.weights["stages.0"] == 0).mean()
    assert texts == [f"l1: {zeros:.0%} zeros", "l2: 0% zeros"]


def test_gradient_flow_is_drawn_by_layer(fitted):
    model = fitted[0]
    display = GradientFlowDisplay.from_estimator(model)
    n_recorded = sum("gradient_norms" in row for row in model.history_)
    assert display.gradient_norms.shape == (n_recorded, len(display.layers))
    assert display.blocks == ["stem", "stages.0.0", "stages.1.0", "stages.2.0"]
    assert (display.activation_norms > 0).all()
    assert drawn(display.axes_[1])[0] == "epoch 1"
    parts = [line for line in display.axes_[1].get_lines() if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in parts] == [1.5, 2.5, 3.5]


def test_logarithmic_axes_are_written_in_full():
    def labels(values):
        display = GradientFlowDisplay(
            epochs=[1],
            layers=["stem", "classifier"],
            gradient_norms=[values],
            blocks=["stem", "stages.0.0"],
            activation_norms=[[1.0, 1.1]],
        ).plot()
        display.figure_.canvas.draw()
        axes = display.axes_[0]
        low, high = axes.get_ylim()
        ticks = axes.get_yticklabels()
        return [t.get_text() for t in ticks if low <= t.get_position()[1] <= high]

    assert labels([0.15, 2.5]) == ["0.2", "0.5", "1", "2"]
    assert "0.001" in labels([1e-4, 2.0])
    assert labels([1.0, 2.0])[0] == "1.0"  # too close for logarithms


def test_gradient_flow_does_not_change_the_training(fitted):
    model, X, y = fitted
    assert not wants_batches(GradientFlow())
    without = clone(model).set_params(callbacks=[EarlyStopping(patience=1)]).fit(X, y)
    np.testing.assert_array_equal(without.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize(
    ("every", "n", "recorded"),
    [("auto", 60, [1]), ("auto", 300, [1, 6]), (2, 60, [1, 3, 5])],
)
def test_gradient_flow_is_recorded_where_epochs_pay_for_it(every, n, recorded):
    # 60 samples make 4 steps an epoch, and 300 make 10; a record is worth 48 of them.
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(n, 5)), np.arange(n) % 2
    callbacks = [GradientFlow(every=every)]
    settings = {**ROWS, "max_epochs": 6, "batch_size": "auto"}
    model = ResNetClassifier(**settings, callbacks=callbacks).fit(X, y)
    epochs = [row["epoch"] for row in model.history_ if "gradient_norms" in row]
    assert epochs == recorded


def test_a_probe_leaves_the_network_alone(fitted):
    module = fitted[0].module_
    was = [layer.training for layer in module.modules()]
    before = [None if w.grad is None else w.grad.clone() for w in module.parameters()]
    generator = torch.get_rng_state()
    probe(module, torch.randn(9, 1, 6, 6), torch.arange(9) % 3, cross_entropies)
    torch.set_rng_state(generator)
    assert [layer.training for layer in module.modules()] == was
    assert not any(layer._forward_hooks for layer in module.modules())
    after = [None if w.grad is None else w.grad.clone() for w in module.parameters()]
    assert all(
        a is b is None or torch.equal(a, b) for a, b in zip(after, before, strict=True)
    )
    norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(norm.track_running_stats for norm in norms)


def test_probed_gradients_are_those_of_the_loss(fitted):
    module = fitted[0].module_
    x, y = torch.randn(9, 1, 6, 6), torch.arange(9) % 3
    state = {k: v.clone() for k, v in module.state_dict().items()}
    norms = probe(module, x, y, cross_entropies).gradient_norms
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    name = "stages.1.0.branch.conv2.weight"
    import copy

    from sk_resnet._layers import Dropout

    for layer in module.modules():
        if isinstance(layer, Dropout):
            layer.generator = None
    twin = copy.deepcopy(module).train()
    for layer in twin.modules():
        if isinstance(layer, Dropout):
            layer.eval()
    torch.nn.functional.cross_entropy(twin(x), y).backward()
    expected = float(dict(twin.named_parameters())[name].grad.norm())
    assert norms[name] == pytest.approx(expected, rel=1e-5)


def test_paths_are_drawn(rows):
    X, y = rows
    path = regularization_path(ResNetClassifier(**ROWS), X, y, [0.0, 1e-3, 1e-2])
    display = RegularizationPathDisplay.from_path(path)
    np.testing.assert_allclose(display.axes_[0].get_lines()[1].get_ydata(), path.sparsities)
    again = RegularizationPathDisplay.from_estimator(
        ResNetClassifier(**ROWS), X, y, [1e-3, 1e-2]
    )
    drawn(again.axes_[1])
    assert again.axes_[0].get_xscale() == "log"


@pytest.mark.parametrize("depth", [8, 110])
def test_networks_of_any_depth_are_drawn(images, depth):
    X, y = images
    model = ResNetClassifier(depth, max_epochs=1, batch_size=40, width=0.25).fit(X, y)
    display = NetworkDisplay.from_estimator(model)
    assert len(display.names) == (depth - 2) // 2 + 2
    assert display.parameters.sum() == model.n_parameters_
    texts = [t.get_text() for t in display.ax_.get_legend().get_texts()]
    n = (depth - 2) // 6
    blocks = "1 block" if n == 1 else f"{n} blocks"
    assert texts[1].startswith(f"stages.0, {blocks}: 4 × 6 × 6")
    drawn(display.ax_)


@pytest.mark.parametrize("shape", [(5,), (2, 9), (1, 8, 8), (1, 4, 4, 4)])
def test_the_summary_adds_up(shape):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(8, *shape)), np.arange(8) % 2
    depth = 14 if len(shape) > 1 else 6
    model = ResNetClassifier(depth, max_epochs=1, n_estimators=1).fit(X, y)
    rows = network_rows(model.module_, shape[1:])
    assert sum(row.parameters for row in rows) == model.n_parameters_
    assert sum(r.multiply_adds for r in rows) == multiply_adds(model.module_, shape[1:])
    table = summary(model)
    assert f"{model.n_parameters_:,}" in table.splitlines()[-1]
    if len(shape) > 1:
        assert "stages.0.0 to 1" in table
        assert ("relu (dilation 4)" in table) == (len(shape) == 2)
        assert "conv norm relu conv norm, relu identity" in " ".join(table.split())
        assert rows[0].shape == (16, *shape[1:])


def blobs(n, seed=0, noise=0.5):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    X = rng.normal(size=(n, 8)) * noise
    X[:, 0] += 2 * y
    return X, y


def diagnosis_of(model, train, valid, **kwargs):
    return diagnose(model.fit(*train), *train, *valid, **kwargs)


def test_a_good_fit():
    found = diagnosis_of(ResNetClassifier(**ROWS), blobs(200), blobs(200, 1))
    assert found.fit == "good fit"
    assert len(found.findings) == 1


def test_a_tiny_network_on_hard_data_underfits():
    rng = np.random.default_rng(0)
    X = rng.choice([-1.0, 1.0], size=(300, 8))
    y = X.prod(axis=1)  # parity
    model = ResNetClassifier(**{**ROWS, "max_epochs": 3}, width=0.03)
    found = diagnosis_of(model, (X, y), (X, y))
    assert found.fit == "underfitting"
    assert "width" in str(found)


def test_a_huge_network_on_few_noisy_samples_overfits():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 30)), np.arange(40) % 2
    model = ResNetClassifier(4, max_epochs=60, width=4, l2=0.0, random_state=0)
    found = diagnosis_of(model, (X, y), (rng.normal(size=(100, 30)), np.arange(100) % 2))
    assert found.fit == "overfitting"
    assert "EarlyStopping" in str(found)
    html = found._repr_html_()
    assert ">overfitting</th>" in html
    assert html.count("<tr>") == 1 + len(found.findings)
    assert "callbacks=[EarlyStopping()]" in html


@pytest.mark.slow
def test_a_plain_network_of_56_layers_degrades_without_vanishing_gradients(images):
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    X = rng.normal(size=(120, 1, 6, 6)).astype(np.float32)
    X[:, 0, :2] += 0.7 * y[:, None, None]
    # At rates of 0.1 the deep network may collapse, and then gradients vanish too.
    settings = {"shortcut": "none", "max_epochs": 8, "batch_size": 30, "lr": 0.005}
    settings |= {"random_state": 0}
    shallow = ResNetClassifier(8, **settings, width=0.5).fit(X, y)
    deep = ResNetClassifier(56, **settings, width=0.5).fit(X, y)
    found = diagnose(deep, X, y, X, y, shallower=shallow)
    assert "degradation" in found
    assert "vanishing gradients" not in found
    with pytest.raises(ValueError, match="fewer than the 8 layers of estimator, got 56"):
        diagnose(shallow, X, y, X, y, shallower=deep)


def test_a_learning_rate_far_too_high():
    model = ResNetClassifier(**ROWS, lr=2.0, schedule="constant")
    found = diagnosis_of(model, blobs(200), blobs(200, 1))
    assert "learning rate too high" in found
    assert "Set lr=0.2" in str(found)


@pytest.mark.parametrize(
    ("factor", "expected", "other"),
    [(1e-5, "exploding", "vanishing"), (1e5, "vanishing", "exploding")],
)
def test_vanishing_and_exploding_gradients(rows, factor, expected, other):
    X, y = rows
    model = ResNetClassifier(**{**ROWS, "depth": 8}).fit(X, y)
    branch = model.module_.stages[0][0].branch
    with torch.no_grad():  # gradients are inverse to the scale of a kernel before a norm
        for layer, norm in ((branch.conv1, branch.norm1), (branch.conv2, branch.norm2)):
            layer.weight.mul_(factor)
            norm.eps = 1e-20
    with torch.inference_mode():
        found = diagnose(model, X, y, X, y)
    assert f"{expected} gradients" in found
    assert f"{other} gradients" not in found
    assert found.figures["gradient of stages.0.0"] == found.figures["first_gradient"]


def test_dead_units_and_zeros_are_counted(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS).fit(X, y)
    before = dead_share(model.module_, torch.from_numpy(X).float())
    with torch.no_grad():
        model.module_.stem.norm1.weight[:48] = 0
        model.module_.stem.norm1.bias[:48] = -1
        model.module_.stages[0][0].branch.conv1.weight[:60] = 0
        model.module_.stages[0][0].branch.conv2.weight[:60] = 0
    after = dead_share(model.module_, torch.from_numpy(X).float())
    assert after >= before + 40 / 192
    model._update()
    found = diagnose(model, X, y, X, y)
    assert "dead units" in found
    assert "sparse weights" in found
    assert found.figures["sparsity"] > 0.8


def y_of_kind(kind, X):
    """Something of the first columns that a small network learns."""
    rng = np.random.default_rng(1)
    if kind == "number":
        return 3 * X[:, 0] + 0.1 * rng.normal(size=len(X)) + 50
    if kind == "numbers":
        return X[:, :3] * [1, 10, 100]
    indicator = (X[:, :3] > 0).astype(int)
    return csr_array(indicator) if kind == "sparse labels" else indicator


KINDS = ["number", "numbers", "labels", "sparse labels"]


def model_of_kind(kind, **changes):
    if kind in ("number", "numbers"):
        return ResNetRegressor(**{**ROWS, "max_epochs": 40, "lr": 0.02, **changes})
    return ResNetClassifier(**{**ROWS, "max_epochs": 40, **changes})


@pytest.fixture(scope="module", params=KINDS)
def other_kind(request):
    X = np.random.default_rng(0).normal(size=(240, 5))
    X += np.sign(X)  # so that no sample is close to a change of its labels
    y = y_of_kind(request.param, X)
    callbacks = [GradientFlow(every=20)]
    model = model_of_kind(request.param, callbacks=callbacks)
    return request.param, model.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2]), X, y


def test_training_curves_show_the_score_of_any_y(other_kind):
    kind, model, *_ = other_kind
    display = TrainingCurveDisplay.from_estimator(model)
    name = "r2" if kind.startswith("number") else "accuracy"
    axes = display.axes_[1]
    assert axes.get_ylabel() == name
    for line, part in zip(axes.get_lines(), ("train", "valid"), strict=False):
        expected = [row[f"{part}_{name}"] for row in model.history_]
        np.testing.assert_allclose(line.get_ydata(), expected)
    drawn(axes)


def test_scores_far_below_others_leave_the_axes():
    def lowest(*scores):
        rows = [
            {"epoch": i, "lr": 0.1, "train_loss": 1.0, "train_r2": score}
            for i, score in enumerate(scores, 1)
        ]
        return TrainingCurveDisplay(rows).plot().axes_[1].get_ylim()[0]

    assert lowest(-90.0, 0.1, 0.5) == -1
    assert lowest(-90.0, -80.0) < -90  # nothing else is there to see
    assert -1 < lowest(-0.5, 0.5) < -0.5
    history = [{"epoch": 1, "lr": 0.1, "train_loss": 1.0}]  # without any score
    assert TrainingCurveDisplay(history).plot().axes_[1].get_ylabel() == "score"


def test_displays_of_networks_take_any_y(other_kind):
    kind, model, *_ = other_kind
    n_outputs = 1 if kind == "number" else 3
    assert WeightDisplay.from_estimator(model).weights["classifier"].shape == (
        64 * n_outputs,
    )
    display = NetworkDisplay.from_estimator(model)
    assert display.shapes[-1] == (n_outputs,)
    assert summary(model).splitlines()[-1].split()[1] == f"{model.n_parameters_:,}"
    flow = GradientFlowDisplay.from_estimator(model)
    assert flow.gradient_norms.shape == (2, 4)
    assert (flow.gradient_norms > 0).all()


@pytest.mark.parametrize("kind", ["number", "labels"])
def test_recorded_gradients_are_those_of_the_training_loss(kind):
    X = np.random.default_rng(0).normal(size=(40, 5))
    y = y_of_kind(kind, X)
    if kind == "number":
        changes, n_epochs = {"loss": "absolute_error"}, 1
    else:
        changes, n_epochs = {"label_smoothing": 0.2, "class_weight": {0: 3.0}}, 1
    model = model_of_kind(kind, max_epochs=n_epochs, **changes)
    model.set_params(callbacks=[GradientFlow(n_samples=40, every=1)]).fit(X, y)
    x = torch.from_numpy(model.network_input(X))
    module = model.module_.train()
    w = module.classifier.weight
    if kind == "number":
        z = torch.from_numpy((y - y.mean()) / y.std()).float()[:, None]
        loss = (module(x) - z).abs().mean()
    else:
        smooth = torch.from_numpy(y * 0.8 + 0.1).float()
        p = module(x).sigmoid()
        weights = torch.tensor([3.0, 1.0, 1.0])
        loss = -(weights * smooth * p.log() + (1 - smooth) * (1 - p).log()).sum(1).mean()
    expected = float(torch.autograd.grad(loss, w)[0].norm())
    found = model.history_[0]["gradient_norms"]["classifier.weight"]
    assert found == pytest.approx(expected, rel=1e-3)


def test_a_good_fit_of_any_y(other_kind):
    kind, model, X, y = other_kind
    found = diagnose(model, X[::2], y[::2], X[1::2], y[1::2])
    assert found.fit == "good fit"
    figures = found.figures
    assert figures["training_score"] == pytest.approx(model.score(X[::2], y[::2]))
    assert figures["validation_score"] == pytest.approx(model.score(X[1::2], y[1::2]))
    name = "r2" if kind.startswith("number") else "accuracy"
    assert f"training {name} {figures['training_score']:.3f}" in str(found)
    assert "learning rate too high" not in found


def test_any_y_can_be_underfitted_and_regressors_are_told_of_noise(other_kind):
    kind, _, X, y = other_kind
    model = model_of_kind(kind, max_epochs=2, lr=1e-4).fit(X, y)
    found = diagnose(model, X, y, X, y)
    assert found.fit == "underfitting"
    assert ("Noise in y" in str(found)) == kind.startswith("number")
    assert ("label_smoothing" in str(found)) == kind.endswith("labels")
    if kind == "number":
        assert found.figures["constant_score"] == 0
        assert found.figures["constant_loss"] == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["number", "labels"])
def test_any_y_can_be_overfitted(kind):
    rng = np.random.default_rng(0)
    X, noise = rng.normal(size=(2, 60, 30))
    y = y_of_kind(kind, noise)  # of which X tells nothing
    model = model_of_kind(kind, max_epochs=80, width=4, l2=0.0).fit(X[:40], y[:40])
    found = diagnose(model, X[:40], y[:40], X[40:], y[40:])
    assert found.fit == "overfitting"
    assert ("label_smoothing" in str(found)) == (kind == "labels")


def test_standard_errors_are_those_of_the_mean_score(other_kind):
    kind, model, X, y = other_kind
    X = X[::-1]  # or the scores would be too alike
    figures = diagnose(model, X, y, X[1::2], y[1::2]).figures
    if kind == "number":
        scores = 1 - (y - model.predict(X)) ** 2 / y.var()
    elif kind == "numbers":
        scores = (1 - (y - model.predict(X)) ** 2 / y.var(axis=0)).mean(axis=1)
    else:
        wrong = np.asarray(abs(y - model.predict(X)).sum(axis=1)).ravel()
        scores = (wrong == 0).astype(float)
    expected = np.sqrt(max(scores.var(), 1 / 240) / 240)
    assert figures["training_error"] == pytest.approx(expected, rel=1e-4)


def test_a_regressor_with_a_learning_rate_far_too_high():
    X = np.random.default_rng(0).normal(size=(240, 5))
    y = y_of_kind("numbers", X)
    settings = {"depth": 10, "lr": 0.1, "order": "original"}
    model = model_of_kind("numbers", **settings, max_epochs=8).fit(X, y)
    assert "learning rate too high" in diagnose(model, X, y, X, y)
    assert model.history_[0]["train_loss"] > 0.75
    once = model_of_kind("numbers", **settings, max_epochs=1).fit(X, y)
    # Of a first epoch the loss tells nothing: new weights give what they give.
    assert "learning rate too high" not in diagnose(once, X, y, X, y)


def test_shallower_networks_are_told_by_their_layers(rows):
    X, y = rows
    deep = ResNetRegressor("auto", max_epochs=1, lr=1e-3, random_state=0).fit(X, y)
    good = ResNetRegressor(4, max_epochs=60, lr=0.02, random_state=0).fit(X, y)
    found = diagnose(deep, X, y, X, y, shallower=good)
    assert "degradation" in found
    shown = found.figures["shallower_training_score"]
    assert shown == pytest.approx(good.score(X, y))
    assert f"training r2 of {shown:.3f}" in str(found)
    with pytest.raises(ValueError, match=r"fewer than the 4 layers .* got \d+"):
        diagnose(good, X, y, X, y, shallower=deep)


def test_tables_and_long_arrays_are_diagnosed(rows, monkeypatch):
    X, y = rows
    table, series = pd.DataFrame(X).add_prefix("c"), pd.Series(y, index=np.arange(60) + 7)
    model = ResNetClassifier(**ROWS).fit(table, series)
    expected = model.score(table.iloc[[0, 29, 59]], y[[0, 29, 59]])
    monkeypatch.setattr("sk_resnet.inspection._diagnosis.MOST_SAMPLES", 3)
    figures = diagnose(model, table, series, table, series).figures
    assert figures["n_training"] == 3
    assert figures["n_validation"] == 60
    assert figures["training_score"] == pytest.approx(expected)


def test_labels_that_were_not_fitted_are_refused(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS).fit(X, y)
    with pytest.raises(ValueError, match=r"classes \[7\] that are not in y"):
        diagnose(model, X, y, X, np.where(y == 2, 7, y))
    with pytest.raises(ValueError, match=r"X_val has samples of shape \(4,\)"):
        diagnose(model, X, y, X[:, :4], y)


@pytest.mark.parametrize("kind", [ResNetClassifier, ResNetRegressor])
def test_one_training_sample_cannot_be_diagnosed(rows, kind):
    X, y = rows
    model = kind(**ROWS).fit(X, y)
    with pytest.raises(ValueError, match="at least 2 training samples, got 1: give X and"):
        diagnose(model, X[:1], y[:1], X, y)
    assert diagnose(model, X, y, X[:1], y[:1]).figures["n_validation"] == 1


@pytest.mark.parametrize("kind", ["numbers", "sparse labels"])
def test_paths_of_any_y_are_drawn(kind):
    X = np.random.default_rng(0).normal(size=(60, 5))
    model = model_of_kind(kind, max_epochs=4)
    path = regularization_path(model, X, y_of_kind(kind, X), [1e-3, 1e-2])
    display = RegularizationPathDisplay.from_path(path)
    name = "r2" if kind == "numbers" else "accuracy"
    assert [line.get_label() for line in display.axes_[0].get_lines()] == [name, "zeros"]
    np.testing.assert_allclose(display.axes_[0].get_lines()[0].get_ydata(), path.scores)
    assert display.axes_[1].get_ylabel() == name
    assert display.axes_[0].get_ylim()[0] <= max(-1, min(0, path.scores.min()))
    drawn(display.axes_[1])


def test_displays_of_scikit_learn_work(rows):
    X, y = rows
    model = ResNetClassifier(**{**ROWS, "max_epochs": 1})
    for name, values in {
        "width": [0.5, 1],
        "depth": [4, 6],
        "l1": [1e-4, 1e-2],
        "l2": [1e-4, 1e-2],
    }.items():
        ValidationCurveDisplay.from_estimator(
            model, X, y, param_name=name, param_range=values, cv=2
        )
    LearningCurveDisplay.from_estimator(model, X, y, cv=2, train_sizes=[0.5, 1.0])


@pytest.mark.parametrize(
    "display",
    [TrainingCurveDisplay, WeightDisplay, GradientFlowDisplay, NetworkDisplay],
)
def test_unfitted_estimators(display):
    with pytest.raises(NotFittedError):
        display.from_estimator(WideResNetClassifier())
    with pytest.raises(NotFittedError):
        summary(ResNetClassifier())
    with pytest.raises(NotFittedError):
        diagnose(ResNetClassifier(), [[0]], [0], [[0]], [0])
    with pytest.raises(NotFittedError):
        ResNetClassifier().embed([[0]])


def test_other_bad_input(rows, monkeypatch):
    X, y = rows
    model = ResNetClassifier(**ROWS).fit(X, y)
    with pytest.raises(ValueError, match=r"no gradients: fit with callbacks=\[Gradient"):
        GradientFlowDisplay.from_estimator(model)
    with pytest.raises(ValueError, match="n_samples must be 'auto' or at least 2, got 1"):
        ResNetClassifier(**ROWS, callbacks=[GradientFlow(1)]).fit(X, y)
    with pytest.raises(ValueError, match="every must be 'auto' or at least 1, got 0"):
        ResNetClassifier(**ROWS, callbacks=[GradientFlow(every=0)]).fit(X, y)
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'sk-resnet\[plot\]'"):
        WeightDisplay.from_estimator(model)


def test_the_fit_of_a_quantile_is_not_judged_by_its_score():
    X = np.random.default_rng(0).normal(size=(80, 3))
    y = X[:, 0] + np.random.default_rng(1).exponential(size=80)
    model = ResNetRegressor(4, loss="quantile", quantile=0.9, random_state=0).fit(X, y)
    found = diagnose(model, X, y, X, y)
    assert found.fit == "fit not judged"
    assert "underfitting" not in found
