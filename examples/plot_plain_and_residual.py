"""
Why do deep plain networks degrade?
===================================

Plain networks get worse with depth, also on the training data, and residual networks do
not: He et al. 2015 (arXiv:1512.03385, figure 6) found it. Does the same happen on 1,797
scanned digits after six epochs?
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sk_resnet import ResNetClassifier
from sk_resnet.inspection import GradientFlow, GradientFlowDisplay, diagnose

X, y = load_digits(return_X_y=True)

# %%
# The networks are the same, with and without shortcuts. The loss is the one on the training
# data, so overfitting cannot explain a rise.

depths = [8, 20, 44]
losses = {"projection": [], "none": []}
models = {}
for shortcut, final in losses.items():
    for depth in depths:
        model = models[shortcut, depth] = ResNetClassifier(
            depth,
            width=0.5,
            shortcut=shortcut,
            input_shape=(1, 8, 8),
            max_epochs=6,
            batch_size=64,
            lr=0.05,
            callbacks=[GradientFlow()],
            random_state=0,
        )
        final.append(model.fit(X, y).history_[-1]["train_loss"])

# %%
# Training loss over depth.

figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
for shortcut, label in (("projection", "residual"), ("none", "plain")):
    axis.plot(depths, losses[shortcut], marker="o", label=label)
axis.set(xlabel="depth (weight layers)", ylabel="training loss", xticks=depths)
axis.set_yscale("log")
axis.legend()

# %%
# Do the gradients vanish? According to §4.1 of the paper they do not, thanks to batch norm:
# they should not fall towards the input of the deep plain network. `diagnose` therefore has
# one finding for vanishing gradients and one for degradation. For degradation it needs the
# shallower network.

GradientFlowDisplay.from_estimator(models["none", depths[-1]])
found = diagnose(
    models["none", depths[-1]], X, y, X, y, shallower=models["none", depths[0]]
)
print(found)

# %%
# Conclusion
# ----------

growth = {name: final[-1] / final[0] for name, final in losses.items()}
print(
    f"From depth {depths[0]} to {depths[-1]} the training loss of the plain network grows "
    f"{growth['none']:.1f}-fold, that of the residual one {growth['projection']:.1f}-fold."
)
if growth["none"] > 2 * growth["projection"]:
    print("Degradation shows at this scale: the shortcuts prevent most of it.")
else:
    print("At this scale the effect does not show clearly.")
if "vanishing gradients" in found:
    print("The gradients of the deep plain network vanish here.")
else:
    print("The gradients of the deep plain network do not vanish.")
assert np.isfinite([*losses["none"], *losses["projection"]]).all()
