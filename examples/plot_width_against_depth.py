"""
Wider or deeper?
================

Wider networks train several times faster than deeper ones, and are as accurate:
Zagoruyko & Komodakis 2016 (arXiv:1605.07146) found it for networks with as many
parameters. Does the same hold on scanned digits?
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sk_resnet import WideResNetClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=500, random_state=0, stratify=y
)

# %%
# A depth of 10 + 6n has n more blocks per stage than a depth of 10. The widths are chosen
# so that all four networks have about the same number of parameters.

settings = {"input_shape": (1, 8, 8), "max_epochs": 8, "batch_size": 32}
rows = []
for depth, width in ((10, 1.0), (16, 0.67), (28, 0.47), (40, 0.38)):
    model = WideResNetClassifier(depth, width=width, random_state=0, **settings)
    model.fit(X_train, y_train)
    seconds = sum(row["seconds"] for row in model.history_)
    rows.append((depth, model.n_parameters_, seconds, model.score(X_test, y_test)))
    print("depth {}: {:,} parameters, {:.1f} s, accuracy {:.3f}".format(*rows[-1]))

depths, _, times, scores = zip(*rows, strict=True)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
axes[0].plot(depths, scores, "o-")
axes[0].set(xlabel="depth, at equal parameters", ylabel="test accuracy")
axes[1].plot(depths, times, "o-", color="C1")
axes[1].set(xlabel="depth, at equal parameters", ylabel="seconds to fit", ylim=(0, None))

# %%
# Conclusion
# ----------
# Time grows with depth, because layers run one after the other. Whether the accuracy grows
# too is on the left, where each score has a standard error.

gain, longer = scores[-1] - scores[0], times[-1] / times[0]
error = (scores[0] * (1 - scores[0]) / len(y_test)) ** 0.5
print(f"depth 40 against 10: {gain:+.3f} accuracy at {longer:.1f} times the time")
print(f"standard error of one score: {error:.3f}")
print("depth pays" if gain > 3 * error else "nothing here needs the depth")
