"""
Do the networks of an ensemble disagree where they err?
=======================================================

An ensemble is seldom wrong where all of its networks agree. For rows the default has
eight networks, and ``member_probabilities`` has what each of them says. This example
counts how many of them name the same digit, and how often that digit is wrong.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sk_resnet import ResNetClassifier

X, y = load_digits(return_X_y=True)
parts = train_test_split(X, y, train_size=300, random_state=0, stratify=y)
X_train, X_test, y_train, y_test = parts
model = ResNetClassifier(random_state=0).fit(X_train, y_train)
probabilities = model.member_probabilities(X_test)  # networks × samples × digits
named = probabilities.argmax(axis=2)
votes = np.array([np.bincount(digits, minlength=10) for digits in named.T])
agreeing = votes.max(axis=1)
wrong = model.predict(X_test) != y_test

# %%
# On the left, the share of errors of the ensemble, by the number of its networks that
# name the same digit. On the right, a person looks through the images, first at those on
# which the networks disagree most: how many of the errors do they find? The other order
# needs no single networks: it begins where the probability of the ensemble is least.


def found(doubt):
    """Share of errors among the most doubtful samples, for each number of them."""
    return np.cumsum(wrong[np.argsort(-doubt, kind="stable")]) / wrong.sum()


def entropy(p):
    """Uncertainty of probabilities, in nats."""
    return -(p * np.log(np.maximum(p, 1e-12))).sum(axis=-1)


mean = probabilities.mean(axis=0)
# The uncertainty of their mean, less the mean of their uncertainties.
disagreement = entropy(mean) - entropy(probabilities).mean(axis=0)
doubts = {"disagreement": disagreement, "probability": 1 - mean.max(axis=1)}

figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
groups = [agreeing <= 4, *(agreeing == n for n in (5, 6, 7, 8))]
rates = [wrong[group].mean() for group in groups]
bars = axes[0].bar(["2 to 4", "5", "6", "7", "8"], rates, color="C0")
axes[0].bar_label(bars, [f"{wrong[g].sum()} of\n{g.sum()}" for g in groups], padding=2)
axes[0].set(xlabel="networks that agree", ylabel="share of errors", ylim=(0, 0.8))
looked_at = np.arange(1, len(wrong) + 1) / len(wrong)
for name, doubt in doubts.items():
    axes[1].plot(looked_at, found(doubt), label=name)
axes[1].plot([0, 1], [0, 1], color="gray", linestyle=":", label="at random")
axes[1].set(xlabel="share of images looked at", ylabel="share of errors found")
axes[1].set_xlim(0, 0.4)
axes[1].legend(loc="lower right")

# %%
# The most disputed images
# ------------------------
#
# Above each image, what it is, and what each of the eight networks takes it for.

figure, axes = plt.subplots(2, 5, figsize=(9, 4.6), layout="constrained")
for ax, i in zip(axes.flat, np.argsort(-disagreement), strict=False):
    ax.imshow(X_test[i].reshape(8, 8), cmap="gray_r")
    taken_for = np.repeat(np.argsort(-votes[i]), -np.sort(-votes[i]))
    ax.set_title(f"a {y_test[i]}\n{' '.join(map(str, taken_for))}", fontsize=11)
    ax.set(xticks=[], yticks=[])

# %%
# Conclusion
# ----------

tenth = len(wrong) // 10
print(f"all eight agree: {rates[-1]:.1%} errors; at most four agree: {rates[0]:.0%}")
for name, doubt in doubts.items():
    share = found(doubt)[tenth - 1]
    print(f"a tenth of the images, by {name}, has {share:.0%} of the errors")
if rates[0] > 10 * rates[-1]:
    print("the networks disagree where they err; eight that agree are nearly always right")
if found(doubts["probability"]).mean() >= found(doubts["disagreement"]).mean():
    print("the probability of the ensemble finds the errors as well: the votes are in it")
