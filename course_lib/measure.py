"""What a net costs and what it sees: parameters, MACs, time, memory, receptive field, gradients."""

import copy
import statistics
import time
import weakref
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.losses import Loss, bce_dice, deep_supervision


def parameters(net: nn.Module) -> int:
    """Trained numbers: weights, biases, and the scale and shift of batch norm."""
    return sum(p.numel() for p in net.parameters())


def macs(net: nn.Module, size: tuple[int, int] = (96, 96), *, in_channels: int = 3) -> int:
    """Multiply-accumulates of all convolutions for one image of (height, width).

    One output value of a k x k convolution takes c_in * k * k of them; of an up-convolution, where every input value
    is spread, one input value takes c_out * k * k. Nothing is computed: shapes suffice.
    """
    total = 0

    def add(conv: nn.Conv2d | nn.ConvTranspose2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        up = isinstance(conv, nn.ConvTranspose2d)
        channels = conv.out_channels if up else conv.in_channels
        taps = channels // conv.groups * conv.kernel_size[0] * conv.kernel_size[1]
        total += (inputs[0] if up else output).numel() * taps

    shadow = copy.deepcopy(net).to("meta").eval()
    for module in shadow.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
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


def matched_widths(
    wanted: int, cost: Callable[[NestedUNet], int], *, widths: Sequence[int], wiring: str = "unet"
) -> tuple[int, ...]:
    """Widths in about the proportions of `widths` at which a net of this wiring costs nearly `wanted`.

    `cost` is `parameters` or `macs`; no weights are made. What a fair baseline needs: a plain net that is as large, or
    does as much work, as the net that it is compared with.

    Raises:
        UserError: nothing comes within a tenth of `wanted`.
    """

    def at(scale: float) -> tuple[int, tuple[int, ...]]:
        scaled = tuple(max(1, round(scale * width)) for width in widths)
        with torch.device("meta"):
            return cost(NestedUNet(widths=scaled, wiring=wiring)), scaled

    low, high = 1 / 64, 64.0
    for _ in range(40):  # halving the interval: a net never gets cheaper when it gets wider
        middle = (low * high) ** 0.5
        low, high = (middle, high) if at(middle)[0] < wanted else (low, middle)
    nearest, found = min(at(low), at(high), key=lambda found: abs(found[0] - wanted))
    if abs(nearest / wanted - 1) > 0.1:
        raise UserError(f"no width of {wiring!r} costs about {wanted:,}: the nearest costs {nearest:,}")
    return found


def receptive_field(net: nn.Module, *, side: int = 256, in_channels: int = 3) -> tuple[int, int]:
    """Height and width, in input pixels, of what the pixel at the middle of the last head can depend on.

    Measured: the gradient of that pixel is not zero where it depends. In a copy all weights are made positive,
    batch norm forgets what it learned and max pooling averages, so that no ReLU and no maximum hides a path.
    At most `side`, a multiple of 2**depth.
    """
    shadow = copy.deepcopy(net).cpu().eval().double()
    for module in shadow.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.data.abs_()
            if module.bias is not None:
                module.bias.data.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    image = torch.ones(1, in_channels, side, side, dtype=torch.float64, requires_grad=True)
    outputs = shadow(image)
    last = outputs if isinstance(outputs, Tensor) else outputs[-1]
    last[:, :, side // 2, side // 2].sum().backward()
    seen = image.grad[0].abs().sum(0) > 0
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


def receptive_fields(
    net: NestedUNet, *, side: int = 256, at: int | None = None
) -> dict[tuple[int, int], tuple[int, int]]:
    """Node -> the first and the last input pixel, along one axis, that it can depend on above input pixel `at`.

    Computed, not measured: a 3x3 convolution reaches one further on either side, D joins two, U (corners aligned)
    reads the two nearest, and a node reads all that its inputs read. Rows and columns are alike. Ends count from 0
    and stop at the image's border. The default `at` is the middle, side // 2.

    Raises:
        UserError (a ValueError): `side` cannot be halved `depth` times, or `at` is not in it.
    """
    net.check_shape((1, net.config["in_channels"], side, side))
    at = side // 2 if at is None else at
    if not 0 <= at < side:
        raise UserError(f"pixel {at} is outside of an image of {side} pixels: choose 0 to {side - 1}")
    image = np.arange(side), np.arange(side)
    reach: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}  # of every pixel of the node
    for i, j in net.nodes:
        if j > 0:
            inputs = [reach[i, k] for k in net.skips[j]] + [_doubled(*reach[i + 1, j - 1])]
            first, last = np.min([low for low, _ in inputs], 0), np.max([high for _, high in inputs], 0)
        else:
            first, last = _halved(*reach[i - 1, 0]) if i > 0 else image
        reach[i, j] = _convolved(*_convolved(first, last))
    return {(i, j): tuple(int(end[at >> i]) for end in ends) for (i, j), ends in reach.items()}


def node_costs(net: NestedUNet, size: tuple[int, int] = (96, 96)) -> dict[tuple[int, int], dict[str, int]]:
    """Node -> its "parameters", and its "macs" for one image of (height, width). Heads are not in it."""
    costs = {}
    for i, j in net.nodes:
        block = net.node(i, j)
        weights = block.conv1.weight.numel() + block.conv2.weight.numel()  # each works once at every pixel
        costs[i, j] = {"parameters": parameters(block), "macs": weights * (size[0] >> i) * (size[1] >> i)}
    return costs


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


def _convolved(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.pad(first, 1, mode="edge"), np.pad(last, 1, mode="edge")
    return np.minimum.reduce([low[:-2], low[1:-1], low[2:]]), np.maximum.reduce([high[:-2], high[1:-1], high[2:]])


def _halved(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.minimum(first[::2], first[1::2]), np.maximum(last[::2], last[1::2])


def _doubled(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = len(first)
    whole, rest = np.divmod(np.arange(2 * n) * (n - 1), 2 * n - 1)  # corners on corners
    right = np.minimum(whole + (rest > 0), n - 1)
    return np.minimum(first[whole], first[right]), np.maximum(last[whole], last[right])


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
