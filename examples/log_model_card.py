"""
A model card for a saved model
==============================

A model card tells whoever finds a file what the model in it is for, how good it is, how it
was trained and how it is loaded. ``skops.card`` makes one from the file that
``sk_resnet.save`` wrote.
"""

from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from skops.card import Card

import sk_resnet
from sk_resnet import ResNetClassifier
from sk_resnet.inspection import TrainingCurveDisplay

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
parts = train_test_split(X, y, random_state=0, stratify=y)
X_train, X_test, y_train, y_test = parts
model = ResNetClassifier(depth=4, n_estimators=2, max_epochs=15, random_state=0)
model.fit(X_train, y_train)

folder = Path("card")
folder.mkdir(exist_ok=True)
sk_resnet.save(model, folder / "tumours.skops")
TrainingCurveDisplay.from_estimator(model).figure_.savefig(folder / "curve.png")
figure, axes = plt.subplots(layout="constrained")
ConfusionMatrixDisplay.from_estimator(model, X_test, y_test, ax=axes)
figure.savefig(folder / "confusion.png")

use = """```python
import sk_resnet

model = sk_resnet.load("tumours.skops")
print(model.classes_, model.n_features_in_, model.feature_names_in_[:3])
```"""
card = Card(
    folder / "tumours.skops",
    trusted=sk_resnet.trusted_types(),
    template={
        "Tumours of the breast": "Malignant (0) or benign (1), from 30 measures of cells.",
        "How to use": use,
        "Limits": f"Trained on {len(X_train)} women of one hospital. Not for diagnosis.",
    },
    model_diagram=False,
)
probabilities = model.predict_proba(X_test)
card.add_metrics(
    section="Quality",
    description=f"On {len(X_test)} samples that the training did not see:",
    accuracy=round(accuracy_score(y_test, model.predict(X_test)), 3),
    log_loss=round(log_loss(y_test, probabilities), 3),
)
card.add_plot(folded=False, **{"Quality/Confusion": "confusion.png"})
card.add_plot(folded=False, **{"Training/Losses": "curve.png"})
card.add_hyperparams(section="Training/Parameters")
card.save(folder / "README.md")
print(card.get_toc())
