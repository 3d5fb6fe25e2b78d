"""What more than one check asks of a net: what it uses, whether its gradients are true, what it computes."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from course_lib.checks.machinery import ask, is_same, told


def assert_no_plain_lists(net: nn.Module) -> None:
    """Layers in a list or dict of Python are invisible to `parameters()`."""
    for name, value in vars(net).items():
        if isinstance(value, dict | list | tuple) and not name.startswith("_"):
            kind, held = ("Dict", value.values()) if isinstance(value, dict) else ("List", value)
            invisible = any(isinstance(layer, nn.Module) for layer in held)
            plain = f"self.{name} is a plain {kind.lower()}, whose layers no optimiser would find"
            assert not invisible, f"{plain}: make it an nn.Module{kind}"


@contextmanager
def layers_called() -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """Convolutions and batch norms that run meanwhile, in order, with what they give; also those that nobody keeps."""
    called: list[tuple[nn.Module, Tensor]] = []

    def note(module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            called.append((module, output))

    with register_module_forward_hook(note):
        yield called


def sizes_and_logits(net: nn.Module, image: Tensor, **wanted: Any) -> tuple[set[tuple[int, int]], Any]:
    """The sizes (height, width) that layers work at, and what the net returns, `wanted` as in `ask`."""
    with layers_called() as called:
        logits = ask(net, image, **{"what": "a tensor of logits"} | wanted)
    assert called, "it holds no convolution: build it from VGGBlock"
    return {tuple(output.shape[2:]) for _, output in called}, logits


def as_list(outputs: Any) -> list[Tensor]:
    """The logits of every head, also where a net returns the tensor of one."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def assert_plain_logits(net: nn.Module, sizes: set[tuple[int, int]], outputs: Any) -> None:
    """Of a net of three widths and an image of 16x24: two halvings, numbers on both sides of 0, nothing kept."""
    (height, width), heads = min(sizes), "head" if isinstance(outputs, Tensor) else "heads"
    wanted = "with three widths the image is halved twice, to 4x6, and the first block works at full size"
    assert (height, width) == (4, 6), f"the smallest feature map of 16x24 is {height}x{width}: {wanted}"
    for logits in as_list(outputs):
        probabilities = logits.min() >= 0 and logits.max() <= 1
        assert logits.any(), "every logit is 0: does the last line return what the decoder made?"
        assert not probabilities, "these are probabilities, 0 to 1: return logits, the loss takes the sigmoid by itself"
        assert logits.min() < 0, f"no logit is below 0: is there a ReLU behind the {heads}?"
    kept = [x for value in vars(net).values() if isinstance(value, list) for x in value if isinstance(x, Tensor)]
    assert not kept, "a list in self keeps feature maps from one call to the next: make it a local variable of forward"


def assert_every_channel_is_used(net: nn.Module, image: Tensor) -> None:
    """An input channel of a convolution that only ever holds zeros leaves its weights without a gradient."""
    weights = {name.removesuffix(".weight"): weight for name, weight in net.named_parameters() if weight.ndim == 4}
    weighted = sum((logits * torch.randn_like(logits)).sum() for logits in as_list(net(image)))
    assert weighted.requires_grad, "no gradient leaves the logits: is forward under no_grad, or its result detached?"
    gradients = torch.autograd.grad(weighted, list(weights.values()), materialize_grads=True)
    for name, gradient in zip(weights, gradients, strict=True):
        if not gradient.any():
            before = as_list(net(image))
            weights[name].data.neg_()  # for good: one of two sentences ends the check
            assert not is_same(as_list(net(image)), before), f"{name} is built but never used"
            detached = "is something detached, or made under no_grad?"
            raise AssertionError(f"{name} is used but no gradient reaches it: {detached}")
        zero = gradient.abs().sum(dim=(0, 2, 3)) == 0
        idle = f"{zero.sum()} of the {len(zero)} channels that enter {name} are always zero"
        assert not zero.any(), f"{idle}: does a skip connection carry zeros?"


def assert_same_gradient(net: Callable, reference: Callable, image: Tensor, suspect: str = "a skip connection") -> None:
    """Where two give the same logits they must tell the image the same: else something was detached."""
    given = image.clone().requires_grad_()
    ours, theirs = as_list(net(given)), as_list(reference(given))
    weights = [torch.randn_like(logits) for logits in theirs]
    gradient, right = (torch.autograd.grad(x, given, weights, materialize_grads=True)[0] for x in (ours, theirs))
    complete = (gradient - right).abs().max() < 0.01 * right.abs().max()
    assert complete, f"backward() misses a path that forward() uses: is {suspect} detached, or made under no_grad?"


def assert_same_function(
    net: nn.Module, reference: nn.Module, image: Tensor, mistakes: dict[str, dict[str, Any]], otherwise: str
) -> None:
    """The same parameters in the same order must give the same logits.

    `mistakes`: a sentence -> the attributes of the reference that this mistake replaces; the rest as in `told`.
    """
    order = "encoder from the top, decoder from the lowest, head"
    for ours, theirs in zip(net.parameters(), reference.parameters(), strict=True):
        assert ours.shape == theirs.shape, f"the blocks stand in another order than the text asks for: {order}"
        theirs.data.copy_(ours.data)
    wrong = {}
    for sentence, replaced in mistakes.items():
        changed = copy.copy(reference)
        vars(changed).update(replaced)
        wrong[sentence] = as_list(changed(image))
    told(as_list(net.train()(image)), as_list(reference(image)), wrong, otherwise, tol=1e-4)
