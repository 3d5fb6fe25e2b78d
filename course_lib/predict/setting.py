"""How a net is computed: device, number format, memory layout. It changes the time, and only the rounding."""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils.fusion import fuse_conv_bn_eval

from course_lib.errors import UserError
from course_lib.grid import VGGBlock
from course_lib.predict.recorded import PerShape

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setting:
    """One way to compute. The defaults are the plainest.

    Attributes:
        device: "auto" is "cuda" where there is one, else "cpu".
        precision: of the convolutions: "fp32", "bf16" or "fp16". Weights, norms and losses stay fp32.
        channels_last: store the channels of a pixel side by side (NHWC).
        compile: fuse operations with torch.compile; the first step then takes tens of seconds.
        fold: for inference alone: norms are folded into the convolutions before them (`folded`).
        record: on a GPU, hand all kernels of a step over in one call (`recorded.Recorded`): for small batches.
    """

    device: str = "auto"
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False
    fold: bool = False
    record: bool = False

    def __post_init__(self):
        if self.precision not in FORMATS:
            raise UserError(f"precision {self.precision!r} is unknown: choose one of {', '.join(FORMATS)}")
        if self.record and torch_device(self.device).type != "cuda":
            raise UserError(f"record needs an NVIDIA GPU, and device {self.device!r} is none here: leave record out")

    @classmethod
    def fast(cls, device: str = "auto") -> "Setting":
        """The fastest measured on a CPU without torch.compile. On a GPU a step of few small images waits for Python."""
        if torch_device(device).type == "cuda":
            precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        else:
            precision = "bf16" if cpu_has_bf16() else "fp32"
        return cls(device, precision, channels_last=True, fold=True)

    def place(self, net: nn.Module) -> nn.Module:
        """Move `net` itself to the device and into the memory layout, and return it."""
        net = net.to(torch_device(self.device))
        return net.to(memory_format=torch.channels_last) if self.channels_last else net

    def compiled(self, net: nn.Module) -> nn.Module:
        """The net, with its operations fused where `compile` asks for it."""
        return torch.compile(net) if self.compile else net

    def for_inference(self, net: nn.Module) -> Callable[[Tensor], list[Tensor]]:
        """The net in evaluation mode, placed, compiled and recorded where asked for: a copy where `fold` is on."""
        model = folded(net) if self.fold else net.eval()
        for conv in [module for module in model.modules() if isinstance(module, nn.Conv2d)] if self.fold else ():
            conv.to(FORMATS[self.precision])  # once: autocast alone would cast its weights in every call
        model = self.compiled(self.place(model))
        return PerShape(model) if self.record else model

    def forward(self, net: Callable[[Tensor], Any], images: Tensor) -> list[Tensor]:
        """Images (N, C, H, W), floats on the device -> the logits of each head, a list also where it is one."""
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(torch_device(self.device).type, FORMATS[self.precision], enabled=self.precision != "fp32"):
            outputs = net(images)
        return [outputs] if isinstance(outputs, Tensor) else outputs


def torch_device(name: str) -> torch.device:
    """ "auto", "cpu", "cuda" or "cuda:1" as a device. Raises UserError: an unknown name, or CUDA that is not there."""
    cuda = torch.cuda.is_available()
    if name not in ("auto", "cpu", "cuda") and not re.fullmatch(r"cuda:\d+", name):
        raise UserError(f"device {name!r} is unknown: use auto, cpu or cuda")
    if name.startswith("cuda") and not cuda:
        raise UserError(f"device {name!r} is not on this machine: use 'cpu', or attach a GPU and start again")
    device = torch.device(("cuda" if cuda else "cpu") if name == "auto" else name)
    if (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise UserError(f"device {name!r} is not on this machine: it has {torch.cuda.device_count()} GPU(s)")
    return device


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (False where torch cannot tell)."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch >= 2.10
    return any(capabilities.get(unit, False) for unit in ("avx512_bf16", "amx_bf16", "bf16"))


def unwrapped(net: nn.Module) -> nn.Module:
    """The net inside of what torch.compile, DataParallel or DistributedDataParallel make of it."""
    while isinstance(net, DataParallel | DistributedDataParallel) or hasattr(net, "_orig_mod"):
        net = net._orig_mod if hasattr(net, "_orig_mod") else net.module
    return net


def folded(net: nn.Module) -> nn.Module:
    """A copy of the net, in evaluation mode, whose norms are gone: same logits up to rounding, and faster.

    In evaluation batch norm is a fixed scale and shift of each channel, γ (x - μ) / √(σ² + ε) + β. The convolution
    before it carries it in w' = w γ / √(σ² + ε) and b' = (b - μ) γ / √(σ² + ε) + β. Every `VGGBlock` is folded,
    whatever the net around it. The copy cannot be trained on as before, nor pruned: prune first.
    """
    small = copy.deepcopy(net).eval()
    for block in [module for module in small.modules() if isinstance(module, VGGBlock)]:
        block.conv1, block.bn1 = fuse_conv_bn_eval(block.conv1, block.bn1), nn.Identity()
        block.conv2, block.bn2 = fuse_conv_bn_eval(block.conv2, block.bn2), nn.Identity()
    return small
