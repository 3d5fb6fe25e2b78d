"""How anything here is timed: blocks of one case after calls that warm up, on a GPU between CUDA events."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.grid import NestedUNet, VGGBlock
from course_lib.losses import bce_dice, deep_supervision
from course_lib.measure import convolution_costs
from course_lib.predict.setting import FORMATS

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
LOSS = deep_supervision(bce_dice)
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    side: int = 96
    batch: int = 16
    batches: tuple[int, ...] = (1, 4, 16, 64, 256) if GPU else (2, 4, 8, 16, 32)
    blocks: int = 5  # of each case; the time is their median
    seconds: float = 0.2  # that a block lasts, unless one call takes longer


TINY = Size(widths=(4, 6, 8, 8, 10), side=32, batch=2, batches=(1, 2), blocks=2, seconds=0.002)


def fresh(size: Size, **options: Any) -> NestedUNet:
    """UNet++ on the device, with all heads unless `options` say otherwise."""
    torch.manual_seed(0)
    return NestedUNet(widths=size.widths, **{"deep_supervision": True, **options}).to(DEVICE)


def finish() -> None:
    """Wait until the device has done all it was given."""
    if GPU:
        torch.cuda.synchronize()


def block(run: Callable[[], Any], calls: int) -> float:
    """Milliseconds a call, of so many in a row."""
    finish()
    if not GPU:
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return 1000 * (time.perf_counter() - start) / calls
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    finish()
    return begin.elapsed_time(end) / calls


def row_of(case: str, run: Callable[[], Any], size: Size, **more: Any) -> Row:
    """The median of the blocks' milliseconds a call, the least and the most of them."""
    once = min(block(run, 1) for _ in range(10 if GPU else 2))  # these warm up
    calls = max(1, min(200, round(1000 * size.seconds / once)))
    ms = [block(run, calls) for _ in range(size.blocks)]
    row = {"case": case, "ms": statistics.median(ms), "min": min(ms), "max": max(ms), **more}
    print(f"{case:60} {row['ms']:9.3f} ms", flush=True)
    return row


class Step:
    """A training step: forward, the loss on all heads, backward, AdamW.

    `net` is UNet++ with all heads, or any other. `fused` is the optimiser in one kernel, with its learning rate as a
    tensor, so that the step can be recorded; else PyTorch's own choice, which is all tensors at once on a GPU. Without
    `bias` the convolutions have none, as the norm behind them takes it away again.
    """

    def __init__(
        self,
        size: Size,
        *,
        precision: str = "fp32",
        last: bool = False,
        fused: bool = False,
        bias: bool = True,
        batch: int = 0,
        net: nn.Module | None = None,
    ):
        self.net, self.format = (net or fresh(size)).to(DEVICE).train(), FORMATS[precision]
        for block in () if bias else [module for module in self.net.modules() if isinstance(module, VGGBlock)]:
            block.conv1.bias = block.conv2.bias = None
        layout = torch.channels_last if last else torch.contiguous_format
        self.net.to(memory_format=layout)
        options = {"fused": True, "capturable": GPU} if fused else {}
        rate = torch.tensor(1e-3, device=DEVICE) if fused and GPU else 1e-3
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=rate, eps=1e-5, **options)
        # On GPUs fp16 needs its loss scaled: 2**10, as the course does; the gradients are divided again.
        self.scale = 2.0**10 if precision == "fp16" else 1.0
        images = torch.rand(batch or size.batch, 3, size.side, size.side, generator=torch.Generator().manual_seed(1))
        self.masks = (images[:, :1] > 0.5).float().to(DEVICE)
        self.images = images.to(DEVICE, memory_format=layout)

    def __call__(self, images: Tensor, masks: Tensor) -> Tensor:
        self.optimiser.zero_grad()
        with torch.autocast(DEVICE, self.format, enabled=self.format != torch.float32):
            outputs = self.net(images)
        loss = LOSS([outputs] if isinstance(outputs, Tensor) else outputs, masks)
        (loss * self.scale).backward()
        if self.scale != 1:
            torch._foreach_div_([p.grad for p in self.net.parameters()], self.scale)
        self.optimiser.step()
        return loss.detach()

    def on(self, run: Callable) -> Callable[[], Any]:
        """A call without arguments of `run`, which is this step or its recording."""
        return lambda: run(self.images, self.masks)


def layers(net: nn.Module, count: int, size: Size, *, precision: str, training: bool) -> list[tuple[float, float]]:
    """(FLOP, bytes) of each convolution; in training three times, forward and both gradients."""
    shape = (count, 3, size.side, size.side)
    found = convolution_costs(net, shape, number=FORMATS[precision].itemsize)
    return list(found.values()) * (3 if training else 1)
