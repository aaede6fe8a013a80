import numpy as np
import pytest
import torch

from sk_resnet import _layers

# Tiny networks: a second thread costs more than it brings.
torch.set_num_threads(1)


def _fill_with_nan(layer):
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(torch.nan)


# Layers come without values, and fresh memory is often zero: NaN shows who reads it.
_layers._WithoutValues.reset_parameters = _fill_with_nan


@pytest.fixture
def images():
    """40 images of 2 × 6 × 6 in 3 classes that a small network tells apart."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 3
    X = rng.normal(size=(40, 2, 6, 6)).astype(np.float32)
    X[:, 0] += y[:, None, None]
    return X, y


@pytest.fixture
def rows():
    """60 rows of 5 features in 3 classes that a small network tells apart."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = rng.normal(size=(60, 5))
    X[:, 0] += 2 * y
    return X, y
