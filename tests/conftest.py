import numpy as np
import pytest
import torch

# Tiny networks: a second thread costs more than it brings.
torch.set_num_threads(1)


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
