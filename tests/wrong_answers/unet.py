from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from course_lib.checks import check_unet
from course_lib.grid import VGGBlock
from tests.wrong_answers import encoder_decoder

CHECK, LESSON, EXERCISE = check_unet, "04_unet", "UNet"


class Base(encoder_decoder.Base):
    """A U-Net in pieces, so that each wrong answer changes one."""

    def joined(self, below, own):
        return below + own

    def join(self, skip, up):
        return torch.cat([self.carry(skip), up], dim=1)

    def carry(self, skip):
        return skip


def changed(name, **pieces):
    return type(name, (Base,), pieces)


SkipsCarryZeros = changed("SkipsCarryZeros", carry=lambda net, skip: torch.zeros_like(skip))
DetachedSkips = changed("DetachedSkips", carry=lambda net, skip: skip.detach())
SkipsWithoutGradient = changed("SkipsWithoutGradient", carry=torch.no_grad()(lambda net, skip: skip * 1))
NoSkips = changed("NoSkips", joined=lambda net, below, own: below, join=lambda net, skip, up: up)
SkipsInWrongOrder = changed("SkipsInWrongOrder", decode=lambda net, x, skips: Base.decode(net, x, skips[::-1]))
UpSampledBeforeSkip = changed("UpSampledBeforeSkip", join=lambda net, skip, up: torch.cat([up, skip], dim=1))

NearestUpSampling = changed("NearestUpSampling", enlarge=lambda net, x: F.interpolate(x, scale_factor=2))
AveragePooling = changed("AveragePooling", pool=lambda net, x: F.avg_pool2d(x, 2))
PoolsTheImageFirst = changed("PoolsTheImageFirst", entering=lambda net, i, x: net.pool(x))
ForgottenReLU = changed("ForgottenReLU", block=encoder_decoder.BlockWithoutInnerReLU)

Probabilities = changed("Probabilities", forward=lambda net, x: Base.forward(net, x).sigmoid())
ReLUBehindTheHead = changed("ReLUBehindTheHead", forward=lambda net, x: Base.forward(net, x).relu())
ListOfLogits = changed("ListOfLogits", forward=lambda net, x: [Base.forward(net, x)])
AlwaysZero = changed("AlwaysZero", forward=lambda net, x: 0 * Base.forward(net, x))


class AddsInsteadOfConcatenating(Base):
    def other(self, classes, widths):
        fit = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(widths[::-1]))
        return {"fit": fit, "up": nn.ModuleList(VGGBlock(b, b) for _, b in pairwise(widths[::-1]))}

    def node(self, i, x, skip):
        return self.up[i](skip + self.fit[i](self.enlarge(x)))


class OneLevelShort(Base):
    """range(1, len(widths) - 1): the lowest encoder block is never pooled into."""

    def entering(self, i, x):
        return self.pool(x) if 0 < i < len(self.down) - 1 else x

    def node(self, i, x, skip):
        return self.up[i](self.join(skip, self.enlarge(x) if i > 0 else x))


class BlocksInAPlainList(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        blocks = list(self.down)
        del self.down
        self.down = blocks


class ThreeLevelsWrittenOut(Base):
    def forward(self, x):
        a = self.down[0](x)
        b = self.down[1](F.max_pool2d(a, 2))
        c = self.down[2](F.max_pool2d(b, 2))
        b = self.up[-2](self.join(b, self.enlarge(c))) if c.shape[1] == self.down[-1].conv1.out_channels else b
        return self.head(self.up[-1](self.join(a, self.enlarge(b))))


class KeepsFeatureMaps(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        self.skips = []

    def forward(self, x):
        self.skips.append(x)
        return super().forward(x)


class HeadFirst(Base):
    __init__ = encoder_decoder.HeadFirst.__init__


class Hole(Base):
    def forward(self, x):
        raise NotImplementedError("your code here")


WRONG = {
    r"6 of the 16 channels that enter up.0.conv1 are always zero: .* carry zeros": SkipsCarryZeros,
    "misses a path that forward.* uses: is a skip connection detached": DetachedSkips,
    "is a skip connection detached, or made under no_grad": SkipsWithoutGradient,
    "is a skip missing, or added instead of concatenated": AddsInsteadOfConcatenating,
    "return logits, the loss takes the sigmoid by itself": Probabilities,
    r"logits \(2, 2, 16, 24\), these are \(2, 2, 8, 12\)": PoolsTheImageFirst,
    "smallest feature map of 16x24 is 8x12": OneLevelShort,
    "parameters, but .* is a skip missing": NoSkips,
    "a tensor of logits is wanted, this is list": ListOfLogits,
    r"the order \[skip, up-sampled\]": UpSampledBeforeSkip,
    "bilinear up-sampling with align_corners=True": NearestUpSampling,
    "the values are not: check max pooling": AveragePooling,
    "the shapes are right, the values are not": ForgottenReLU,
    "every logit is 0": AlwaysZero,
    "self.down is a plain list.*nn.ModuleList": BlocksInAPlainList,
    "skips are read from the back": SkipsInWrongOrder,
    "is there a ReLU behind the head": ReLUBehindTheHead,
    "with four widths the image is halved three times": ThreeLevelsWrittenOut,
    "keeps feature maps from one call to the next": KeepsFeatureMaps,
    "blocks stand in another order": HeadFirst,
    "Hole is not written yet": Hole,
}
