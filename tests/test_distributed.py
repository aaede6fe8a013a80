"""One fit in several processes gives the fit of one process."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import sk_resnet
from sk_resnet import ResNetClassifier
from sk_resnet._machine import resolve_device

ROOT = Path(sk_resnet.__file__).parents[1]
FIT = """
import sys
import numpy as np
import torch
from sk_resnet import ResNetClassifier
from sk_resnet._layers import NORM_TYPES

rank, n, store, out, frozen = sys.argv[1:]
torch.set_num_threads(1)
if n != "1":
    torch.distributed.init_process_group(
        "gloo", f"file://{store}", rank=int(rank), world_size=int(n)
    )


def freeze_norms(network):
    for layer in network.modules():
        if isinstance(layer, NORM_TYPES):
            layer.momentum = 0.0
            layer.eval()


rng = np.random.default_rng(0)
X, y = rng.normal(size=(54, 5)), np.arange(54) % 3
# bfloat16 has other rounding errors for halves of a batch.
model = ResNetClassifier(
    6, width=0.25, max_epochs=3, batch_size=16, lr=0.02, random_state=0, l1=1e-3,
    precision="float32", n_estimators=1,
)
if frozen == "True":
    # Training is turned on before each step.
    from sk_resnet._run import Run

    def backward(run, batch, _inner=Run._backward):
        freeze_norms(run.network)
        return _inner(run, batch)

    Run._backward = backward
model.fit(X, y, X_val=X, y_val=y)
losses = [row["train_loss"] for row in model.history_]
np.savez(f"{out}{rank}.npz", p=model.predict_proba(X), losses=losses)
"""


def fit(folder, n, *, frozen):
    out = folder / f"of{n}-"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FIT, str(rank), str(n), str(folder / "store"), str(out)]
            + [str(frozen)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(n)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0] * n
    return [np.load(f"{out}{rank}.npz") for rank in range(n)]


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [True, False])
def test_two_processes_fit_one_network(tmp_path, frozen):
    (one,) = fit(tmp_path, 1, frozen=frozen)
    first, second = fit(tmp_path, 2, frozen=frozen)
    np.testing.assert_array_equal(first["p"], second["p"])
    np.testing.assert_allclose(first["losses"], second["losses"])
    difference = np.abs(first["p"] - one["p"]).max()
    if frozen:
        assert difference < 1e-5
        np.testing.assert_allclose(first["losses"], one["losses"], rtol=0.02)
    else:  # each process norms by its own half of a batch
        assert 1e-4 < difference < 0.5


@pytest.mark.slow
def test_the_recipe_for_torchrun_works(tmp_path):
    page = (ROOT / "docs" / "guide" / "tuning.rst").read_text()
    (recipe,) = re.findall(r"\n(   def main\(X, y\).*?)\n\n\S", page, flags=re.DOTALL)
    script = f"""{textwrap.dedent(recipe)}
import os
import numpy as np
rng = np.random.default_rng(0)
X, y = rng.normal(size=(40, 4)), np.arange(40) % 2
np.save("rank" + os.environ["RANK"], main(X, y).predict_proba(X))
"""
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    subprocess.run(
        [*command, "--nproc-per-node", "2", "script.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=120,
    )
    first, second = (np.load(tmp_path / f"rank{rank}.npy") for rank in (0, 1))
    np.testing.assert_array_equal(first, second)


def test_processes_need_one_seed(monkeypatch, rows):
    monkeypatch.setattr("sk_resnet._base.rank_and_size", lambda: (0, 2))
    with pytest.raises(ValueError, match="random_state must be an int where several"):
        ResNetClassifier(4).fit(*rows)


@pytest.mark.parametrize(("rank", "expected"), [("0", 0), ("1", 1), ("2", 0)])
def test_workers_take_the_gpus_in_turn(monkeypatch, rank, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert resolve_device("auto") == torch.device("cuda", expected)
