"""One grid of nodes x^{i,j}, i poolings down and j steps right. Its wiring makes four networks::

    x^{i,0} = H(D(x^{i-1,0}))                                       the encoder, x^{0,0} = H(image)
    x^{i,j} = H([ x^{i,k} for k in SKIPS(j),  U(x^{i+1,j-1}) ])     every other node

H is two convolutions, D halves, U doubles, [ ] concatenates channels (Zhou et al., UNet++, 2020; the paper of
2018 leaves D unwritten).
"""

from collections.abc import Callable, Sequence
from operator import index
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.errors import UserError

WIDTHS = (32, 64, 128, 256, 512)  # channels of rows 0 to 4 in the paper
# The columns k of its own row i that node x^{i,j}, j > 0, reads beside U(x^{i+1,j-1}).
SKIPS: dict[str, Callable[[int], Sequence[int]]] = {
    "unet": lambda j: [0],  # long skips, into the deepest decoder alone
    "unet-e": lambda j: [0],  # long skips, into decoders of every depth on one encoder
    "unet+": lambda j: [j - 1],  # short skips
    "unet++": lambda j: range(j),  # dense skips
}


def sizes(*numbers: int) -> list[int]:
    """Numbers of channels as plain ints, also of numpy. Raises UserError (a ValueError) unless all are 1 to 2**20."""
    whole = [index(number) if hasattr(number, "__index__") else 0 for number in numbers]
    if all(0 < number <= 2**20 for number in whole):
        return whole
    raise UserError(f"numbers of channels are {str(numbers)[:80]}: give positive whole numbers up to {2**20}")


class VGGBlock(nn.Module):
    """H, what one node computes: (3x3 convolution, batch norm, ReLU) twice.

    (N, c_in, h, w) -> (N, c_out, h, w), the size kept by one pixel of zero padding.
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out)
        self.conv2, self.bn2 = nn.Conv2d(c_out, c_out, 3, padding=1), nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))


class NestedUNet(nn.Module):
    """U-Net, U-Net^e, UNet+ or UNet++, of any depth >= 1.

    Args:
        in_channels: channels of the image.
        classes: channels of each head's logits.
        widths: channels of a node in row 0, 1, ...; one more than the depth.
        wiring: "unet", "unet-e", "unet+" or "unet++", a key of `SKIPS`.
        deep_supervision: one head on each x^{0,j}, j = 1..depth, instead of one on x^{0,depth}.

    Attributes:
        block: H, made from (c_in, c_out); a subclass may name another class.
        nodes: the (i, j) in the order in which they are computed.
        skips: column j -> the columns k whose nodes x^{i,k} enter x^{i,j}.
        heads: name of a head -> the column j whose node x^{0,j} it reads.
        config: the arguments, enough to build the same net again.
        inputs: how images are prepared for it, a key of `predict.PREPARATIONS`; a net from elsewhere may differ.

    Names and order of the weights are those of the widely used PyTorch code, so its checkpoints load.
    Raises UserError (a ValueError): unknown wiring, fewer than two widths, widths that are no `sizes`, or deep
    supervision on the plain U-Net.
    """

    block: type[nn.Module] = VGGBlock
    inputs: str = "standardised"

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        widths: Sequence[int] = WIDTHS,
        wiring: str = "unet++",
        deep_supervision: bool = False,
    ):
        super().__init__()
        if wiring not in SKIPS:
            raise UserError(f"wiring {wiring!r} is unknown: choose one of {', '.join(SKIPS)}")
        in_channels, classes, *widths = sizes(in_channels, classes, *widths)
        if len(widths) < 2:
            raise UserError(f"widths {tuple(widths)} make no grid: give two or more positive numbers")
        if not isinstance(deep_supervision, bool):
            raise UserError(f"deep_supervision is {deep_supervision!r}: give True or False")
        if wiring == "unet" and deep_supervision:
            raise UserError("wiring 'unet' has no decoder but the deepest to supervise: choose 'unet-e'")
        self.config = {
            "in_channels": in_channels,
            "classes": classes,
            "widths": tuple(widths),
            "wiring": wiring,
            "deep_supervision": deep_supervision,
        }
        self.depth = depth = len(widths) - 1
        self.skips = {j: list(SKIPS[wiring](j)) for j in range(1, depth + 1)}
        grid = [(i, j) for j in range(depth + 1) for i in range(depth + 1 - j)]
        self.nodes = [(i, j) for i, j in grid if wiring != "unet" or j == 0 or i + j == depth]

        for i, j in self.nodes:
            if j > 0:
                c_in = len(self.skips[j]) * widths[i] + widths[i + 1]
            else:
                c_in = widths[i - 1] if i > 0 else in_channels
            self.add_module(f"conv{i}_{j}", self.block(c_in, widths[i]))
        levels = range(1, depth + 1)
        self.heads = {f"final{j}": j for j in levels} if deep_supervision else {"final": depth}
        for name in self.heads:
            self.add_module(name, nn.Conv2d(widths[0], classes, kernel_size=1))
        self.D = nn.MaxPool2d(2)
        self.U = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)

    def node(self, i: int, j: int) -> nn.Module:
        """The block that computes x^{i,j}."""
        return self.get_submodule(f"conv{i}_{j}")

    def join(self, i: int, j: int, skips: list[Tensor], up: Tensor) -> Tensor:
        """What node x^{i,j}, j > 0, reads: `skips`, the x^{i,k} in the order of k, and `up`, U(x^{i+1,j-1}).

        All are (N, channels, h, w) of one size, and the result has the channels of all; a subclass may override it.
        """
        return torch.cat([*skips, up], dim=1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (N, in_channels, H, W) -> logits (N, classes, H, W), deepest last. Raises UserError: `check_shape`."""
        self.check_shape(image.shape)
        x: dict[tuple[int, int], Tensor] = {}
        for i, j in self.nodes:
            if j > 0:
                inputs = self.join(i, j, [x[i, k] for k in self.skips[j]], self.U(x[i + 1, j - 1]))
            else:
                inputs = self.D(x[i - 1, 0]) if i > 0 else image
            x[i, j] = self.node(i, j)(inputs)
        return [self.get_submodule(name)(x[0, j]) for name, j in self.heads.items()]

    def prune(self, level: int) -> Self:
        """The grid of depth `level` with this net's weights: nodes with i + j <= level, heads 1..level.

        Nothing that is cut feeds a head that stays, so those heads give the same logits bit for bit.
        The weights are copied; mode and device are kept.
        Raises UserError (a ValueError): without deep supervision (no shallower head was trained), or no such level.
        """
        if not self.config["deep_supervision"]:
            raise UserError("prune needs deep supervision: without it no head was trained at a lower level")
        if level not in range(1, self.depth + 1):
            raise UserError(f"level {level} does not exist: choose 1 to {self.depth}")
        with torch.device("meta"):  # no weights are drawn, so the caller's random state stays as it was
            pruned = type(self)(**{**self.config, "widths": self.config["widths"][: level + 1]})
        weights = self.state_dict()
        pruned.load_state_dict({name: weights[name].clone() for name in pruned.state_dict()}, assign=True)
        pruned.inputs = self.inputs
        return pruned.train(self.training)

    def check_shape(self, shape: Sequence[int]) -> None:
        """Whether images of shape (N, channels, H, W) fit.
        Raises UserError (a ValueError): another number of channels, or H or W not divisible by 2**depth.
        """
        if len(shape) != 4:
            raise UserError(f"the images have shape {tuple(shape)}: give (N, channels, height, width)")
        _, channels, height, width = shape
        if channels != self.config["in_channels"]:
            wanted = self.config["in_channels"]
            raise UserError(f"the image has {channels} channels and this net takes {wanted}: convert it first")
        if height % 2**self.depth or width % 2**self.depth:
            raise UserError(
                f"{height}x{width} cannot be halved {self.depth} times: resize or pad it to multiples of "
                f"{2**self.depth}, or call course_lib.predict.predict, which pads by itself"
            )
