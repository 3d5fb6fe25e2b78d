from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from course_lib.checks import check_encoder_decoder
from course_lib.grid import VGGBlock

CHECK, LESSON, EXERCISE = check_encoder_decoder, "03_encoder_decoder", "EncoderDecoder"


class Base(nn.Module):
    """An encoder-decoder in pieces, so that each wrong answer changes one."""

    block = VGGBlock

    def __init__(self, in_channels, classes, widths):
        super().__init__()
        self.down = nn.ModuleList(self.block(a, b) for a, b in pairwise((in_channels, *widths)))
        self.up = nn.ModuleList(self.block(a, b) for a, b in pairwise(widths[::-1]))
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x):
        for i, block in enumerate(self.down):
            x = block(self.pool(x) if i > 0 else x)
        for block in self.up:
            x = block(self.enlarge(x))
        return self.head(x)

    def pool(self, x):
        return F.max_pool2d(x, 2)

    def enlarge(self, x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class SkipsConcatenated(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        self.up = nn.ModuleList(VGGBlock(a + b, b) for a, b in pairwise(widths[::-1]))

    def forward(self, x):
        skips = []
        for i, block in enumerate(self.down):
            x = block(self.pool(x) if i > 0 else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([skip, self.enlarge(x)], dim=1))
        return self.head(x)


class SkipsAdded(Base):
    """As many weights as the right answer."""

    def forward(self, x):
        skips = []
        for i, block in enumerate(self.down):
            x = block(self.pool(x) if i > 0 else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = skip + block(self.enlarge(x))
        return self.head(x)


class NearestUpSampling(Base):
    def enlarge(self, x):
        return F.interpolate(x, scale_factor=2)


class CornersNotAligned(Base):
    def enlarge(self, x):
        return F.interpolate(x, scale_factor=2, mode="bilinear")


class AveragePooling(Base):
    def pool(self, x):
        return F.avg_pool2d(x, 2)


class EverySecondPixel(Base):
    def pool(self, x):
        return x[..., ::2, ::2]


class OverlappingPooling(Base):
    def pool(self, x):
        return F.max_pool2d(x, 3, stride=2, padding=1)


class StridedConvolutions(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        self.halve = nn.ModuleList(nn.Conv2d(a, a, 2, stride=2) for a in widths[:-1])

    def forward(self, x):
        for i, block in enumerate(self.down):
            x = block(self.halve[i - 1](x) if i > 0 else x)
        for block in self.up:
            x = block(self.enlarge(x))
        return self.head(x)


class TransposedConvolutions(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        self.enlargers = nn.ModuleList(nn.ConvTranspose2d(a, a, 2, stride=2) for a in widths[:0:-1])

    def forward(self, x):
        for i, block in enumerate(self.down):
            x = block(self.pool(x) if i > 0 else x)
        for block, double in zip(self.up, self.enlargers, strict=True):
            x = block(double(x))
        return self.head(x)


class NoHead(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        self.head = nn.Identity()


class HeadOf3x3(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        self.head = nn.Conv2d(widths[0], classes, 3, padding=1)


class HeadWithoutBias(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        self.head = nn.Conv2d(widths[0], classes, 1, bias=False)


class Probabilities(Base):
    def forward(self, x):
        return super().forward(x).sigmoid()


class ReLUBehindTheHead(Base):
    def forward(self, x):
        return super().forward(x).relu()


class OneHalvingShort(Base):
    def forward(self, x):
        for i, block in enumerate(self.down):
            x = block(self.pool(x) if 0 < i < len(self.down) - 1 else x)
        for i, block in enumerate(self.up):
            x = block(self.enlarge(x) if i > 0 else x)
        return self.head(x)


class OneHalvingTooMany(Base):
    def forward(self, x):
        for block in self.down:
            x = block(self.pool(x))
        for block in self.up:
            x = block(self.enlarge(x))
        return self.head(self.enlarge(x))


class HalfSize(Base):
    def forward(self, x):
        for block in self.down:
            x = block(self.pool(x))
        for block in self.up:
            x = block(self.enlarge(x))
        return self.head(x)


class BlocksInAPlainList(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        blocks = list(self.up)
        del self.up
        self.up = blocks


class ThreeRowsWrittenOut(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        self.a, self.b, self.c = self.down

    def forward(self, x):
        x = self.c(self.pool(self.b(self.pool(self.a(x)))))
        return self.head(self.up[1](self.enlarge(self.up[0](self.enlarge(x)))))


class ThreeRowsInForward(Base):
    """Blocks for every width are built, but only three are used."""

    def forward(self, x):
        x = self.down[2](self.pool(self.down[1](self.pool(self.down[0](x)))))
        for block in self.up[-2:]:
            x = block(self.enlarge(x))
        return self.head(x)


class ListOfLogits(Base):
    def forward(self, x):
        return [super().forward(x)]


class AlwaysZero(Base):
    def forward(self, x):
        return 0 * super().forward(x)


class DetachedBelow(Base):
    def pool(self, x):
        return super().pool(x).detach()


class EncoderWithoutGradient(Base):
    def forward(self, x):
        with torch.no_grad():
            for i, block in enumerate(self.down):
                x = block(self.pool(x) if i > 0 else x)
        for block in self.up:
            x = block(self.enlarge(x))
        return self.head(x)


class AllWithoutGradient(Base):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class UnusedBlock(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        self.middle = VGGBlock(widths[-1], widths[-1])


class OneBlockTooMany(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        self.middle = VGGBlock(widths[-1], widths[-1])

    def forward(self, x):
        for i, block in enumerate(self.down):
            x = block(self.pool(x) if i > 0 else x)
        x = self.middle(x)
        for block in self.up:
            x = block(self.enlarge(x))
        return self.head(x)


class HeadFirst(Base):
    def __init__(self, in_channels, classes, widths):
        nn.Module.__init__(self)
        self.head = nn.Conv2d(widths[0], classes, 1)
        self.down = nn.ModuleList(VGGBlock(a, b) for a, b in pairwise((in_channels, *widths)))
        self.up = nn.ModuleList(VGGBlock(a, b) for a, b in pairwise(widths[::-1]))


class DecoderFromTheTop(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        self.up = nn.ModuleList(VGGBlock(b, a) for a, b in pairwise(widths))

    def forward(self, x):
        for i, block in enumerate(self.down):
            x = block(self.pool(x) if i > 0 else x)
        for block in self.up[::-1]:
            x = block(self.enlarge(x))
        return self.head(x)


class BlocksBeforeDoubling(Base):
    def forward(self, x):
        for i, block in enumerate(self.down):
            x = block(self.pool(x) if i > 0 else x)
        for block in self.up:
            x = self.enlarge(block(x))
        return self.head(x)


class DoubledAtTheEnd(Base):
    """The head works at the lowest size, and its logits are blown up at once."""

    def forward(self, x):
        size = x.shape[2:]
        for i, block in enumerate(self.down):
            x = block(self.pool(x) if i > 0 else x)
        for block in self.up:
            x = block(x)
        return F.interpolate(self.head(x), size=size, mode="bilinear", align_corners=True)


class BlockWithoutInnerReLU(VGGBlock):
    def forward(self, x):
        return F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))


class ForgottenReLU(Base):
    block = BlockWithoutInnerReLU


class OnlyForColourImages(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(3, classes, widths)


class OneClassOnly(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, 1, widths)


class KeepsFeatureMaps(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        self.maps = []

    def pool(self, x):
        self.maps.append(x)
        return super().pool(x)


class NeedsTwoWidths(Base):
    def __init__(self, in_channels, classes, widths):
        super().__init__(in_channels, classes, widths)
        assert len(self.up) > 0


class Hole(Base):
    def forward(self, x):
        raise NotImplementedError("your code here")


WRONG = {
    "a skip connection goes around it": SkipsConcatenated,
    "the decoder reads nothing but the up-sampled map": SkipsAdded,
    "pixels are repeated where bilinear": NearestUpSampling,
    "bilinear but without align_corners=True": CornersNotAligned,
    "the mean of four pixels is taken": AveragePooling,
    "one pixel of four is picked": EverySecondPixel,
    "the values are not: each row down is max pooling": OverlappingPooling,
    "halve.0 is a convolution of stride 2: halve by max pooling": StridedConvolutions,
    "enlargers.0 is a transposed convolution": TransposedConvolutions,
    "4 channels come out.*the 1x1 head is missing": NoHead,
    "the head, is a 3x3 convolution": HeadOf3x3,
    r"3612 parameters, but .* 1x1 head make 3615": HeadWithoutBias,
    "return logits, the loss takes the sigmoid by itself": Probabilities,
    "is there a ReLU behind the head": ReLUBehindTheHead,
    "smallest feature map of 16x24 is 8x12": OneHalvingShort,
    "smallest feature map of 16x24 is 2x3": OneHalvingTooMany,
    r"these are \(2, 3, 8, 12\): as many doublings as halvings": HalfSize,
    "self.up is a plain list.*nn.ModuleList": BlocksInAPlainList,
    "with four widths .* do not write them out for three .it stops with ValueError": ThreeRowsWrittenOut,
    "with four widths the image is halved 3 times": ThreeRowsInForward,
    "a tensor of logits is wanted, this is list": ListOfLogits,
    "every logit is 0": AlwaysZero,
    "down.0.conv1 is used but no gradient reaches it: is something detached": DetachedBelow,
    "is something detached, or made under no_grad": EncoderWithoutGradient,
    "no gradient leaves the logits": AllWithoutGradient,
    "middle.conv1 is built but never used": UnusedBlock,
    "is a block missing, or one too many": OneBlockTooMany,
    "blocks stand in another order": HeadFirst,
    "order than the text asks for: encoder from the top, decoder from the lowest": DecoderFromTheTop,
    "the decoder's block works before the doubling": BlocksBeforeDoubling,
    "the shapes and the weights are right, the values are not": DoubledAtTheEnd,
    "bilinear doubling with align_corners=True, then a block; last the head": ForgottenReLU,
    "stops with RuntimeError: .*expected input.* to have 3 channels": OnlyForColourImages,
    r"3 classes give logits \(2, 3, 16, 24\), not \(2, 1, 16, 24\)": OneClassOnly,
    "keeps feature maps from one call to the next": KeepsFeatureMaps,
    "with one width nothing is halved": NeedsTwoWidths,
    "Hole is not written yet": Hole,
}
