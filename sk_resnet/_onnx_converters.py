"""What skl2onnx calls to convert our estimators, and what torch exports for it."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sk_resnet._augment import View, unchanged
from sk_resnet._embedder import ResNetEmbedder
from sk_resnet._input import InputSpec
from sk_resnet._network import ResidualNetwork, build_network
from sk_resnet._state import arrays_to_weights, weights_to_arrays
from sk_resnet._surgery import folded
from sk_resnet._target import Target

# Of a protobuf message.
MOST_BYTES = 2**31
# Least length of the series that a network of unequal ones is traced with: where strides,
# if there are any, leave one place of a short one, torch takes that for the length of all.
LENGTH_OF_TRACE = 64


def fitted(model: Any) -> Any:
    """Estimator that has the network."""
    check_is_fitted(model)
    return model.estimator_ if isinstance(model, ResNetEmbedder) else model


def spec_of(model: Any) -> InputSpec:
    """What samples of a fitted estimator look like."""
    return fitted(model).net_.input_spec


def free_axes(spec: InputSpec) -> list[int]:
    """Axes of a sample whose size may be any: the length of unequal series."""
    shape = spec.sample_shape
    longer = [(*shape[:i], n + 1, *shape[i + 1 :]) for i, n in enumerate(shape)]
    return [i for i, other in enumerate(longer) if spec.accepts(other)]


# Types


def shapes_of_classifier(operator: Any) -> None:
    """Set the types of labels and probabilities."""
    from skl2onnx.common.data_types import Int64TensorType, StringTensorType

    target = fitted(operator.raw_operator).net_.target
    n, labels = _n_samples(operator), _labels(operator.scope_inst, operator.raw_operator)
    kind = StringTensorType if labels.dtype.kind == "U" else Int64TensorType
    operator.outputs[0].set_type(kind([n, *_shape_of_y(target)]))
    operator.outputs[1].set_type(_type_of_numbers(operator)([n, target.n_outputs]))


def shape_of_numbers(operator: Any) -> None:
    """Set the type of what a regressor or a transformer gives."""
    model = operator.raw_operator
    if isinstance(model, ResNetEmbedder):
        n_outputs = len(model.get_feature_names_out())
    else:
        n_outputs = model.net_.target.n_outputs
    kind = _type_of_numbers(operator)
    operator.outputs[0].set_type(kind([_n_samples(operator), n_outputs]))


def _n_samples(operator: Any) -> int | None:
    """Number of samples, None where it is free; refuses samples of another shape."""
    spec = spec_of(operator.raw_operator)
    shapes = [tuple(given.type.shape) for given in operator.inputs]
    n, *sample = shapes[0]
    if len(shapes) > 1:  # columns
        sizes = [shape[1] for shape in shapes]
        sample = [None if None in sizes else sum(sizes)]
    free, expected = free_axes(spec), spec.sample_shape
    fits = len(sample) == len(expected) and all(
        given in (None, size) or i in free
        for i, (given, size) in enumerate(zip(sample, expected, strict=True))
    )
    if not fits:
        raise ValueError(
            f"The network reads samples of shape {expected}, but gets {tuple(sample)}: X "
            "has another shape, or skl2onnx leaves out some of what a step before gives."
        )
    return n


def _type_of_numbers(operator: Any) -> Any:
    """Double precision where the input has it, as skl2onnx's converters do."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    is_double = isinstance(operator.inputs[0].type, DoubleTensorType)
    return DoubleTensorType if is_double else FloatTensorType


def _shape_of_y(target: Target) -> tuple[int, ...]:
    """Shape of what is predicted of a sample: () for a label."""
    outputs = np.zeros((1, target.n_outputs), dtype=np.float32)
    return tuple(target.decode(outputs).shape[1:])


def _labels(scope: Any, model: Any) -> NDArray[Any]:
    """Labels by their number, as int64 or strings; 0 and 1 where y is an indicator."""
    from skl2onnx.common.utils_classifier import get_label_classes

    if _shape_of_y(fitted(model).net_.target):
        return np.array([0, 1])
    labels = np.asarray(get_label_classes(scope, model))
    if all(isinstance(label, str) for label in labels.tolist()):
        return labels.astype(str)
    if labels.dtype.kind not in "biuf" or (labels != np.trunc(labels)).any():
        raise ValueError(
            f"ONNX has labels that are integers or strings, got {labels.tolist()[:3]}: "
            "convert y before fit."
        )
    return labels.astype(np.int64)


# Nodes


def convert(scope: Any, operator: Any, container: Any) -> None:
    """Put an estimator into the graph."""
    from skl2onnx.common.data_types import guess_proto_type
    from skl2onnx.helpers import add_onnx_graph

    model, outputs = operator.raw_operator, list(operator.outputs)
    source, of_input = _joined_inputs(scope, operator, container)
    graph = exported(
        model,
        of_input=of_input,
        of_numbers=_numpy_type(guess_proto_type(_type_of_numbers(operator)())),
        opset=container.target_opset_any_domain(""),
    )
    if is_classifier(model):
        number = scope.get_unique_variable_name("number")
        labels = _labels(scope, model)
        _add_gather(scope, container, labels, number, outputs[0].full_name)
        outputs[0] = SimpleNamespace(onnx_name=number)
    around = SimpleNamespace(inputs=[SimpleNamespace(onnx_name=source)], outputs=outputs)
    add_onnx_graph(scope, around, container, graph)


def _add_gather(
    scope: Any, container: Any, labels: NDArray[Any], number: str, output: str
) -> None:
    """Node that gives the labels of numbers."""
    from onnx import TensorProto

    name = scope.get_unique_variable_name("labels")
    if labels.dtype.kind == "U":
        encoded = [label.encode() for label in labels.tolist()]
        container.add_initializer(name, TensorProto.STRING, labels.shape, encoded)
    else:
        container.add_initializer(name, TensorProto.INT64, labels.shape, labels.tolist())
    unique = scope.get_unique_operator_name("Gather")
    container.add_node("Gather", [name, number], output, name=unique)


def _joined_inputs(scope: Any, operator: Any, container: Any) -> tuple[str, np.dtype[Any]]:
    """Name and type of the samples; columns of a table are put side by side."""
    from onnx import TensorProto
    from skl2onnx.common.data_types import guess_proto_type

    types = [guess_proto_type(given.type) for given in operator.inputs]
    names = [given.full_name for given in operator.inputs]
    if len(names) == 1:
        return names[0], _numpy_type(types[0])
    common = types[0] if len(set(types)) == 1 else TensorProto.DOUBLE
    columns = [scope.get_unique_variable_name("column") for _ in names]
    for name, column in zip(names, columns, strict=True):
        unique = scope.get_unique_operator_name("Cast")
        container.add_node("Cast", name, column, name=unique, to=common)
    joined = scope.get_unique_variable_name("columns")
    unique = scope.get_unique_operator_name("Concat")
    container.add_node("Concat", columns, joined, name=unique, axis=1)
    return joined, _numpy_type(common)


def _numpy_type(elem_type: int) -> np.dtype[Any]:
    from onnx.helper import tensor_dtype_to_np_dtype

    return tensor_dtype_to_np_dtype(elem_type)


# What torch exports


class Whole(nn.Module):
    """A network between raw samples and predictions, or features without a target."""

    def __init__(
        self,
        network: nn.Module,
        spec: InputSpec,
        target: Target | None,
        views: Sequence[View],
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.network, self.spec, self.target = network, spec, target
        self.views, self.dtype = views, dtype

    def forward(self, X: Tensor) -> tuple[Tensor, ...]:
        network: Any = self.network
        x = self.spec.transform_tensor(X)
        read = network if self.target is not None else network.features
        by_view = [read(view(x)) for view in self.views]
        outputs = torch.cat([of if of.ndim == 3 else of.unsqueeze(0) for of in by_view])
        if self.target is None:
            return (outputs.transpose(0, 1).flatten(1).to(self.dtype),)
        *label, numbers = self.target.predictions(outputs)
        return (*label, numbers.to(self.dtype))


@torch.inference_mode(False)
@torch.no_grad()
def exported(
    model: Any, *, of_input: np.dtype[Any], of_numbers: np.dtype[Any], opset: int
) -> Any:
    """Graph of an estimator, with one input and as many outputs as predictions."""
    net = fitted(model).net_
    network = _on_cpu(net.module_)
    n_bytes = sum(w.numel() * w.element_size() for w in network.state_dict().values())
    if n_bytes >= MOST_BYTES:
        raise ValueError(
            f"A file of ONNX holds less than {MOST_BYTES:,} bytes, but the weights of this "
            f"network have {n_bytes:,}: use a smaller depth or width."
        )
    predicts = not isinstance(model, ResNetEmbedder)
    target = net.target if predicts else None
    views = model._views() if predicts else [unchanged]
    dtype = torch.from_numpy(np.empty(0, of_numbers)).dtype
    whole = Whole(folded(network), net.input_spec, target, views, dtype).eval()
    free = free_axes(net.input_spec)
    shape = [
        max(n, LENGTH_OF_TRACE) if i in free else n
        for i, n in enumerate(net.input_spec.sample_shape)
    ]
    X = torch.from_numpy(np.zeros((2, *shape), dtype=of_input))
    axes = dict.fromkeys((0, *(i + 1 for i in free)), torch.export.Dim.DYNAMIC)
    with _quiet():
        program = torch.onnx.export(
            whole,
            (X,),
            dynamo=True,
            dynamic_shapes=(axes,),
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    return _renamed(program.model_proto)


def _renamed(model: Any) -> Any:
    """The model, with an underscore behind every name.

    Where a name is taken, skl2onnx adds a digit, but does not look whether an initializer
    has that name: ``view_6`` became ``view_61``, which there was.
    """
    graph = model.graph
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [name and f"{name}_" for name in names]
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        for value in values:
            value.name += "_"
    return model


def _on_cpu(network: ResidualNetwork) -> ResidualNetwork:
    """Copy without anything that a training left."""
    cpu = torch.device("cpu")
    arrays = weights_to_arrays(network)
    copied = arrays_to_weights(build_network(network.spec), arrays, cpu)
    return copied.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what torch's exporter tells of itself: its old calls, missing libraries."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
