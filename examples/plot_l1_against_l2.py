"""
What do L1 and L2 do to the weights?
====================================

L2 shrinks all weights, and sets none of them to zero. L1 with proximal steps sets most
of them to exactly zero, which makes the saved file smaller.
"""

import tempfile
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import sk_resnet
from sk_resnet import ResNetClassifier, regularization_path
from sk_resnet.inspection import RegularizationPathDisplay, WeightDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=900, random_state=0, stratify=y
)
settings = {"input_shape": (1, 8, 8), "max_epochs": 10, "random_state": 0}
models = {
    "l2": ResNetClassifier(8, l2=1e-3, **settings).fit(X_train, y_train),
    "l1": ResNetClassifier(8, l1=1e-3, finetune_epochs=3, **settings).fit(X_train, y_train),
}

# %%
# The figure has the weights of both models. The lines below have the sizes of their files.

display = WeightDisplay.from_estimator(models["l2"], label="l2")
WeightDisplay.from_estimator(models["l1"], label="l1", ax=display.axes_)

sizes = {}
with tempfile.TemporaryDirectory() as folder:
    for name, model in models.items():
        path = Path(folder) / f"{name}.skr"
        sk_resnet.save(model, path)
        sizes[name] = path.stat().st_size
        print(
            f"{name}: {model.sparsity_:.0%} zeros, {sizes[name] / 1000:.0f} kB, "
            f"accuracy {model.score(X_test, y_test):.3f}"
        )

# %%
# A path of strengths: each model starts from the weights of the one before.

# sphinx_gallery_thumbnail_number = 2
path = regularization_path(
    ResNetClassifier(8, **{**settings, "max_epochs": 4}),
    X_train,
    y_train,
    [1e-4, 5e-4, 2e-3, 8e-3],
    X_val=X_test,
    y_val=y_test,
)
RegularizationPathDisplay.from_path(path)

# %%
# Conclusion
# ----------

assert models["l2"].sparsity_ == 0
print(f"L1 gives exact zeros; its file is {sizes['l2'] / sizes['l1']:.1f} times smaller")
