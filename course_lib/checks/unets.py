"""Lessons 04 and 06: U-Net and a step of its training, the skips of the four wirings, UNet++."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn, optim

from course_lib.checks import nets
from course_lib.checks.machinery import as_check, told
from course_lib.grid import SKIPS, NestedUNet
from course_lib.losses import bce_dice
from course_lib.measure import parameters


@as_check
def check_unet(cls: Callable[[int, int, tuple[int, ...]], nn.Module]) -> None:
    """`cls(in_channels, classes, widths)`: a U-Net of blocks that returns logits at the size of the input."""
    image, net, reference = torch.randn(2, 3, 16, 24), cls(3, 2, (4, 6, 10)), NestedUNet(3, 2, (4, 6, 10), "unet")
    differ = "a skip and what comes from below differ in size: skips are read from the back, without the lowest map"
    nets.assert_no_plain_lists(net)
    try:
        sizes, logits = nets.sizes_and_logits(net, image)
    except RuntimeError as problem:
        assert "Sizes of tensors must match" not in str(problem), differ
        raise
    shape = tuple(logits.shape)
    assert shape == (2, 2, 16, 24), f"an image of 16x24 with 2 classes gives logits (2, 2, 16, 24), these are {shape}"
    nets.assert_plain_logits(net, sizes, logits)
    deeper, _ = nets.sizes_and_logits(cls(3, 2, (4, 5, 6, 7)), image)
    loop = "loop over the blocks, do not write them out for three"
    assert min(deeper) == (2, 3), f"with four widths the image is halved three times: {loop}"
    nets.assert_every_channel_is_used(net, image)
    ours, theirs = parameters(net), parameters(reference)
    counted = f"{ours} parameters, but two convolutions a node, skips concatenated, and a 1x1 head make {theirs}"
    assert ours == theirs, f"{counted}: is a skip missing, or added instead of concatenated?"
    steps = "check max pooling, bilinear up-sampling with align_corners=True, and the order [skip, up-sampled]"
    nets.assert_same_function(net, reference, image, {}, f"the shapes are right, the values are not: {steps}")
    nets.assert_same_gradient(net, reference, image)


@as_check
def check_training_step(fn: Callable[[nn.Module, optim.Optimizer, Tensor, Tensor], float]) -> None:
    """`fn(net, optimiser, images, masks) -> loss`: one step of gradient descent on `bce_dice`."""
    early = "the weights change before loss.backward() has used them: call optimiser.step() after it"
    cut = "the loss has no path back to the weights: no threshold, detach or no_grad before it"
    graph = "the loss that comes back still holds the whole graph, and memory fills up: return loss.item()"
    try:
        losses, weights = _train(fn)
    except RuntimeError as problem:
        assert "modified by an inplace operation" not in str(problem), early
        assert "does not require grad" not in str(problem), cut
        raise
    assert all(loss is not None for loss in losses), "it returns nothing: return the loss as a number"
    tensors = [loss for loss in losses if isinstance(loss, Tensor)]
    assert not any(loss.requires_grad for loss in tensors), graph
    assert not tensors, "a tensor comes back: return loss.item(), a plain number"
    right_losses, right_weights = _train(_step)
    otherwise = "after three steps the weights differ from those of forward, loss, zero_grad, backward, step"
    told(weights, right_weights, {sentence: _train(step)[1] for sentence, step in _MISTAKEN_STEPS.items()}, otherwise)
    otherwise = f"the weights are right, but the losses {losses} should be {right_losses}: return that of this batch"
    told(losses, right_losses, {}, otherwise)


def _train(step: Callable[..., float]) -> tuple[list[float], Tensor]:
    """What three steps from the same start return, and the weights behind them."""
    torch.manual_seed(0)
    images = torch.rand(4, 3, 8, 8)
    masks = (images.mean(1, keepdim=True) > 0.5).float()
    torch.manual_seed(1)
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 1, 3, padding=1))
    optimiser = optim.SGD(net.parameters(), lr=0.5)
    return [step(net, optimiser, images, masks) for _ in range(3)], net[1].weight.detach()


def _step(net, optimiser, images, masks, *, loss: Callable = bce_dice, clear: bool = True) -> float:
    """The right step, with places for a mistake: the loss of logits and masks, and whether the gradient is cleared."""
    value = loss(net(images), masks)
    if clear:
        optimiser.zero_grad()
    value.backward()
    optimiser.step()
    return value.item()


_MISTAKEN_STEPS = {
    "the weights did not change in three steps: call zero_grad(), loss.backward(), optimiser.step()": lambda *_: 0.0,
    "bce_dice takes the logits first, then the masks": partial(_step, loss=lambda z, y: bce_dice(y, z)),
    "the net is in evaluation mode, where batch norm does not learn": lambda net, *rest: _step(net.eval(), *rest),
    "the loss grows: minimise bce_dice, not its negative": partial(_step, loss=lambda z, y: -bce_dice(z, y)),
    "gradients of earlier steps add up: call optimiser.zero_grad() before backward()": partial(_step, clear=False),
    "bce_dice takes logits and applies the sigmoid itself": partial(_step, loss=lambda z, y: bce_dice(z.sigmoid(), y)),
}

_MISTAKEN_SKIPS = {  # the columns that x^{i,4} would read
    "unet-e": {"the decoders of U-Net^e read the encoder, column 0: it has no short skips": [3]},
    "unet+": {"UNet+ has short skips: the neighbour on the left, not the encoder": [0]},
    "unet++": {
        "UNet++ keeps the long skips beside the short ones: all columns on the left": [3],
        "UNet++ reads the encoder too: column 0 is missing": [1, 2, 3],
        "UNet++ is dense: every column on the left, not the first and the last alone": [0, 3],
        "the order counts where channels are concatenated: from left to right, column 0 first": [3, 2, 1, 0],
    },
}


@as_check
def check_skips(fn: Callable[[str, int], Sequence[int]]) -> None:
    """`fn(wiring, j) -> columns k` of its own row that node x^{i,j} reads, j > 0, from left to right."""
    for wiring, right in SKIPS.items():
        answers = {j: _columns(fn(wiring, j), wiring, j) for j in (1, 2, 3, 4, 5)}
        wanted = {j: list(right(j)) for j in answers}
        j = next((j for j in answers if answers[j] != wanted[j]), 1)
        otherwise = f"{wiring!r}: x^{{i,{j}}} reads the columns {wanted[j]} of its row, {answers[j]} came out"
        told(answers[4], wanted[4], _MISTAKEN_SKIPS.get(wiring, {}), otherwise)
        told(answers, wanted, {}, otherwise)


def _columns(answer: Sequence[int] | int | None, wiring: str, j: int) -> list[int]:
    """The columns as a list, each of them there before node x^{i,j} is made."""
    assert answer is not None, f"nothing comes back for {wiring!r}: return a list of columns"
    assert not isinstance(answer, int), f"{wiring!r}, j = {j}: a list is wanted, not the number {answer}"
    columns, node = list(answer), f"{wiring!r}: x^{{i,{j}}}"
    assert {type(k) for k in columns} <= {int}, f"{wiring!r}, j = {j}: columns are whole numbers, these are {columns}"
    assert j not in columns, f"{node} would read itself: only columns left of j are there yet"
    assert max(columns, default=0) < j, f"{node} would read a column that is made later"
    assert min(columns, default=0) >= 0, f"{wiring!r}: column {min(columns)} does not exist, the first is 0"
    assert j > 1 or columns == [0], f"{wiring!r}: left of column 1 there is only column 0, not {columns}"
    return columns


@as_check
def check_nested_unet(cls: Callable[[int, int, tuple[int, ...]], nn.Module]) -> None:
    """`cls(in_channels, classes, widths)`: UNet++ with a head on each x^{0,j}; returns their logits, j = 1 first."""
    image, net, what = torch.randn(2, 3, 16, 24), cls(3, 2, (4, 7, 11)), "a list with the logits of every head"
    order, loop = "column after column, each from its top down", "loop over the grid, do not write its nodes out"
    nets.assert_no_plain_lists(net)
    try:
        sizes, outputs = nets.sizes_and_logits(net, image, returns=(list, tuple), what=what)
    except KeyError as problem:
        raise AssertionError(f"{problem} is read before it is there, or is never made: go {order}") from None
    n = len(outputs)
    assert n == 2, f"three widths make depth 2 and so 2 heads, on x^{{0,1}} and x^{{0,2}}: not {n}"
    for level, logits in enumerate(outputs, start=1):
        shape, full = tuple(logits.shape), "row 0 is at full size, an image of 16x24 gives (2, 2, 16, 24)"
        assert shape == (2, 2, 16, 24), f"head {level} gives {shape}: {full}"
    nets.assert_plain_logits(net, sizes, outputs)
    for n in (4, 2):
        try:
            heads = len(nets.as_list(cls(3, 2, (4, 7, 11, 13)[:n])(image)))
        except Exception as problem:
            raise AssertionError(f"with {n} widths it stops ({problem}): {loop}") from None
        assert heads == n - 1, f"{n} widths make {n - 1} heads, not {heads}: {loop}"
    reference = _with_weights_of(net, image)
    nets.assert_every_channel_is_used(net, image)
    values = "the shapes are right, the values are not: head j reads x^{0,j}, the shallowest comes first"
    steps = "pooling is max pooling, up-sampling is bilinear with align_corners=True"
    otherwise = f"{values}, {steps}, and the order is [x^{{i,0}} ... x^{{i,j-1}}, up-sampled]"
    told(net.train()(image), reference.train()(image), {}, otherwise, tol=1e-4)
    nets.assert_same_gradient(net, reference, image)


def _with_weights_of(net: nn.Module, image: Tensor) -> NestedUNet:
    """The reference with the numbers of every node and head, whatever they are called: no two widths are alike."""
    with nets.layers_called() as called:
        outputs = net.train()(image)
    heads = {layer: output for layer, output in called if getattr(layer, "kernel_size", None) == (1, 1)}
    layers = [layer for layer, _ in called if layer not in heads]
    fours = [layers[n : n + 4] for n in range(0, len(layers), 4)]
    vgg = all([type(layer) for layer in four] == 2 * [nn.Conv2d, nn.BatchNorm2d] for four in fours)
    assert vgg, "a node is (convolution, batch norm, ReLU) twice: use VGGBlock"
    own = {(four[0].in_channels, four[-1].num_features): four for four in fours}
    reference = NestedUNet(3, 2, (4, 7, 11), wiring="unet++", deep_supervision=True)
    for i, j in reference.nodes:
        block = list(reference.node(i, j).children())
        c_in, c_out = block[0].in_channels, block[-1].num_features
        row = f"{j} of its own row, {c_out} channels each, and the {c_in - j * c_out} of the up-sampled node"
        hint = row if j > 0 else "an encoder node reads the one above it"
        assert (c_in, c_out) in own, f"no node x^{{{i},{j}}}: its {c_in} input channels are {hint}"
        for ours, theirs in zip(own[c_in, c_out], block, strict=True):
            theirs.load_state_dict(ours.state_dict())
    count = "one head serves every column" if len(heads) == 1 else f"{len(heads)} heads are used"
    assert len(heads) == reference.depth, f"{count}: each x^{{0,j}}, j > 0, gets a 1x1 convolution of its own"
    for n, (head, output) in enumerate(heads.items(), start=1):
        level = next((j for j, logits in enumerate(outputs, start=1) if logits is output), n)
        reference.get_submodule(f"final{level}").load_state_dict(head.state_dict())
    return reference
