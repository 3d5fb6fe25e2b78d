"""One step, recorded: a CUDA graph holds all kernels of a step, and Python hands them over in one call.

At batch 16 a training step of UNet++ is some two thousand small kernels. Eager PyTorch starts each of them from Python,
and a fast GPU waits for the next one most of the time. Recorded, they are started together.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.errors import UserError

BY_HAND = 3  # calls before the recording: cuDNN chooses, the optimiser makes its moments


class Recorded:
    """`step(*inputs)` on a GPU: by hand at first, then recorded once and replayed, the same kernels each time.

    Every call is a real step, also the first ones. Shapes stay those of the first call. Nothing inside may wait for the
    GPU (no `.item()`); what changes between calls must change in place: weights, the optimiser's moments
    (`capturable=True`), the learning rate as a tensor. The answer lies at one place; the next call overwrites it.

    Raises UserError: there is no GPU.
    """

    def __init__(self, step: Callable[..., Any]):
        if not torch.cuda.is_available():
            raise UserError("a step is recorded on an NVIDIA GPU, and there is none: leave the recording out")
        self.step, self.calls, self.graph, self.answer = step, 0, torch.cuda.CUDAGraph(), None
        self.inputs: list[Tensor] = []

    def __call__(self, *inputs: Tensor) -> Any:
        self.calls += 1
        if self.calls <= BY_HAND:
            return self._by_hand(inputs)
        if self.answer is None:
            self.inputs = [value.clone() for value in inputs]
            with torch.cuda.graph(self.graph):  # this notes the kernels and runs none
                self.answer = self.step(*self.inputs)
        for place, value in zip(self.inputs, inputs, strict=True):
            place.copy_(value)
        self.graph.replay()
        return self.answer

    def _by_hand(self, inputs: tuple[Tensor, ...]) -> Any:
        """On another stream than the default one, which cannot be recorded."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            answer = self.step(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        return answer


class PerShape:
    """`step(*inputs)`, recorded once for each shape that comes; the answer lies where the next call of it writes."""

    def __init__(self, step: Callable[..., Any]):
        self.step, self.recorded = step, {}

    def __call__(self, *inputs: Tensor) -> Any:
        key = tuple((value.shape, value.stride(), value.dtype) for value in inputs)
        if key not in self.recorded:
            self.recorded[key] = Recorded(self.step)
        return self.recorded[key](*inputs)
