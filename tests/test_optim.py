"""Oracles: optimality conditions, scikit-learn's Lasso, and closed forms."""

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.datasets import load_iris
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.preprocessing import scale

from sk_resnet import ResNetClassifier
from sk_resnet._network import build_network, initialize, inner_kernels, kernels
from sk_resnet._optim import OPTIMIZERS, SCHEDULES
from sk_resnet._penalty import STRUCTURES, channel_norm, soft_threshold_, sparsity


def test_soft_threshold_is_the_proximal_operator():
    w = torch.tensor([-2.0, -0.5, -0.1, 0.0, 0.3, 1.5])
    expected = torch.sign(w) * torch.clamp(w.abs() - 0.4, min=0)
    torch.testing.assert_close(soft_threshold_(w.clone(), 0.4), expected)
    by_element = soft_threshold_(w.clone(), torch.full_like(w, 0.4))
    torch.testing.assert_close(by_element, expected)
    assert (soft_threshold_(w.clone(), 0.4)[2:5] == 0).all()


def test_sparsity_counts_exact_zeros():
    assert sparsity([torch.tensor([0.0, 1e-30, -1.0]), torch.zeros(1)]) == 0.5


def lasso_data():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(60, 9))
    truth = np.array([2, -3, 0, 0, 1.5, 0, 0, 0, 0.5])
    return A, A @ truth + 0.1 * rng.normal(size=60)


def least_squares(optimizer, momentum, lr, *, schedule, n_steps, size=60, **group):
    """Weights after steps on batches of the lasso data, and their optimizer."""
    A, b = map(torch.from_numpy, lasso_data())
    w = torch.zeros(9, dtype=torch.float64, requires_grad=True)
    group = {"params": [w], "weight_decay": 0.0, **group}
    opt = OPTIMIZERS[optimizer].make([group], lr, momentum)
    scheduler = SCHEDULES[schedule](opt, n_steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(n_steps):
        rows = torch.randperm(60, generator=generator)[:size]
        opt.zero_grad()
        (0.5 * (A[rows] @ w - b[rows]).square().mean()).backward()
        opt.step()
        scheduler.step()
    return w, opt


def lasso(l1):
    model = Lasso(alpha=l1, fit_intercept=False, tol=1e-10, max_iter=100_000)
    return model.fit(*lasso_data()).coef_


# By kind, momentum and learning rate: every kind, and SGD without momentum.
LASSO_CASES = [
    ("sgd", 0.0, 0.1),
    ("sgd", 0.9, 0.02),
    ("heavy_ball", 0.9, 0.02),
    ("adamw", 0.9, 0.01),
]


def test_the_cases_name_every_optimizer():
    for cases in (LASSO_CASES, BATCH_CASES, OPTIMIZER_CASES):
        assert {name for name, _, _ in cases} == set(OPTIMIZERS)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("optimizer", "momentum", "lr"), LASSO_CASES)
def test_proximal_steps_solve_the_lasso(optimizer, momentum, lr, schedule):
    w, _ = least_squares(optimizer, momentum, lr, schedule=schedule, n_steps=4000, l1=0.3)
    found, expected = w.detach().numpy(), lasso(0.3)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_array_equal(found == 0, expected == 0)


# Adam's steps do not grow with the gradient: it needs a larger rate than SGD to arrive.
BATCH_CASES = [
    ("sgd", 0.0, 0.025),
    ("sgd", 0.9, 0.005),
    ("heavy_ball", 0.9, 0.005),
    ("adamw", 0.9, 0.04),
]


@pytest.mark.parametrize("size", [6, 20])
@pytest.mark.parametrize(("optimizer", "momentum", "lr"), BATCH_CASES)
def test_l1_means_the_same_whatever_the_size_of_the_batches(optimizer, momentum, lr, size):
    w, _ = least_squares(
        optimizer, momentum, lr, schedule="one_cycle", n_steps=6000, size=size, l1=0.3
    )
    np.testing.assert_allclose(w.detach().numpy(), lasso(0.3), atol=0.02)


@pytest.mark.parametrize(("optimizer", "momentum", "lr"), LASSO_CASES)
def test_steps_that_keep_zeros_undo_the_shrinking(optimizer, momentum, lr):
    w, opt = least_squares(optimizer, momentum, lr, schedule="cosine", n_steps=3000, l1=0.3)
    A, b = lasso_data()
    used = (w != 0).numpy()
    assert 0 < used.sum() < 9
    opt.param_groups[0].update(l1=0.0, keep_zeros=True, lr=lr)
    At, bt = torch.from_numpy(A), torch.from_numpy(b)
    for _ in range(3000):
        opt.zero_grad()
        (0.5 * (At @ w - bt).square().mean()).backward()
        opt.step()
    expected = np.zeros(9)
    expected[used] = np.linalg.lstsq(A[:, used], b, rcond=None)[0]
    np.testing.assert_allclose(w.detach().numpy(), expected, atol=1e-3)
    assert np.abs(expected).sum() > 1.1 * np.abs(lasso(0.3)).sum()


@pytest.mark.parametrize("name", ["sgd", "heavy_ball"])
def test_l2_with_sgd_is_the_ridge_solution(name):
    rng = np.random.default_rng(0)
    A, b, l2 = rng.normal(size=(40, 4)), rng.normal(size=40), 0.5
    w = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    opt = OPTIMIZERS[name].make([{"params": [w], "l1": 0.0, "weight_decay": l2}], 0.05, 0.9)
    At, bt = torch.from_numpy(A), torch.from_numpy(b)
    for _ in range(2000):
        opt.zero_grad()
        (0.5 * (At @ w - bt).square().mean()).backward()
        opt.step()
    closed = np.linalg.solve(A.T @ A / 40 + l2 * np.eye(4), A.T @ b / 40)
    np.testing.assert_allclose(w.detach().numpy(), closed, atol=1e-8)


def test_adamw_decays_apart_from_the_gradient():
    w = torch.ones(3, requires_grad=True)
    opt = OPTIMIZERS["adamw"].make(
        [{"params": [w], "l1": 0.0, "weight_decay": 0.5}], 0.1, 0.9
    )
    w.grad = torch.zeros(3)
    opt.step()
    torch.testing.assert_close(w.detach(), torch.full((3,), 1 - 0.1 * 0.5))


def rates(schedule, n_steps=100):
    w = torch.ones(1, requires_grad=True)
    groups = [{"params": [w], "l1": 0.0, "weight_decay": 0.0}]
    opt = OPTIMIZERS["sgd"].make(groups, 1.0, 0.9)
    scheduler = SCHEDULES[schedule](opt, n_steps)
    seen = []
    for _ in range(n_steps):
        seen.append(opt.param_groups[0]["lr"])
        opt.step()
        scheduler.step()
    return np.array(seen)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_schedules_work_for_short_runs(schedule, n_steps):
    assert np.isfinite(rates(schedule, n_steps)).all()


def test_schedules_follow_their_papers():
    steps = rates("resnet_steps")
    np.testing.assert_allclose(steps[[0, 49, 50, 74, 75, 99]], [1, 1, 0.1, 0.1, 0.01, 0.01])
    wide = rates("wide_steps")
    np.testing.assert_allclose(
        wide[[0, 29, 30, 59, 60, 79, 80]], [1, 1, 0.2, 0.2, 0.04, 0.04, 0.008]
    )
    np.testing.assert_allclose(rates("constant"), 1)
    t = np.arange(100) / 100
    np.testing.assert_allclose(rates("cosine"), 0.5 * (1 + np.cos(np.pi * t)), atol=1e-9)
    cycle = rates("one_cycle")
    assert cycle[0] == pytest.approx(1 / 25)
    assert 28 <= cycle.argmax() <= 31
    assert cycle[-1] < 0.01


OPTIMIZER_CASES = [
    ("sgd", 0.0, 0.5),
    ("sgd", 0.9, 0.1),
    ("heavy_ball", 0.9, 0.1),
    ("adamw", 0.9, 0.05),
]


@functools.cache
def logistic_regression(l1):
    X, y = load_iris(return_X_y=True)
    model = LogisticRegression(
        l1_ratio=1, solver="saga", C=1 / (l1 * len(X)), fit_intercept=False, tol=1e-9
    )
    return model.set_params(max_iter=50_000).fit(scale(X), y).coef_


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("optimizer", "momentum", "lr"), OPTIMIZER_CASES)
def test_proximal_steps_solve_logistic_regression(optimizer, momentum, lr, schedule):
    X, y = load_iris(return_X_y=True)
    X, l1, n_steps = scale(X), 0.05, 3000
    w = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    group = {"params": [w], "l1": l1, "weight_decay": 0.0}
    opt = OPTIMIZERS[optimizer].make([group], lr, momentum)
    scheduler = SCHEDULES[schedule](opt, n_steps)
    Xt, yt = torch.from_numpy(X), torch.from_numpy(y)
    for _ in range(n_steps):
        opt.zero_grad()
        torch.nn.functional.cross_entropy(Xt @ w.T, yt).backward()
        opt.step()
        scheduler.step()
    expected = logistic_regression(l1)
    found, gradient = w.detach().numpy(), w.grad.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_array_equal(found == 0, np.abs(expected) < 1e-6)
    # Optimality: the gradient is -l1·sign where there is weight, within ±l1 elsewhere.
    used = found != 0
    assert 0 < used.mean() < 1
    np.testing.assert_allclose(gradient[used], -l1 * np.sign(found[used]), atol=1e-3)
    assert (np.abs(gradient[~used]) <= l1 + 1e-3).all()


@pytest.mark.parametrize("varies", [False, True])
def test_the_channel_step_is_the_proximal_operator(varies):
    rng = np.random.default_rng(0)
    w = torch.from_numpy(rng.normal(size=(3, 5, 2)))
    w[:, 0] *= 0.05
    t = torch.from_numpy(rng.uniform(0.05, 0.4, size=(3, 5, 2)))
    t = t if varies else torch.full_like(t, 0.2)
    found = STRUCTURES["channel"].proximal_(w.clone(), t if varies else 0.2)
    assert (found[:, 0] == 0).all()
    assert (found[:, 1:] != 0).all()
    for j in range(5):
        start, steps_ = w[:, j].numpy().ravel(), t[:, j].numpy().ravel()

        def objective(x, start=start, steps_=steps_):
            return ((x - start) ** 2 / (2 * steps_)).sum() + 6**0.5 * np.linalg.norm(x)

        best = minimize(objective, start / 2, method="BFGS", tol=1e-10)
        ours = found[:, j].numpy().ravel()
        assert objective(ours) <= best.fun + 1e-9
        np.testing.assert_allclose(ours, best.x, atol=2e-3)


@pytest.mark.parametrize("threshold", [0.0, torch.tensor(0.0)], ids=["float", "tensor"])
@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_a_rate_of_zero_leaves_channels_as_they_are(threshold, scale):
    w = scale * torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    again = STRUCTURES["channel"].proximal_(w.clone(), threshold)
    torch.testing.assert_close(again, w)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("varies", [False, True])
def test_zeros_of_proximal_steps_have_no_sign(structure, varies):
    w = torch.tensor([[-1.0, 1.0], [-2.0, 2.0]])
    threshold = torch.full_like(w, 9.0) if varies else 9.0
    found = STRUCTURES[structure].proximal_(w, threshold)
    # Files hold -0.0 as a value, 32 times as large.
    assert found.view(torch.int32).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(("optimizer", "momentum", "lr"), OPTIMIZER_CASES)
def test_channel_steps_solve_the_group_lasso(optimizer, momentum, lr):
    rng = np.random.default_rng(0)
    A, truth = rng.normal(size=(80, 4)), np.zeros((3, 4))
    truth[:, 1], truth[:, 3] = [1, -2, 0.5], [0.3, 0.3, -1]
    B, l1 = A @ truth.T + 0.1 * rng.normal(size=(80, 3)), 0.1
    w = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    group = {"params": [w], "l1": l1, "structure": "channel", "weight_decay": 0.0}
    opt = OPTIMIZERS[optimizer].make([group], lr, momentum)
    scheduler = SCHEDULES["cosine"](opt, 3000)
    At, Bt = torch.from_numpy(A), torch.from_numpy(B)
    for _ in range(3000):
        opt.zero_grad()
        (0.5 * (At @ w.T - Bt).square().sum(1).mean()).backward()
        opt.step()
        scheduler.step()
    found, gradient = w.detach(), w.grad
    zero = (found == 0).all(dim=0)
    assert zero.tolist() == [True, False, True, False]
    # Optimality: -l1·√m·w/‖w‖ on channels in use, and shorter than l1·√m elsewhere.
    norms = found[:, ~zero].norm(dim=0)
    expected = -l1 * 3**0.5 * found[:, ~zero] / norms
    torch.testing.assert_close(gradient[:, ~zero], expected, atol=1e-3, rtol=0)
    assert (gradient[:, zero].norm(dim=0) <= l1 * 3**0.5 + 1e-3).all()
    assert float(channel_norm(found)) == pytest.approx(3**0.5 * float(norms.sum()))


def penalised(name, structure):
    w = torch.linspace(-0.2, 0.2, 12).reshape(3, 4).requires_grad_()
    group = {"params": [w], "l1": 0.3, "structure": structure, "weight_decay": 0.0}
    return OPTIMIZERS[name].make([group], 0.05, 0.9), w


def steps(opt, w, n, step=None):
    for i in range(n):
        w.grad = torch.linspace(-1, 1, w.numel()).reshape(w.shape) * (1 + i)
        (step or opt.step)()
    return w.detach().clone()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("how", ["pickle", "deepcopy", "state_dict"])
def test_the_penalty_survives_copies(name, structure, how):
    opt, w = penalised(name, structure)
    steps(opt, w, 2)
    if how == "state_dict":
        other, again = penalised(name, structure)
        other.load_state_dict(copy.deepcopy(opt.state_dict()))
        with torch.no_grad():
            again.copy_(w)
    else:
        other = pickle.loads(pickle.dumps(opt)) if how == "pickle" else copy.deepcopy(opt)
        again = other.param_groups[0]["params"][0]
    expected = steps(opt, w, 3)
    torch.testing.assert_close(steps(other, again, 3), expected, rtol=0, atol=0)
    free, w = penalised(name, structure)
    free.param_groups[0]["l1"] = 0.0
    assert expected.norm() < steps(free, w, 5).norm()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch warns of its own
def test_a_compiled_step_is_the_same(name):
    opt, w = penalised(name, "weight")
    expected = steps(opt, w, 3)
    opt, w = penalised(name, "weight")
    found = steps(opt, w, 3, torch.compile(opt.step, backend="eager"))
    torch.testing.assert_close(found, expected)
    assert torch.equal(found == 0, expected == 0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zeros_stay_zero_where_they_are_to(name):
    w = torch.tensor([0.0, 0.5, 0.0, -0.5], requires_grad=True)
    group = {"params": [w], "keep_zeros": True, "weight_decay": 0.1}
    opt = OPTIMIZERS[name].make([group], 0.1, 0.9)
    found = steps(opt, w, 3)
    assert (found == 0).tolist() == [True, False, True, False]
    # -0.0 would be stored as a value.
    assert not found[[0, 2]].signbit().any()


def test_the_momentum_of_heavy_ball_does_not_look_ahead():
    moved = {}
    for name in ("sgd", "heavy_ball"):
        w = torch.zeros(1, requires_grad=True)
        group = {"params": [w], "weight_decay": 0.0}
        opt = OPTIMIZERS[name].make([group], 1.0, 0.9)
        w.grad = torch.ones(1)
        opt.step()
        moved[name] = -w.item()
    assert moved == {"sgd": pytest.approx(1.9), "heavy_ball": 1.0}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_estimator_steps_by_its_objective(rows, structure, optimizer):
    X, y = rows
    lr, l1, l2 = 0.01, 0.2, 0.3
    model = ResNetClassifier(4, lr=lr, l1=l1, l2=l2, l1_structure=structure, batch_size=60)
    model.set_params(optimizer=optimizer, precision="float32", random_state=0)
    model.set_params(n_estimators=1).partial_fit(X, y, classes=[0, 1, 2])
    before = build_network(model.module_.spec).to_empty(device="cpu").train()
    initialize(before, torch.Generator().manual_seed(model._seed))
    x = torch.from_numpy(model.net_.input_spec.transform(X))
    torch.nn.functional.cross_entropy(before(x), torch.from_numpy(y)).backward()
    penalised = (inner_kernels if structure == "channel" else kernels)(before)
    after = dict(model.module_.named_parameters())
    for name, w in before.named_parameters():
        decay = l2 if name in kernels(before) else 0.0
        gradient, w = w.grad, w.detach()
        # The first step: no momentum yet, and Adam's averages are those of one gradient.
        if optimizer == "adamw":
            sure = gradient.abs() > 1e-5
            step = lr / (gradient.abs() + 1e-8)
            w = w * (1 - lr * decay) - step * gradient
        else:
            sure = torch.ones_like(gradient, dtype=torch.bool)
            step = torch.full_like(gradient, 10 * lr)  # 1 / (1 - momentum)
            ahead = 1.9 if optimizer == "sgd" else 1.0
            w = w - lr * ahead * (gradient + decay * w)
        if name in penalised and structure == "weight":
            w = w.sign() * (w.abs() - step * l1).clamp_min(0)
        elif name in penalised and optimizer == "adamw":
            continue  # its metric is tested above
        elif name in penalised:
            w = w * (1 - step * l1 * len(w) ** 0.5 / w.norm(dim=0)).clamp_min(0)
        found = after[name].detach()
        torch.testing.assert_close(found[sure], w[sure], atol=1e-5, rtol=1e-4)
    assert structure == "channel" or model.sparsity_ > 0.01
