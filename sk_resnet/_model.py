"""A fitted estimator: its network, predictions, and state."""

import copy
import os
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, get_tags
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_resnet._augment import View, resolve_views
from sk_resnet._data import check_numbers, check_samples
from sk_resnet._ensemble import Row, gather_members, make_nets
from sk_resnet._input import InputSpec, padded, to_numpy
from sk_resnet._machine import device_or_cpu
from sk_resnet._net import ResidualNet
from sk_resnet._network import ResidualNetwork, kernels, n_parameters
from sk_resnet._penalty import sparsity
from sk_resnet._samples import Samples, read_dataset
from sk_resnet._state import (
    ModelFileError,
    n_bytes,
    network_state,
    packed,
    restored,
    weights_to_arrays,
)
from sk_resnet._surgery import compacted, separated
from sk_resnet._target import Target


class Model(BaseEstimator):
    """What estimators do once they are fitted."""

    net_: ResidualNet
    # Those of the members; `net_` itself where there is one.
    nets_: list[ResidualNet]
    history_: list[Row]
    n_epochs_: int
    best_epoch_: Any
    batch_size_: int
    _seed: int
    # Parameters that predictions depend on.
    channel_axis: Any
    precision: str
    test_time_augmentation: Any

    def __sklearn_is_fitted__(self) -> bool:
        return "net_" in vars(self)

    # The networks

    def _adopt(
        self,
        modules: list[ResidualNetwork],
        spec: InputSpec,
        target: Target,
        device: torch.device,
    ) -> None:
        """Take in the networks of all members, with the history so far."""
        self.net_, self.nets_ = make_nets(
            modules,
            spec,
            target,
            batch_size=self.batch_size_,
            device=device,
            seed=self._seed,
            history=self.history_,
        )
        self.input_shape_ = spec.input_shape
        self.device_ = str(device)

    def _update(self) -> None:
        """Predict with the weights that the members have now, and measure them."""
        gather_members(self.net_, self.nets_)
        module = self.net_.module_
        self.n_parameters_ = n_parameters(module)
        self.sparsity_ = sparsity(kernels(module).values())
        self.n_bytes_ = n_bytes(packed(weights_to_arrays(module)))

    # Prediction

    @property
    def module_(self) -> ResidualNetwork:
        """The fitted network, a `torch.nn.Module` in evaluation mode.

        It reads what `network_input` gives, not raw samples.
        """
        check_is_fitted(self)
        return self.net_.module_

    def _validated(self, X: Any, *, reset: bool, name: str = "X") -> NDArray[Any]:
        """Samples as an array, with the names of the fit; `name` is for errors."""
        X = padded(to_numpy(X), self.channel_axis)
        # NaN may stand behind the ends of series.
        rules = {"dtype": "numeric", "allow_nd": True, "ensure_all_finite": "allow-nan"}
        if name == "X":
            return validate_data(self, X, reset=reset, **rules)
        array = check_array(X, estimator=self, input_name=name, **rules)
        # Of the names of the columns, which an array has not. `check_samples` knows their
        # number as well, and whose it is.
        validate_data(self, X, reset=reset, skip_check_array=True, ensure_2d=False)
        return array

    # scikit-learn adds values up to look for NaN, and lets NumPy warn of ∞ - ∞.
    @np.errstate(over="ignore", invalid="ignore")
    def _checked_samples(self, X: Any) -> NDArray[Any]:
        check_is_fitted(self)
        X, _ = read_dataset(X, wants_y=False)
        if not isinstance(X, Samples):
            X = self._validated(X, reset=False)
        check_numbers(X)
        check_samples(X, self.net_.input_spec)
        return X

    def _scored_pairs(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Samples that predict takes, and their y, which a dataset may give."""
        read, y = read_dataset(X, y)
        if y is None:
            raise ValueError(
                "score needs y, got None: only a dataset that gives pairs brings it along."
            )
        return X if isinstance(read, Samples) else read, y

    def _views(self) -> list[View]:
        sides = self.net_.input_spec.network_shape[1:]
        return resolve_views(self.test_time_augmentation, sides)

    def _member_outputs(self, X: Any) -> NDArray[np.floating[Any]]:
        """Outputs of shape (members, n, outputs)."""
        X, views = self._checked_samples(X), self._views()
        bfloat16 = self.precision == "bfloat16"
        outputs = self.net_.outputs_by_view(X, bfloat16=bfloat16, views=views)
        if outputs.ndim == 3:
            outputs = outputs[:, None]
        if len(views) == 1:
            return outputs[0]
        by_member = outputs.swapaxes(0, 1)
        return np.stack([self.net_.target.averaged(of_one) for of_one in by_member])

    def _outputs(self, X: Any) -> NDArray[Any]:
        X, views = self._checked_samples(X), self._views()
        bfloat16 = self.precision == "bfloat16"
        return self.net_.averaged_outputs(X, bfloat16=bfloat16, views=views)

    def network_input(self, X: Any) -> NDArray[np.float32]:
        """Return samples as ``module_`` reads them: channels first, and scaled.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples of the shape that the model was fitted on.

        Returns
        -------
        ndarray of shape (n_samples, n_channels, ...)
            For ``torch.from_numpy`` and `module_`.
        """
        return self.net_.input_spec.transform(self._checked_samples(X))

    def embed(self, X: Any) -> NDArray[np.float32]:
        """Return the features that the last layer of the network reads.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            Samples of the shape that the model was fitted on.

        Returns
        -------
        ndarray of shape (n_samples, n_estimators * n_channels_of_the_last_stage)
            Activations of the last block, averaged over all places; those of the
            networks of an ensemble side by side.
        """
        X, bfloat16 = self._checked_samples(X), self.precision == "bfloat16"
        features = self.net_.outputs(X, bfloat16=bfloat16, features=True)
        return features if features.ndim == 2 else np.concatenate(features, axis=1)

    # The network

    def sparsity_by_layer(self) -> dict[str, float]:
        """Share of exact zeros in each kernel.

        Returns
        -------
        dict
            By the name of the kernel in ``module_``, from the stem to the last layer.
        """
        check_is_fitted(self)
        return {name: sparsity([w]) for name, w in kernels(self.module_).items()}

    @torch.inference_mode(False)
    def compact(self) -> "Model":
        """Copy of the fitted estimator without the channels that nothing reads.

        A channel between two convolutions of a block is cut out where all weights that
        read it are zero, as ``l1_structure="channel"`` makes them. Predictions change
        by rounding only; parameters, bytes and time go down. All orders, blocks and
        numbers of dimensions can be cut; channels of the stem and of the shortcuts stay.

        Returns
        -------
        object
            Fitted estimator of the same parameters, which `partial_fit` and
            ``warm_start`` train on as it is.
        """
        check_is_fitted(self)
        # Of its parameters callbacks may hold what cannot be copied, such as a writer.
        callbacks = vars(self).get("callbacks")
        other = copy.deepcopy(self, {id(callbacks): callbacks})
        net = other.net_
        module = compacted(net.module_)
        device = torch.device(net.device)
        other._adopt(separated(module), net.input_spec, net.target, device)
        other._update()
        return other

    # State

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        net = state.pop("net_", None)
        state.pop("nets_", None)
        if net is not None:
            state["_saved"] = network_state(net.module_, net.input_spec, net.target)
        if isinstance(state["checkpoint"], os.PathLike):  # which no file of skops may hold
            state["checkpoint"] = os.fspath(state["checkpoint"])
        return state

    @torch.inference_mode(False)
    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        saved = state.pop("_saved", None)
        if "standardize" in state:  # up to format 4
            state["scale"] = "standard" if state.pop("standardize") else None
        # Parameters that the version of the file did not have yet get their defaults.
        state = {**type(self)().get_params(deep=False), **state}
        if state["compile"] == "auto":  # up to format 2
            state["compile"] = False
        super().__setstate__(state)
        if saved is None:
            return
        device = device_or_cpu(getattr(self, "device_", "cpu"))
        classes = getattr(self, "classes_", None)
        module, spec, target = restored(saved, classes=classes, device=device)
        self._check_state(target)
        self._adopt(separated(module), spec, target, device)

    def _check_state(self, target: Target) -> None:
        """Refuse attributes that do not belong to the target."""
        size, classes = self.batch_size_, target.classes
        is_size = isinstance(size, Integral) and 2 <= size <= 2**31
        if (
            target.estimator_type != get_tags(self).estimator_type
            or not is_size
            or (classes is not None and not np.array_equal(self.classes_, classes))
        ):
            raise ModelFileError(
                "The state of this model is broken: its classes, its batch size or its "
                "kind of estimator are not those of its network."
            )
