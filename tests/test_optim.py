"""Oracles: optimality conditions, scikit-learn's Lasso, and closed forms."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from sk_resnet._optim import OPTIMIZERS, SCHEDULES
from sk_resnet._penalty import soft_threshold_, sparsity


def test_soft_threshold_is_the_proximal_operator():
    w = torch.tensor([-2.0, -0.5, -0.1, 0.0, 0.3, 1.5])
    expected = torch.sign(w) * torch.clamp(w.abs() - 0.4, min=0)
    torch.testing.assert_close(soft_threshold_(w.clone(), 0.4), expected)
    by_element = soft_threshold_(w.clone(), torch.full_like(w, 0.4))
    torch.testing.assert_close(by_element, expected)
    assert (soft_threshold_(w.clone(), 0.4)[2:5] == 0).all()


def test_sparsity_counts_exact_zeros():
    assert sparsity([torch.tensor([0.0, 1e-30, -1.0]), torch.zeros(1)]) == 0.5


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize(
    ("optimizer", "momentum", "lr"),
    [("sgd", 0.0, 0.1), ("sgd", 0.9, 0.02), ("adamw", 0.9, 0.01)],
)
def test_proximal_steps_solve_the_lasso(optimizer, momentum, lr, schedule):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(60, 9))
    truth = np.array([2, -3, 0, 0, 1.5, 0, 0, 0, 0.5])
    b = A @ truth + 0.1 * rng.normal(size=60)
    l1 = 0.3
    w = torch.zeros(9, dtype=torch.float64, requires_grad=True)
    groups = [{"params": [w], "l1": l1, "weight_decay": 0.0}]
    opt = OPTIMIZERS[optimizer].make(groups, lr, momentum)
    n_steps = 4000
    scheduler = SCHEDULES[schedule](opt, n_steps)
    At, bt = torch.from_numpy(A), torch.from_numpy(b)
    for _ in range(n_steps):
        opt.zero_grad()
        (0.5 * (At @ w - bt).square().mean()).backward()
        opt.step()
        scheduler.step()
    found = w.detach().numpy()
    reference = Lasso(alpha=l1, fit_intercept=False, tol=1e-10, max_iter=100_000).fit(A, b)
    np.testing.assert_allclose(found, reference.coef_, atol=1e-3)
    np.testing.assert_array_equal(found == 0, reference.coef_ == 0)


def test_l2_with_sgd_is_the_ridge_solution():
    rng = np.random.default_rng(0)
    A, b, l2 = rng.normal(size=(40, 4)), rng.normal(size=40), 0.5
    w = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    opt = OPTIMIZERS["sgd"].make(
        [{"params": [w], "l1": 0.0, "weight_decay": l2}], 0.05, 0.9
    )
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
