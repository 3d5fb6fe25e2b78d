"""Checks that speak to the learner: silent about how, plain about what is wrong.

`check_x(my_x)` prints one line when the answer is right. Otherwise it raises AssertionError, whose text names
the mistake. tests/wrong_answers holds answers that each check must refuse, and the words it must use.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.grid import NestedUNet
from course_lib.losses import bce_dice


def expect(name: str, value: float, reference: float, tol: float) -> None:
    """Assert |value - reference| <= tol and print a line that is the same on every machine.

    Raises:
        AssertionError: it is not, or value is not a number.
    """
    assert abs(value - reference) <= tol, f"{name} is {value:.4g}, expected {reference:g} ± {tol:g}"
    print(f"{name}: ok ({reference:g} ± {tol:g})")


def _check(function: Callable[[Any], None]) -> Callable[[Any], None]:
    """Turn a function that asserts into a check: holes and crashes explained, random state left alone."""

    @functools.wraps(function)
    def check(answer: Any) -> None:
        name = getattr(answer, "__name__", "your answer")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                function(answer)
            except NotImplementedError:
                hint = "replace the line `raise NotImplementedError` by your code, run that cell, then this one"
                raise AssertionError(f"{name} is not written yet: {hint}") from None
            except AssertionError:
                raise
            except Exception as problem:
                raise AssertionError(f"{name} stops with {type(problem).__name__}: {problem}") from problem
        print(f"{name}: correct")

    return check


@_check
def check_to_mask(fn: Callable[[Tensor], Tensor]) -> None:
    """`fn(logits) -> mask`: (N, 1, H, W) floats to bool, True where the probability is above one half."""
    logits = torch.tensor([-4.0, -0.3, 0.0, 0.05, 0.4, 0.6, 5.0, -1.0]).reshape(2, 1, 2, 2)
    given = logits.clone()
    mask = fn(given)
    assert given.equal(logits), "the logits themselves were changed: use sigmoid(), not sigmoid_()"
    assert isinstance(mask, Tensor), f"a tensor is wanted, this is {type(mask).__name__}"
    assert mask.shape == logits.shape, f"the shape changed from {tuple(logits.shape)} to {tuple(mask.shape)}"
    assert mask.dtype == torch.bool, f"a mask answers yes or no, so its type is bool, not {mask.dtype}: compare with >"
    want = logits > 0
    assert mask.any(), "everything became background: an argmax over one channel is always 0"
    assert not mask.all(), (
        "everything became nucleus: perhaps a softmax, which over one channel is always 1? One logit needs a sigmoid"
    )
    assert not (mask.equal(logits < 0) or mask.equal(~want)), "nucleus and background are swapped: True means nucleus"
    assert not mask.equal(logits >= 0), "a probability of exactly one half is not above it: > instead of >="
    assert not mask.equal(logits > 0.5), (
        "the threshold 0.5 belongs to probabilities, but these are logits: put them through a sigmoid first"
    )
    assert mask.equal(want), f"logits {logits.flatten().tolist()} became {mask.int().flatten().tolist()}"


@_check
def check_count_mistakes(fn: Callable[[Tensor, Tensor], tuple[int, int]]) -> None:
    """`fn(predicted, true) -> (missed, invented)`: pixels, from masks of {0, 1} of type uint8 or bool."""
    true = torch.tensor([1, 1, 1, 0, 1, 1, 0, 0], dtype=torch.uint8).reshape(2, 1, 2, 2)
    predicted = torch.tensor([0, 1, 0, 1, 0, 1, 0, 0], dtype=torch.uint8).reshape(2, 1, 2, 2)  # misses 3, invents 1
    answer = fn(predicted, true)
    assert isinstance(answer, tuple | list) and len(answer) == 2, "two numbers are wanted: (missed, invented)"
    assert all(getattr(value, "numel", lambda: 1)() == 1 for value in answer), "each is one number: sum over all pixels"
    missed, invented = (float(value) for value in answer)
    assert (missed, invented) != (1, 3), (
        "missed and invented are swapped: a missed pixel is nucleus in `true` and background in `predicted`"
    )
    assert missed < 100 and invented < 100, (
        "uint8 cannot go below zero, 0 - 1 is 255 there: turn the masks into bool, or compare instead of subtracting"
    )
    assert (missed, invented) not in {(2, -2), (2, 0)}, (
        "a difference of areas lets mistakes cancel each other: compare pixel by pixel"
    )
    assert not (missed == invented == 4), "both numbers count every wrong pixel: keep the two kinds apart"
    assert missed == int(missed) and invented == int(invented), "shares came out: count pixels, do not average"
    assert (missed, invented) == (3, 1), (
        f"3 pixels are missed and 1 is invented, but ({missed:g}, {invented:g}) came out"
    )
    answer = tuple(float(value) for value in fn(predicted.bool(), true.bool()))
    assert answer == (3, 1), f"bool masks give {answer} where uint8 masks gave (3, 1)"


@_check
def check_unet(cls: Callable[[int, int, tuple[int, ...]], nn.Module]) -> None:
    """`cls(in_channels, classes, widths)`: a U-Net of `VGGBlock`s that returns logits at the size of the input."""
    widths, image = (4, 6, 10), torch.randn(2, 3, 16, 24)
    net = cls(3, 2, widths)
    for name, value in vars(net).items():
        assert not (isinstance(value, list | tuple) and any(isinstance(block, nn.Module) for block in value)), (
            f"self.{name} is a plain list, whose blocks no optimiser would find: make it an nn.ModuleList"
        )
    sizes, logits = _sizes_of_feature_maps(net, image)
    assert isinstance(logits, Tensor), f"a tensor of logits is wanted, this is {type(logits).__name__}"
    assert logits.shape == (2, 2, 16, 24), (
        f"an image of 16x24 with 2 classes gives logits (2, 2, 16, 24), these are {tuple(logits.shape)}"
    )
    smallest = min(sizes)
    assert smallest == (4, 6), (
        f"the smallest feature map of 16x24 is {smallest[0]}x{smallest[1]}: with three widths the image is halved "
        "twice, to 4x6, and the first block works at full size"
    )
    assert logits.any(), "every logit is 0: does the last line return what the decoder made?"
    assert logits.min() < 0 or logits.max() > 1, (
        "all values lie between 0 and 1: return logits, the loss takes the sigmoid by itself"
    )
    assert logits.min() < 0, "no logit is below 0: is there a ReLU behind the head?"
    assert not any(
        isinstance(value, list) and any(isinstance(x, Tensor) for x in value) for value in vars(net).values()
    ), "a list in self keeps feature maps from one call to the next: make it a local variable of forward"
    deeper, _ = _sizes_of_feature_maps(cls(3, 2, (4, 5, 6, 7)), image)
    assert min(deeper) == (2, 3), (
        "with four widths the image is halved three times: loop over the blocks, do not write them out for three"
    )
    _assert_every_channel_is_used(net, image)
    _assert_gradients_are_true(net, image)
    reference = NestedUNet(3, 2, widths, wiring="unet")
    ours, theirs = (sum(p.numel() for p in n.parameters()) for n in (net, reference))
    assert ours == theirs, (
        f"{ours} parameters, but two convolutions a node, skips concatenated, and a 1x1 head make {theirs}: "
        "is a skip missing, or added instead of concatenated?"
    )
    _assert_same_function(net, reference, image)


@_check
def check_training_step(fn: Callable[[nn.Module, torch.optim.Optimizer, Tensor, Tensor], float]) -> None:
    """`fn(net, optimiser, images, masks) -> loss`: one step of gradient descent on `bce_dice`."""
    images = torch.rand(4, 3, 8, 8)
    masks = (images.mean(1, keepdim=True) > 0.5).float()

    def train(step: Callable) -> tuple[list[Any], Tensor]:
        torch.manual_seed(1)
        net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 1, 3, padding=1))
        optimiser = torch.optim.SGD(net.parameters(), lr=0.5)
        losses = [step(net, optimiser, images, masks) for _ in range(3)]
        return losses, net[1].weight.detach()

    try:
        losses, weights = train(fn)
    except RuntimeError as problem:
        assert "modified by an inplace operation" not in str(problem), (
            "the weights change before loss.backward() has used them: call optimiser.step() after it"
        )
        assert "does not require grad" not in str(problem), (
            "the loss has no path back to the weights: no threshold, detach or no_grad before it"
        )
        raise
    start = train(lambda *_: None)[1]
    assert all(loss is not None for loss in losses), "it returns nothing: return the loss as a number"
    assert not any(isinstance(loss, Tensor) and loss.requires_grad for loss in losses), (
        "the loss that comes back still holds the whole graph, and memory fills up: return loss.item()"
    )
    assert not any(isinstance(loss, Tensor) for loss in losses), (
        "a tensor comes back: return loss.item(), a plain number"
    )
    assert not torch.equal(weights, start), (
        "the weights did not change in three steps: the gradient is computed by loss.backward() and used by "
        "optimiser.step(), in this order"
    )
    for step, message in _MISTAKEN_STEPS.items():
        assert not torch.allclose(weights, train(step)[1]), message
    right_losses, right_weights = train(_right_step)
    assert torch.allclose(weights, right_weights), (
        "after three steps the weights differ from those of forward, loss, zero_grad, backward, step"
    )
    ours = [float(loss) for loss in losses]
    assert torch.allclose(torch.tensor(ours), torch.tensor(right_losses)), (
        f"the weights are right, but the losses {ours} should be {right_losses}: return the loss of this batch"
    )


def _right_step(net, optimiser, images, masks) -> float:
    loss = bce_dice(net(images), masks)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def _without_zero_grad(net, optimiser, images, masks) -> None:
    bce_dice(net(images), masks).backward()
    optimiser.step()


def _sigmoid_twice(net, optimiser, images, masks) -> None:
    loss = bce_dice(net(images).sigmoid(), masks)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _arguments_swapped(net, optimiser, images, masks) -> None:
    loss = bce_dice(masks, net(images))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _in_evaluation_mode(net, optimiser, images, masks) -> None:
    net.eval()
    _right_step(net, optimiser, images, masks)


def _uphill(net, optimiser, images, masks) -> None:
    loss = -bce_dice(net(images), masks)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


_MISTAKEN_STEPS = {
    _arguments_swapped: "bce_dice takes the logits first, then the masks",
    _in_evaluation_mode: "the net is put into evaluation mode, where batch norm does not learn: leave its mode alone",
    _uphill: "the loss grows: minimise bce_dice, not its negative",
    _without_zero_grad: "gradients of earlier steps add up: call optimiser.zero_grad() before loss.backward()",
    _sigmoid_twice: "bce_dice takes logits and applies the sigmoid itself: give it the net's output as it is",
}


def _sizes_of_feature_maps(net: nn.Module, image: Tensor) -> tuple[set[tuple[int, int]], Any]:
    """The sizes that convolutions work at, and what the net returns."""
    sizes: set[tuple[int, int]] = set()
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: sizes.add(tuple(output.shape[2:])))
        for module in net.modules()
        if isinstance(module, nn.Conv2d)
    ]
    assert hooks, "it holds no convolution: build it from VGGBlock"
    output = net(image)
    for hook in hooks:
        hook.remove()
    return sizes, output


def _assert_every_channel_is_used(net: nn.Module, image: Tensor) -> None:
    """An input channel of a convolution that only ever holds zeros leaves its weights without a gradient."""
    net.zero_grad()
    output = net(image)
    (output * torch.randn_like(output)).sum().backward()
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.grad is not None, f"{name} is built but never used: no gradient reaches it"
            reached = module.weight.grad.abs().sum(dim=(0, 2, 3)) > 0
            assert reached.all(), (
                f"{int((~reached).sum())} of the {len(reached)} channels that enter {name} are always zero: "
                "does a skip connection carry zeros?"
            )


def _assert_gradients_are_true(net: nn.Module, image: Tensor) -> None:
    """Autograd against the difference quotient: they part where something was detached."""
    net = net.to(torch.float64).eval()
    image, direction = image.double(), torch.randn_like(image.double())

    def output(t: Tensor) -> Tensor:
        return net(image + t * direction).square().sum()

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(output(t), t)
    h = 1e-6
    with torch.no_grad():
        quotient = (output(torch.tensor(h)) - output(torch.tensor(-h))) / (2 * h)
    net.to(torch.float32).train()
    assert torch.allclose(slope, quotient, rtol=1e-3), (
        "backward() misses a path that forward() uses: is a skip connection detached, or made under no_grad?"
    )


def _assert_same_function(net: nn.Module, reference: nn.Module, image: Tensor) -> None:
    """Where the parameters line up one by one, the same numbers must give the same logits."""
    pairs = list(zip(net.parameters(), reference.parameters(), strict=True))
    assert all(ours.shape == theirs.shape for ours, theirs in pairs), (
        "the blocks stand in another order than the text asks for: encoder from the top, decoder from the lowest, head"
    )
    for ours, theirs in pairs:
        theirs.data.copy_(ours.data)
    with torch.no_grad():
        same = torch.allclose(net.train()(image), reference.train()(image)[-1], atol=1e-4)
    assert same, (
        "the shapes are right, the values are not: check max pooling, bilinear up-sampling with "
        "align_corners=True, and the order [skip, up-sampled] in the concatenation"
    )
