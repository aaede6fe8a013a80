"""
What is lost when the process of a fit is killed?
=================================================

A fit with ``checkpoint`` loses the epochs since its last file, and no more. Here a
process trains a network. It writes its first file after ten seconds, and is killed a
few epochs later. Then a second process runs the same script.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sk_resnet import ResNetClassifier

settings = {
    "depth": 14,
    "input_shape": (1, 8, 8),
    "max_epochs": 40,
    "validation_split": 0.2,
    "random_state": 0,
}
folder = tempfile.TemporaryDirectory()
checkpoint = str(Path(folder.name) / "digits.checkpoint")
script = f"""
from sklearn.datasets import load_digits
from sk_resnet import ResNetClassifier

X, y = load_digits(return_X_y=True)
model = ResNetClassifier(**{settings}, checkpoint={checkpoint!r}, verbose=1)
model.fit(X, y)
"""


def run(*, to_be_killed):
    """Seconds at which the progress bar of a process first shows each epoch."""
    shown, last = {}, 36  # at the latest, or a fast machine would end the fit
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        while bar := process.stderr.read1():
            for epoch in re.findall(rb"(\d+)/40", bar):
                shown.setdefault(int(epoch), time.perf_counter())
            if to_be_killed and last == 36 and Path(checkpoint).exists():
                last = min(max(shown) + 3, 36)
            if to_be_killed and max(shown, default=0) >= last:
                process.kill()
    return shown


first = run(to_be_killed=True)
second = run(to_be_killed=False)

# %%
# Is the model that of a fit which nobody killed? The same call loads it: the file of a fit
# that is done gives its model at once.

X, y = load_digits(return_X_y=True)
model = ResNetClassifier(**settings, checkpoint=checkpoint).fit(X, y)
whole = ResNetClassifier(**settings).fit(X, y)
same = np.array_equal(model.predict_proba(X), whole.predict_proba(X))
folder.cleanup()

# %%
# On the left, what both processes did. On the right, the history of the model, which has
# the epochs of both, over that of the other fit.

figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
start, killed, resumed = first[0], max(first), min(second)
for name, shown in {"first process": first, "second process": second}.items():
    axes[0].plot(np.subtract(list(shown.values()), start), list(shown), ".-", label=name)
axes[0].plot(first[killed] - start, killed, "kx", markersize=11, mew=2.5, label="killed")
axes[0].axhline(resumed, color="gray", linestyle=":", label="in the file")
axes[0].set(xlabel="seconds", ylabel="epochs done", yticks=range(0, 41, 10))
axes[0].legend(loc="upper left")
losses = [row["valid_loss"] for row in whole.history_]
axes[1].plot(range(1, 41), losses, color="0.7", linewidth=6, label="never killed")
losses = [row["valid_loss"] for row in model.history_]
axes[1].plot(range(1, resumed + 1), losses[:resumed], "o-", label="first process")
axes[1].plot(range(resumed + 1, 41), losses[resumed:], "o-", label="second process")
axes[1].set(xlabel="epoch", ylabel="validation loss", xticks=range(0, 41, 10), ylim=0)
axes[1].legend(loc="upper right")

# %%
# Conclusion
# ----------

print(f"killed after {killed} epochs, resumed after {resumed}: {killed - resumed} are lost")
if same:
    print("the probabilities are those of the fit that was never killed, bit by bit")
