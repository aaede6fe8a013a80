"""Attributions of an image, of a row and of a series, for the picture of their page.

    python benchmarks/inspection/attributions.py   # writes attributions.json beside it

Each is of a test sample whose class the network is sure of, and by integrated gradients.
benchmarks/pictures.py draws them.
"""

import json
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits, load_wine
from sklearn.model_selection import train_test_split

from sk_resnet import ResNetClassifier
from sk_resnet.inspection import AttributionDisplay

sys.path.append(str(Path(__file__).parents[1]))
from results import origin

FILE = Path(__file__).with_name("attributions.json")


def digits():
    """Images of digits, in one channel."""
    found = load_digits()
    return found.images[:, None], found.target


def wines():
    """Rows of a table."""
    return load_wine(return_X_y=True)


def beats():
    """Noise, in which a short beat, up or down, makes the class."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    X = 0.3 * rng.normal(size=(300, 1, 80))
    for series, label, start in zip(X[:, 0], y, rng.integers(0, 65, 300), strict=True):
        series[start : start + 15] += (2 * label - 1) * 2 * np.hanning(15)
    return X, np.array(["down", "up"])[y]


# Data, depth of the network, class of the sample that is shown, and baseline.
CASES = {
    "image": (digits, 8, 3, 0),  # a black image
    "row": (wines, 4, 0, None),
    "series": (beats, 8, "up", None),
}


def attributed(data, depth, label, baseline):
    """Values of the first test sample of a class, and what each of them adds."""
    X, y = data()
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
    model = ResNetClassifier(depth=depth, max_epochs=15, random_state=0)
    model.fit(X_train, y_train)
    one = X_test[y_test == label][:1]
    assert model.predict(one) == label
    found = AttributionDisplay.from_estimator(model, one, baseline=baseline)
    values, parts = one[0].squeeze(), found.attributions[0].squeeze()
    return {"values": values.round(3).tolist(), "attributions": parts.round(3).tolist()}


def main():
    """Write the file."""
    found = {name: attributed(*case) for name, case in CASES.items()}
    found["row"]["names"] = load_wine().feature_names
    FILE.write_text(json.dumps({**found, "origin": origin()}) + "\n")


if __name__ == "__main__":
    main()
