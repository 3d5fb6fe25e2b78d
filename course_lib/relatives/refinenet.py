"""RefineNet: coarse maps are refined row by row, with sums where U-Net concatenates."""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.relatives.base import Encoder, Relative


def conv3x3(c_in: int, c_out: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1)


class ResidualUnit(nn.Module):
    """RCU, without batch norm: x + conv(relu(conv(relu(x)))). (N, c, h, w) -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2 = conv3x3(channels, channels), conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fusion(nn.Module):
    """Two scales become one by a sum: conv(x) + U(conv(y)), both convolutions to the width of x.

    x (N, c, h, w) and y (N, c_below, h/2, w/2) -> (N, c, h, w).
    """

    def __init__(self, channels: int, c_below: int):
        super().__init__()
        self.conv_x, self.conv_y = conv3x3(channels, channels), conv3x3(c_below, channels)
        self.U = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conv_x(x) + self.U(self.conv_y(y))


class Pooling(nn.Module):
    """Chained residual pooling: p_0 = relu(x), p_n = conv(pool(p_{n-1})), out = p_0 + p_1 + p_2.

    Pooling is the maximum of 5x5 at stride 1: a pixel learns what lies around it. (N, c, h, w) -> the same.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.convs = nn.ModuleList(conv3x3(channels, channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        out = p = F.relu(x)
        for conv in self.convs:
            p = conv(self.pool(p))
            out = out + p
        return out


class RefineNet(Relative):
    """RefineNet (Lin et al., CVPR 2017) on the encoder of the grid, x^{i,0}, N = depth >= 2::

        y_N = RCU(CRP(RCU²(x^{N,0})))
        y_i = RCU(CRP(RCU²(x^{i,0}) fused with RCU²(y_{i+1})))     i < N

    RCU is `ResidualUnit`, RCU² two of them, CRP `Pooling`; row i has widths[i] channels throughout. The encoder is
    not a ResNet here, and the cascade goes up to the image's own size: the same block and the same rows as in UNet++.
    One 1x1 head, on y_0.

    Args:
        in_channels, classes, widths: as of `NestedUNet`, but three or more widths: a cascade has several steps.
    """

    fewest_widths = 3

    def __init__(self, in_channels: int = 3, classes: int = 1, widths: Sequence[int] = (32, 64, 128, 256, 512)):
        super().__init__(in_channels=in_channels, classes=classes, widths=widths)
        self.encoder = Encoder(in_channels, widths)
        self.adapt_x = nn.ModuleList(nn.Sequential(ResidualUnit(c), ResidualUnit(c)) for c in widths)
        self.adapt_y = nn.ModuleList(nn.Sequential(ResidualUnit(c), ResidualUnit(c)) for c in widths[1:])
        self.fuse = nn.ModuleList(Fusion(c, c_below) for c, c_below in pairwise(widths))
        self.refine = nn.ModuleList(nn.Sequential(Pooling(c), ResidualUnit(c)) for c in widths)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (N, in_channels, H, W) -> a list that holds the logits (N, classes, H, W).

        Raises:
            UserError (a ValueError): another number of channels, or H or W not divisible by 2**depth.
        """
        self.check_shape(image.shape)
        x = self.encoder(image)
        y = self.refine[-1](self.adapt_x[-1](x[-1]))
        for i in reversed(range(self.depth)):
            y = self.refine[i](self.fuse[i](self.adapt_x[i](x[i]), self.adapt_y[i](y)))
        return [self.head(y)]
