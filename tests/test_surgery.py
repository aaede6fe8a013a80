"""Oracles: the network as it was, torch's counter, and the papers' counts."""

import copy
import pickle
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback
from test_network import network_of
from test_run import SHAPES as SMALL_SHAPES
from test_run import SMALLEST, every_network
from test_spec import spec_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sk_resnet import ResNetClassifier, WideResNetClassifier, _net
from sk_resnet._compat_torch import Contents
from sk_resnet._layers import NORM_TYPES
from sk_resnet._network import build_network, inner_kernels, kernels, n_parameters
from sk_resnet._optim import OPTIMIZERS
from sk_resnet._penalty import STRUCTURES, sparsity
from sk_resnet._spec import ORDERS, SHORTCUTS
from sk_resnet._state import weights_to_arrays
from sk_resnet._surgery import compacted, flattened, folded, multiply_adds

SHAPES = {0: (6,), 1: (2, 11), 2: (2, 9, 9), 3: (2, 5, 5, 5)}


def empty_some_channels(network):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, NORM_TYPES):
                for values in (layer.weight, layer.bias, layer.running_mean):
                    values.copy_(torch.randn(values.shape, generator=generator))
                layer.running_var.uniform_(0.5, 2, generator=generator)
        for i, kernel in enumerate(inner_kernels(network).values()):
            empty = torch.rand(kernel.shape[1], generator=generator) < 0.5
            # One kernel loses everything, one nothing.
            kernel[:, torch.ones_like(empty) if i == 0 else empty & (i != 1)] = 0


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n_dims", SHAPES)
@pytest.mark.parametrize("block", ["basic", "bottleneck", (3, 2, 3)])
def test_outputs_stay_for_every_order_block_and_dimension(order, n_dims, block):
    n_convolutions = 2 if block == "basic" else 3
    depth = 2 + n_convolutions * (1 if n_dims == 0 else 3)
    settings = {"order": order, "block": block, "depth": depth, "dropout": 0.2}
    network = network_of(input_shape=SHAPES[n_dims], n_outputs=3, **settings).eval()
    empty_some_channels(network)
    small = compacted(network)
    x = torch.randn(4, *SHAPES[n_dims], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = network(x)
        scale = float(expected.abs().max())
        torch.testing.assert_close(small(x), expected, atol=1e-5 * scale, rtol=1e-5)
        torch.testing.assert_close(folded(small)(x), expected, atol=1e-4 * scale, rtol=1e-4)
    assert n_parameters(small) < 0.95 * n_parameters(network)
    assert n_parameters(compacted(small)) == n_parameters(small)


def test_channels_that_only_cut_channels_read_are_cut_too():
    network = network_of(block=(3, 3, 3), depth=11)
    _, second, third = kernels(network.stages[0][0].branch).values()
    with torch.no_grad():
        third[:, 3] = 0
        second[:, 5] = 0
        second[3, 5] = 1
    small = compacted(network)
    assert small.spec.cut_to[0] == (second.shape[1] - 1, third.shape[1] - 1)
    assert n_parameters(compacted(small)) == n_parameters(small)


def test_a_full_network_stays_as_it_is():
    network = network_of()
    assert n_parameters(compacted(network)) == n_parameters(network)


@pytest.mark.parametrize("estimator", [ResNetClassifier, WideResNetClassifier])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_channel_penalty_empties_channels_that_compact_cuts(
    images, estimator, optimizer, tmp_path
):
    X, y = images
    depth = 8 if estimator is ResNetClassifier else 10
    model = estimator(depth, width=1, l1=0.02, l1_structure="channel", random_state=0)
    model.set_params(max_epochs=15, batch_size=10, optimizer=optimizer, lr=0.02)
    model.fit(X, y)
    by_layer = model.sparsity_by_layer()
    inner = inner_kernels(model.module_)
    assert any(by_layer[name] > 0.3 for name in inner)
    assert all(share == 0 for name, share in by_layer.items() if name not in inner)
    small = model.compact()
    np.testing.assert_allclose(small.predict_proba(X), model.predict_proba(X), atol=1e-5)
    assert small.n_parameters_ < model.n_parameters_
    assert small.n_bytes_ < model.n_bytes_
    assert small.history_ == model.history_
    assert small.best_epoch_ == model.best_epoch_
    # A cut model is saved, loaded and trained on.
    import joblib

    joblib.dump(small, tmp_path / "small.joblib")
    again = joblib.load(tmp_path / "small.joblib")
    np.testing.assert_array_equal(again.predict_proba(X), small.predict_proba(X))
    again.partial_fit(X, y)
    assert again.n_parameters_ == small.n_parameters_
    assert clone(small).fit(X, y).n_parameters_ == model.n_parameters_


def test_finetuning_keeps_zeros_and_undoes_the_shrinking(images):
    X, y = images
    settings = {"max_epochs": 10, "batch_size": 10, "random_state": 0, "l1": 0.01}
    plain = ResNetClassifier(8, **settings).fit(X, y)
    tuned = ResNetClassifier(8, **settings, finetune_epochs=5).fit(X, y)
    assert tuned.n_epochs_ == 15
    assert tuned.history_[10]["lr"] == tuned.history_[0]["lr"]  # the schedule starts anew
    assert 0.3 < plain.sparsity_ == tuned.sparsity_
    zeros = [(w == 0).numpy() for w in plain.module_.parameters()]
    for before, w in zip(zeros, tuned.module_.parameters(), strict=True):
        if before.any():
            np.testing.assert_array_equal((w == 0).numpy(), before)
    assert tuned.history_[-1]["train_loss"] < plain.history_[-1]["train_loss"]
    n_values = sum(w.numel() for w in kernels(tuned.module_).values())
    n_bytes = (4 * (1 - tuned.sparsity_) + 1 / 8) * n_values
    others = weights_to_arrays(tuned.module_)
    n_bytes += sum(
        a.nbytes for name, a in others.items() if name not in kernels(tuned.module_)
    )
    assert tuned.n_bytes_ < 1.1 * n_bytes


class Weights(Callback):
    """Kernels at the end of the training by `l1`."""

    kept: ClassVar[list] = []

    def on_train_end(self, net, **kwargs):
        self.kept.append({k: w.detach().clone() for k, w in kernels(net.module_).items()})


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_that_noise_keeps_off_zero_end_there(images, structure, optimizer):
    X, y = images
    settings = {"max_epochs": 10, "batch_size": 8, "random_state": 0, "lr": 0.02}
    model = ResNetClassifier(8, l1=0.01, l1_structure=structure, optimizer=optimizer)
    model.set_params(**settings, callbacks=[Weights()]).fit(X, y)
    before = Weights.kept.pop()
    found = kernels(model.module_)
    penalised = inner_kernels(model.module_) if structure == "channel" else found
    n_kept = 0
    for name, w in before.items():
        if name not in penalised:
            assert torch.equal(found[name], w), name
        elif optimizer == "adamw":
            kept = found[name] != 0
            torch.testing.assert_close(found[name][kept].detach(), w[kept])
            n_kept += int(kept.sum())
        else:
            # The rate, over 1 - momentum.
            zero = STRUCTURES[structure].proximal_(w.clone(), 0.02 * 0.01 / 0.1) == 0
            torch.testing.assert_close(found[name].detach(), w.masked_fill(zero, 0.0))
    assert n_kept > 0 or optimizer != "adamw"
    more = sparsity(found.values()) - sparsity(before.values())
    assert more > 0 or structure == "channel"
    assert model.sparsity_ == sparsity(found.values())


@every_network
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_folding_batch_norms_keeps_the_outputs(order, block, n_dims, shortcut):
    network = network_of(
        input_shape=SMALL_SHAPES[n_dims],
        n_outputs=3,
        depth=SMALLEST[block][n_dims > 0],
        block=block,
        order=order,
        shortcut=shortcut,
        dropout=0.1,
    )
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            for values in (layer.weight.data, layer.running_var):
                values.uniform_(0.5, 2, generator=generator)
            for values in (layer.bias.data, layer.running_mean):
                values.normal_(generator=generator)
    x = torch.randn(4, *SMALL_SHAPES[n_dims], generator=generator)
    network.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    kept = x.clone()
    with torch.inference_mode():
        expected = network(x)
        twin = folded(network)
        torch.testing.assert_close(twin(x), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(flattened(twin)(x), twin(x))
        assert torch.equal(flattened(twin).features(x), twin.features(x))
    assert torch.equal(x, kept)  # ReLUs in place write over nothing that is read again
    count = sum("Norm" in type(layer).__name__ for layer in network.modules())
    left = sum("Norm" in type(layer).__name__ for layer in twin.modules())
    assert left < count
    assert left == 0 or order != "original"
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("layout", "spatial"),
    [("small", ()), ("small", (37,)), ("small", (21, 18)), ("small", (9, 7, 10))]
    + [("dilated", (37,)), ("dilated", (21, 18)), ("dilated", (9, 7, 10))]
    + [("imagenet", (37,)), ("imagenet", (21, 18)), ("imagenet", (9, 7, 10))],
)
def test_multiply_adds_are_those_that_torch_counts(spatial, layout):
    spec = spec_of(
        input_shape=(3, *spatial),
        n_outputs=5,
        depth=18 if layout == "imagenet" else 8,
        layout=layout,
    )
    network = build_network(spec).eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, *spatial, device="meta"))
    assert multiply_adds(network, spatial) == counter.get_total_flops() // 2


def test_multiply_adds_are_those_of_the_published_networks():
    def count(depth, width, wide):
        spec = spec_of(
            depth=depth,
            width=width,
            order="full_preactivation" if wide else "original",
            shortcut="projection" if wide else "zero_pad",
            family="wide" if wide else "resnet",
        )
        return multiply_adds(build_network(spec), (32, 32))

    assert count(28, 10, True) == pytest.approx(5243e6, rel=2e-3)
    assert count(20, 1, False) == pytest.approx(40.6e6, rel=5e-3)
    assert count(110, 1, False) == pytest.approx(253e6, rel=5e-3)


def bias_of_last_layer(network):
    return network.classifier.bias.detach()


CHANGES = {
    "a tensor is written to": lambda m: bias_of_last_layer(m)[0].add_(5),
    "a tensor is written to unseen": lambda m: m.classifier.bias.data[0].add_(5),
    "a tensor is written to by NumPy": lambda m: np.add.at(
        m.classifier.bias.detach().numpy(), 0, 5
    ),
    "all are set": lambda m: nn.utils.vector_to_parameters(
        2 * nn.utils.parameters_to_vector(m.parameters()), m.parameters()
    ),
    "an attribute is set": lambda m: setattr(m.stem.norm1, "eps", 1.0),
    "a layer gets another class": lambda m: setattr(m.stem.relu1, "__class__", nn.Tanh),
    "a tensor gets other memory": lambda m: setattr(
        m.stem.norm1.weight, "data", m.stem.norm1.weight.data.flip(0)
    ),
    "the same memory is read otherwise": lambda m: [
        setattr(w, "data", w.data.t())
        for name, w in m.named_parameters()
        if name.endswith("conv2.weight")
    ],
    "a tensor is replaced": lambda m: setattr(
        m.classifier, "bias", nn.Parameter(torch.arange(3.0))
    ),
    "a layer is replaced": lambda m: setattr(m, "head", nn.Sequential(nn.Tanh())),
    "a buffer is written to": lambda m: m.stem.norm1.running_mean.add_(1),
    "weights are loaded": lambda m: m.load_state_dict(
        {name: 0.5 * tensor for name, tensor in m.state_dict().items()}
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_predictions_see_every_change_of_a_network(rows, change):
    X, y = rows
    model = ResNetClassifier(4, max_epochs=1, n_estimators=1, random_state=0).fit(X, y)
    before = model.predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    CHANGES[change](model.module_)
    found = model.predict_proba(X)
    model.net_._kept = None
    np.testing.assert_array_equal(found, model.predict_proba(X))
    assert np.abs(found - before).max() > 1e-3


def doubled(module, x, output=None):
    return 2 * (x[0] if output is None else output)


HOOKS = {
    "of a layer": lambda m: m.classifier.register_forward_hook(doubled),
    "of an activation": lambda m: m.stem.relu1.register_forward_hook(doubled),
    "of a norm": lambda m: m.stem.norm1.register_forward_hook(doubled),
    "of a convolution": lambda m: m.stem.conv1.register_forward_hook(
        lambda module, x, output: output + torch.arange(output.shape[1])
    ),
    "of a block": lambda m: m.stages[0][0].register_forward_hook(doubled),
    "of a stage, before": lambda m: m.stages[0].register_forward_pre_hook(doubled),
    "of all modules": lambda m: nn.modules.module.register_module_forward_hook(
        lambda module, x, output: 2 * output if module.training is m.training else None
    ),
}


@pytest.mark.parametrize("place", HOOKS)
def test_predictions_call_the_hooks_of_users_and_forget_removed_ones(rows, place):
    X, y = rows
    model = ResNetClassifier(4, max_epochs=1, n_estimators=1, random_state=0).fit(X, y)
    before = model.predict_proba(X)
    hook = HOOKS[place](model.module_)
    try:
        changed = model.predict_proba(X)
    finally:
        hook.remove()
    assert np.abs(changed - before).max() > 1e-3
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_predictions_call_a_forward_that_a_layer_was_given(rows):
    X, y = rows
    model = ResNetClassifier(4, max_epochs=1, n_estimators=1, random_state=0).fit(X, y)
    before = model.predict_proba(X)
    model.module_.stem.relu1.forward = torch.zeros_like
    assert np.abs(model.predict_proba(X) - before).max() > 1e-3


def test_a_network_in_training_mode_predicts_in_evaluation_mode(rows):
    X, y = rows
    model = ResNetClassifier(
        4, max_epochs=1, n_estimators=1, dropout=0.5, random_state=0
    ).fit(X, y)
    before = model.predict_proba(X)
    model.module_.train()
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert not model.module_.training


def test_only_networks_of_some_size_are_kept_ready_and_never_in_files(rows, monkeypatch):
    X, y = rows
    model = ResNetClassifier(4, max_epochs=1, n_estimators=1, random_state=0).fit(X, y)
    n_bytes = len(pickle.dumps(model))
    model.predict(X)
    twin = model.net_._kept[0]
    model.predict(X[:3])
    assert model.net_._kept[0] is twin
    assert len(pickle.dumps(model)) == n_bytes
    model.partial_fit(X, y).predict(X)
    assert model.net_._kept[0] is not twin
    monkeypatch.setattr(_net, "MOST_KEPT_BYTES", 1000)
    model.partial_fit(X, y).predict(X)
    assert model.net_._kept is None


@pytest.mark.parametrize("parameters", [{}, {"width": 2}])
def test_the_default_networks_of_images_are_kept_ready(parameters):
    X = np.random.default_rng(0).normal(size=(8, 1, 8, 8))
    model = ResNetClassifier(max_epochs=1, random_state=0, **parameters)
    model.fit(X, np.arange(8) % 2).predict(X)
    assert model.net_._kept is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_changed_values_of_every_size_are_seen(dtype):
    layer = nn.Linear(2, 1, dtype=dtype).requires_grad_(False)  # 6 and 12 bytes
    contents = Contents(layer)
    assert contents.are_those_of(layer)
    layer.bias += 1
    assert not contents.are_those_of(layer)


def test_changes_of_tensors_of_inference_mode_are_seen(rows):
    X, y = rows
    model = ResNetClassifier(4, max_epochs=1, n_estimators=1, random_state=0).fit(X, y)
    with torch.inference_mode():
        model.module_.classifier.bias = nn.Parameter(torch.zeros(3), requires_grad=False)
    before = model.predict_proba(X)
    with torch.inference_mode():
        model.module_.classifier.bias[0] = 9
    assert np.abs(model.predict_proba(X) - before).max() > 0.1


def test_a_net_that_has_predicted_is_pickled_and_copied(rows):
    X, y = rows
    model = ResNetClassifier(4, max_epochs=1, n_estimators=1, random_state=0).fit(X, y)
    expected = model.predict_proba(X)
    for net in (pickle.loads(pickle.dumps(model.net_)), copy.deepcopy(model.net_)):
        assert net._kept is None
        np.testing.assert_allclose(net.predict_proba(X), expected, atol=1e-5)


def test_hooks_get_the_samples_alone_and_what_they_keep_stays(rows):
    X, y = rows
    model = ResNetClassifier(4, max_epochs=1, n_estimators=1, random_state=0).fit(X, y)
    seen = []
    model.module_.stem.norm1.register_forward_hook(lambda *of: seen.append(of[2]))
    for _ in range(3):
        model.predict_proba(X[:1])
    assert len(seen) == 3
    assert all((out < 0).any() for out in seen)  # no ReLU wrote over them


@pytest.mark.parametrize("kind", [nn.Sequential, nn.Identity, nn.ReLU])
def test_predictions_call_layers_of_users(rows, kind):
    class Half(kind):
        def forward(self, x):
            return 0.5 * x

    X, y = rows
    model = ResNetClassifier(4, max_epochs=1, n_estimators=1, random_state=0).fit(X, y)
    model.module_.stem.relu1 = Half()
    with torch.no_grad():
        expected = model.module_(torch.from_numpy(model.network_input(X)))
    found = np.log(model.predict_proba(X))
    np.testing.assert_allclose(found, expected.log_softmax(1), atol=1e-4)
