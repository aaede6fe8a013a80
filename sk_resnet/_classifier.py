"""The two estimators: their parameters, and the networks that they stand for."""

from collections.abc import Sequence
from typing import Any, ClassVar

from sk_resnet._base import BaseResNet


class ResNetClassifier(BaseResNet):
    """Residual network for images, series, volumes and tables.

    The number of dimensions of X picks the layers: rows pass through linear layers,
    (n, channels, length) through 1-D, (n, channels, height, width) through 2-D, and
    volumes through 3-D convolutions, all in the same residual blocks.

    Training minimises the weighted mean of the cross-entropy + ``l1``·‖W‖₁ +
    (``l2``/2)·‖W‖², where W are the kernels of the convolutions and linear layers.

    Parameters
    ----------
    depth : int, default=20
        Number of weight layers: 6n+2 for basic blocks, 9n+2 for bottlenecks, m·3n+2 for
        blocks of m kernels; 18, 34, 50, 101 or 152 in the imagenet layout. Networks for
        rows have one stage in place of three, so 2n+2 for basic blocks.
    width : float, default=1
        Widening factor of the blocks. Bottlenecks widen inside only.
    block : {"basic", "bottleneck"} or tuple of int, default="basic"
        Two 3×3 convolutions; 1×1, 3×3, 1×1 with fourfold output; or kernel sizes such
        as (3, 1, 3).
    order : {"original", "norm_after_addition", "relu_before_addition", \
"relu_only_preactivation", "full_preactivation"}, default="original"
        Where norms and activations stand in a block, figure 4 of [2]_.
    shortcut : {"projection", "zero_pad", "none"}, default="projection"
        What the shortcut does where the shape changes: a 1×1 convolution (option B of
        [1]_), or subsampling and zeros (option A). "none" drops all shortcuts, which
        gives the plain network that [1]_ compares with.
    layout : {"auto", "small", "imagenet"}, default="auto"
        "small" has a 3×3 stem and three stages, "imagenet" a 7×7 stem with pooling and
        four stages. "auto" takes "imagenet" for sides of at least 64 where `depth` is
        one of its depths.
    dropout : float, default=0.0
        Probability, in [0, 1), of dropping a value before the last convolution of a
        branch.
    stochastic_depth : float, default=0.0
        Probability, in [0, 1), with which the last block's branch is dropped for a
        sample in training; that of the others grows linearly up to it [4]_.
    l1 : float, default=0.0
        Strength of the L1 penalty on the kernels. A proximal step after each step of
        the optimizer makes weights exactly zero.
    l1_structure : {"weight", "channel"}, default="weight"
        What `l1` empties: single weights, or whole channels inside the blocks, which
        `compact` then cuts out. For "channel" the penalty is Σ √m·‖w‖₂ over the m
        weights w that read one channel between two convolutions of a block; other
        kernels are free of it.
    finetune_epochs : int, default=0
        Epochs after `max_epochs` without the L1 penalty, in which zeros stay zero and
        `schedule` starts anew. They undo the shrinking of the other weights.
    l2 : float or "auto", default="auto"
        Strength of the L2 penalty on the kernels. "adamw" decays them by lr·l2 instead.
        "auto" is 0.01 for rows and 1e-4, as in [1]_, for everything else.
    l2_on : {"kernels", "all"}, default="kernels"
        Whether `l2` acts on the kernels alone, or on batch norms and biases too, as in
        [3]_.
    label_smoothing : float, default=0.0
        Share of each label, in [0, 1), that is spread over all classes in training.
    class_weight : dict or "balanced", default=None
        Weights of the classes in the loss, by label, at least 0 and 1 for those that are
        not named; "balanced" is inverse to their frequencies.
    augment : str or list of str, default=None
        Random changes of the training samples, in this order: "crop" (shifts of up to 4
        pixels over a reflected border, fewer on small samples), "flip" (of the last
        axis), "random_erasing", "cutout", "scaling"; "shift" and "window" for series;
        "jitter", also for rows; "mixup" and "cutmix", which mix labels too.
    optimizer : {"sgd", "heavy_ball", "adamw"}, default="sgd"
        SGD with Nesterov momentum, with the plain momentum of [1]_, or AdamW.
    lr : float or "auto", default="auto"
        Largest learning rate; "auto" is 0.002 for "adamw" and 0.1 for the others.
    momentum : float, default=0.9
        Momentum of SGD, or the first decay rate of AdamW, in [0, 1).
    schedule : {"one_cycle", "cosine", "resnet_steps", "wide_steps", "constant"}, \
default="one_cycle"
        Course of the learning rate over `max_epochs`. The steps are those of [1]_
        (÷10 at 50 and 75 %) and [3]_ (×0.2 at 30, 60 and 80 %).
    max_epochs : int or "auto", default="auto"
        Passes over the training data. "auto" is 30, and more, up to 200, where those
        would make fewer than 500 steps: on fewer than about 1,000 samples.
    batch_size : int or "auto", default="auto"
        Samples in a step, at least 2; "auto" takes 4 to 128, a power of two: about a
        quarter of up to 128 samples, then 32, and a sixteenth of more than 512.
    input_shape : tuple of int, default=None
        Shape of one sample, such as (1, 28, 28), into which rows are folded. None takes
        that of X. Grey images (n, height, width) need it, else they are read as series.
    channel_axis : {1, -1}, default=1
        Axis of the channels in X: 1 for (n, channels, ...), -1 for (n, ..., channels).
    standardize : bool, default=True
        Whether each channel (each feature of a row) is shifted and scaled to mean 0 and
        deviation 1, by statistics of the training part.
    validation_split : float, splitter or list of one pair of index arrays, default=None
        Part of the training data that is held out to validate on. None holds nothing
        out, unless a callback monitors validation and X_val is not given: then 0.1. A
        fraction is drawn by class, or by `groups`; the first split of a splitter is used.
    callbacks : list of skorch callbacks, default=None
        Such as `EarlyStopping`. Copies of them take part in the fit. Those with hooks for
        batches make it slower.
    device : str or torch.device, default="auto"
        "auto" is a GPU of CUDA where there is one, else the CPU. Worker processes of
        joblib, dask or torchrun take the GPUs in turn.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of the convolutions. "auto" trains in bfloat16 where that is fast, on
        GPUs and on processors with AVX512-BF16 or AMX, and predicts in float32. A GPU
        convolves float32 in TF32, and predicts as a CPU to about three digits, unless
        ``torch.backends.cudnn.allow_tf32 = False`` says otherwise.
        Volumes, and samples that the network shrinks to one place, train in float32 on
        the CPU, where torch's gradients in bfloat16 are wrong for them.
    compile : bool or "auto", default="auto"
        Whether training runs a network compiled by `torch.compile`, which takes about a
        minute at the first batch and saves about a twentieth of each step. "auto" compiles
        for a fit of more than about twenty minutes on a CPU, without dropout.
    warm_start : bool, default=False
        Whether fit goes on from the weights of the last fit, on its device. Parameters
        that shape the network or its input must be as they were then.
    random_state : int, RandomState instance or None, default=None
        Source of the initial weights, the order of the samples, dropout, augmentation
        and split. An int gives the same result on the same machine with the same number
        of threads. torch's and NumPy's global generators are left alone.
    verbose : int, default=0
        0 prints nothing, 1 shows a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    n_features_in_ : int
        Number of features, where X has two dimensions.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, where X is a table with names that are all strings.
    input_shape_ : tuple of int
        Shape of one sample.
    net_ : skorch.NeuralNetClassifier
        The net that holds the network, its callbacks and its history.
    module_ : torch.nn.Module
        The network.
    history_ : list of dict
        One record an epoch: ``epoch``, ``train_loss``, ``train_accuracy``,
        ``valid_loss`` and ``valid_accuracy`` where there is a validation set, ``lr`` at
        the epoch's first step, ``seconds``.
    n_epochs_ : int
        Epochs trained.
    best_epoch_ : int
        Epoch that `EarlyStopping` found best; without it the one of the lowest
        ``valid_loss``, or the last where nothing was validated.
    n_parameters_ : int
        Trainable values of the network.
    sparsity_ : float
        Share of exact zeros in the kernels.
    n_bytes_ : int
        Bytes of the weights in a saved model.
    batch_size_ : int
        Samples in a step.
    device_ : str
        Where the network is.
    precision_ : str
        "float32" or "bfloat16": arithmetic of the last training.
    compiled_ : bool
        Whether the last training was compiled.

    See Also
    --------
    WideResNetClassifier : Fewer, wider layers, with the conventions of [3]_.
    sklearn.neural_network.MLPClassifier : Networks without shortcuts or convolutions.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning for Image Recognition,
       2015, arXiv:1512.03385.
    .. [2] K. He, X. Zhang, S. Ren, J. Sun, Identity Mappings in Deep Residual Networks,
       2016, arXiv:1603.05027.
    .. [3] S. Zagoruyko, N. Komodakis, Wide Residual Networks, 2016, arXiv:1605.07146.
    .. [4] G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, Deep Networks with
       Stochastic Depth, 2016, arXiv:1603.09382.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import ResNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ResNetClassifier(depth=4, max_epochs=10, random_state=0).fit(X, y)
    >>> model.predict(X[:2])
    array([0, 0])
    >>> model.score(X, y) > 0.9
    True
    """

    _wide: ClassVar[bool] = False
    _default_l2: ClassVar[tuple[float, float]] = (1e-2, 1e-4)

    def __init__(
        self,
        depth: int = 20,
        *,
        width: float = 1,
        block: str | Sequence[int] = "basic",
        order: str = "original",
        shortcut: str = "projection",
        layout: str = "auto",
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        l1: float = 0.0,
        l1_structure: str = "weight",
        finetune_epochs: int = 0,
        l2: float | str = "auto",
        l2_on: str = "kernels",
        label_smoothing: float = 0.0,
        class_weight: Any = None,
        augment: str | Sequence[str] | None = None,
        optimizer: str = "sgd",
        lr: float | str = "auto",
        momentum: float = 0.9,
        schedule: str = "one_cycle",
        max_epochs: int | str = "auto",
        batch_size: int | str = "auto",
        input_shape: Sequence[int] | None = None,
        channel_axis: int = 1,
        standardize: bool = True,
        validation_split: Any = None,
        callbacks: Sequence[Any] | None = None,
        device: Any = "auto",
        precision: str = "auto",
        compile: bool | str = "auto",
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.depth = depth
        self.width = width
        self.block = block
        self.order = order
        self.shortcut = shortcut
        self.layout = layout
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth
        self.l1 = l1
        self.l1_structure = l1_structure
        self.finetune_epochs = finetune_epochs
        self.l2 = l2
        self.l2_on = l2_on
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
        self.augment = augment
        self.optimizer = optimizer
        self.lr = lr
        self.momentum = momentum
        self.schedule = schedule
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.input_shape = input_shape
        self.channel_axis = channel_axis
        self.standardize = standardize
        self.validation_split = validation_split
        self.callbacks = callbacks
        self.device = device
        self.precision = precision
        self.compile = compile
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose


class WideResNetClassifier(BaseResNet):
    """Wide residual network for images, series, volumes and tables.

    Fewer and wider layers than in a `ResNetClassifier`, norms and activations before the
    convolutions, and dropout between them, as in [3]_: ``depth=28, width=10`` is its
    WRN-28-10. The number of dimensions of X picks the layers: rows pass through linear
    layers, (n, channels, length) through 1-D, (n, channels, height, width) through 2-D,
    and volumes through 3-D convolutions, all in the same residual blocks.

    Training minimises the weighted mean of the cross-entropy + ``l1``·‖W‖₁ +
    (``l2``/2)·‖W‖², where W are the kernels of the convolutions and linear layers.

    Parameters
    ----------
    depth : int, default=16
        6n+4 for n blocks in each of three stages, whatever the block; 18, 34, 50, 101 or
        152 in the imagenet layout. Networks for rows have one stage and a depth of 2n+2
        for basic blocks.
    width : float, default=4
        Widening factor of the blocks. Bottlenecks widen inside only.
    block : {"basic", "bottleneck"} or tuple of int, default="basic"
        Two 3×3 convolutions; 1×1, 3×3, 1×1 with fourfold output; or kernel sizes such
        as (3, 1, 3).
    order : {"original", "norm_after_addition", "relu_before_addition", \
"relu_only_preactivation", "full_preactivation"}, default="full_preactivation"
        Where norms and activations stand in a block, figure 4 of [2]_.
    shortcut : {"projection", "zero_pad", "none"}, default="projection"
        What the shortcut does where the shape changes: a 1×1 convolution (option B of
        [1]_), or subsampling and zeros (option A). "none" drops all shortcuts, which
        gives the plain network that [1]_ compares with.
    layout : {"auto", "small", "imagenet"}, default="auto"
        "small" has a 3×3 stem and three stages, "imagenet" a 7×7 stem with pooling and
        four stages. "auto" takes "imagenet" for sides of at least 64 where `depth` is
        one of its depths.
    dropout : float, default=0.0
        Probability, in [0, 1), of dropping a value before the last convolution of a
        branch.
    stochastic_depth : float, default=0.0
        Probability, in [0, 1), with which the last block's branch is dropped for a
        sample in training; that of the others grows linearly up to it [4]_.
    l1 : float, default=0.0
        Strength of the L1 penalty on the kernels. A proximal step after each step of
        the optimizer makes weights exactly zero.
    l1_structure : {"weight", "channel"}, default="weight"
        What `l1` empties: single weights, or whole channels inside the blocks, which
        `compact` then cuts out. For "channel" the penalty is Σ √m·‖w‖₂ over the m
        weights w that read one channel between two convolutions of a block; other
        kernels are free of it.
    finetune_epochs : int, default=0
        Epochs after `max_epochs` without the L1 penalty, in which zeros stay zero and
        `schedule` starts anew. They undo the shrinking of the other weights.
    l2 : float or "auto", default="auto"
        Strength of the L2 penalty on the kernels. "adamw" decays them by lr·l2 instead.
        "auto" is 0.01 for rows and 5e-4, as in [3]_, for everything else.
    l2_on : {"kernels", "all"}, default="kernels"
        Whether `l2` acts on the kernels alone, or on batch norms and biases too, as in
        [3]_.
    label_smoothing : float, default=0.0
        Share of each label, in [0, 1), that is spread over all classes in training.
    class_weight : dict or "balanced", default=None
        Weights of the classes in the loss, by label, at least 0 and 1 for those that are
        not named; "balanced" is inverse to their frequencies.
    augment : str or list of str, default=None
        Random changes of the training samples, in this order: "crop" (shifts of up to 4
        pixels over a reflected border, fewer on small samples), "flip" (of the last
        axis), "random_erasing", "cutout", "scaling"; "shift" and "window" for series;
        "jitter", also for rows; "mixup" and "cutmix", which mix labels too.
    optimizer : {"sgd", "heavy_ball", "adamw"}, default="sgd"
        SGD with Nesterov momentum, with the plain momentum of [1]_, or AdamW.
    lr : float or "auto", default="auto"
        Largest learning rate; "auto" is 0.002 for "adamw" and 0.1 for the others.
    momentum : float, default=0.9
        Momentum of SGD, or the first decay rate of AdamW, in [0, 1).
    schedule : {"one_cycle", "cosine", "resnet_steps", "wide_steps", "constant"}, \
default="one_cycle"
        Course of the learning rate over `max_epochs`. The steps are those of [1]_
        (÷10 at 50 and 75 %) and [3]_ (×0.2 at 30, 60 and 80 %).
    max_epochs : int or "auto", default="auto"
        Passes over the training data. "auto" is 30, and more, up to 200, where those
        would make fewer than 500 steps: on fewer than about 1,000 samples.
    batch_size : int or "auto", default="auto"
        Samples in a step, at least 2; "auto" takes 4 to 128, a power of two: about a
        quarter of up to 128 samples, then 32, and a sixteenth of more than 512.
    input_shape : tuple of int, default=None
        Shape of one sample, such as (1, 28, 28), into which rows are folded. None takes
        that of X. Grey images (n, height, width) need it, else they are read as series.
    channel_axis : {1, -1}, default=1
        Axis of the channels in X: 1 for (n, channels, ...), -1 for (n, ..., channels).
    standardize : bool, default=True
        Whether each channel (each feature of a row) is shifted and scaled to mean 0 and
        deviation 1, by statistics of the training part.
    validation_split : float, splitter or list of one pair of index arrays, default=None
        Part of the training data that is held out to validate on. None holds nothing
        out, unless a callback monitors validation and X_val is not given: then 0.1. A
        fraction is drawn by class, or by `groups`; the first split of a splitter is used.
    callbacks : list of skorch callbacks, default=None
        Such as `EarlyStopping`. Copies of them take part in the fit. Those with hooks for
        batches make it slower.
    device : str or torch.device, default="auto"
        "auto" is a GPU of CUDA where there is one, else the CPU. Worker processes of
        joblib, dask or torchrun take the GPUs in turn.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Arithmetic of the convolutions. "auto" trains in bfloat16 where that is fast, on
        GPUs and on processors with AVX512-BF16 or AMX, and predicts in float32. A GPU
        convolves float32 in TF32, and predicts as a CPU to about three digits, unless
        ``torch.backends.cudnn.allow_tf32 = False`` says otherwise.
        Volumes, and samples that the network shrinks to one place, train in float32 on
        the CPU, where torch's gradients in bfloat16 are wrong for them.
    compile : bool or "auto", default="auto"
        Whether training runs a network compiled by `torch.compile`, which takes about a
        minute at the first batch and saves about a twentieth of each step. "auto" compiles
        for a fit of more than about twenty minutes on a CPU, without dropout.
    warm_start : bool, default=False
        Whether fit goes on from the weights of the last fit, on its device. Parameters
        that shape the network or its input must be as they were then.
    random_state : int, RandomState instance or None, default=None
        Source of the initial weights, the order of the samples, dropout, augmentation
        and split. An int gives the same result on the same machine with the same number
        of threads. torch's and NumPy's global generators are left alone.
    verbose : int, default=0
        0 prints nothing, 1 shows a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    n_features_in_ : int
        Number of features, where X has two dimensions.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, where X is a table with names that are all strings.
    input_shape_ : tuple of int
        Shape of one sample.
    net_ : skorch.NeuralNetClassifier
        The net that holds the network, its callbacks and its history.
    module_ : torch.nn.Module
        The network.
    history_ : list of dict
        One record an epoch: ``epoch``, ``train_loss``, ``train_accuracy``,
        ``valid_loss`` and ``valid_accuracy`` where there is a validation set, ``lr`` at
        the epoch's first step, ``seconds``.
    n_epochs_ : int
        Epochs trained.
    best_epoch_ : int
        Epoch that `EarlyStopping` found best; without it the one of the lowest
        ``valid_loss``, or the last where nothing was validated.
    n_parameters_ : int
        Trainable values of the network.
    sparsity_ : float
        Share of exact zeros in the kernels.
    n_bytes_ : int
        Bytes of the weights in a saved model.
    batch_size_ : int
        Samples in a step.
    device_ : str
        Where the network is.
    precision_ : str
        "float32" or "bfloat16": arithmetic of the last training.
    compiled_ : bool
        Whether the last training was compiled.

    See Also
    --------
    ResNetClassifier : Deeper, thinner layers, with the conventions of [1]_.
    sklearn.neural_network.MLPClassifier : Networks without shortcuts or convolutions.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning for Image Recognition,
       2015, arXiv:1512.03385.
    .. [2] K. He, X. Zhang, S. Ren, J. Sun, Identity Mappings in Deep Residual Networks,
       2016, arXiv:1603.05027.
    .. [3] S. Zagoruyko, N. Komodakis, Wide Residual Networks, 2016, arXiv:1605.07146.
    .. [4] G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, Deep Networks with
       Stochastic Depth, 2016, arXiv:1603.09382.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import WideResNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = WideResNetClassifier(depth=4, width=1, max_epochs=10, random_state=0)
    >>> model = model.fit(X, y)
    >>> model.predict(X[:2])
    array([0, 0])
    >>> model.score(X, y) > 0.9
    True
    """

    _wide: ClassVar[bool] = True
    _default_l2: ClassVar[tuple[float, float]] = (1e-2, 5e-4)

    def __init__(
        self,
        depth: int = 16,
        *,
        width: float = 4,
        block: str | Sequence[int] = "basic",
        order: str = "full_preactivation",
        shortcut: str = "projection",
        layout: str = "auto",
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        l1: float = 0.0,
        l1_structure: str = "weight",
        finetune_epochs: int = 0,
        l2: float | str = "auto",
        l2_on: str = "kernels",
        label_smoothing: float = 0.0,
        class_weight: Any = None,
        augment: str | Sequence[str] | None = None,
        optimizer: str = "sgd",
        lr: float | str = "auto",
        momentum: float = 0.9,
        schedule: str = "one_cycle",
        max_epochs: int | str = "auto",
        batch_size: int | str = "auto",
        input_shape: Sequence[int] | None = None,
        channel_axis: int = 1,
        standardize: bool = True,
        validation_split: Any = None,
        callbacks: Sequence[Any] | None = None,
        device: Any = "auto",
        precision: str = "auto",
        compile: bool | str = "auto",
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.depth = depth
        self.width = width
        self.block = block
        self.order = order
        self.shortcut = shortcut
        self.layout = layout
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth
        self.l1 = l1
        self.l1_structure = l1_structure
        self.finetune_epochs = finetune_epochs
        self.l2 = l2
        self.l2_on = l2_on
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
        self.augment = augment
        self.optimizer = optimizer
        self.lr = lr
        self.momentum = momentum
        self.schedule = schedule
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.input_shape = input_shape
        self.channel_axis = channel_axis
        self.standardize = standardize
        self.validation_split = validation_split
        self.callbacks = callbacks
        self.device = device
        self.precision = precision
        self.compile = compile
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose
