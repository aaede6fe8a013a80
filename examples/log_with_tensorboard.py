"""
Curves of every fit of a search, in TensorBoard
===============================================

A ``SummaryWriter`` has an open file and a thread, which can be neither copied nor pickled,
and a grid search does both with the callbacks of its estimator. So this callback is given
the name of a folder, and opens a writer there when a training begins. The command
``tensorboard --logdir runs`` shows the curves.
"""

import tempfile
from pathlib import Path

from sklearn.datasets import load_wine
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import TensorBoard
from torch.utils.tensorboard import SummaryWriter

from sk_resnet import ResNetClassifier


class OpensRuns(TensorBoard):
    """Logger of skorch whose `writer` is a folder, in which each training is a run."""

    def on_train_begin(self, net, **kwargs):
        """Open a run. This is a copy of the callback: the estimator keeps the folder."""
        Path(self.writer).mkdir(parents=True, exist_ok=True)
        self.writer = SummaryWriter(tempfile.mkdtemp(prefix="fit-", dir=self.writer))


# A folder for each candidate: its name is shown beside the curves of its fits.
folders = {l2: f"runs/l2={l2}" for l2 in (1e-3, 1e-2, 1e-1)}
grid = [
    {"l2": [l2], "callbacks__board__writer": [folder]} for l2, folder in folders.items()
]
model = ResNetClassifier(
    depth=4,
    n_estimators=1,  # each network of an ensemble would be a run
    max_epochs=10,
    validation_split=0.2,
    callbacks=[("board", OpensRuns("runs"))],
    random_state=0,
)
X, y = load_wine(return_X_y=True)
search = GridSearchCV(model, grid, cv=3, n_jobs=2).fit(X, y)

# The tab "HPARAMS" is a table of the candidates and their scores.
with SummaryWriter("runs") as writer:
    for l2, score in zip(folders, search.cv_results_["mean_test_score"], strict=True):
        writer.add_hparams({"l2": l2}, {"mean score": score}, run_name=f"l2={l2}")

for folder in folders.values():
    print(folder, "has the curves of", len(list(Path(folder).glob("fit-*"))), "fits")
print(f"best: l2={search.best_params_['l2']}, which was fitted once more, on all rows")
