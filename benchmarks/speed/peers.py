"""The same network trained by other libraries, where they are installed.

PyTorch Lightning with a DataLoader, Keras on its torch backend, and fastai's Learner (which
asks for torchvision, so for another build of torch than the CPU wheel); float32, as their
users get it.
"""

import functools
import importlib.util
import logging
import os
import warnings

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

BATCH = 128


def one_cycle(n_steps, lr):
    """Learning rates of torch's OneCycleLR, as an array."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, n_steps + 1, cycle_momentum=False
    )
    rates = []
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return np.array(rates)


@torch.inference_mode()
def predicted(module, X):
    """Classes by a network that a library trained, over a DataLoader."""
    module.eval()
    device = next(module.parameters()).device
    parts = DataLoader(torch.from_numpy(X), BATCH)
    return torch.cat([module(x.to(device)).argmax(1).cpu() for x in parts]).numpy()


class Lightning:
    """PyTorch Lightning's Trainer over a DataLoader."""

    package = "pytorch_lightning"

    def __init__(self, module, epochs, lr, decay, device):
        self.module, self.epochs, self.lr, self.decay = module, epochs, lr, decay
        self.accelerator = "gpu" if device.startswith("cuda") else "cpu"

    def fit(self, X, y):
        import pytorch_lightning as lightning

        lr, decay, module = self.lr, self.decay, self.module
        n_steps = self.epochs * -(-len(X) // BATCH)

        class Task(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.net = module

            def training_step(self, batch, i):
                return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

            def configure_optimizers(self):
                optimizer = torch.optim.SGD(
                    self.parameters(), lr, 0.9, weight_decay=decay, nesterov=True
                )
                schedule = torch.optim.lr_scheduler.OneCycleLR(
                    optimizer, lr, n_steps + 1, cycle_momentum=False
                )
                return [optimizer], [{"scheduler": schedule, "interval": "step"}]

        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
        loader = DataLoader(
            TensorDataset(torch.from_numpy(X), torch.from_numpy(y)), BATCH, shuffle=True
        )
        trainer = lightning.Trainer(
            max_epochs=self.epochs,
            accelerator=self.accelerator,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Task(), loader)

    def predict(self, X):
        return predicted(self.module, X)


class Keras:
    """Keras's fit and predict, the network in a TorchModuleWrapper."""

    package = "keras"

    def __init__(self, module, epochs, lr, decay, device):
        self.module, self.epochs, self.lr, self.decay = module, epochs, lr, decay

    def fit(self, X, y):
        os.environ["KERAS_BACKEND"] = "torch"
        import keras

        rates = one_cycle(self.epochs * -(-len(X) // BATCH), self.lr)
        model = keras.Sequential([keras.layers.TorchModuleWrapper(self.module)])
        # Its weight decay is decoupled: lr times decay, as SGD's own with no momentum.
        optimizer = keras.optimizers.SGD(
            self.lr, momentum=0.9, nesterov=True, weight_decay=self.decay
        )

        class OneCycle(keras.callbacks.Callback):
            step = 0

            def on_train_batch_begin(self, batch, logs=None):
                optimizer.learning_rate = rates[self.step]
                self.step += 1

        model.compile(
            optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        model.fit(
            X, y, batch_size=BATCH, epochs=self.epochs, verbose=0, callbacks=[OneCycle()]
        )
        self.model = model

    def predict(self, X):
        return self.model.predict(X, batch_size=BATCH, verbose=0).argmax(1)


class Fastai:
    """fastai's Learner over DataLoaders of its own."""

    package = "fastai"

    def __init__(self, module, epochs, lr, decay, device):
        self.module, self.epochs, self.lr, self.decay = module, epochs, lr, decay
        self.device = torch.device(device)

    def fit(self, X, y):
        from fastai.callback.core import Callback, CancelValidException
        from fastai.callback.schedule import ParamScheduler
        from fastai.data.core import DataLoaders
        from fastai.data.load import DataLoader as FastaiLoader
        from fastai.learner import Learner
        from fastai.optimizer import OptimWrapper

        n_steps = self.epochs * -(-len(X) // BATCH)
        rates = one_cycle(n_steps, self.lr)

        class NoValidation(Callback):
            def before_validate(self):
                raise CancelValidException

        warnings.simplefilter("ignore")
        training = FastaiLoader(
            TensorDataset(torch.from_numpy(X), torch.from_numpy(y)),
            BATCH,
            shuffle=True,
            device=self.device,
        )
        self.learner = Learner(
            DataLoaders(training, training, device=self.device),
            self.module,
            loss_func=nn.CrossEntropyLoss(),
            opt_func=functools.partial(
                OptimWrapper,
                opt=torch.optim.SGD,
                momentum=0.9,
                nesterov=True,
                weight_decay=self.decay,
            ),
            cbs=[
                ParamScheduler({"lr": lambda done: float(rates[round(done * n_steps)])}),
                NoValidation(),
            ],
        )
        with self.learner.no_bar(), self.learner.no_logging():
            self.learner.fit(self.epochs, self.lr)

    def predict(self, X):
        return predicted(self.module, X)


PEERS = {
    name: kind
    for name, kind in (("lightning", Lightning), ("keras", Keras), ("fastai", Fastai))
    if importlib.util.find_spec(kind.package) is not None
}
