"""
When does early stopping stop?
==============================

`EarlyStopping` stops when the loss on a part of the training data that it holds out no
longer improves. Then it restores the weights of the best epoch. How many epochs does
that save?
"""

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sk_resnet import EarlyStopping, ResNetClassifier
from sk_resnet.inspection import TrainingCurveDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=600, random_state=0, stratify=y
)
settings = {"input_shape": (1, 8, 8), "max_epochs": 40, "schedule": "cosine", "lr": 0.03}
stopped = ResNetClassifier(
    8, callbacks=[EarlyStopping(patience=5)], random_state=0, **settings
).fit(X_train, y_train)
whole = ResNetClassifier(8, random_state=0, **settings).fit(X_train, y_train)

# %%
# The dashed line is the best epoch, the dotted line the epoch in which training stopped.

TrainingCurveDisplay.from_estimator(stopped)

# %%
# Conclusion
# ----------
# Early stopping saves epochs. It need not raise the accuracy, because the network does not
# learn from the samples that are held out.

saved = 1 - stopped.n_epochs_ / whole.n_epochs_
print(
    f"best epoch {stopped.best_epoch_} of {stopped.n_epochs_}, {saved:.0%} of epochs saved"
)
print(
    f"test accuracy {stopped.score(X_test, y_test):.3f} stopped, "
    f"{whole.score(X_test, y_test):.3f} after all 40 epochs on all samples"
)
