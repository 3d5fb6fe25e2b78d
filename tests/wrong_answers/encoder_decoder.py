from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from course_lib.checks import check_encoder_decoder
from course_lib.grid import VGGBlock

CHECK, LESSON, EXERCISE = check_encoder_decoder, "03_encoder_decoder", "EncoderDecoder"


class Base(nn.Module):
    """An encoder-decoder in pieces, so that each wrong answer changes one. A U-Net joins skips to it."""

    block = VGGBlock

    def __init__(self, in_channels, classes, widths):
        super().__init__()
        self.down = nn.ModuleList(self.block(a, b) for a, b in pairwise((in_channels, *widths)))
        self.up = nn.ModuleList(self.block(self.joined(a, b), b) for a, b in pairwise(widths[::-1]))
        self.head = nn.Conv2d(widths[0], classes, 1)
        for name, layer in self.other(classes, widths).items():
            setattr(self, name, layer)

    def joined(self, below, own):
        return below

    def other(self, classes, widths):
        return {}

    def forward(self, x):
        *skips, x = self.encode(x)
        return self.head(self.decode(x, skips[::-1]))

    def encode(self, x):
        maps = []
        for i, block in enumerate(self.down):
            x = block(self.entering(i, x))
            maps.append(x)
        return maps

    def entering(self, i, x):
        return self.pool(x) if i > 0 else x

    def pool(self, x):
        return F.max_pool2d(x, 2)

    def decode(self, x, skips):
        for i, skip in enumerate(skips):
            x = self.node(i, x, skip)
        return x

    def node(self, i, x, skip):
        return self.up[i](self.join(skip, self.enlarge(x)))

    def enlarge(self, x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

    def join(self, skip, up):
        return up


def changed(name, **pieces):
    return type(name, (Base,), pieces)


SkipsConcatenated = changed(
    "SkipsConcatenated",
    joined=lambda net, below, own: below + own,
    join=lambda net, skip, up: torch.cat([skip, up], dim=1),
)
# As many weights as the right answer.
SkipsAdded = changed("SkipsAdded", node=lambda net, i, x, skip: skip + net.up[i](net.enlarge(x)))

NearestUpSampling = changed("NearestUpSampling", enlarge=lambda net, x: F.interpolate(x, scale_factor=2))
CornersNotAligned = changed(
    "CornersNotAligned", enlarge=lambda net, x: F.interpolate(x, scale_factor=2, mode="bilinear")
)
AveragePooling = changed("AveragePooling", pool=lambda net, x: F.avg_pool2d(x, 2))
EverySecondPixel = changed("EverySecondPixel", pool=lambda net, x: x[..., ::2, ::2])
OverlappingPooling = changed("OverlappingPooling", pool=lambda net, x: F.max_pool2d(x, 3, stride=2, padding=1))
StridedConvolutions = changed(
    "StridedConvolutions",
    other=lambda net, classes, widths: {"halve": nn.ModuleList(nn.Conv2d(a, a, 2, stride=2) for a in widths[:-1])},
    entering=lambda net, i, x: net.halve[i - 1](x) if i > 0 else x,
)
TransposedConvolutions = changed(
    "TransposedConvolutions",
    other=lambda net, classes, widths: {
        "enlargers": nn.ModuleList(nn.ConvTranspose2d(a, a, 2, stride=2) for a in widths[:0:-1])
    },
    node=lambda net, i, x, skip: net.up[i](net.enlargers[i](x)),
)

NoHead = changed("NoHead", other=lambda net, classes, widths: {"head": nn.Identity()})
HeadOf3x3 = changed(
    "HeadOf3x3", other=lambda net, classes, widths: {"head": nn.Conv2d(widths[0], classes, 3, padding=1)}
)
HeadWithoutBias = changed(
    "HeadWithoutBias", other=lambda net, classes, widths: {"head": nn.Conv2d(widths[0], classes, 1, bias=False)}
)
Probabilities = changed("Probabilities", forward=lambda net, x: Base.forward(net, x).sigmoid())
ReLUBehindTheHead = changed("ReLUBehindTheHead", forward=lambda net, x: Base.forward(net, x).relu())
ListOfLogits = changed("ListOfLogits", forward=lambda net, x: [Base.forward(net, x)])
AlwaysZero = changed("AlwaysZero", forward=lambda net, x: 0 * Base.forward(net, x))

OneHalvingShort = changed(
    "OneHalvingShort",
    entering=lambda net, i, x: net.pool(x) if 0 < i < len(net.down) - 1 else x,
    node=lambda net, i, x, skip: net.up[i](net.enlarge(x) if i > 0 else x),
)
OneHalvingTooMany = changed(
    "OneHalvingTooMany",
    entering=lambda net, i, x: net.pool(x),
    decode=lambda net, x, skips: net.enlarge(Base.decode(net, x, skips)),
)
HalfSize = changed("HalfSize", entering=lambda net, i, x: net.pool(x))

DetachedBelow = changed("DetachedBelow", pool=lambda net, x: Base.pool(net, x).detach())
EncoderWithoutGradient = changed("EncoderWithoutGradient", encode=torch.no_grad()(Base.encode))
AllWithoutGradient = changed("AllWithoutGradient", forward=torch.no_grad()(Base.forward))

UnusedBlock = changed("UnusedBlock", other=lambda net, classes, widths: {"middle": VGGBlock(widths[-1], widths[-1])})
OneBlockTooMany = changed(
    "OneBlockTooMany",
    other=lambda net, classes, widths: {"middle": VGGBlock(widths[-1], widths[-1])},
    decode=lambda net, x, skips: Base.decode(net, net.middle(x), skips),
)
DecoderFromTheTop = changed(
    "DecoderFromTheTop",
    other=lambda net, classes, widths: {"up": nn.ModuleList(VGGBlock(b, a) for a, b in pairwise(widths))},
    node=lambda net, i, x, skip: net.up[-1 - i](net.enlarge(x)),
)
BlocksBeforeDoubling = changed("BlocksBeforeDoubling", node=lambda net, i, x, skip: net.enlarge(net.up[i](x)))


class DoubledAtTheEnd(Base):
    """The head works at the lowest size, and its logits are blown up at once."""

    def node(self, i, x, skip):
        return self.up[i](x)

    def forward(self, x):
        return F.interpolate(super().forward(x), size=x.shape[2:], mode="bilinear", align_corners=True)


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


class HeadFirst(Base):
    def __init__(self, in_channels, classes, widths):
        nn.Module.__init__(self)
        self.head = nn.Conv2d(widths[0], classes, 1)
        self.down = nn.ModuleList(VGGBlock(a, b) for a, b in pairwise((in_channels, *widths)))
        self.up = nn.ModuleList(VGGBlock(self.joined(a, b), b) for a, b in pairwise(widths[::-1]))


class BlockWithoutInnerReLU(VGGBlock):
    def forward(self, x):
        return F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))


ForgottenReLU = changed("ForgottenReLU", block=BlockWithoutInnerReLU)


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
