"""
Does dropout help a wide block?
===============================

Dropout gains little, says the paper of wide residual networks (arXiv:1605.07146 §2.4).
It puts dropout between the two convolutions of a block, and finds small gains, and
losses for some networks. What does it change on 200 scanned digits?
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sk_resnet import WideResNetClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=200, random_state=0, stratify=y
)
settings = {"input_shape": (1, 8, 8), "max_epochs": 15, "batch_size": 32}
rates = (0.0, 0.2, 0.4, 0.6)
train, test = np.zeros((2, len(rates), 3))
for i, rate in enumerate(rates):
    for seed in range(3):
        model = WideResNetClassifier(10, width=1, dropout=rate, random_state=seed)
        model.set_params(**settings).fit(X_train, y_train)
        train[i, seed] = model.history_[-1]["train_loss"]
        test[i, seed] = model.score(X_test, y_test)

# %%
# The training loss rises with the rate, because it is measured with dropout active. The
# bars are the standard deviation over three seeds.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for panel, values, label in zip(
    axes, (train, test), ("training loss", "test accuracy"), strict=True
):
    panel.errorbar(rates, values.mean(1), values.std(1), marker="o", capsize=3)
    panel.set(xlabel="dropout", ylabel=label)

# %%
# Conclusion
# ----------
# A difference smaller than the spread of the seeds may be due to the seeds alone.

best = int(test.mean(1).argmax())
gain, spread = test[best].mean() - test[0].mean(), test.std(1).mean()
print(f"best rate {rates[best]}: {gain:+.3f} accuracy over no dropout, spread {spread:.3f}")
print("dropout helps here" if gain > 2 * spread else "no clear effect at this scale")
