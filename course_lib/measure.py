"""What a net costs and what it sees: parameters, MACs, time, memory, receptive field, gradients."""

import copy
import statistics
import time
import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_lib.grid import NestedUNet
from course_lib.losses import Loss, bce_dice, deep_supervision


def parameters(net: nn.Module) -> int:
    """Trained numbers: weights, biases, and the scale and shift of batch norm."""
    return sum(p.numel() for p in net.parameters())


def macs(net: nn.Module, size: tuple[int, int] = (96, 96), *, in_channels: int = 3) -> int:
    """Multiply-accumulates of all convolutions for one image of (height, width).

    One output value of a k x k convolution takes c_in * k * k of them. Nothing is computed: shapes suffice.
    """
    total = 0

    def add(conv: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        taps = conv.in_channels // conv.groups * conv.kernel_size[0] * conv.kernel_size[1]
        total += output.numel() * taps

    shadow = copy.deepcopy(net).to("meta").eval()
    for module in shadow.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
    shadow(torch.empty(1, in_channels, *size, device="meta"))
    return total


def latency(run: Callable[[], object], *, repeats: int = 10, warm_up: int = 3) -> list[float]:
    """Seconds of each of `repeats` calls, after `warm_up` that are not counted.

    A GPU works on while Python runs ahead, so the clock is read only when it has finished.
    """
    for _ in range(warm_up):
        run()
    seconds = []
    for _ in range(repeats):
        _finish()
        start = time.perf_counter()
        run()
        _finish()
        seconds.append(time.perf_counter() - start)
    return seconds


def median_ms(run: Callable[[], object], *, repeats: int = 10) -> float:
    """The median of `latency` in milliseconds."""
    return 1000 * statistics.median(latency(run, repeats=repeats))


def peak_memory(run: Callable[[], object]) -> int:
    """Most bytes that tensors made while `run` runs hold at one time, on any device.

    It counts what PyTorch operations return, not what a library needs inside one operation.
    """
    with _Allocations() as seen:
        run()
    return seen.peak


def receptive_field(net: nn.Module, *, side: int = 256, in_channels: int = 3) -> tuple[int, int]:
    """Height and width, in input pixels, of what the pixel at the middle of the last head can depend on.

    Measured: the gradient of that pixel is not zero where it depends. In a copy all weights are made positive,
    batch norm forgets what it learned and max pooling averages, so that no ReLU and no maximum hides a path.
    At most `side`, a multiple of 2**depth.
    """
    shadow = copy.deepcopy(net).cpu().eval().double()
    for module in shadow.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.abs_()
            if module.bias is not None:
                module.bias.data.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride))
    image = torch.ones(1, in_channels, side, side, dtype=torch.float64, requires_grad=True)
    outputs = shadow(image)
    last = outputs if isinstance(outputs, Tensor) else outputs[-1]
    last[:, :, side // 2, side // 2].sum().backward()
    seen = image.grad[0].abs().sum(0) > 0
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


def node_gradients(
    net: NestedUNet, images: Tensor, masks: Tensor, *, loss: Loss = bce_dice
) -> dict[tuple[int, int], float]:
    """How much gradient reaches each node: root mean square over the weights of its first convolution.

    0.0 is exactly nothing: no head depends on that node. Gradients of `net` are cleared afterwards; in training
    mode the running statistics of its norms move, as in any forward pass.
    """
    net.zero_grad(set_to_none=True)
    deep_supervision(loss)(net(images), masks).backward()
    gradients = {(i, j): net.node(i, j).conv1.weight.grad for i, j in net.nodes}
    net.zero_grad(set_to_none=True)
    return {node: 0.0 if g is None else g.square().mean().sqrt().item() for node, g in gradients.items()}


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class _Allocations(TorchDispatchMode):
    """Counts the bytes of every storage an operation returns, from then until it is freed."""

    def __enter__(self) -> "_Allocations":
        self.now = self.peak = 0
        self.known: set[int] = set()
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        old = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in old | self.known:
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size
