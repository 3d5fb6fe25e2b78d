"""What a net costs and what it sees: parameters, MACs, time, memory, receptive field, gradients."""

import copy
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate

import numpy as np
import torch
from scipy.ndimage import minimum_filter1d
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.losses import Loss, bce_dice, deep_supervision

Node = tuple[int, int]  # (i, j) of x^{i,j}
KINDS = {  # of kernels, by parts of the names that cuDNN, CUTLASS and PyTorch give them
    "up-sampling": ("upsample",),
    "norm": ("batch_norm", "batchnorm", "bn_fw", "bn_bw"),
    "optimiser": ("multi_tensor", "adam", "lerp", "addcdiv", "addcmul"),
    "convolution": ("conv", "gemm", "xmma", "cutlass", "cudnn", "wgrad", "dgrad", "nchwtonhwc", "nhwctonchw"),
}


def parameters(net: nn.Module) -> int:
    """Trained numbers: weights, biases, and the scale and shift of batch norm."""
    return sum(p.numel() for p in net.parameters())


def macs(net: nn.Module, size: tuple[int, int] = (96, 96), *, in_channels: int = 3) -> int:
    """Multiply-accumulates of all convolutions for one image of (height, width). Shapes suffice: nothing is computed.

    One output value of a k x k convolution takes c_in * k * k; one input value of an up-convolution, c_out * k * k.
    """
    shadow = copy.deepcopy(net).to("meta").eval()
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        shadow(torch.empty(1, in_channels, *size, device="meta"))
    return counted.get_total_flops() // 2  # it counts the multiplication and the addition


def latency(run: Callable[[], object], *, repeats: int = 10, warm_up: int = 3) -> list[float]:
    """Seconds of each of `repeats` calls, after `warm_up` that are not counted."""
    # A GPU works on while Python runs ahead, so the clock is read only when it has finished.
    finish = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    for _ in range(warm_up):
        run()
    seconds = []
    for _ in range(repeats):
        finish()
        start = time.perf_counter()
        run()
        finish()
        seconds.append(time.perf_counter() - start)
    return seconds


def median_ms(run: Callable[[], object], *, repeats: int = 10) -> float:
    """The median of `latency` in milliseconds."""
    return 1000 * float(np.median(latency(run, repeats=repeats)))


def peak_memory(run: Callable[[], object]) -> int:
    """Most bytes that tensors made while `run` runs hold at one time, on any device.

    It counts what a PyTorch operation leaves behind when it returns, not what it needs in between.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # or the profiler says on the screen that it starts and stops
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    outermost = (event for event in seen.events() if event.cpu_parent is None)  # its bytes include those of its parts
    return max(accumulate((event.cpu_memory_usage + event.device_memory_usage for event in outermost), initial=0))


def matched_widths(
    wanted: int, cost: Callable[[NestedUNet], int], *, widths: Sequence[int], wiring: str = "unet"
) -> tuple[int, ...]:
    """Widths in about the proportions of `widths` at which a net of this wiring costs nearly `wanted`.

    `cost` is `parameters` or `macs`; no weights are made. What a fair baseline needs: a plain net that is as large, or
    does as much work, as the net that it is compared with.
    Raises UserError: nothing comes within a tenth of `wanted`.
    """

    def at(scale: float) -> tuple[int, tuple[int, ...]]:
        scaled = tuple(max(1, round(scale * width)) for width in widths)
        with torch.device("meta"):
            return cost(NestedUNet(widths=scaled, wiring=wiring)), scaled

    low, high = 1 / 64, 64.0
    for _ in range(40):  # halving the interval: a net never gets cheaper when it gets wider
        middle = (low * high) ** 0.5
        low, high = (middle, high) if at(middle)[0] < wanted else (low, middle)
    nearest, scaled = min(at(low), at(high), key=lambda one: abs(one[0] - wanted))
    if abs(nearest / wanted - 1) > 0.1:
        raise UserError(f"no width of {wiring!r} costs about {wanted:,}: the nearest costs {nearest:,}")
    return scaled


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


def receptive_fields(net: NestedUNet, *, side: int = 256, at: int | None = None) -> dict[Node, tuple[int, int]]:
    """Node -> the first and the last input pixel, along one axis, that it can depend on above input pixel `at`.

    Computed, not measured: a 3x3 convolution reaches one further on either side, D joins two, U (corners aligned)
    reads the two nearest, and a node reads all that its inputs read. Rows and columns are alike. Ends count from 0
    and stop at the image's border. The default `at` is the middle, side // 2.
    Raises UserError (a ValueError): `side` cannot be halved `depth` times, or `at` is not in it.
    """
    net.check_shape((1, net.config["in_channels"], side, side))
    at = side // 2 if at is None else at
    if not 0 <= at < side:
        raise UserError(f"pixel {at} is outside of an image of {side} pixels: choose 0 to {side - 1}")
    reach: dict[Node, np.ndarray] = {}  # first and -last of every pixel of the node: both grow downwards
    for i, j in net.nodes:
        if j > 0:
            inputs = np.min([*(reach[i, k] for k in net.skips[j]), _doubled(reach[i + 1, j - 1])], axis=0)
        elif i > 0:
            inputs = np.minimum(reach[i - 1, 0][:, ::2], reach[i - 1, 0][:, 1::2])
        else:
            inputs = np.stack([np.arange(side), -np.arange(side)])
        reach[i, j] = minimum_filter1d(inputs, 5, mode="nearest")  # two 3x3 convolutions
    return {(i, j): (int(ends[0, at >> i]), -int(ends[1, at >> i])) for (i, j), ends in reach.items()}


def node_costs(net: NestedUNet, size: tuple[int, int] = (96, 96)) -> dict[Node, dict[str, int]]:
    """Node -> its "parameters", and its "macs" for one image of (height, width). Heads are not in it."""
    costs = {}
    for i, j in net.nodes:
        block = net.node(i, j)
        weights = block.conv1.weight.numel() + block.conv2.weight.numel()  # each works once at every pixel
        costs[i, j] = {"parameters": parameters(block), "macs": weights * (size[0] >> i) * (size[1] >> i)}
    return costs


def node_gradients(net: NestedUNet, images: Tensor, masks: Tensor, *, loss: Loss = bce_dice) -> dict[Node, float]:
    """How much gradient reaches each node: root mean square over the weights of its first convolution.

    0.0 is exactly nothing: no head depends on that node. Gradients of `net` are cleared afterwards; in training
    mode the running statistics of its norms move, as in any forward pass.
    """
    net.zero_grad(set_to_none=True)
    deep_supervision(loss)(net(images), masks).backward()
    gradients = {(i, j): net.node(i, j).conv1.weight.grad for i, j in net.nodes}
    net.zero_grad(set_to_none=True)
    return {node: 0.0 if g is None else g.square().mean().sqrt().item() for node, g in gradients.items()}


def convolution_costs(net: nn.Module, shape: Sequence[int], *, number: int = 4) -> dict[str, tuple[float, float]]:
    """Name -> (FLOP, bytes) of every convolution in a forward pass of images (N, C, H, W), two FLOP a MAC.

    The bytes are those of its input, its output and its weights, each moved once, `number` bytes a number: what no
    implementation can go below. Their quotient says which limit comes first (`roofline_seconds`).
    """
    found: dict[str, tuple[float, float]] = {}

    def note(name: str, conv: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        flop = 2.0 * output.numel() * conv.weight.numel() / conv.out_channels
        found[name] = flop, float(number * (inputs[0].numel() + output.numel() + conv.weight.numel()))

    shadow = copy.deepcopy(net).to("meta").float().eval()
    for name, module in shadow.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(partial(note, name))
    shadow(torch.empty(*shape, device="meta"))
    return found


def roofline_seconds(flop: float, moved: float, *, peak: float, bandwidth: float) -> float:
    """The least seconds for `flop` at `peak` FLOP/s and `moved` bytes at `bandwidth` bytes/s, whichever takes longer
    (the roofline of Williams, Waterman and Patterson, 2009).
    """
    return max(flop / peak, moved / bandwidth)


def kind_of(kernel: str) -> str:
    """What a kernel of a GPU, or an operation of a CPU, is there for, told by its name: one of KINDS."""
    lower = kernel.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in lower for part in parts)), "else")


def _doubled(ends: np.ndarray) -> np.ndarray:
    n = ends.shape[1]
    whole, rest = np.divmod(np.arange(2 * n) * (n - 1), 2 * n - 1)  # corners on corners
    return np.minimum(ends[:, whole], ends[:, np.minimum(whole + (rest > 0), n - 1)])
