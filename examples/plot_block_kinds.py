"""
Basic, bottleneck or wide blocks, at equal parameters?
======================================================

At equal parameters, few wide layers train faster than many narrow ones. Three networks
are compared: one of basic blocks (two 3 × 3 convolutions), one of bottlenecks
(1 × 1, 3 × 3 and 1 × 1), and one of fewer, wider blocks. Does the accuracy differ, too?
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sk_resnet import ResNetClassifier, WideResNetClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=500, random_state=0, stratify=y
)
common = {"input_shape": (1, 8, 8), "max_epochs": 8, "batch_size": 32}
MODELS = {
    "basic, 26 layers": ResNetClassifier(26, width=0.5, **common),
    "bottleneck, 20 layers": ResNetClassifier(20, block="bottleneck", width=0.4, **common),
    "wide, 10 layers": WideResNetClassifier(10, width=1.1, **common),
}

# %%
# Each network is fitted with two seeds, and each fit is a point.

scores, seconds = {}, {}
for name, model in MODELS.items():
    scores[name], seconds[name] = [], []
    for seed in range(2):
        model.set_params(random_state=seed).fit(X_train, y_train)
        scores[name].append(model.score(X_test, y_test))
        seconds[name].append(sum(row["seconds"] for row in model.history_))
    mean, n, quick = sum(scores[name]) / 2, model.n_parameters_, min(seconds[name])
    print(f"{name}: {n:,} parameters, {mean:.3f} in {quick:.1f} s")

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for name in MODELS:
    axes.plot(seconds[name], scores[name], "o", markersize=9, alpha=0.7, label=name)
longest = max(max(times) for times in seconds.values())
axes.set(xlabel="seconds to fit", ylabel="test accuracy", xlim=(0, 1.1 * longest))
axes.legend(loc="lower left")

# %%
# Conclusion
# ----------
# Few large layers keep a processor busier than many small ones, as arXiv:1605.07146 found
# on GPUs: the time differs, although the number of parameters does not.

means = {name: sum(pair) / 2 for name, pair in scores.items()}
apart = max(means.values()) - min(means.values())
spread = max(abs(pair[0] - pair[1]) for pair in scores.values())
fastest = min(seconds, key=lambda name: min(seconds[name]))
print(f"fastest: {fastest}; most accurate: {max(means, key=means.get)}")
print(f"means are {apart:.3f} apart, two seeds of one network up to {spread:.3f}")
if apart < 2 * spread:
    print("so the accuracies do not clearly differ")
