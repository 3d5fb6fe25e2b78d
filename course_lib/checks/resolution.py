"""Lesson 03: down and up again, by hand along one row and in a net."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from course_lib.checks import nets
from course_lib.checks.machinery import as_check, ask, is_same, told
from course_lib.grid import VGGBlock
from course_lib.measure import parameters


@as_check
def check_upsample_row(fn: Callable[[Tensor], Tensor]) -> None:
    """`fn(row) -> Tensor`: n >= 2 values to 2n, linear between neighbours, the outermost values kept."""
    for values in ([2.0, 8.0], [1.0, 7.0, 3.0], [5.0, -4.0, 0.5, 9.0, 2.0], [0, 1, 5]):
        row = torch.tensor(values)
        answer, n = _upsampled(fn, row), len(row)
        right = np.interp(np.linspace(0, n - 1, 2 * n), range(n), row)
        told(answer, right, _mistaken_rows(row), _difference(row, answer, right), tol=1e-4)


def _upsampled(fn: Callable[[Tensor], Tensor], row: Tensor) -> Tensor:
    n = len(row)
    try:
        answer = ask(fn, row, changed="the row that came in was changed: write into a new tensor")
    except IndexError:
        raise AssertionError("a value behind the end is read: position n - 1 has no neighbour to its right") from None
    assert answer.ndim == 1, f"one row is wanted, this has shape {tuple(answer.shape)}: use one dimension"
    assert len(answer) != 2 * n - 1, f"{n} values became {2 * n - 1}: values midway between neighbours are one too few"
    assert len(answer) == 2 * n, f"{n} values make {2 * n}, not {len(answer)}: n is the length of the row"
    assert not answer.isnan().any(), "there is a nan in the answer: is something divided by zero?"
    return answer.detach()


def _difference(row: Tensor, answer: Tensor, right: np.ndarray) -> str:
    """What is said of a row that is wrong, where no mistake is known."""
    first = (0, "first output reads position 0", "no step comes before it")
    last = (-1, "last output reads position n - 1", "how large is the step from one output to the next?")
    for k, where, hint in (first, last):
        if not is_same(answer[k], row[k], tol=1e-4):
            return f"the {where}, so it is {row[k]:g} for {row.tolist()}, not {answer[k]:.3g}: {hint}"
    k = int(np.abs(answer.numpy() - right).argmax())
    mean = "it is a mean of the two neighbours of its position, the nearer one weighing more"
    return f"the ends are right, but output {k} of {row.tolist()} is {answer[k]:.4g}, not {right[k]:.4g}: {mean}"


def _mistaken_rows(row: Tensor) -> dict[str, np.ndarray]:
    n, at = len(row), partial(np.interp, xp=np.arange(len(row)), fp=row)  # the outermost values go on beyond the ends
    k, right = np.arange(2 * n), np.linspace(0, n - 1, 2 * n)
    left, unaligned, short, beyond = np.floor(right), (2 * k - 1) / 4, k * (n - 1) / (2 * n), k * n / (2 * n - 1)
    return {
        "these are the values of align_corners=False, which reads at (2k - 1)/4: all steps are equal": at(unaligned),
        "every value is only repeated, or positions are rounded: take a mean of two neighbours": at(k // 2),
        "the whole row is repeated behind itself: new values belong between old ones": at(k % n),
        "every second value is 0: fill the gaps from both neighbours": at(k // 2) * (k % 2 == 0),
        "the fraction of the position is cut off: between two neighbours lies a mean of both": at(left),
        "the two weights are swapped: the nearer neighbour weighs more": at(2 * left + 1 - right),
        "the last value is not reached: 2n outputs have 2n - 1 steps between them, not 2n": at(short),
        "the positions go beyond the last value: n values have n - 1 steps between them, not n": at(beyond),
        "the position grows by one half, which reaches the end too early: the steps are (n - 1)/(2n - 1)": at(k / 2),
        "the row runs backwards: output 0 reads position 0": at(right[::-1]),
        "a row of integers loses what lies between them: its type must not be that of the answer": np.trunc(at(right)),
    }


@as_check
def check_encoder_decoder(cls: Callable[[int, int, tuple[int, ...]], nn.Module]) -> None:
    """`cls(in_channels, classes, widths)`: halvings, doublings, no skips, logits at the size of the input."""
    image, net = torch.randn(2, 2, 16, 24), cls(2, 3, (4, 6, 10))
    nets.assert_no_plain_lists(net)
    sizes, logits = nets.sizes_and_logits(net, image)
    shape, wanted = tuple(logits.shape), (2, 3, 16, 24)
    assert shape[1:2] != (4,), "4 channels come out, those of row 0, not 3 classes: the 1x1 head is missing"
    assert shape[:2] == (2, 3), f"2 images and 3 classes give logits {wanted}, not {shape}"
    assert shape == wanted, f"logits {wanted} are wanted, these are {shape}: as many doublings as halvings are needed"
    nets.assert_plain_logits(net, sizes, logits)
    _assert_other_depths(cls)
    _assert_layers(net, classes=3)
    _assert_no_way_around(net, image, min(sizes))
    nets.assert_every_channel_is_used(net, image)
    reference = _EncoderDecoder(2, 3, (4, 6, 10))
    ours, theirs = parameters(net), parameters(reference)
    parts = "a VGGBlock to each width on the way down, one to each on the way up again and a 1x1 head"
    assert ours == theirs, f"{ours} parameters, but {parts} make {theirs}: is a block missing, or one too many?"
    down = "the shapes and the weights are right, the values are not: each row down is max pooling, then a block"
    up = "each row up is bilinear doubling with align_corners=True, then a block; last the head, and nothing else"
    nets.assert_same_function(net, reference, image, _MISTAKEN_NETS, f"{down}; {up}")


def _assert_other_depths(cls: Callable[[int, int, tuple[int, ...]], nn.Module]) -> None:
    """Three halvings, one, and none: nothing may be written out for three widths."""
    four = "with four widths the image is halved 3 times: loop over the blocks, do not write them out for three"
    two = "with two widths the image is halved once: loop over the blocks, do not write them out for three"
    one = "with one width nothing is halved or doubled: one block and the head remain, at full size"
    for widths, smallest, hint in (((4, 5, 6, 7), (2, 3), four), ((4, 5), (8, 12), two), ((4,), (16, 24), one)):
        try:
            sizes, logits = nets.sizes_and_logits(cls(3, 1, widths), torch.randn(2, 3, 16, 24))
        except Exception as problem:
            raise AssertionError(f"{hint} (it stops with {type(problem).__name__}: {problem})") from problem
        assert (min(sizes), max(sizes), logits.shape) == (smallest, (16, 24), (2, 1, 16, 24)), hint


def _assert_layers(net: nn.Module, *, classes: int) -> None:
    for name, layer in net.named_modules():
        assert not isinstance(layer, nn.ConvTranspose2d), f"{name} is a transposed convolution: use bilinear doubling"
        if isinstance(layer, nn.Conv2d):
            stride, kernel, is_head = layer.stride[0], layer.kernel_size[0], layer.out_channels == classes
            assert stride == 1, f"{name} is a convolution of stride {stride}: halve by max pooling"
            assert not is_head or kernel == 1, f"{name}, the head, is a {kernel}x{kernel} convolution: use 1x1"


def _assert_no_way_around(net: nn.Module, image: Tensor, smallest: tuple[int, int]) -> None:
    """With the lowest level silenced, nothing of the image may reach the logits."""

    def silence(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return 0 * output if isinstance(layer, nn.Conv2d) and output.shape[2:] == smallest else output

    with torch.no_grad(), register_module_forward_hook(silence):
        one, other = net.eval()(torch.cat([image, image.flip(3)])).chunk(2)
    net.train()
    around = "with the lowest level silenced the logits still depend on the image: a skip connection goes around it"
    assert is_same(one, other, tol=1e-4), f"{around}, and here the decoder reads nothing but the up-sampled map"


_double = partial(nn.Upsample, scale_factor=2)
_bilinear = _double(mode="bilinear", align_corners=True)
_MISTAKEN_NETS = {  # what such a net has in place of the reference's own
    "the mean of four pixels is taken where the maximum is asked for": {"pool": nn.AvgPool2d(2)},
    "one pixel of four is picked where the maximum is asked for": {"pool": nn.MaxPool2d(1, stride=2)},
    "pixels are repeated where bilinear interpolation is asked for: nearest is the default": {"enlarge": _double()},
    "the interpolation is bilinear but without align_corners=True": {"enlarge": _double(mode="bilinear")},
    "the interpolation is bicubic, not bilinear": {"enlarge": _double(mode="bicubic", align_corners=True)},
    "the decoder's block works before the doubling: double first": {"enlarge": nn.Identity(), "last": _bilinear},
}


class _EncoderDecoder(nn.Module):
    """The reference: right blocks, and between them steps that a mistake replaces."""

    def __init__(self, in_channels: int, classes: int, widths: tuple[int, ...]):
        super().__init__()
        self.down = nn.ModuleList(VGGBlock(a, b) for a, b in pairwise((in_channels, *widths)))
        self.up = nn.ModuleList(VGGBlock(a, b) for a, b in pairwise(widths[::-1]))
        self.head = nn.Conv2d(widths[0], classes, 1)
        self.pool, self.enlarge, self.last = nn.MaxPool2d(2), _bilinear, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.down[0](x)
        for block in self.down[1:]:
            x = block(self.pool(x))
        for block in self.up:
            x = self.last(block(self.enlarge(x)))
        return self.head(x)
