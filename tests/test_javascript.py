"""The examples in JavaScript; `make javascript` installs the packages that they need."""

import functools
import shutil
import subprocess
import threading
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from sk_resnet import ResNetClassifier, to_onnx

ROOT = Path(__file__).parents[1]
PACKAGES = ROOT / ".npm" / "node_modules"
pytestmark = pytest.mark.slow


def needs(package, *programs):
    """The first of some programs that is there; skip without it or without the package."""
    found = [path for path in map(shutil.which, programs) if path]
    if not found or not (PACKAGES / package).exists():
        pytest.skip(f"needs {package} of npm and {programs[0]}: make javascript")
    return found[0]


@pytest.fixture
def node():
    return needs("onnxruntime-node", "node")


@pytest.fixture
def browser():
    return needs("onnxruntime-web", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def folder(tmp_path):
    """The examples, the packages, a model and its samples beside each other."""
    (tmp_path / "node_modules").symlink_to(PACKAGES)
    for name in ("predict.mjs", "predict.html"):
        shutil.copy(ROOT / "examples" / name, tmp_path)
    return tmp_path


@pytest.fixture(params=["numbers", "strings"])
def expected(request, folder):
    """Labels, and the probability of each."""
    X, y = load_digits(return_X_y=True)
    if request.param == "strings":
        y = np.array([f"digit-{label}" for label in y])
    network = ResNetClassifier(8, input_shape=(1, 8, 8), max_epochs=3, random_state=0)
    model = make_pipeline(MinMaxScaler(), network).fit(X[:600], y[:600])
    to_onnx(model, folder / "digits.onnx")
    np.savetxt(folder / "digits.csv", X[600:], fmt="%g", delimiter=",")
    return model.predict(X[600:]), model.predict_proba(X[600:]).max(axis=1)


def assert_predicts(text, expected):
    labels, probabilities = zip(*(line.split() for line in text.splitlines()), strict=True)
    np.testing.assert_array_equal(labels, expected[0].astype(str))
    found = np.array(probabilities, dtype=float)
    np.testing.assert_allclose(found, expected[1], rtol=0, atol=1e-5)


def test_node_predicts_the_same(node, folder, expected):
    with open(folder / "digits.csv") as samples:
        out = subprocess.run(
            [node, "predict.mjs", "digits.onnx"],
            cwd=folder,
            stdin=samples,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    assert_predicts(out, expected)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        """Write nothing."""


def test_a_browser_predicts_the_same(browser, folder, expected):
    handler = functools.partial(Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = subprocess.run(
            # Containers have neither a sandbox nor much shared memory.
            [browser, "--headless", "--no-sandbox", "--disable-dev-shm-usage"]
            + [f"--user-data-dir={folder / 'profile'}"]
            # Milliseconds for the page to compute; time stands still while it loads.
            + ["--virtual-time-budget=60000", "--dump-dom"]
            + [f"http://127.0.0.1:{server.server_port}/predict.html"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        server.shutdown()
    text = page.partition('<pre id="predictions">')[2].partition("</pre>")[0]
    assert_predicts(unescape(text), expected)
