"""Train on scanned digits, cross-validate, save, reload in a new process, and draw."""

import subprocess
import sys
import time
from pathlib import Path

import joblib
import matplotlib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import classification_report
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler

from sk_resnet import EarlyStopping, ResNetClassifier

matplotlib.use("agg")
import matplotlib.pyplot as plt

LOAD_AND_PREDICT = """
import sys, joblib, numpy as np
model = joblib.load(sys.argv[1], mmap_mode="c")
np.save(sys.argv[3], model.predict_proba(np.load(sys.argv[2])))
"""


def digits_pipeline(**parameters):
    """Scaler and network; flat rows are folded into images after the scaler."""
    settings = {"depth": 8, "input_shape": (1, 8, 8), "random_state": 0}
    network = ResNetClassifier(**settings, **parameters)
    return Pipeline([("scale", MinMaxScaler()), ("resnet", network)])


def predictions_of_a_new_process(model, X, folder):
    """Probabilities from the file, loaded by another Python."""
    paths = [folder / name for name in ("digits.joblib", "X.npy", "predicted.npy")]
    joblib.dump(model, paths[0])
    np.save(paths[1], X)
    command = [sys.executable, "-c", LOAD_AND_PREDICT, *map(str, paths)]
    subprocess.run(command, check=True)
    predicted = np.load(paths[2])
    paths[1].unlink()
    paths[2].unlink()
    return predicted, paths[0].stat().st_size


def draw_training_curve(model, path):
    """Loss and accuracy by epoch, with a line at the best epoch."""
    history = model.history_
    epochs = [row["epoch"] for row in history]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for axis, quantity in zip(axes, ("loss", "accuracy"), strict=True):
        for part, label in (("train", "training"), ("valid", "validation")):
            axis.plot(epochs, [row[f"{part}_{quantity}"] for row in history], label=label)
        axis.axvline(model.best_epoch_, color="grey", ls=":", label="best epoch")
        axis.set(xlabel="epoch", ylabel=quantity)
    axes[0].set_yscale("log")
    axes[1].legend()
    figure.suptitle("ResNet-8 on scanned digits")
    figure.savefig(path, dpi=120)


def main():
    """Run every step and print its result."""
    started = time.perf_counter()
    folder = Path("demo_output")
    folder.mkdir(exist_ok=True)
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

    print(f"Training on {len(X_train)} scanned digits with early stopping:")
    stop = EarlyStopping(patience=5, min_delta=0.002)
    model = digits_pipeline(callbacks=[stop], verbose=1).fit(X_train, y_train)
    network = model["resnet"]
    print(
        f"{network.n_parameters_:,} parameters, {network.n_epochs_} epochs, "
        f"weights of epoch {network.best_epoch_}\n"
    )
    print(f"On {len(X_test)} digits that were not in the training part:")
    print(classification_report(y_test, model.predict(X_test), digits=3))

    cv = StratifiedKFold(3, shuffle=True, random_state=0)
    scores = cross_val_score(digits_pipeline(max_epochs=12), X, y, cv=cv)
    mean, spread = scores.mean(), scores.std()
    print(f"Accuracy in 3-fold cross-validation: {mean:.4f} ± {spread:.4f}\n")

    predicted, size = predictions_of_a_new_process(model, X_test, folder)
    equal = np.array_equal(predicted, model.predict_proba(X_test))
    print(
        f"Saved to {folder / 'digits.joblib'} ({size / 1024:.0f} KiB); a new process "
        f"predicts {'the same to the bit' if equal else 'something else'}."
    )
    picture = folder / "training_curve.png"
    draw_training_curve(network, picture)
    print(f"Training curve in {picture}")
    print(f"{time.perf_counter() - started:.0f} seconds in all")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
