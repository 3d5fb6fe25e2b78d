"""Attention UNet++: a gate on every skip of UNet++."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.grid import NestedUNet


class Gate(nn.Module):
    """What passes of f, pixel by pixel, as the signal g decides::

        α = sigmoid(W_ψ relu(W_g g + W_f f)),   out = α f

    W_g, W_f and W_ψ are 1x1 convolutions, each with batch norm. α has one channel and lies in 0..1. This is the
    additive gate of Attention U-Net (Oktay et al., 2018), with g at the size of f.

    f (N, c_skip, h, w) and g (N, c_signal, h, w) -> (N, c_skip, h, w).
    """

    def __init__(self, c_skip: int, c_signal: int):
        super().__init__()
        c_inner = max(1, c_skip // 2)
        self.W_g = nn.Sequential(nn.Conv2d(c_signal, c_inner, 1), nn.BatchNorm2d(c_inner))
        self.W_f = nn.Sequential(nn.Conv2d(c_skip, c_inner, 1), nn.BatchNorm2d(c_inner))
        self.W_psi = nn.Sequential(nn.Conv2d(c_inner, 1, 1), nn.BatchNorm2d(1))

    def alpha(self, f: Tensor, g: Tensor) -> Tensor:
        """How much passes at each pixel, (N, 1, h, w), 0..1."""
        return torch.sigmoid(self.W_psi(F.relu(self.W_g(g) + self.W_f(f))))

    def forward(self, f: Tensor, g: Tensor) -> Tensor:
        return self.alpha(f, g) * f


class AttentionUNetPlusPlus(NestedUNet):
    """UNet++ whose skips are gated by what comes from below (Li et al., Attention UNet++, ICIP 2020)::

        x^{i,j} = H([ Gate(x^{i,k}, g) for k < j,  g ]),   g = U(x^{i+1,j-1}),   j > 0

    Each skip x^{i,k} -> x^{i,j} has a gate of its own: 20 at depth 4. Args, `nodes`, `skips`, `heads` and `prune` as
    of `NestedUNet` with wiring "unet++".
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
            for k in self.skips.get(j, []):
                self.add_module(f"gate{i}_{k}_{j}", Gate(widths[i], widths[i + 1]))

    def gate(self, i: int, k: int, j: int) -> Gate:
        """The gate on the skip x^{i,k} -> x^{i,j}."""
        return self.get_submodule(f"gate{i}_{k}_{j}")

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (N, in_channels, H, W) -> a list of logits (N, classes, H, W), shallowest head first.

        Raises:
            UserError (a ValueError): another number of channels, or H or W not divisible by 2**depth.
        """
        self.check_shape(image.shape)
        x: dict[tuple[int, int], Tensor] = {}
        for i, j in self.nodes:
            if j > 0:
                g = self.U(x[i + 1, j - 1])
                inputs = torch.cat([self.gate(i, k, j)(x[i, k], g) for k in self.skips[j]] + [g], dim=1)
            else:
                inputs = self.D(x[i - 1, 0]) if i > 0 else image
            x[i, j] = self.node(i, j)(inputs)
        return [self.get_submodule(name)(x[0, j]) for name, j in self.heads.items()]
