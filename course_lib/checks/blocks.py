"""Lesson 02: the block of a node, how many numbers it holds, how far a stack of layers sees."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from course_lib.checks.machinery import as_check

Layer = tuple[int, int]  # kernel size and stride
ORDER = "convolution, batch norm, ReLU, and the same once more"


@as_check
def check_vgg_block(cls: Callable[[int, int], nn.Module]) -> None:
    """`cls(c_in, c_out)`: (3x3 convolution, batch norm, ReLU) twice, the size kept by zero padding."""
    assert not isinstance(cls, nn.Module), "this is one block: give the class itself, without brackets behind it"
    block, image = cls(3, 5), torch.randn(3, 3, 15, 22)
    assert isinstance(block, nn.Module), "the class does not inherit from nn.Module"
    assert type(block).forward is not nn.Module.forward, "the class has no method forward"
    _assert_layers_are_kept(block)
    given = image.clone()
    with _calls() as called:
        features = block(given)
    assert given.equal(image), "the block changes its own input, which other nodes read too: no in-place step on x"
    assert features is not None, "forward returns nothing: return the feature maps"
    assert isinstance(features, Tensor), f"forward returns a {type(features).__name__}: return the feature maps alone"
    _assert_right_convolutions(block, called, c_in=3, c_out=5)
    _assert_right_norms(block, called)
    assert features.shape[:2] == (3, 5), (
        f"from 3 images come {tuple(features.shape)}: 3 times 5 feature maps were asked for, c_out of each image"
    )
    assert features.shape == (3, 5, 15, 22), (
        f"3 images of 15x22 become {tuple(features.shape)}, not (3, 5, 15, 22): the size is to be kept by one pixel "
        "of padding in each convolution, with stride 1 and no pooling"
    )
    shared = {id(p) for p in block.parameters()} & {id(p) for p in cls(3, 5).parameters()}
    assert not shared, "two blocks share their weights: make the layers in __init__, not in the body of the class"
    narrow = cls(6, 2)
    with _calls() as others:
        narrow(torch.randn(2, 6, 8, 9))
    _assert_right_convolutions(narrow, others, c_in=6, c_out=2)
    _assert_right_values(block, called, image)


@as_check
def check_block_parameters(fn: Callable[[int, int], int]) -> None:
    """`fn(c_in, c_out) -> int`: all trained numbers of a VGGBlock, with biases and batch norm."""
    probes = [(3, 5), (6, 2), (32, 64)]
    answers = [_as_number(fn(*probe), "the number of trained numbers") for probe in probes]
    for mistaken, message in _MISCOUNTED.items():
        assert answers != [mistaken(*probe) for probe in probes], message
    for answer, (c_in, c_out) in zip(answers, probes, strict=True):
        first, second, norms = c_out * (9 * c_in + 1), c_out * (9 * c_out + 1), 4 * c_out
        want = first + second + norms
        assert answer == want, (
            f"a block from {c_in} to {c_out} channels holds {want} trained numbers, not {answer:g}: {first} and "
            f"{second} in the convolutions, {norms} in the two norms"
        )


@as_check
def check_receptive_field(fn: Callable[[list[Layer]], int]) -> None:
    """`fn(layers) -> int`: the side in pixels, from (kernel, stride) pairs in the order from input to output."""
    answers = []
    for layers in _STACKS:
        given = list(layers)
        answers.append(_as_number(fn(given), "the side of the receptive field"))
        assert given == layers, "the list of layers is changed: read it, take nothing out of it"
    right = [_side(layers) for layers in _STACKS]
    for mistaken, message in _MISSEEN.items():
        assert answers != [mistaken(layers) for layers in _STACKS], message
    for layers, answer, want in zip(_STACKS, answers, right, strict=True):
        assert answer == want, f"layers {layers} see {want} pixels a side, not {answer:g}"
    alone = fn([])
    assert alone == 1, f"without any layer a pixel sees itself, so no layers give 1, not {alone}"


def _as_number(answer: object, what: str) -> float:
    assert answer is not None, f"nothing comes back: return {what}"
    assert not isinstance(answer, tuple | list), f"one number is wanted, {what}; this is {type(answer).__name__}"
    value = float(answer)
    assert value == int(value), f"{value:g} came out, but {what} is a whole number"
    return value


# The block


@contextmanager
def _calls() -> Iterator[list[tuple[nn.Module, tuple[int, ...]]]]:
    """Every layer that runs meanwhile, in order, with the shape that enters it; also those that nobody keeps."""
    called: list[tuple[nn.Module, tuple[int, ...]]] = []

    def note(module: nn.Module, inputs: tuple, _output: object) -> None:
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            called.append((module, tuple(inputs[0].shape)))

    hook = register_module_forward_hook(note)
    try:
        yield called
    finally:
        hook.remove()


def _assert_layers_are_kept(block: nn.Module) -> None:
    for name, value in vars(block).items():
        inside = value.values() if isinstance(value, dict) and not name.startswith("_") else value
        assert not (
            not name.startswith("_")
            and isinstance(value, list | tuple | dict)
            and any(isinstance(layer, nn.Module) for layer in inside)
        ), f"self.{name} is a plain {type(value).__name__}, whose layers no optimiser would find: use nn.Sequential"
    for layer in block.modules():
        name = type(layer).__name__
        assert not isinstance(layer, nn.GroupNorm | nn.LayerNorm | nn.InstanceNorm2d | nn.LocalResponseNorm), (
            f"{name} looks at each image by itself; the norm of this block, nn.BatchNorm2d, uses the whole batch"
        )
        assert not isinstance(layer, nn.Dropout | nn.Dropout2d | nn.AlphaDropout), f"{name} is no part of this block"


def _assert_right_convolutions(block: nn.Module, called: list, *, c_in: int, c_out: int) -> None:
    own = set(block.modules())
    convs = [layer for layer, _ in called if isinstance(layer, nn.Conv2d)]
    assert all(layer in own for layer, _ in called), (
        "a layer is made anew in every call, or kept outside the block, so its weights are never trained: make the "
        "layers in __init__ and keep each in an attribute"
    )
    unused = [layer for layer in own if isinstance(layer, nn.Conv2d) and layer not in convs]
    assert not unused, f"forward never uses {unused[0]}"
    assert convs, "forward calls no nn.Conv2d"
    groups = max(conv.groups for conv in convs)
    assert groups == 1, f"groups={groups}: each output channel then reads a part of the input channels instead of all"
    kernels = sorted(conv.kernel_size[0] for conv in convs)
    assert kernels != [1, 3, 3], (
        "a 1x1 convolution runs beside the two: a shortcut makes a residual block, and a VGG block has none"
    )
    for conv in convs:
        assert conv.kernel_size == (3, 3), f"a kernel is {conv.kernel_size[0]}x{conv.kernel_size[1]} instead of 3x3"
        assert conv.stride == (1, 1), f"stride {conv.stride[0]} halves the size: a block keeps it"
        assert conv.dilation == (1, 1), f"dilation {conv.dilation[0]} spreads the kernel: leave it at 1"
        assert conv.padding_mode == "zeros", f"padding_mode={conv.padding_mode!r}: around the image stand zeros here"
    assert len(convs) == 2, f"{len(convs)} convolution(s) run, and a block has two"
    first, second = convs
    widths = [first.in_channels, first.out_channels, second.out_channels]
    assert widths[2] == c_out and widths[0] == c_in, (
        f"a block from {c_in} to {c_out} channels was asked for, and one from {widths[0]} to {widths[2]} was made: "
        "use the arguments"
    )
    assert widths[1] == c_out, (
        f"the first convolution makes {widths[1]} channels where c_out is {c_out}: it goes from c_in to c_out, the "
        "second from c_out to c_out"
    )
    assert all(conv.bias is not None for conv in convs), (
        "bias=False: in front of batch norm a bias changes nothing, but the published block has one, and its "
        "checkpoints would not load"
    )


def _assert_right_norms(block: nn.Module, called: list) -> None:
    kinds = ["conv" if isinstance(layer, nn.Conv2d) else "norm" for layer, _ in called]
    norms = [layer for layer, _ in called if isinstance(layer, nn.BatchNorm2d)]
    kept = [layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms, "batch norm is made but never called" if kept else "batch norm is missing behind the convolutions"
    assert len(norms) < 2 or norms[0] is not norms[1], (
        "both convolutions share one batch norm, which then averages over two different things: each needs its own"
    )
    assert len(norms) == 2, f"{len(norms)} batch norm(s) run, and each of the two convolutions has one behind it"
    assert kinds == ["conv", "norm", "conv", "norm"], (
        f"the layers run as {', '.join(kinds)}: each norm stands directly behind its convolution"
    )
    assert all(norm.affine for norm in norms), "affine=False: a batch norm here trains a scale and a shift a channel"
    assert all(norm.track_running_stats for norm in norms), (
        "track_running_stats=False: in evaluation mode an image's result would depend on its neighbours in the batch"
    )
    assert all((norm.eps, norm.momentum) == (1e-5, 0.1) for norm in norms), (
        "eps or momentum of a batch norm was changed: leave both as nn.BatchNorm2d has them"
    )


def _assert_right_values(block: nn.Module, called: list, image: Tensor) -> None:
    """The block against the formula, in both modes, after every number in it was set at random."""
    layers = [layer for layer, _ in called]
    with torch.no_grad():
        for layer in layers:
            layer.bias.normal_()
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(3, 5)  # so that values above 6 occur, which ReLU6 would cut
                layer.running_mean.normal_(0.5)
                layer.running_var.uniform_(0.5, 2)
        block.train()
        ours = block(image)
        _assert_repeats(block, image, "with the same batch")
        assert block.training, "the block changes its own mode: leave train() and eval() to the caller"
        assert not _close(ours, _block(layers, image, training=False)), (
            "in training mode the norms use the averages they stored instead of the statistics of the batch"
        )
        _assert_same(ours, layers, image, training=True)
        block.eval()
        ours = block(image)
        assert not block.training, "the block changes its own mode: leave train() and eval() to the caller"
        _assert_repeats(block, image, "in evaluation mode")
        assert not _close(ours, _block(layers, image, training=True)), (
            "in evaluation mode the norms still use the statistics of the batch instead of the averages they stored"
        )
        _assert_same(ours, layers, image, training=False)
    _assert_true_gradients(block.train(), layers, image)


def _assert_repeats(block: nn.Module, image: Tensor, when: str) -> None:
    first = block(image)
    if torch.allclose(first, block(image), atol=1e-3):
        return
    again = []
    for _ in range(2):
        torch.manual_seed(1)
        again.append(block(image))
    assert not torch.allclose(*again, atol=1e-3), f"two calls {when} differ by chance: is there a dropout?"
    raise AssertionError(f"two calls {when} differ: something is kept from one call to the next")


def _assert_true_gradients(block: nn.Module, layers: list, image: Tensor) -> None:
    image = image.clone().requires_grad_()
    weights = [image, *(layer.weight for layer in layers)]
    direction = torch.randn_like(block(image))
    ours, theirs = block(image), _block(layers, image, training=True)
    message = "backward() misses a path that forward() uses: is something detached, or made under no_grad?"
    assert ours.requires_grad, message
    ours = torch.autograd.grad((ours * direction).sum(), weights, allow_unused=True)
    theirs = torch.autograd.grad((theirs * direction).sum(), weights)
    scale = [float(t.abs().max()) for t in theirs]
    assert all(a is not None and (a - b).abs().max() < 0.01 * s for a, b, s in zip(ours, theirs, scale, strict=True)), (
        message
    )


def _assert_same(ours: Tensor, layers: list, image: Tensor, *, training: bool) -> None:
    if _close(ours, _block(layers, image, training=training)):
        return
    for step, message in _MISTAKEN_STEPS.items():
        assert not _close(ours, _block(layers, image, training=training, **step())), message
    for name, other in _ACTIVATIONS.items():
        pairs = [(F.relu, other), (other, F.relu), (other, other)]
        assert not any(
            _close(ours, _block(layers, image, training=training, inner=inner, last=last)) for inner, last in pairs
        ), f"the activation is ReLU, max(0, x), behind both norms; here one is {name}"
    assert ours.min() >= 0, f"some values are below 0, and a ReLU at the end lets none through: {ORDER}"
    raise AssertionError(f"the shapes are right, the values are not: {ORDER}, and nothing else")


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-3)


def _same(x: Tensor) -> Tensor:
    return x


def _block(
    layers: list,
    x: Tensor,
    *,
    training: bool,
    before=(_same, _same),
    inner=F.relu,
    last=F.relu,
    join=None,
    pad="constant",
    pads=(1, 1),
) -> Tensor:
    """The formula, with places to put a mistake: `before` each norm, `inner` and `last` behind it, `join` of both
    halves, what kind of `pad` and how wide the `pads` are."""
    conv1, norm1, conv2, norm2 = layers
    h = F.conv2d(F.pad(x, (pads[0],) * 4, mode=pad), conv1.weight, conv1.bias)
    h = inner(_norm(norm1, before[0](h), training))
    y = F.conv2d(F.pad(h, (pads[1],) * 4, mode=pad), conv2.weight, conv2.bias)
    y = _norm(norm2, before[1](y), training)
    return join(h, y) if join else last(y)


def _norm(norm: nn.BatchNorm2d, x: Tensor, training: bool) -> Tensor:
    """γ (x - μ) / sqrt(σ² + ε) + β a channel."""
    mean, var = norm.running_mean, norm.running_var
    if training:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    return norm.weight[:, None, None] * x + norm.bias[:, None, None]


_MISTAKEN_STEPS = {
    lambda: {"inner": _same, "last": _same}: "there is no ReLU at all: two convolutions in a row are one linear map",
    lambda: {"inner": _same}: "the ReLU between the two convolutions is missing: without it they are one linear map",
    lambda: {"last": _same}: "the ReLU at the end is missing",
    lambda: {"before": (F.relu, F.relu), "inner": _same, "last": _same}: (
        "ReLU stands in front of the norms: it comes behind each, so that no value that leaves is below 0"
    ),
    lambda: {"before": (F.relu, _same), "inner": _same}: "the first ReLU stands in front of its norm",
    lambda: {"before": (_same, F.relu), "last": _same}: "the last ReLU stands in front of its norm",
    lambda: {"before": (F.relu, F.relu)}: "there is a ReLU on both sides of each norm: one behind it is enough",
    lambda: {"pads": (2, 0)}: "the zeros are put around once: each convolution needs one pixel of its own",
    lambda: {"pads": (0, 2)}: "the zeros are put around at the end: each convolution needs one pixel of its own",
    lambda: {"pad": "reflect"}: "the image is continued by its mirror image: here zeros stand around it",
    lambda: {"pad": "replicate"}: "the image is continued by its outermost pixels: here zeros stand around it",
    lambda: {"join": lambda h, y: F.relu(y + h)}: (
        "the first half is added to the second: that is a residual block, a VGG block only passes on"
    ),
    lambda: {"join": lambda h, y: F.relu(y) + h}: (
        "the first half is added to the result: that is a residual block, a VGG block only passes on"
    ),
}
_ACTIVATIONS = {
    "a leaky ReLU": F.leaky_relu,
    "a leaky ReLU of slope 0.1": lambda x: F.leaky_relu(x, 0.1),
    "a leaky ReLU of slope 0.2": lambda x: F.leaky_relu(x, 0.2),
    "ReLU6": F.relu6,
    "ELU": F.elu,
    "GELU": F.gelu,
    "SiLU": F.silu,
    "softplus": F.softplus,
    "a sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "the absolute value": torch.abs,
    "PReLU": lambda x: F.leaky_relu(x, 0.25),
}


# Trained numbers


def _convs(c_in: int, c_out: int, *, bias: int = 1) -> int:
    return c_out * (9 * c_in + bias) + c_out * (9 * c_out + bias)


_MISCOUNTED: dict[Callable[[int, int], float], str] = {
    lambda i, o: _convs(i, o) + 2 * o: (
        "the answer is short of two numbers an output channel: are the biases of both convolutions in it, and the "
        "scale and shift of both norms?"
    ),
    lambda i, o: _convs(i, o): "the norms are missing: a scale and a shift a channel, in each of the two",
    lambda i, o: _convs(i, o, bias=0): "biases and norms are missing: this counts the kernels alone",
    lambda i, o: _convs(i, o) + 8 * o: (
        "the running means and variances are counted too: they are averages that nobody trains"
    ),
    lambda i, o: _convs(i, o) + 8 * o + 2: (
        "everything in the state dict is counted: running means, variances and counters are not trained"
    ),
    lambda i, o: o * (9 * i + 1) + 2 * o: "this is half a block: the second convolution and its norm are missing",
    lambda i, o: o * (9 * i + 1): "this is one convolution: a block has two, and a norm behind each",
    lambda i, o: 2 * o * (9 * i + 1) + 4 * o: (
        "both convolutions are counted with c_in input channels: the second one reads what the first made, c_out"
    ),
    lambda i, o: _convs(o, i) + 4 * i: "c_in and c_out are swapped",
    lambda i, o: o * (3 * i + 1) + o * (3 * o + 1) + 4 * o: "a 3x3 kernel has nine numbers an input channel, not three",
    lambda i, o: o * (i + 1) + o * (o + 1) + 4 * o: (
        "a kernel is counted as one number: a 3x3 kernel has nine for each input channel"
    ),
    lambda i, o: 9 * i + 1 + 9 * o + 1 + 4 * o: (
        "one kernel a convolution is counted: there is one for each output channel"
    ),
    lambda i, o: i * (9 * i + 1) + o * (9 * i + 1) + 2 * i + 2 * o: (
        "the first convolution goes to c_out channels at once, not from c_in to c_in"
    ),
    lambda i, o: _convs(i, o) + 2 * i + 2 * o: "the first norm stands behind a convolution, so it has c_out channels",
    lambda i, o: o * 9 * i + i + o * (9 * o + 1) + 4 * o: (
        "a convolution has one bias an output channel, not one an input channel"
    ),
    lambda i, o: 9 * i * o + 1 + 9 * o * o + 1 + 4 * o: (
        "one bias a convolution is counted: there is one for each output channel"
    ),
}


# What a stack of layers sees

_STACKS: list[list[Layer]] = [
    [(3, 1), (3, 1)],
    [(3, 1), (3, 1), (2, 2), (3, 1), (3, 1)],
    [(5, 1), (2, 2), (3, 1)],
    [(3, 1), (2, 2), (3, 1), (2, 2), (3, 1), (3, 2), (5, 1)],
    [(7, 3), (3, 1), (1, 1), (3, 1)],
]


def _side(
    layers: Sequence[Layer],
    *,
    start: int = 1,
    less: int = 1,
    jump: Callable[[int, int], int] = lambda jump, stride: jump * stride,
    first: bool = False,
) -> int:
    """r <- r + (k - 1) j, j <- j s, with places to put a mistake."""
    side, j = start, 1
    for kernel, stride in layers:
        j = jump(j, stride) if first else j
        side += (kernel - less) * j
        j = j if first else jump(j, stride)
    return side


def _without_pooling(layers: Sequence[Layer]) -> list[Layer]:
    return [(kernel, stride) for kernel, stride in layers if kernel != 2]


def _product(layers: Sequence[Layer]) -> int:
    side = 1
    for kernel, _ in layers:
        side *= kernel
    return side


def _scaled(layers: Sequence[Layer]) -> int:
    """What is seen so far times the stride."""
    side = 1
    for kernel, stride in layers:
        side = (side + kernel - 1) * stride
    return side


_MISSEEN: dict[Callable[[Sequence[Layer]], float], str] = {
    lambda layers: _side(layers, jump=lambda j, s: 1): (
        "the strides are ignored: behind a stride of 2, one step to the next value is two steps in the image"
    ),
    lambda layers: _side(layers, first=True): (
        "a stride already acts on its own layer: it widens the steps of the layers behind it, not its own"
    ),
    lambda layers: _side(layers, start=0): "one pixel is missing: before any layer, a pixel sees itself",
    lambda layers: _side(layers, less=0): (
        "each layer adds its whole kernel: a kernel of k reaches k - 1 further, for its middle was seen before"
    ),
    lambda layers: _side(layers, start=0, less=0): (
        "kernels are added up whole: neighbouring windows overlap, so a kernel of k reaches only k - 1 further"
    ),
    lambda layers: _side(layers[::-1]): (
        "the layers are walked from the wrong end: they come from input to output, and a stride acts on those behind it"
    ),
    lambda layers: _side(layers, jump=lambda j, s: s): (
        "a stride acts on the next layer only: it lasts for all layers behind it"
    ),
    lambda layers: _side(layers, jump=lambda j, s: j + s): (
        "strides are added: the steps of two poolings multiply, 2 times 2"
    ),
    lambda layers: _side(layers, jump=lambda j, s: j + s - 1): (
        "strides are added (s - 1 each): the steps of two poolings multiply, 2 times 2"
    ),
    lambda layers: _side(_without_pooling(layers), jump=lambda j, s: 1): (
        "pooling is left out: it has a kernel and a stride like any layer"
    ),
    lambda layers: (_side(layers) - 1) // 2: "this is how far it sees to one side: the whole side is wanted",
    lambda layers: _side(layers) ** 2: "this is the number of pixels in the square: its side is wanted",
    lambda layers: sum((kernel - 1) * stride for kernel, stride in layers) + 1: (
        "each layer is widened by its own stride: it is the strides of the layers before it that count"
    ),
    lambda layers: _side([(3, stride) for _, stride in layers]): "every kernel is taken for 3: read it from the list",
    lambda layers: _side([(kernel, 2 if kernel == 2 else 1) for kernel, _ in layers]): (
        "only 2x2 layers are taken to have a stride: read it from the list"
    ),
    _product: "kernels are multiplied: each adds k - 1, times the steps so far",
    _scaled: "what was seen before is multiplied by the stride: a stride widens only the steps still to come",
}
