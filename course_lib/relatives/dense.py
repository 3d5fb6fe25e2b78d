"""UNet++ with blocks of DenseNet: a row of UNet++ joins its nodes as such a block joins its layers."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.grid import NestedUNet


class DenseBlock(nn.Module):
    """H as DenseNet builds it (Huang et al., 2017): every layer reads all that came before it in the block::

        x_1 = H_1(x_0),   x_2 = H_2([x_0, x_1]),   out = T([x_0, x_1, x_2])

    H_l is batch norm, ReLU and a 3x3 convolution to k channels, the growth. T, the transition, is a 1x1 convolution to
    c_out. Two layers, so that a pixel sees as far as through `VGGBlock`, 5x5; k = c_out / 2, so that both together add
    c_out channels to x_0. T has no ReLU before it: in the first node x_0 is the image, and its dark half would be lost.

    (N, c_in, h, w) -> (N, c_out, h, w).
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        k = max(1, c_out // 2)
        self.bn1, self.conv1 = nn.BatchNorm2d(c_in), nn.Conv2d(c_in, k, 3, padding=1)
        self.bn2, self.conv2 = nn.BatchNorm2d(c_in + k), nn.Conv2d(c_in + k, k, 3, padding=1)
        self.transition = nn.Conv2d(c_in + 2 * k, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.conv1(F.relu(self.bn1(x)))], dim=1)  # [x_0, x_1]
        x = torch.cat([x, self.conv2(F.relu(self.bn2(x)))], dim=1)  # [x_0, x_1, x_2]
        return self.transition(x)


class DenseUNetPlusPlus(NestedUNet):
    """UNet++ with `DenseBlock` for H: dense inside each node as well as along each row.

    Args, `nodes`, `skips`, `heads` and `prune` as of `NestedUNet` with wiring "unet++".
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        widths: Sequence[int] = (32, 64, 128, 256, 512),
        deep_supervision: bool = False,
    ):
        super().__init__(in_channels, classes, widths, deep_supervision=deep_supervision)
        del self.config["wiring"]  # always "unet++"
        for i, j in self.nodes:
            c_in = self.node(i, j).conv1.in_channels
            self.add_module(f"conv{i}_{j}", DenseBlock(c_in, widths[i]))
