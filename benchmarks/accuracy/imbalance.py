"""Tables with 5 % positives at default parameters: run.py calls this with --imbalance.

Every problem is a development set of tabular.py, some classes of it against the others.
All rows of the others, at most 950, stay, and positives are drawn until they are 5 %.
The seed draws the rows, and changes the 5 stratified, shuffled folds and the models.

Average precision and log-loss are those of models at their defaults; the balanced accuracy
is that of models with class_weight="balanced", where a model has it. The last lines give
the mean ranks of the models over the problems that all of them have.
"""

import time

import numpy as np
from results import read, record_seeds
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, balanced_accuracy_score, log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tabular import SMALLEST, load

# Set, and the classes that are positive.
PROBLEMS = {
    "breast_cancer": ("breast_cancer", [0]),
    "letter H": ("letter", [7]),
    "letter vowels": ("letter", [0, 4, 8, 14, 20]),
    "twonorm": ("twonorm", [1]),
    "banana": ("banana", [1]),
    "german": ("german", [1]),
    "australian": ("australian", [1]),
    "ionosphere": ("ionosphere", [0]),
    "pima": ("pima", [1]),
    "marketing 9": ("marketing", [8]),
    "mammographic": ("mammographic", [1]),
    "splice EI": ("splice", [0]),
}
SHARE, MOST_NEGATIVES = 0.05, 950


def resnet(seed, class_weight):
    from sk_resnet import ResNetClassifier

    return ResNetClassifier(class_weight=class_weight, random_state=seed)


def boosting(seed, class_weight):
    return HistGradientBoostingClassifier(class_weight=class_weight, random_state=seed)


def logistic(seed, class_weight):
    model = LogisticRegression(class_weight=class_weight, max_iter=1000)
    return make_pipeline(StandardScaler(), model)


def mlp(seed, class_weight):
    return make_pipeline(StandardScaler(), MLPClassifier(random_state=seed))


MODELS = {
    "ResNetClassifier": resnet,
    "HistGradientBoosting": boosting,
    "MLPClassifier": mlp,
    "LogisticRegression": logistic,
}
UNWEIGHTED = ["MLPClassifier"]
# Whether more is better.
MEASURES = {"average_precision": True, "log_loss": False, "balanced_accuracy": True}


def problem(name, seed):
    """Rows, and which of them are positive."""
    set_name, classes = PROBLEMS[name]
    X, labels = load(set_name)
    rng = np.random.default_rng(seed)
    positive = np.isin(labels, classes)
    negatives = rng.permutation(np.flatnonzero(~positive))[:MOST_NEGATIVES]
    n = round(len(negatives) * SHARE / (1 - SHARE))
    drawn = rng.permutation(np.flatnonzero(positive))[:n]
    rows = np.sort(np.concatenate([negatives, drawn]))
    return X[rows], positive[rows].astype(int)


def measure(arm, X, y, seed):
    """Means over the folds by name of the measure."""
    found = {}
    for train, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y):
        model = MODELS[arm](seed, None)
        started = time.process_time()
        model.fit(X[train], y[train])
        row = {"seconds": time.process_time() - started}
        positive = model.predict_proba(X[test])[:, 1].astype(np.float64)
        row["average_precision"] = average_precision_score(y[test], positive)
        row["log_loss"] = log_loss(y[test], np.clip(positive, SMALLEST, 1 - SMALLEST))
        if arm not in UNWEIGHTED:
            balanced = MODELS[arm](seed, "balanced").fit(X[train], y[train])
            row["balanced_accuracy"] = balanced_accuracy_score(
                y[test], balanced.predict(X[test])
            )
        for key, value in row.items():
            found.setdefault(key, []).append(value)
    return {key: float(np.mean(values)) for key, values in found.items()}


def table(problems, arms, n_seeds, path):
    """Print a line for each problem and model, and record it; then the ranks."""
    for name in problems:
        for arm in arms:
            by_seed = [measure(arm, *problem(name, seed), seed) for seed in range(n_seeds)]
            record_seeds(path, "imbalance", name, arm, by_seed)
    print_ranks([row for row in read(path) if row["table"] == "imbalance"])


def print_ranks(rows):
    """Mean of each measure and mean ranks, over the problems that all models have."""
    by_arm = {}
    for row in rows:
        by_arm.setdefault(row["arm"], {})[row["case"]] = row["measures"]
    for key, more_is_better in MEASURES.items():
        arms = [a for a in by_arm if all(key in found for found in by_arm[a].values())]
        cases = [c for c in PROBLEMS if arms and all(c in by_arm[a] for a in arms)]
        if not cases:
            continue
        means = np.array([[by_arm[a][c][key]["mean"] for a in arms] for c in cases])
        ranks = rankdata(-means if more_is_better else means, axis=1).mean(axis=0)
        print(f"\n{key} of {len(cases)} problems: mean, mean rank")
        for arm, mean, rank in zip(arms, means.mean(axis=0), ranks, strict=True):
            print(f"{arm:<22} {mean:.4f} {rank:5.2f}")
