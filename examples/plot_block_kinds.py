"""
Basic, bottleneck or wide blocks, at equal parameters?
======================================================

Three networks have about the same number of parameters: one of basic blocks (two 3 × 3
convolutions), one of bottlenecks (1 × 1, 3 × 3 and 1 × 1), and one of fewer, wider blocks.
Which of them is the most accurate, and which is the fastest?
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
# Each network is fitted with two seeds. The first fit is timed.

results = {}
for name, model in MODELS.items():
    fits = [model.set_params(random_state=s).fit(X_train, y_train) for s in (0,)]
    scores = [fits[0].score(X_test, y_test)]
    n, seconds = fits[0].n_parameters_, sum(row["seconds"] for row in fits[0].history_)
    scores.append(
        model.set_params(random_state=1).fit(X_train, y_train).score(X_test, y_test)
    )
    results[name] = scores, seconds
    print(f"{name}: {n:,} parameters, {sum(scores) / 2:.3f} in {seconds:.1f} s")

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for name, (scores, seconds) in results.items():
    axes.plot([seconds] * 2, scores, "o", label=name)
axes.set(xlabel="seconds to fit", ylabel="test accuracy", xlim=(0, None))
axes.legend()

# %%
# Conclusion
# ----------
# Few large layers keep a processor busier than many small ones, as arXiv:1605.07146 found
# on GPUs: the time differs, although the number of parameters does not.

means = {name: sum(scores) / 2 for name, (scores, _) in results.items()}
apart = max(means.values()) - min(means.values())
spread = max(abs(scores[0] - scores[1]) for scores, _ in results.values())
fastest = min(results, key=lambda name: results[name][1])
print(f"fastest: {fastest}; most accurate: {max(means, key=means.get)}")
print(f"means are {apart:.3f} apart, two seeds of one network up to {spread:.3f}")
if apart < 2 * spread:
    print("so the accuracies do not clearly differ")
