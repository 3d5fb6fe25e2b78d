"""Lesson 02: the block of a node, how many numbers it holds, how far a stack of layers sees."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.checks import nets
from course_lib.checks.machinery import AnyOf, as_check, as_number, ask, is_same, told
from course_lib.grid import VGGBlock


@as_check
def check_vgg_block(cls: Callable[[int, int], nn.Module]) -> None:
    """`cls(c_in, c_out)`: (3x3 convolution, batch norm, ReLU) twice, the size kept by zero padding."""
    assert not isinstance(cls, nn.Module), "this is one block: give the class itself, without brackets behind it"
    block, image = cls(3, 5), torch.randn(3, 3, 15, 22)
    assert isinstance(block, nn.Module), "the class does not inherit from nn.Module"
    nets.assert_no_plain_lists(block)
    layers = _layers(block, image, c_out=5)
    shape = tuple(block(image).shape)
    assert shape[:2] == (3, 5), f"from 3 images come {shape}: 3 times c_out = 5 feature maps were asked for"
    assert shape[2:] == (15, 22), f"images of 15x22 become {shape}: one pixel of padding and no pooling keep the size"
    shared = {id(p) for p in block.parameters()} & {id(p) for p in cls(3, 5).parameters()}
    assert not shared, "two blocks share their weights: make the layers in __init__, not in the body of the class"
    _layers(cls(6, 2), torch.randn(2, 6, 8, 9), c_out=2)
    _assert_right_values(block, layers, image)
    nets.assert_every_channel_is_used(block.train(), image)
    nets.assert_same_gradient(block, lambda x: _made(layers, x), image, "something")


_OTHER_NORMS = nn.GroupNorm | nn.LayerNorm | nn.InstanceNorm2d | nn.LocalResponseNorm
_ABOUT_LAYERS = {  # what is said where this attribute of a convolution or norm is not as in VGGBlock
    "groups": "groups={}: each output channel then reads a part of the input channels instead of all",
    "kernel_size": "a kernel is {0[0]}x{0[1]} instead of 3x3",
    "stride": "stride {0[0]} halves the size: a block keeps it",
    "dilation": "dilation {0[0]} spreads the kernel: leave it at 1",
    "padding_mode": "padding_mode={!r}: around the image stand zeros here",
    "affine": "affine={}: a batch norm here trains a scale and a shift a channel",
    "track_running_stats": "track_running_stats={}: in evaluation mode an image would depend on others of its batch",
    "eps": "eps or momentum of a batch norm was changed, to {}: leave both as nn.BatchNorm2d has them",
    "momentum": "eps or momentum of a batch norm was changed, to {}: leave both as nn.BatchNorm2d has them",
}


def _layers(block: nn.Module, image: Tensor, *, c_out: int) -> list[nn.Module]:
    """Convolution, norm, convolution, norm of a block that runs them in this order, each made as in VGGBlock."""
    changed = "the block changes its own input, which other nodes read too: no in-place step on x"
    with nets.layers_called() as called:
        features = ask(block, image, returns=object, what="the feature maps", changed=changed)
    assert isinstance(features, Tensor), f"forward returns a {type(features).__name__}: return the feature maps alone"
    layers, own = [layer for layer, _ in called], set(block.modules())
    for layer in own:
        name = type(layer).__name__
        assert not isinstance(layer, _OTHER_NORMS), f"{name} looks at each image by itself: use nn.BatchNorm2d"
        assert not isinstance(layer, nn.Dropout | nn.Dropout2d | nn.AlphaDropout), f"{name} is no part of this block"
        assert layer in layers or not isinstance(layer, nn.Conv2d), f"forward never uses {layer}"
    anew = "a layer is made anew in every call, or kept outside the block"
    assert own.issuperset(layers), f"{anew}: make it in __init__ and keep it in an attribute, or it is never trained"
    convs, norms = ([layer for layer in layers if isinstance(layer, kind)] for kind in (nn.Conv2d, nn.BatchNorm2d))
    kernels = sorted(conv.kernel_size[0] for conv in convs)
    assert kernels != [1, 3, 3], "a 1x1 convolution runs beside the two: a VGG block has no shortcut"
    assert len(convs) == 2, f"{len(convs)} convolution(s) run, and a block has two"
    assert norms or not any(isinstance(layer, nn.BatchNorm2d) for layer in own), "batch norm is made but never called"
    assert len(norms) < 2 or norms[0] is not norms[1], "both convolutions share one batch norm: each needs its own"
    assert len(norms) == 2, f"{len(norms)} batch norm(s) run, and each of the two convolutions has one behind it"
    order = ", ".join("norm" if layer in norms else "conv" for layer in layers)
    assert order == "conv, norm, conv, norm", f"the layers run as {order}: a norm stands right behind each convolution"
    c_in, first, middle, last = image.shape[1], convs[0].in_channels, convs[0].out_channels, convs[1].out_channels
    asked, made = f"a block from {c_in} to {c_out} channels was asked for", f"one from {first} to {last} was made"
    assert (first, last) == (c_in, c_out), f"{asked}, and {made}: use the arguments"
    assert middle == c_out, f"the first convolution makes {middle} channels where c_out is {c_out}: both make c_out"
    assert all(conv.bias is not None for conv in convs), "bias=False: checkpoints of the published block hold biases"
    for layer, wanted in zip(layers, VGGBlock(c_in, c_out).children(), strict=True):
        for attribute, sentence in _ABOUT_LAYERS.items():
            value = getattr(layer, attribute, None)
            assert value == getattr(wanted, attribute, None), sentence.format(value)
    return layers


# A half as a word: p, m, e pad, c is the next convolution, n norm, r ReLU, o another activation, + adds its own input.
_PADDING = {"p": "constant", "m": "reflect", "e": "replicate"}
_MISTAKEN_BLOCKS = {
    "there is no ReLU at all: two convolutions in a row are one linear map": "pcn pcn",
    "the ReLU between the two convolutions is missing: without it they are one linear map": "pcn pcnr",
    "the ReLU at the end is missing": "pcnr pcn",
    "ReLU stands in front of the norms: it comes behind each, so that no value that leaves is below 0": "pcrn pcrn",
    "the first ReLU stands in front of its norm": "pcrn pcnr",
    "the last ReLU stands in front of its norm": "pcnr pcrn",
    "there is a ReLU on both sides of each norm: one behind it is enough": "pcrnr pcrnr",
    "the zeros are put around once: each convolution needs one pixel of its own": "ppcnr cnr",
    "the zeros are put around at the end: each convolution needs one pixel of its own": "cnr ppcnr",
    "the image is continued by its mirror image: here zeros stand around it": "mcnr mcnr",
    "the image is continued by its outermost pixels: here zeros stand around it": "ecnr ecnr",
    "the first half is added to the second: that is a residual block, a VGG block only passes on": "pcnr pcn+r",
    "the first half is added to the result: that is a residual block, a VGG block only passes on": "pcnr pcnr+",
}
_ACTIVATIONS = {f"a leaky ReLU of slope {slope}": nn.LeakyReLU(slope) for slope in (0.01, 0.1, 0.2)} | {
    type(other).__name__: other
    for other in (nn.PReLU(), nn.ReLU6(), nn.ELU(), nn.GELU(), nn.SiLU(), nn.Softplus(), nn.Sigmoid(), nn.Tanh())
}


def _made(layers: list, x: Tensor, word: str = "pcnr pcnr", *, train: bool = True, other: Callable = F.relu) -> Tensor:
    """What a block of this word makes of x with the answer's own layers, in training or in evaluation."""
    rest = iter(layers)
    for half in word.split():
        start = x
        for letter in half:
            if letter == "c":
                conv = next(rest)
                x = F.conv2d(x, conv.weight, conv.bias)
            elif letter == "n":
                norm = next(rest)  # momentum 0 leaves its averages alone
                x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, train, momentum=0)
            elif letter in _PADDING:
                x = F.pad(x, (1, 1, 1, 1), mode=_PADDING[letter])
            elif letter == "+":
                x = x + start
            else:
                x = F.relu(x) if letter == "r" else other(x)
    return x


@torch.no_grad()
def _assert_right_values(block: nn.Module, layers: list[nn.Module], image: Tensor) -> None:
    """The block against the formula, in both modes, after the numbers of its norms were set at random."""
    for norm in layers[1::2]:
        norm.weight.uniform_(3, 5)  # so that values above 6 occur, which ReLU6 would cut
        norm.bias.normal_()
        norm.running_mean.normal_(0.5)
        norm.running_var.uniform_(0.5, 2)
    below = "some values are below 0, and a ReLU at the end lets none through: one stands behind both norms"
    otherwise = "the shapes are right, the values are not: twice convolution, batch norm, ReLU, and nothing else"
    for training, when, mistake in (
        (True, "with the same batch", "in training mode the norms use the averages they stored"),
        (False, "in evaluation mode", "in evaluation mode the norms still use the statistics of the batch"),
    ):
        calls = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            calls.append(block.train(training)(image))
        maps, again, other_seed = calls
        assert is_same(maps, again, tol=1e-3), f"two calls {when} differ: something is kept from one call to the next"
        assert is_same(maps, other_seed, tol=1e-3), f"two calls {when} differ by chance: is there a dropout?"
        assert block.training == training, "the block changes its own mode: leave train() and eval() to the caller"
        made = partial(_made, layers, image, train=training)
        wrong = {f"{mistake}: let train() and eval() of the block decide": made(train=not training)}
        wrong |= {sentence: made(word) for sentence, word in _MISTAKEN_BLOCKS.items()}
        for name, other in _ACTIVATIONS.items():
            sentence = f"the activation is ReLU, max(0, x), behind both norms; here one is {name}"
            wrong[sentence] = AnyOf(made(word, other=other) for word in ("pcno pcnr", "pcnr pcno", "pcno pcno"))
        told(maps, made(), wrong, below if maps.min() < 0 else otherwise, tol=1e-3)


@as_check
def check_block_parameters(fn: Callable[[int, int], int]) -> None:
    """`fn(c_in, c_out) -> int`: all trained numbers of a VGGBlock, with biases and batch norm."""
    pairs = [(3, 5), (6, 2), (32, 64)]
    answers = np.array([_whole(fn(*pair), "the number of trained numbers") for pair in pairs])
    i, o = np.array(pairs).T
    first, second, norms = 9 * i * o + o, 9 * o * o + o, 4 * o  # one bias an output channel
    kernels, right = first + second - 2 * o, first + second + norms
    mistakes = {
        "it is short of two numbers an output channel: are both biases in, and both scales and shifts?": right - 2 * o,
        "the norms are missing: a scale and a shift a channel, in each of the two": first + second,
        "biases and norms are missing: this counts the kernels alone": kernels,
        "the running means and variances are counted too: they are averages that nobody trains": right + norms,
        "everything in the state dict is counted: averages and counters are not trained": right + norms + 2,
        "this is half a block: the second convolution and its norm are missing": first + 2 * o,
        "this is one convolution: a block has two, and a norm behind each": first,
        "both convolutions are counted with c_in input channels: the second one reads c_out": 2 * first + norms,
        "c_in and c_out are swapped": 9 * i * (i + o) + 6 * i,
        "a 3x3 kernel has nine numbers an input channel, not three": kernels // 3 + 6 * o,
        "a kernel is counted as one number: a 3x3 kernel has nine for each input channel": kernels // 9 + 6 * o,
        "one kernel a convolution is counted: there is one for each output channel": 9 * i + 9 * o + 2 + norms,
        "the first convolution goes to c_out channels at once, not from c_in to c_in": (9 * i + 3) * (i + o),
        "the first norm stands behind a convolution, so it has c_out channels": right - 2 * o + 2 * i,
        "a convolution has one bias an output channel, not one an input channel": right - o + i,
        "one bias a convolution is counted: there is one for each output channel": kernels + 2 + norms,
    }
    n = (answers != right).argmax()
    holds = f"a block from {i[n]} to {o[n]} channels holds {right[n]} trained numbers, not {answers[n]:g}"
    told(answers, right, mistakes, f"{holds}: {first[n]} and {second[n]} in the convolutions, {norms[n]} in the norms")


def _whole(answer: object, what: str) -> float:
    assert answer is not None, f"nothing comes back: return {what}"
    value = as_number(answer, f"one number is wanted, {what}; this is {type(answer).__name__}")
    assert value.is_integer(), f"{value:g} came out, but {what} is a whole number"
    return value


# The side in pixels that a stack of layers sees -> its layers, (kernel, stride) each.
_STACKS = {5: [(3, 1), (3, 1)], 10: [(5, 1), (2, 2), (3, 1)], 88: [(7, 3), (3, 1), (2, 2), (3, 1), (3, 2), (5, 1)]}


@as_check
def check_receptive_field(fn: Callable[[list[tuple[int, int]]], int]) -> None:
    """`fn(layers) -> int`: the side in pixels, from (kernel, stride) pairs in the order from input to output."""
    right, stacks, answers = list(_STACKS), list(_STACKS.values()), []
    for layers in stacks:
        given = list(layers)
        answers.append(_whole(fn(given), "the side of the receptive field"))
        assert given == layers, "the list of layers is changed: read it, take nothing out of it"
    wrong = [_mistaken_reaches(*np.array(layers).T) for layers in stacks]
    mistakes = {sentence: [1 + reaches[sentence] for reaches in wrong] for sentence in wrong[0]}
    n = np.not_equal(answers, right).argmax()
    told(answers, right, mistakes, f"layers {stacks[n]} see {right[n]} pixels a side, not {answers[n]:g}")
    alone = fn([])
    assert alone == 1, f"without any layer a pixel sees itself, so no layers give 1, not {alone}"


def _mistaken_reaches(k: np.ndarray, s: np.ndarray) -> dict[str, int]:
    """Pixels beyond the first. Right is Σ (k - 1) j, where the step j of a layer multiplies the strides before it."""
    r, before = k - 1, np.array([1, *s[:-1]])
    step, ahead = before.cumprod(), s[::-1].cumprod()[::-1]  # the strides before a layer, and from it on
    right, fewer, twos = r @ step, 1 + (before - 1).cumsum(), np.where(k == 2, 2, 1)
    return {
        "the strides are ignored: behind a stride of 2, one step is two pixels of the image": r.sum(),
        "a stride already acts on its own layer: it widens only the steps of the layers behind it": r @ s.cumprod(),
        "one pixel is missing: before any layer, a pixel sees itself": right - 1,
        "each layer adds its whole kernel: k reaches k - 1 further, for its middle was seen before": k @ step,
        "kernels are added up whole: windows overlap, so a kernel of k reaches only k - 1 further": k @ step - 1,
        "the layers are walked from the wrong end: they come from input to output": r @ (ahead // s),
        "a stride acts on the next layer only: it lasts for all layers behind it": r @ before,
        "strides are added: the steps of two poolings multiply, 2 times 2": r @ before.cumsum(),
        "strides are added (s - 1 each): the steps of two poolings multiply, 2 times 2": r @ fewer,
        "pooling is left out: it has a kernel and a stride like any layer": r @ (k != 2),
        "this is how far it sees to one side: the whole side is wanted": right // 2 - 1,
        "this is the number of pixels in the square: its side is wanted": (1 + right) ** 2 - 1,
        "each layer is widened by its own stride: it is the strides of the layers before it that count": r @ s,
        "every kernel is taken for 3: read it from the list": 2 * step.sum(),
        "only 2x2 layers are taken to have a stride: read it from the list": r @ np.cumprod([1, *twos[:-1]]),
        "kernels are multiplied: each adds k - 1, times the steps so far": k.prod() - 1,
        "what was seen before is multiplied: a stride widens only the steps to come": s.prod() - 1 + r @ ahead,
    }
