"""What the relatives that are no grid share: config, depth, refusals, encoder."""

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from course_lib.errors import UserError
from course_lib.grid import NestedUNet, VGGBlock


class Relative(nn.Module):
    """A network that is no grid. `config` are the arguments of its constructor, `depth` the number of halvings.

    Raises:
        UserError (a ValueError): fewer widths than `fewest_widths`, or one below 1.
    """

    fewest_widths = 2
    check_shape = NestedUNet.check_shape

    def __init__(self, **config: Any):
        super().__init__()
        widths = tuple(config["widths"])
        if len(widths) < self.fewest_widths or min(widths) < 1:
            raise UserError(
                f"widths {widths} make no {type(self).__name__}: give {self.fewest_widths} or more positive numbers"
            )
        self.config = {**config, "widths": widths}
        self.depth = len(widths) - 1


class Encoder(nn.Module):
    """The first column of the grid, x^{0,0} = H(image), x^{i,0} = H(D(x^{i-1,0})): image -> [x^{0,0}, x^{1,0}, ...]."""

    def __init__(self, in_channels: int, widths: tuple[int, ...]):
        super().__init__()
        self.H = nn.ModuleList(VGGBlock(c_in, c_out) for c_in, c_out in pairwise((in_channels, *widths)))
        self.D = nn.MaxPool2d(2)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = [self.H[0](image)]
        for H in self.H[1:]:
            x.append(H(self.D(x[-1])))
        return x
