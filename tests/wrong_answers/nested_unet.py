import torch
import torch.nn.functional as F
from torch import nn

from course_lib.checks import check_nested_unet
from course_lib.grid import VGGBlock
from tests.wrong_answers.encoder_decoder import BlockWithoutInnerReLU

CHECK, LESSON, EXERCISE = check_nested_unet, "06_nested_skips", "UNetPlusPlus"


class Base(nn.Module):
    """A UNet++ in pieces, so that each wrong answer changes one."""

    block = VGGBlock

    def __init__(self, in_channels, classes, widths):
        super().__init__()
        self.in_channels, self.classes, self.widths, self.depth = in_channels, classes, widths, len(widths) - 1
        self.blocks = nn.ModuleDict({f"{i},{j}": self.block(self.c_in(i, j), widths[i]) for i, j in self.grid()})
        self.heads = nn.ModuleList(nn.Conv2d(widths[0], classes, 1) for _ in self.columns())

    def grid(self):
        return [(i, j) for j in range(self.depth + 1) for i in range(self.depth + 1 - j)]

    def columns(self):
        return range(1, self.depth + 1)

    def skips(self, j):
        return range(j)

    def c_in(self, i, j):
        if j == 0:
            return self.widths[i - 1] if i > 0 else self.in_channels
        return len(self.skips(j)) * self.widths[i] + self.widths[i + 1]

    def forward(self, image):
        x = {}
        for i, j in self.grid():
            if j == 0:
                inputs = self.pool(x[i - 1, 0]) if i > 0 else image
            else:
                inputs = self.join([self.carry(x[i, k]) for k in self.skips(j)], self.enlarge(x[i + 1, j - 1]))
            x[i, j] = self.blocks[f"{i},{j}"](inputs)
        return self.answer(x)

    def pool(self, x):
        return F.max_pool2d(x, 2)

    def enlarge(self, x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

    def carry(self, x):
        return x

    def join(self, skips, up):
        return torch.cat([*skips, up], dim=1)

    def answer(self, x):
        return [head(x[0, j]) for head, j in zip(self.heads, self.columns(), strict=True)]


def changed(name, **pieces):
    return type(name, (Base,), pieces)


OneTensor = changed("OneTensor", answer=lambda net, x: Base.answer(net, x)[-1])
LastHeadOnly = changed("LastHeadOnly", answer=lambda net, x: Base.answer(net, x)[-1:])
DeepestFirst = changed("DeepestFirst", answer=lambda net, x: Base.answer(net, x)[::-1])
Probabilities = changed("Probabilities", answer=lambda net, x: [y.sigmoid() for y in Base.answer(net, x)])
ReLUBehindTheHeads = changed("ReLUBehindTheHeads", answer=lambda net, x: [y.relu() for y in Base.answer(net, x)])
# A published library has this one: the first head reads x^{0,0}, which has seen no pooling.
HeadsFromColumnZero = changed("HeadsFromColumnZero", columns=lambda net: range(net.depth))

ShortSkips = changed("ShortSkips", skips=lambda net, j: [j - 1])
LongSkips = changed("LongSkips", skips=lambda net, j: [0])
NearestFirst = changed("NearestFirst", skips=lambda net, j: range(j - 1, -1, -1))
UpSampledFirst = changed("UpSampledFirst", join=lambda net, skips, up: torch.cat([up, *skips], dim=1))
DetachedSkips = changed("DetachedSkips", carry=lambda net, x: x.detach())
SkipsCarryZeros = changed("SkipsCarryZeros", carry=lambda net, x: torch.zeros_like(x))

NearestUpSampling = changed("NearestUpSampling", enlarge=lambda net, x: F.interpolate(x, scale_factor=2))
CornersNotAligned = changed(
    "CornersNotAligned", enlarge=lambda net, x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
)
AveragePooling = changed("AveragePooling", pool=lambda net, x: F.avg_pool2d(x, 2))
PoolsTheImageFirst = changed("PoolsTheImageFirst", forward=lambda net, image: Base.forward(net, net.pool(image)))
ForgottenReLU = changed("ForgottenReLU", block=BlockWithoutInnerReLU)

WrittenOutForTwo = changed("WrittenOutForTwo", grid=lambda net: [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2)])
RowAfterRow = changed("RowAfterRow", grid=lambda net: sorted(Base.grid(net)))


class HeadsOnTheDecoderOfUNet(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        self.heads = nn.ModuleList(nn.Conv2d(widths[self.depth - j], classes, 1) for j in self.columns())

    def answer(self, x):
        return [head(x[self.depth - j, j]) for head, j in zip(self.heads, self.columns(), strict=True)]


class Added(Base):
    def c_in(self, i, j):
        return super().c_in(i, j) if j == 0 else self.widths[i] + self.widths[i + 1]

    def join(self, skips, up):
        return torch.cat([sum(skips), up], dim=1)


class OneHeadForAll(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        self.heads = nn.ModuleList([nn.Conv2d(widths[0], classes, 1)] * self.depth)


class PlainDict(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        blocks = dict(self.blocks.items())
        del self.blocks
        self.blocks = blocks


class PlainUNet(Base):
    """Only the nodes of one U-Net: nothing for the other heads to read."""

    def grid(self):
        return [(i, j) for i, j in super().grid() if j == 0 or i + j == self.depth]


class UNetWithItsHeadTwice(PlainUNet):
    def skips(self, j):
        return [0]

    def answer(self, x):
        return [head(x[0, self.depth]) for head in self.heads]


class AveragedHeads(Base):
    def answer(self, x):
        outputs = super().answer(x)
        return [sum(outputs) / len(outputs)] * len(outputs)


class Hole(Base):
    def forward(self, image):
        raise NotImplementedError("your code here")


WRONG = {
    "logits of every head is wanted, this is Tensor": OneTensor,
    "2 heads, .* not 1": LastHeadOnly,
    "the shallowest comes first": DeepestFirst,
    "blocks.2,0.conv1 is built but never used": HeadsFromColumnZero,
    r"head 1 gives \(2, 2, 8, 12\): row 0 is at full size": HeadsOnTheDecoderOfUNet,
    r"no node x.\{0,2\}: its 15 input channels are 2 of its own row, 4 channels each": ShortSkips,
    "15 input channels are 2 of its own row": LongSkips,
    r"x.\{i,j-1\}, up-sampled\]": UpSampledFirst,
    "and the order is": NearestFirst,
    "no node x": Added,
    "misses a path that forward.* uses: is a skip connection detached": DetachedSkips,
    "are always zero: does a skip connection carry zeros": SkipsCarryZeros,
    "the values are not: .* bilinear": NearestUpSampling,
    "bilinear with align_corners=True": CornersNotAligned,
    "pooling is max pooling": AveragePooling,
    "these are probabilities": Probabilities,
    "a ReLU behind the heads": ReLUBehindTheHeads,
    "one head serves every column": OneHeadForAll,
    "self.blocks is a plain dict.*nn.ModuleDict": PlainDict,
    r"head 1 gives \(2, 2, 8, 12\)": PoolsTheImageFirst,
    "with 4 widths it stops .* loop over the grid": WrittenOutForTwo,
    "is read before it is there, or is never made": PlainUNet,
    "go column after column": RowAfterRow,
    "no node x|nodes without a use": UNetWithItsHeadTwice,
    "the shapes are right, the values are not": ForgottenReLU,
    "head j reads x": AveragedHeads,
    "Hole is not written yet": Hole,
}
