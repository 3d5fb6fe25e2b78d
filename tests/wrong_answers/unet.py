from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from course_lib.checks import check_unet
from course_lib.grid import VGGBlock

CHECK, LESSON, EXERCISE = check_unet, "04_unet", "UNet"


class Base(nn.Module):
    """A U-Net in pieces, so that each wrong answer changes one."""

    block = VGGBlock

    def __init__(self, in_channels, classes, widths):
        super().__init__()
        self.down = nn.ModuleList(self.block(a, b) for a, b in pairwise((in_channels, *widths)))
        self.up = nn.ModuleList(self.block(self.joined(a, b), b) for a, b in pairwise(widths[::-1]))
        self.head = nn.Conv2d(widths[0], classes, 1)

    def joined(self, below, own):
        return below + own

    def forward(self, x):
        skips = []
        for i, block in enumerate(self.down):
            x = block(self.pool(x, i))
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(self.join(self.carry(skip), self.enlarge(x)))
        return self.head(x)

    def pool(self, x, i):
        return F.max_pool2d(x, 2) if i > 0 else x

    def carry(self, skip):
        return skip

    def enlarge(self, x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

    def join(self, skip, up):
        return torch.cat([skip, up], dim=1)


class SkipsCarryZeros(Base):
    def carry(self, skip):
        return torch.zeros_like(skip)


class DetachedSkips(Base):
    def carry(self, skip):
        return skip.detach()


class SkipsWithoutGradient(Base):
    def carry(self, skip):
        with torch.no_grad():
            return skip * 1


class AddsInsteadOfConcatenating(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        self.fit = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(widths[::-1]))
        self.up = nn.ModuleList(VGGBlock(b, b) for _, b in pairwise(widths[::-1]))

    def forward(self, x):
        skips = []
        for i, block in enumerate(self.down):
            x = block(self.pool(x, i))
            skips.append(x)
        for block, fit, skip in zip(self.up, self.fit, skips[-2::-1], strict=True):
            x = block(skip + fit(self.enlarge(x)))
        return self.head(x)


class Probabilities(Base):
    def forward(self, x):
        return super().forward(x).sigmoid()


class PoolsTheImageFirst(Base):
    def pool(self, x, i):
        return F.max_pool2d(x, 2)


class OneLevelShort(Base):
    """range(1, len(widths) - 1): the lowest encoder block is never pooled into."""

    def pool(self, x, i):
        return F.max_pool2d(x, 2) if 0 < i < len(self.down) - 1 else x

    def enlarge(self, x):
        return super().enlarge(x) if x.shape[1] != self.down[-1].conv1.out_channels else x


class NoSkips(Base):
    def joined(self, below, own):
        return below

    def join(self, skip, up):
        return up


class ListOfLogits(Base):
    def forward(self, x):
        return [super().forward(x)]


class UpSampledBeforeSkip(Base):
    def join(self, skip, up):
        return torch.cat([up, skip], dim=1)


class NearestUpSampling(Base):
    def enlarge(self, x):
        return F.interpolate(x, scale_factor=2)


class AveragePooling(Base):
    def pool(self, x, i):
        return F.avg_pool2d(x, 2) if i > 0 else x


class BlockWithoutInnerReLU(VGGBlock):
    def forward(self, x):
        return F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))


class ForgottenReLU(Base):
    block = BlockWithoutInnerReLU


class AlwaysZero(Base):
    def forward(self, x):
        return 0 * super().forward(x)


class BlocksInAPlainList(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        blocks, self._modules["down"] = list(self.down), nn.ModuleList()
        del self._modules["down"]
        self.down = blocks


class SkipsInWrongOrder(Base):
    def forward(self, x):
        skips = []
        for i, block in enumerate(self.down):
            x = block(self.pool(x, i))
            skips.append(x)
        for block, skip in zip(self.up, skips[:-1], strict=True):
            x = block(self.join(skip, self.enlarge(x)))
        return self.head(x)


class ReLUBehindTheHead(Base):
    def forward(self, x):
        return super().forward(x).relu()


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
    def __init__(self, in_channels, classes, widths):
        nn.Module.__init__(self)
        self.head = nn.Conv2d(widths[0], classes, 1)
        self.down = nn.ModuleList(VGGBlock(a, b) for a, b in pairwise((in_channels, *widths)))
        self.up = nn.ModuleList(VGGBlock(a + b, b) for a, b in pairwise(widths[::-1]))


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
