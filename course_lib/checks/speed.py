"""Lesson 09: reading a clock rightly, and batch norm folded into a convolution."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.checks.machinery import as_check


class Device:
    """A device that works while Python runs ahead, with a clock of its own: what a GPU does to a stopwatch.

    `run` hands over work and returns at once; `finish` waits for it. The first two runs are slow.
    """

    def __init__(self, slow: float = 9.0, once: float = 0.0):
        self.now, self.waiting, self.runs, self.slow, self.once = 0.0, 0.0, 0, slow, once
        self.read: list[float] = []

    def run(self) -> None:
        self.now += 0.001
        self.waiting += self.slow if self.runs < 2 else 1.0 + (self.once if self.runs == 4 else 0.0)
        self.runs += 1

    def finish(self) -> None:
        self.now += self.waiting
        self.waiting = 0.0

    def clock(self) -> float:
        self.read.append(self.now)
        return self.now


@as_check
def check_median_seconds(fn: Callable[..., float]) -> None:
    """`fn(run, finish, clock, repeats, warm_up) -> seconds`: the median of one run, on a device that runs ahead."""
    device = Device()
    found = fn(device.run, device.finish, device.clock, 5, 2)
    assert found is not None, "it returns nothing: return the seconds"
    assert isinstance(found, float | int), "one number is wanted: the median of the seconds"
    assert device.read, "the clock is never read: call clock() before and after a run"
    assert device.runs == 7, (
        f"{device.runs} runs were made: 2 to warm up and 5 that count, each of them one call of run()"
    )
    assert not abs(found - 0.001) < 1e-9, (
        "only the handing over was timed: call finish() before the clock is read the second time, "
        "so that the work is done by then"
    )
    assert found < 4, "the slow first runs are in it: do not count the warm-up"
    spiky = Device(once=50.0)
    middle = fn(spiky.run, spiky.finish, spiky.clock, 5, 2)
    assert middle < 2, "one slow run among five moves the answer: take the median, not the mean"
    left = Device(slow=1.0)
    left.waiting = 100.0  # somebody else's work is still going on
    late = fn(left.run, left.finish, left.clock, 1, 0)
    assert late < 50, "work that was there before is in it: call finish() before the clock is read the first time, too"
    assert abs(found - 1.001) < 1e-6, f"a run takes 1.001 s on this device, and {found:.4g} came out"


@as_check
def check_fold(fn: Callable[[nn.Conv2d, nn.BatchNorm2d], tuple[Tensor, Tensor]]) -> None:
    """`fn(conv, norm) -> (weight, bias)`: one convolution that does what both do in evaluation."""
    conv, norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, eps=0.5)
    norm.running_mean.copy_(torch.tensor([1.0, -2, 0.5, 3]))
    norm.running_var.copy_(torch.tensor([0.25, 4, 1, 2]))
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, -1, 0.5, 1.5]))
        norm.bias.copy_(torch.tensor([0.3, -0.2, 1, 0]))
    state = [value.clone() for module in (conv, norm) for value in module.state_dict().values()]
    answer = fn(conv, norm)
    assert answer is not None, "it returns nothing: return the new weight and the new bias"
    assert isinstance(answer, tuple | list) and len(answer) == 2, "two tensors are wanted: (weight, bias)"
    weight, bias = answer
    after = [value for module in (conv, norm) for value in module.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(state, after, strict=True)), (
        "the layers that were given have changed: make new tensors, do not write into the old ones"
    )
    assert tuple(weight.shape) == (4, 3, 3, 3), (
        f"the weight has shape {tuple(weight.shape)} and stays {(4, 3, 3, 3)}: scale output channels, the first index"
    )
    assert tuple(bias.shape) == (4,), f"the bias has shape {tuple(bias.shape)} and has one value a channel, (4,)"
    old, b, mean, var = conv.weight, conv.bias, norm.running_mean, norm.running_var
    scale = norm.weight / (var + norm.eps).sqrt()

    def is_(found: Tensor, wanted: Tensor) -> bool:
        return bool(torch.allclose(found, wanted, atol=1e-5))

    assert not is_(weight, old), "the weight is as before: each output channel is scaled by its norm"
    assert not is_(weight, old * (norm.weight / var.sqrt())[:, None, None, None]), "eps is missing under the root"
    assert not is_(weight, old * (norm.weight / (var + norm.eps))[:, None, None, None]), (
        "the norm divides by the root of the variance, the standard deviation"
    )
    assert not is_(weight, old / (var + norm.eps).sqrt()[:, None, None, None]), "gamma (norm.weight) is missing"
    assert not is_(weight, old * scale[None, :3, None, None]), (
        "the scale belongs to output channels, the first index of the weight"
    )
    assert is_(weight, old * scale[:, None, None, None]), (
        "the weight is not conv.weight * gamma / sqrt(var + eps), channel by channel"
    )
    assert not is_(bias, b * scale + norm.bias), "the running mean is missing: it is subtracted before the scaling"
    assert not is_(bias, norm.bias - mean * scale), "the convolution's own bias is missing: it passes the norm as well"
    assert not is_(bias, (b - mean) * scale), "beta (norm.bias) is missing: it comes last"
    assert not is_(bias, b - mean * scale + norm.bias), "conv.bias is not scaled: it passes through the norm too"
    assert not is_(bias, (b + mean) * scale + norm.bias), "the running mean is added: the norm subtracts it"
    assert not is_(bias, (b - mean + norm.bias) * scale), "beta is scaled: it is added after the scaling"
    assert is_(bias, (b - mean) * scale + norm.bias), "the bias is not (conv.bias - mean) * scale + beta"
