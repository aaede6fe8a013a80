"""
Which columns of a table does a pipeline need?
==============================================

A pipeline needs a column if its score falls when the column is shuffled. That is what
``permutation_importance`` of scikit-learn measures, for one column after the other. It
takes any pipeline, and shuffles the columns that go into it, before they are encoded
and scaled. Does it find the columns that the labels were made from?
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.inspection import permutation_importance
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sk_resnet import ResNetClassifier
from sk_resnet.inspection import AttributionDisplay

rng = np.random.default_rng(0)
table = pd.DataFrame(
    {
        "age": rng.integers(18, 80, 1200).astype(float),
        "city": rng.choice(["Kyiv", "Lyon", "Oslo"], 1200),
        "income": rng.lognormal(10, 0.5, 1200),
        "height": rng.normal(172, 9, 1200),
        "weekday": rng.choice(["Mon", "Wed", "Fri"], 1200),
    }
)
# Older customers buy, in Oslo the younger ones; income shifts the age a little.
age = table.age + (np.log(table.income) - 10) * 10
bought = np.where((age > 50) ^ (table.city == "Oslo"), "yes", "no")
causes = {"age", "city", "income"}

columns = make_column_transformer(
    (OneHotEncoder(sparse_output=False), ["city", "weekday"]),
    remainder="passthrough",
    verbose_feature_names_out=False,
)
pipeline = make_pipeline(
    columns, ResNetClassifier(6, n_estimators=2, max_epochs=30, random_state=0)
)
parts = train_test_split(table, bought, random_state=0, stratify=bought)
X_train, X_test, y_train, y_test = parts
print(f"accuracy {pipeline.fit(X_train, y_train).score(X_test, y_test):.3f}")

# %%
# Each column is shuffled 20 times in the test part. A line spans the middle half of the
# losses: where it is at 0, the pipeline does without the column.

found = permutation_importance(pipeline, X_test, y_test, n_repeats=20, random_state=0)
order = found.importances_mean.argsort()
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
low, middle, high = np.quantile(found.importances[order], (0.25, 0.5, 0.75), axis=1)
ax.hlines(table.columns[order], low, high, linewidth=6, alpha=0.4)
ax.plot(middle, table.columns[order], "o")
ax.axvline(0, color="gray", linestyle=":")
ax.set_xlabel("loss of accuracy when the column is shuffled")

# %%
# That is what matters in the whole set. What mattered for one customer is shown by the
# attributions of this row, in the features that the network reads after the encoder.

AttributionDisplay.from_estimator(pipeline, X_test[:2], target="yes")

# %%
# Conclusion
# ----------

needed = set(table.columns[found.importances_mean > 0.02])
print(f"columns that cost more than 2 % of accuracy: {', '.join(sorted(needed))}")
assert needed == causes
