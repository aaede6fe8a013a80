"""
Can a network learn from a table of texts, dates and gaps?
==========================================================

A network reads numbers, but ``tabular_pipeline`` of skrub puts an encoder for every
other kind of column in front of it. This example leaves out one kind after the other,
to see whether the network has made use of it.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.model_selection import cross_val_score
from skrub import tabular_pipeline

from sk_resnet import ResNetClassifier


def orders(n, seed):
    """Orders of a courier, and whether each of them came late."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "ordered": pd.Timestamp("2026-01-01")
            + pd.to_timedelta(rng.integers(0, 365 * 24, n), unit="h"),
            "shop": rng.choice(["bakery", "books", "flowers", "furniture"], n),
            "weather": rng.choice(["sun", "rain", "snow"], n, p=[0.5, 0.35, 0.15]),
            "km": rng.lognormal(1, 0.6, n),
            "kg": rng.lognormal(0, 1, n),
            "phone": rng.choice(["mobile", "home", None], n, p=[0.5, 0.25, 0.25]),
        }
    )
    # The scale of the furniture shop is broken, and who gives no phone cannot be asked.
    table.loc[table["shop"] == "furniture", "kg"] = np.nan
    trouble = (
        table["km"] / 3
        + table["weather"].map({"sun": -1, "rain": 0.5, "snow": 2.5})
        + 3 * table["ordered"].dt.hour.between(16, 19)
        + 1.5 * table["phone"].isna()
        + 2 * table["kg"].isna()
    )
    return table, np.where(trouble + rng.logistic(0, 0.5, n) > 3, "late", "in time")


X, y = orders(1000, seed=0)
pipeline = tabular_pipeline(ResNetClassifier(random_state=0))
X.head()

# %%
# The pipeline turns texts into columns of 0 and 1 and dates into smooth functions, and
# fills in gaps, with a column that says where they were. In cross-validation it learns all
# of that within each fold.

pipeline

# %%
# The area under the ROC curve: small points are the three folds, large ones their mean.
# Trees are for comparison: skrub has a pipeline for them too.

without = {
    "whole table": [],
    "without dates": ["ordered"],
    "without texts": ["shop", "weather", "phone"],
    "without numbers": ["km", "kg"],
}
models = {"networks": pipeline, "boosted trees": tabular_pipeline("classifier")}
areas = {
    name: np.array(
        [
            cross_val_score(model, X.drop(columns=left_out), y, cv=3, scoring="roc_auc")
            for left_out in without.values()
        ]
    )
    for name, model in models.items()
}

figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
places = -np.arange(len(without))
for i, (name, folds) in enumerate(areas.items()):
    heights = places + 0.1 - 0.2 * i
    axes.plot(folds, heights, ".", color=f"C{i}", alpha=0.5)
    axes.plot(folds.mean(axis=1), heights, "os"[i], color=f"C{i}", markersize=9, label=name)
    axes.axvline(folds[0].mean(), color=f"C{i}", linestyle=":", linewidth=1)
axes.set_yticks(places, list(without))
axes.set(xlabel="area under the ROC curve", ylim=(-3.5, 0.5))
axes.legend(loc="upper left")

# %%
# Conclusion
# ----------

whole, *parts = areas["networks"].mean(axis=1)
for name, part in zip(list(without)[1:], parts, strict=True):
    print(f"networks {name}: {part:.3f} of {whole:.3f}")
if max(parts) < whole:
    print("the network makes use of dates, texts and numbers")
