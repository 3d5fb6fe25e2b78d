"""What more than one check asks of a net: what it uses, whether its gradients are true, what it computes."""

from typing import Any

import torch
from torch import Tensor, nn


def assert_no_plain_lists(net: nn.Module) -> None:
    """Blocks in a list or dict of Python are invisible to `parameters()`."""
    for name, value in vars(net).items():
        held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        if not name.startswith("_") and any(isinstance(block, nn.Module) for block in held):
            kind, right = ("dict", "ModuleDict") if isinstance(value, dict) else ("list", "ModuleList")
            raise AssertionError(
                f"self.{name} is a plain {kind}, whose blocks no optimiser would find: make it an nn.{right}"
            )


def sizes_of_feature_maps(net: nn.Module, image: Tensor) -> tuple[set[tuple[int, int]], Any]:
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


def as_list(outputs: Any) -> list[Tensor]:
    """The logits of every head, also where a net returns the tensor of one."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def assert_every_channel_is_used(net: nn.Module, image: Tensor) -> None:
    """An input channel of a convolution that only ever holds zeros leaves its weights without a gradient."""
    net.zero_grad()
    sum((logits * torch.randn_like(logits)).sum() for logits in as_list(net(image))).backward()
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.grad is not None, f"{name} is built but never used: no gradient reaches it"
            reached = module.weight.grad.abs().sum(dim=(0, 2, 3)) > 0
            assert reached.all(), (
                f"{int((~reached).sum())} of the {len(reached)} channels that enter {name} are always zero: "
                "does a skip connection carry zeros?"
            )


def assert_gradients_are_true(net: nn.Module, image: Tensor) -> None:
    """Autograd against the difference quotient: they part where something was detached."""
    net = net.to(torch.float64).eval()
    image, direction = image.double(), torch.randn_like(image.double())

    def output(t: Tensor) -> Tensor:
        return sum(logits.square().sum() for logits in as_list(net(image + t * direction)))

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(output(t), t)
    h = 1e-6
    with torch.no_grad():
        quotient = (output(torch.tensor(h)) - output(torch.tensor(-h))) / (2 * h)
    net.to(torch.float32).train()
    assert torch.allclose(slope, quotient, rtol=1e-3), (
        "backward() misses a path that forward() uses: is a skip connection detached, or made under no_grad?"
    )


def assert_same_function(net: nn.Module, reference: nn.Module, image: Tensor) -> None:
    """Where the parameters line up one by one, the same numbers must give the same logits."""
    pairs = list(zip(net.parameters(), reference.parameters(), strict=True))
    assert all(ours.shape == theirs.shape for ours, theirs in pairs), (
        "the blocks stand in another order than the text asks for: encoder from the top, decoder from the lowest, head"
    )
    for ours, theirs in pairs:
        theirs.data.copy_(ours.data)
    with torch.no_grad():
        ours, theirs = as_list(net.train()(image)), reference.train()(image)
        same = all(torch.allclose(a, b, atol=1e-4) for a, b in zip(ours, theirs, strict=True))
    assert same, (
        "the shapes are right, the values are not: check max pooling, bilinear up-sampling with "
        "align_corners=True, and the order [skip, up-sampled] in the concatenation"
    )
