"""Networks that train as one are the networks that they would be alone."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

import sk_resnet._base as base
from sk_resnet import (
    EarlyStopping,
    ResNetClassifier,
    ResNetRegressor,
    WideResNetClassifier,
    _batches,
    _members,
)
from sk_resnet._group import Group
from sk_resnet._members import train_together
from sk_resnet._network import build_network, inner_kernels, new_network
from sk_resnet._optim import OPTIMIZERS, SCHEDULES
from sk_resnet._penalty import STRUCTURES
from sk_resnet._spec import BLOCKS, FAMILIES, ORDERS, SHORTCUTS, Architecture, network_spec
from sk_resnet._surgery import compacted, folded, members, stacked
from sk_resnet._training import Member

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(100, 7)).astype(np.float32)
CLASSES = (ROWS[:, 0] > 0).astype(int) + (ROWS[:, 1] > 0.5)
SAMPLES = {
    0: ROWS[:48],
    1: RNG.normal(size=(48, 2, 20)).astype(np.float32),
    2: RNG.normal(size=(48, 3, 8, 8)).astype(np.float32),
    3: RNG.normal(size=(48, 1, 5, 4, 5)).astype(np.float32),
}
SMALL = {"depth": 4, "max_epochs": 2, "batch_size": 25, "device": "cpu", "lr": 0.05}
ALONE = {**SMALL, "n_estimators": 1}
# The steps of 10 updates may differ in their rounding.
CLOSE = 1e-5


def trainings(estimators, X, y, **fit):
    """What fits would train, which then do not."""
    found = []

    def note(given):
        found.extend(given)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "train", note)
        for estimator in estimators:
            with pytest.raises(KeyboardInterrupt):
                estimator.fit(X, y, **fit)
    return found


def weights(module):
    return {name: w for name, w in module.state_dict().items() if w.ndim}


def assert_members_equal_single_fits(make, X, y, *, atol=CLOSE, n=3, **fit):
    singles = [make(i).fit(X, y, **fit) for i in range(n)]
    together = trainings([make(i) for i in range(n)], X, y, **fit)
    held = train_together(together)
    assert held == [single.best_epoch_ for single in singles]
    for single, training in zip(singles, together, strict=True):
        for name, w in weights(single.module_).items():
            found = weights(training.net.module_)[name]
            torch.testing.assert_close(found, w, atol=atol, rtol=0, msg=name)
        last = training.net.history[-1]
        for name, value in single.history_[-1].items():
            if name not in ("seconds", "epoch"):
                assert last[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block", [*BLOCKS, (3, 1, 2)], ids=str)
@pytest.mark.parametrize("n_dims", SAMPLES)
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_a_stack_gives_what_its_members_give(order, block, n_dims, shortcut):
    n_kernels = len(BLOCKS[block].kernels) if block in BLOCKS else 3
    shape = Architecture(
        2 + n_kernels * (3 if n_dims else 1),
        width=1.5,
        block=block,
        order=order,
        shortcut=shortcut,
    )
    x = torch.from_numpy(np.stack([SAMPLES[n_dims][i : i + 5] for i in range(3)]))
    spec = network_spec(shape, FAMILIES["resnet"], input_shape=x.shape[2:], n_outputs=3)
    generator = torch.Generator().manual_seed(0)
    networks = [new_network(spec, device=torch.device("cpu"), seed=i) for i in range(3)]
    for network in networks:
        for name, value in network.state_dict().items():
            if name.endswith("running_mean"):
                value.normal_(0, 0.1, generator=generator)
        for w in inner_kernels(network).values():
            w.data[:, torch.rand(w.shape[1], generator=generator) < 0.5] = 0
    whole = stacked(networks)
    for mode in (True, False):
        whole.train(mode)
        with torch.no_grad():
            expected = torch.stack([n.train(mode)(x[i]) for i, n in enumerate(networks)])
            torch.testing.assert_close(whole(x), expected, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        features = torch.stack([n.features(x[0]) for n in networks])
        torch.testing.assert_close(whole.features(x[0]), features, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(folded(whole)(x), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(compacted(whole)(x), expected, atol=1e-4, rtol=1e-4)
        for i, member in enumerate(members(whole)):
            torch.testing.assert_close(member(x[i]), expected[i], atol=1e-4, rtol=1e-4)


def test_a_member_shares_the_memory_of_the_whole():
    spec = network_spec(
        Architecture(4), FAMILIES["resnet"], input_shape=(7,), n_outputs=3, members=3
    )
    whole = build_network(spec).to_empty(device="cpu")
    member = members(whole)[1]
    member.classifier.weight.data.fill_(7)
    assert (whole.classifier.weight[3:6] == 7).all()
    assert member.spec.members == 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_rates_and_penalties_are_those_of_each_member(optimizer, structure, monkeypatch):
    def make(i):
        return ResNetClassifier(
            **{**ALONE, "lr": [0.05, 0.02, 0.05][i]},
            optimizer=optimizer,
            momentum=0.8 + 0.05 * i,
            l1=1e-4 * (i // 2),
            l1_structure=structure,
            l2=[0.01, 0.1, 0.01][i],
            random_state=i,
        )

    X, y = ROWS, CLASSES
    singles = [make(i) for i in range(3)]
    monkeypatch.setattr(base, "settle", lambda nets, lr: None)  # which follows a training
    together = trainings([make(i) for i in range(3)], X, y)
    train_together(together)
    for single, training in zip(singles, together, strict=True):
        single.fit(X, y)
        for name, w in weights(single.module_).items():
            torch.testing.assert_close(
                weights(training.net.module_)[name], w, atol=2e-4, rtol=0
            )


@pytest.mark.parametrize(
    "parameters",
    [
        lambda i: {"dropout": 0.2 * i},
        lambda i: {"dropout": 0.2 * i, "augment": ["jitter"]},
        lambda i: {"dropout": 0.2 * i, "stochastic_depth": 0.3, "depth": 6},
        lambda i: {"stochastic_depth": 0.3, "depth": 8},
        lambda i: {"label_smoothing": 0.1 * i},
        lambda i: {"validation_split": 0.2},
        lambda i: {"augment": ["jitter", "mixup"]},
        lambda i: {"batch_size": 15},
        lambda i: {"class_weight": "balanced"},
        lambda i: {"l2_on": "all"},
        lambda i: {"max_epochs": 6, "callbacks": [EarlyStopping(patience=1 + i)]},
        lambda i: {"batch_size": 10, "max_epochs": 4},  # recorded
    ],
)
def test_members_are_what_they_would_be_alone(parameters):
    def make(i):
        settings = {**ALONE, "calibrate": False, **parameters(i)}
        return ResNetClassifier(**settings, random_state=i)

    assert_members_equal_single_fits(make, ROWS, CLASSES, atol=5e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_members_follow_every_schedule(schedule):
    def make(i):
        return ResNetClassifier(**{**ALONE, "lr": 0.02 * (i + 1)}, schedule=schedule)

    assert_members_equal_single_fits(
        lambda i: make(i).set_params(random_state=i), ROWS, CLASSES
    )


@pytest.mark.parametrize("n_dims", [1, 2, 3])
@pytest.mark.parametrize("order", ORDERS)
def test_members_convolve_their_own_samples(n_dims, order):
    def make(i):
        return ResNetClassifier(
            8,
            order=order,
            dropout=0.1 * i,
            max_epochs=2,
            batch_size=16,
            lr=0.01,
            device="cpu",
            precision="float32",
            n_estimators=1,
            random_state=i,
        )

    assert_members_equal_single_fits(make, SAMPLES[n_dims], CLASSES[:48], atol=1e-3)


def test_members_in_bfloat16_are_close_to_single_fits():
    def make(i):
        return WideResNetClassifier(
            10,
            width=1,
            augment=["crop", "flip"],
            max_epochs=1,
            batch_size=16,
            lr=0.001,
            device="cpu",
            precision="bfloat16",
            random_state=i,
        )

    assert_members_equal_single_fits(make, SAMPLES[2], CLASSES[:48], atol=1e-2)


@pytest.mark.parametrize("loss", ["squared_error", "quantile"])
def test_members_learn_numbers(loss):
    def make(i):
        return ResNetRegressor(**ALONE, loss=loss, quantile=0.5 + 0.1 * i, random_state=i)

    assert_members_equal_single_fits(make, ROWS, ROWS[:, :2] + 1, atol=5e-5)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_members_learn_sets_of_labels(class_weight):
    def make(i):
        return ResNetClassifier(**ALONE, class_weight=class_weight, random_state=i)

    assert_members_equal_single_fits(make, ROWS, np.eye(3, dtype=int)[CLASSES])


def test_batches_are_the_same_cut_at_once_and_one_by_one(monkeypatch):
    def trained():
        models = [
            ResNetClassifier(**{**ALONE, "batch_size": 10}, random_state=i)
            for i in range(3)
        ]
        found = []
        for model, n in zip(models, [96, 97, 98], strict=True):
            found += trainings([model], ROWS[:n], CLASSES[:n])
        train_together(found)
        return [training.net for training in found]

    at_once = trained()
    monkeypatch.setattr(_batches, "ORDERED_BYTES", 0)
    for one, other in zip(at_once, trained(), strict=True):
        others = weights(other.module_)
        for name, w in weights(one.module_).items():
            assert torch.equal(w, others[name])
        for column in ("train_loss", "train_accuracy"):
            assert one.history[:, column] == other.history[:, column]


def test_folds_of_other_sizes_step_together_until_their_last_batch():
    singles, together = [], []
    for i, n in enumerate([96, 97, 98, 98]):
        make = ResNetClassifier(**{**ALONE, "batch_size": 10}, random_state=i)
        together += trainings([make], ROWS[:n], CLASSES[:n])
        singles.append(
            ResNetClassifier(**{**ALONE, "batch_size": 10}, random_state=i).fit(
                ROWS[:n], CLASSES[:n]
            )
        )
    train_together(together)
    for single, training in zip(singles, together, strict=True):
        for name, w in weights(single.module_).items():
            found = weights(training.net.module_)[name]
            torch.testing.assert_close(found, w, atol=5e-5, rtol=0)


def test_a_member_that_diverges_leaves_the_others_alone():
    made = [
        ResNetRegressor(**{**ALONE, "lr": lr, "max_epochs": 6}, random_state=0)
        for lr in (0.05, 1e30, 0.05)
    ]
    together = trainings(made, ROWS, ROWS[:, 0])
    outcomes = train_together(together)
    assert isinstance(outcomes[1], ValueError)
    assert "lower lr" in str(outcomes[1])
    single = ResNetRegressor(**{**ALONE, "max_epochs": 6}, random_state=0)
    single.fit(ROWS, ROWS[:, 0])
    for place in (0, 2):
        assert outcomes[place] == 6
        for name, w in weights(single.module_).items():
            found = weights(together[place].net.module_)[name]
            torch.testing.assert_close(found, w, atol=5e-5, rtol=0)


def test_cancelled_members_all_end():
    made = [ResNetClassifier(**ALONE, random_state=i) for i in range(3)]
    calls = iter([False, False, True])
    outcomes = train_together(
        trainings(made, ROWS, CLASSES), is_cancelled=lambda: next(calls, True)
    )
    assert all(isinstance(outcome, KeyboardInterrupt) for outcome in outcomes)


def test_an_error_before_all_members_have_begun_is_theirs(monkeypatch):
    made = [ResNetClassifier(**ALONE, random_state=i) for i in range(3)]
    together, error = trainings(made, ROWS, CLASSES), OSError("no place")
    begun = []

    def member(training):
        begun.append(training)
        if len(begun) == 2:
            raise error
        return Member(training)

    monkeypatch.setattr(_members, "Member", member)
    assert train_together(together) == [error] * 3


# Too little memory for all

OUT_OF_MEMORY = {
    "Python": MemoryError(),
    "GPU": torch.OutOfMemoryError("CUDA out of memory."),
    "CPU": RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"),
}


def fits(monkeypatch, n, method="_gradients", at=1, error=OUT_OF_MEMORY["Python"]):
    """Let groups of more than n members fail when they call a method for that time."""
    calls, sizes, act = {}, [], getattr(Group, method)

    def limited(self, *args, **kwargs):
        size = len(self.members)
        calls[size] = calls.get(size, 0) + 1
        sizes.append(size)
        if size > n and calls[size] >= at:
            raise error
        return act(self, *args, **kwargs)

    monkeypatch.setattr(Group, method, limited)
    return sizes


@pytest.mark.parametrize(
    ("method", "at", "error"),
    [
        *(("_gradients", 1, error) for error in OUT_OF_MEMORY),
        ("_gradients", 3, "CPU"),  # in the middle of the first epoch
        ("_gradients", 6, "CPU"),  # in the second epoch
        ("_recorded", 1, "GPU"),
        ("_gather", 1, "CPU"),
        ("validate", 2, "CPU"),
    ],
)
@pytest.mark.parametrize("changes", [{"dropout": 0.2}, {"optimizer": "heavy_ball"}])
def test_what_does_not_fit_into_memory_trains_by_halves(
    monkeypatch, method, at, error, changes
):
    changes = {"max_epochs": 4, "validation_split": 0.2, "calibrate": False, **changes}

    def make(i):
        stops = EarlyStopping(patience=2)
        model = ResNetClassifier(**{**ALONE, **changes, "lr": 0.01 * (1 + i)})
        return model.set_params(random_state=i, callbacks=[stops])

    expected = trainings([make(i) for i in range(5)], ROWS, CLASSES)
    held = train_together(expected)
    sizes = fits(monkeypatch, 2, method, at, OUT_OF_MEMORY[error])
    found = trainings([make(i) for i in range(5)], ROWS, CLASSES)
    with pytest.warns(UserWarning, match="networks that train as one do not") as warned:
        assert train_together(found) == held
    assert [str(one.message)[:10] for one in warned] == ["5 networks", "3 networks"]
    assert sorted(set(sizes)) == [1, 2, 3, 5]
    for one, other in zip(found, expected, strict=True):
        assert [row["epoch"] for row in one.net.history] == [
            row["epoch"] for row in other.net.history
        ]
        others = weights(other.net.module_)
        for name, w in weights(one.net.module_).items():
            torch.testing.assert_close(w, others[name], atol=5e-5, rtol=0, msg=name)


def test_memory_that_ends_later_ends_no_training(monkeypatch):
    def make(i):
        return ResNetClassifier(**{**ALONE, "max_epochs": 8}, random_state=i)

    fits(monkeypatch, 2, "_step_for", at=4 * 6 + 3)  # in the seventh epoch
    found = trainings([make(i) for i in range(3)], ROWS, CLASSES)
    with pytest.warns(UserWarning, match="3 networks"):
        assert train_together(found) == [8] * 3
    for i, training in enumerate(found):
        single, history = make(i).fit(ROWS, CLASSES), training.net.history
        assert history[:, "epoch"] == list(range(1, 9))
        assert history[:, "lr"] == [row["lr"] for row in single.history_]
        for row, alone in zip(history[:6], single.history_[:6], strict=True):
            assert row["train_loss"] == pytest.approx(alone["train_loss"], abs=1e-3)
        assert history[-1]["train_loss"] < history[4]["train_loss"]


@pytest.mark.filterwarnings("ignore:.* do not fit into memory")
def test_a_member_that_is_too_large_for_memory_fails_alone(monkeypatch):
    models = [ResNetClassifier(**ALONE, random_state=i) for i in range(3)]
    found = trainings(models, ROWS, CLASSES)
    too_large, act = found[1].net, Group._gradients

    def limited(self, *args):
        if too_large in [member.net for member in self.members]:
            raise MemoryError("too large")
        act(self, *args)

    monkeypatch.setattr(Group, "_gradients", limited)
    outcomes = train_together(found)
    assert outcomes[::2] == [2, 2]
    assert isinstance(outcomes[1], MemoryError)


@pytest.mark.filterwarnings("ignore:.* do not fit into memory")
def test_an_error_of_one_half_is_none_of_the_other(monkeypatch):
    models = [ResNetClassifier(**ALONE, random_state=i) for i in range(4)]
    found = trainings(models, ROWS, CLASSES)
    last, act = found[-1].net, Group._gradients

    def limited(self, *args):
        if len(self.members) == 4:
            raise MemoryError
        if last in [member.net for member in self.members]:
            raise RuntimeError("something else")
        act(self, *args)

    monkeypatch.setattr(Group, "_gradients", limited)
    outcomes = train_together(found)
    assert outcomes[:2] == [2, 2]
    assert [str(outcome) for outcome in outcomes[2:]] == ["something else"] * 2


@pytest.mark.filterwarnings("ignore:.* do not fit into memory")
def test_members_that_ended_take_no_memory_of_a_half(monkeypatch):
    stop = EarlyStopping("train_loss", patience=1, min_delta=9)  # in the second epoch
    models = [
        ResNetClassifier(**{**ALONE, "max_epochs": 4}, random_state=i, callbacks=own)
        for i, own in enumerate([[stop], None, None])
    ]
    found, is_full, gather = trainings(models, ROWS, CLASSES), [], Group._gather
    step_for = Group._step_for

    def limited_step(self, *args):
        if len(self.members) == 2:
            is_full.append(True)
            raise MemoryError
        return step_for(self, *args)

    def limited_gather(self):
        if is_full and len(self.members) > 1:
            raise MemoryError
        gather(self)

    monkeypatch.setattr(Group, "_step_for", limited_step)
    monkeypatch.setattr(Group, "_gather", limited_gather)
    assert train_together(found) == [1, 4, 4]
    assert is_full


def test_other_errors_of_a_group_are_those_of_all(monkeypatch):
    fits(monkeypatch, 0, error=RuntimeError("something else"))
    models = [ResNetClassifier(**ALONE, random_state=i) for i in range(2)]
    outcomes = train_together(trainings(models, ROWS, CLASSES))
    assert [str(outcome) for outcome in outcomes] == ["something else"] * 2


def test_an_ensemble_trains_by_halves_where_memory_ends(monkeypatch):
    model = ResNetClassifier(**SMALL, n_estimators=4, random_state=0)
    expected = clone(model).fit(ROWS, CLASSES).predict_proba(ROWS)
    fits(monkeypatch, 2)
    with pytest.warns(UserWarning, match="4 networks .* do not fit"):
        model.fit(ROWS, CLASSES)
    np.testing.assert_allclose(model.predict_proba(ROWS), expected, atol=1e-4)
    assert [row["epoch"] for row in model.history_] == [1, 2]
    fits(monkeypatch, 0)
    with (
        pytest.warns(UserWarning, match="do not fit"),
        pytest.raises(MemoryError, match="set batch_size=12"),
    ):
        clone(model).fit(ROWS, CLASSES)


# Ensembles

ENSEMBLE = {"n_estimators": 3, "random_state": 0}


def test_an_ensemble_averages_its_members():
    model = ResNetClassifier(**SMALL, **ENSEMBLE, validation_split=None).fit(ROWS, CLASSES)
    each = model.member_probabilities(ROWS)
    assert each.shape == (3, 100, 3)
    np.testing.assert_allclose(each.mean(0), model.predict_proba(ROWS), atol=1e-12)
    np.testing.assert_allclose(
        np.log(model.predict_proba(ROWS)), model.predict_log_proba(ROWS), atol=1e-9
    )
    assert (model.predict(ROWS) == each.mean(0).argmax(1)).all()
    assert not np.allclose(each[0], each[1])
    single = ResNetClassifier(**ALONE, random_state=0).fit(ROWS, CLASSES)
    np.testing.assert_allclose(each[0], single.predict_proba(ROWS), atol=1e-4)
    assert model.n_parameters_ == 3 * single.n_parameters_
    assert model.embed(ROWS).shape == (100, 3 * 64)
    assert len(model.history_) == single.n_epochs_ == model.n_epochs_


def test_an_ensemble_of_regressors_averages_numbers():
    model = ResNetRegressor(**SMALL, **ENSEMBLE).fit(ROWS, ROWS[:, 0])
    each = model.member_predictions(ROWS)
    assert each.shape == (3, 100)
    np.testing.assert_allclose(each.mean(0), model.predict(ROWS), atol=1e-6)
    assert model.fit(ROWS, ROWS[:, :2]).member_predictions(ROWS).shape == (3, 100, 2)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_an_ensemble_of_label_sets_averages_probabilities(class_weight):
    model = ResNetClassifier(**SMALL, **ENSEMBLE, class_weight=class_weight)
    model.fit(ROWS, np.eye(3, dtype=int)[CLASSES])
    each = model.member_probabilities(ROWS)
    np.testing.assert_allclose(each.mean(0), model.predict_proba(ROWS), atol=1e-12)


def test_one_estimator_is_an_ensemble_of_one():
    for kind, n in ((WideResNetClassifier, 1), (ResNetClassifier, 8)):
        model = kind(**SMALL, n_estimators=n, random_state=0).fit(ROWS, CLASSES)
        auto = kind(**SMALL, random_state=0).fit(ROWS, CLASSES)
        assert (model.predict_proba(ROWS) == auto.predict_proba(ROWS)).all()
        assert model.member_probabilities(ROWS).shape == (n, 100, 3)
    single = ResNetClassifier(**ALONE, random_state=0).fit(ROWS, CLASSES)
    assert single.member_probabilities(ROWS).shape == (1, 100, 3)


def test_members_of_an_ensemble_stop_by_themselves():
    model = ResNetClassifier(
        **{**SMALL, "max_epochs": 8}, **ENSEMBLE, callbacks=[EarlyStopping(patience=2)]
    )
    model.fit(ROWS, CLASSES)
    assert model.best_epoch_.shape == (3,)
    assert (model.best_epoch_ <= model.n_epochs_).all()


@pytest.mark.parametrize("n_dims", [0, 2])
def test_ensembles_are_saved_continued_and_cut(n_dims, tmp_path):
    import joblib

    X, y = SAMPLES[n_dims], CLASSES[:48]
    model = ResNetClassifier(
        **{**SMALL, "depth": 8, "lr": 0.01},
        **ENSEMBLE,
        l1=0.01,
        l1_structure="channel",
    )
    model.fit(X, y)
    joblib.dump(model, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib")
    assert (loaded.predict_proba(X) == model.predict_proba(X)).all()
    np.testing.assert_allclose(
        model.compact().predict_proba(X), model.predict_proba(X), atol=1e-5
    )
    before = model.predict_proba(X)
    model.partial_fit(X, y)
    loaded.partial_fit(X, y)
    for estimator in (model, loaded):
        assert estimator.n_epochs_ == 3
        assert not np.allclose(estimator.predict_proba(X), before)
        each = estimator.member_probabilities(X)
        np.testing.assert_allclose(each.mean(0), estimator.predict_proba(X), atol=1e-12)


def test_continuing_an_ensemble_takes_its_momentum_along():
    def train(n_estimators):
        model = ResNetClassifier(**SMALL, n_estimators=n_estimators, random_state=0)
        for _ in range(3):
            model.partial_fit(ROWS, CLASSES, classes=[0, 1, 2])
        return model.member_probabilities(ROWS)[0]

    np.testing.assert_allclose(train(3), train(1), atol=1e-4)


def test_another_number_of_estimators_cannot_continue():
    model = ResNetClassifier(**SMALL, **ENSEMBLE, warm_start=True).fit(ROWS, CLASSES)
    with pytest.raises(ValueError, match="n_estimators"):
        model.set_params(n_estimators=2).fit(ROWS, CLASSES)


def test_an_ensemble_stays_as_it_was_when_a_training_diverges():
    model = ResNetRegressor(**SMALL, **ENSEMBLE, warm_start=True).fit(ROWS, ROWS[:, 0])
    before = model.predict(ROWS)
    with pytest.raises(ValueError, match="lower lr"):
        model.set_params(lr=1e30).fit(ROWS, ROWS[:, 0])
    assert (model.predict(ROWS) == before).all()
    model.set_params(lr=0.01).fit(ROWS, ROWS[:, 0])
    assert model.n_epochs_ == 4


def test_an_ensemble_is_inspected_by_its_first_network():
    from sk_resnet.inspection import NetworkDisplay, diagnose, summary

    model = ResNetClassifier(**SMALL, **ENSEMBLE).fit(ROWS, CLASSES)
    single = ResNetClassifier(**ALONE, random_state=0).fit(ROWS, CLASSES)
    *lines, last = summary(model).splitlines()
    assert [line.split() for line in lines] == [
        line.split() for line in summary(single).splitlines()
    ]
    assert last.split()[:3] == ["3", "networks", f"{3 * single.n_parameters_:,}"]
    found = diagnose(model, ROWS[:60], CLASSES[:60], ROWS[60:], CLASSES[60:])
    assert found.fit
    assert NetworkDisplay.from_estimator(model).shapes[0] == (64,)


def test_an_ensemble_takes_callbacks_of_others():
    from skorch.callbacks import EpochScoring

    for seed in range(3):
        model = ResNetClassifier(
            **{**SMALL, "batch_size": 10},
            n_estimators=4,
            callbacks=[EpochScoring("accuracy", name="scored", on_train=True)],
            random_state=seed,
        )
        assert "scored" in model.fit(ROWS, CLASSES).history_[-1]


def test_an_ensemble_goes_on_after_its_members_stopped_at_other_epochs():
    model = ResNetClassifier(
        **{**SMALL, "max_epochs": 8, "lr": 0.3},
        **ENSEMBLE,
        validation_split=0.1,
        callbacks=[EarlyStopping(patience=1)],
        warm_start=True,
    )
    n = model.fit(ROWS, CLASSES).n_epochs_
    assert len(set(model.best_epoch_)) > 1
    model.partial_fit(ROWS, CLASSES)
    assert model.n_epochs_ == n + 1
    model.set_params(callbacks=None, max_epochs=2).fit(ROWS, CLASSES)
    assert model.n_epochs_ == n + 3
    assert [row["epoch"] for row in model.history_] == list(range(1, n + 4))


def test_a_stop_of_the_estimator_stops_all_members():
    from skorch.callbacks import Callback

    class Stop(Callback):
        follows_estimator = True

        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                raise KeyboardInterrupt

    model = ResNetClassifier(**{**SMALL, "max_epochs": 5}, **ENSEMBLE, callbacks=[Stop()])
    assert model.fit(ROWS, CLASSES).best_epoch_.tolist() == [2, 2, 2]


def test_features_of_an_ensemble_have_names():
    from sk_resnet import ResNetEmbedder

    embedder = ResNetEmbedder(ResNetClassifier(**SMALL, **ENSEMBLE))
    table = embedder.set_output(transform="pandas").fit_transform(ROWS, CLASSES)
    assert table.shape == (100, 3 * 64)


def test_an_error_ends_an_ensemble_that_trains_one_after_the_other():
    from skorch.callbacks import Callback

    class Fails(Callback):
        def on_epoch_end(self, net, **kwargs):
            begun.add(id(net))
            raise RuntimeError("stop")

    begun = set()
    model = ResNetClassifier(**SMALL, **ENSEMBLE, callbacks=[Fails()])
    with pytest.raises(RuntimeError, match="stop"):
        model.fit(ROWS, CLASSES)
    assert len(begun) == 1
