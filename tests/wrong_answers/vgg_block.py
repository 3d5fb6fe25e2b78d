from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from course_lib.checks import check_vgg_block

CHECK, LESSON, EXERCISE = check_vgg_block, "02_vgg_block", "VGGBlock"


def conv(c_in, c_out, **other):
    return nn.Conv2d(c_in, c_out, **({"kernel_size": 3, "padding": 1} | other))


class Base(nn.Module):
    """A right block in pieces, so that each wrong answer changes one."""

    convs: ClassVar = {}

    def __init__(self, c_in, c_out):
        super().__init__()
        self.a, self.m = conv(c_in, c_out, **self.convs), self.norm(c_out)
        self.b, self.n = conv(c_out, c_out, **self.convs), self.norm(c_out)
        for name, layer in self.other(c_in, c_out).items():
            setattr(self, name, layer)

    def norm(self, channels):
        return nn.BatchNorm2d(channels)

    def other(self, c_in, c_out):
        return {}

    def forward(self, x):
        return F.relu(self.n(self.b(F.relu(self.m(self.a(x))))))


def changed(name, **pieces):
    return type(name, (Base,), pieces)


NoPadding = changed("NoPadding", convs={"padding": 0})
ReflectPadding = changed("ReflectPadding", convs={"padding_mode": "reflect"})
ReplicatePadding = changed("ReplicatePadding", convs={"padding_mode": "replicate"})
Dilated = changed("Dilated", convs={"dilation": 2, "padding": 2})
NoBias = changed("NoBias", convs={"bias": False})
LargeKernel = changed("LargeKernel", convs={"kernel_size": 5, "padding": 2})
GroupNorm = changed("GroupNorm", norm=lambda s, c: nn.GroupNorm(1, c))
InstanceNorm = changed("InstanceNorm", norm=lambda s, c: nn.InstanceNorm2d(c, affine=True))
LayerNorm = changed("LayerNorm", norm=lambda s, c: nn.LayerNorm([15, 22]))
WithoutAffine = changed("WithoutAffine", norm=lambda s, c: nn.BatchNorm2d(c, affine=False))
WithoutAverages = changed("WithoutAverages", norm=lambda s, c: nn.BatchNorm2d(c, track_running_stats=False))
OtherEpsilon = changed("OtherEpsilon", norm=lambda s, c: nn.BatchNorm2d(c, eps=1e-1))

OneByOne = changed("OneByOne", other=lambda s, c_in, c_out: {"b": nn.Conv2d(c_out, c_out, 1)})
Strided = changed("Strided", other=lambda s, c_in, c_out: {"a": conv(c_in, c_out, stride=2)})
Depthwise = changed("Depthwise", other=lambda s, c_in, c_out: {"b": conv(c_out, c_out, groups=c_out)})
BuiltAndForgotten = changed("BuiltAndForgotten", other=lambda s, c_in, c_out: {"c": conv(c_out, c_out)})
PaddedOnce = changed(
    "PaddedOnce",
    other=lambda s, c_in, c_out: {"a": conv(c_in, c_out, padding=2), "b": conv(c_out, c_out, padding=0)},
)
WidensLate = changed(
    "WidensLate",
    other=lambda s, c_in, c_out: {"a": conv(c_in, c_in), "m": nn.BatchNorm2d(c_in), "b": conv(c_in, c_out)},
)
ThreeConvolutions = changed(
    "ThreeConvolutions",
    other=lambda s, c_in, c_out: {"c": conv(c_out, c_out), "o": nn.BatchNorm2d(c_out)},
    forward=lambda s, x: F.relu(s.o(s.c(Base.forward(s, x)))),
)
ProjectedResidual = changed(
    "ProjectedResidual",
    other=lambda s, c_in, c_out: {"c": nn.Conv2d(c_in, c_out, 1)},
    forward=lambda s, x: Base.forward(s, x) + s.c(x),
)
NormFirst = changed(
    "NormFirst",
    other=lambda s, c_in, c_out: {"m": nn.BatchNorm2d(c_in)},
    forward=lambda s, x: F.relu(s.b(s.n(F.relu(s.a(s.m(x)))))),
)
Dropout = changed(
    "Dropout",
    other=lambda s, c_in, c_out: {"drop": nn.Dropout2d(0.1)},
    forward=lambda s, x: s.drop(Base.forward(s, x)),
)

NoInnerReLU = changed("NoInnerReLU", forward=lambda s, x: F.relu(s.n(s.b(s.m(s.a(x))))))
NoLastReLU = changed("NoLastReLU", forward=lambda s, x: s.n(s.b(F.relu(s.m(s.a(x))))))
NoReLU = changed("NoReLU", forward=lambda s, x: s.n(s.b(s.m(s.a(x)))))
ReLUBeforeNorm = changed("ReLUBeforeNorm", forward=lambda s, x: s.n(F.relu(s.b(s.m(F.relu(s.a(x)))))))
FirstReLUBeforeNorm = changed("FirstReLUBeforeNorm", forward=lambda s, x: F.relu(s.n(s.b(s.m(F.relu(s.a(x)))))))
LastReLUBeforeNorm = changed("LastReLUBeforeNorm", forward=lambda s, x: s.n(F.relu(s.b(F.relu(s.m(s.a(x)))))))
ReLUOnBothSides = changed("ReLUOnBothSides", forward=lambda s, x: F.relu(s.n(F.relu(s.b(F.relu(s.m(F.relu(s.a(x)))))))))
LeakyReLU = changed("LeakyReLU", forward=lambda s, x: F.leaky_relu(s.n(s.b(F.leaky_relu(s.m(s.a(x)))))))
InnerGELU = changed("InnerGELU", forward=lambda s, x: F.relu(s.n(s.b(F.gelu(s.m(s.a(x)))))))
ClippedReLU = changed("ClippedReLU", forward=lambda s, x: F.relu6(s.n(s.b(F.relu6(s.m(s.a(x)))))))
SharedNorm = changed("SharedNorm", forward=lambda s, x: F.relu(s.m(s.b(F.relu(s.m(s.a(x)))))))
NoNorm = changed("NoNorm", forward=lambda s, x: F.relu(s.b(F.relu(s.a(x)))))
OneNorm = changed("OneNorm", forward=lambda s, x: F.relu(s.n(s.b(F.relu(s.a(x))))))
NormsTogether = changed("NormsTogether", forward=lambda s, x: F.relu(s.n(s.m(s.b(F.relu(s.a(x)))))))
FunctionalDropout = changed("FunctionalDropout", forward=lambda s, x: F.dropout(Base.forward(s, x), 0.5, s.training))
DropoutForEver = changed("DropoutForEver", forward=lambda s, x: F.dropout(Base.forward(s, x), 0.5, not s.training))
Pooled = changed("Pooled", forward=lambda s, x: F.max_pool2d(Base.forward(s, x), 2))
AtTheEndALogit = changed("AtTheEndALogit", forward=lambda s, x: Base.forward(s, x) - 1)
ReturnsNothing = changed("ReturnsNothing", forward=lambda s, x: None if Base.forward(s, x) is not None else x)
InPlace = changed("InPlace", forward=lambda s, x: Base.forward(s, x.relu_()))
Standardised = changed("Standardised", forward=lambda s, x: Base.forward(s, (x - x.mean()) / x.std()))
ReturnsATuple = changed("ReturnsATuple", forward=lambda s, x: (Base.forward(s, x), x))
InputBesideIt = changed("InputBesideIt", forward=lambda s, x: torch.cat([Base.forward(s, x), x], dim=1))
FrozenNorms = changed("FrozenNorms", forward=lambda s, x: (s.m.eval(), s.n.eval(), Base.forward(s, x))[2])
DetachedMiddle = changed("DetachedMiddle", forward=lambda s, x: F.relu(s.n(s.b(F.relu(s.m(s.a(x))).detach()))))
AlwaysTraining = changed("AlwaysTraining", forward=lambda s, x: Base.forward(s.train(), x))
Residual = changed("Residual", forward=lambda s, x: (h := F.relu(s.m(s.a(x)))) + F.relu(s.n(s.b(h))))
ResidualBeforeReLU = changed(
    "ResidualBeforeReLU", forward=lambda s, x: F.relu((h := F.relu(s.m(s.a(x)))) + s.n(s.b(h)))
)


class PaddedByHand(NoPadding):
    def forward(self, x):
        x = F.relu(self.m(self.a(F.pad(x, (1, 1, 1, 1), mode=self.mode))))
        return F.relu(self.n(self.b(F.pad(x, (1, 1, 1, 1), mode=self.mode))))


class MirrorPad(PaddedByHand):
    mode = "reflect"


class EdgePad(PaddedByHand):
    mode = "replicate"


class BatchStatistics(nn.BatchNorm2d):
    def forward(self, x):
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True)


BatchStatisticsForEver = changed("BatchStatisticsForEver", norm=lambda s, c: BatchStatistics(c))


class OneConvolution(nn.Sequential):
    def __init__(self, c_in, c_out):
        super().__init__(conv(c_in, c_out), nn.BatchNorm2d(c_out), nn.ReLU())


class FixedWidths(Base):
    def __init__(self, c_in, c_out):
        super().__init__(3, 64)


class SwappedArguments(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_out, c_in)


class PlainList(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.layers = [conv(c_in, c_out), nn.BatchNorm2d(c_out), nn.ReLU()]
        self.layers += [conv(c_out, c_out), nn.BatchNorm2d(c_out), nn.ReLU()]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class MadeInForward(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.c_in, self.c_out = c_in, c_out

    def forward(self, x):
        return Base(self.c_in, self.c_out)(x)


class FromTheClassBody(nn.Module):
    layers = (Base(3, 5), Base(6, 2))

    def __init__(self, c_in, c_out):
        super().__init__()
        self.block = self.layers[c_in == 6]

    def forward(self, x):
        return self.block(x)


class NotAModule:
    def __init__(self, c_in, c_out):
        self.block = Base(c_in, c_out)


class Sums(Base):
    """Adds what it made before to what it makes now."""

    def forward(self, x):
        made = super().forward(x)
        before = getattr(self, "before", None)
        self.before = made.detach() + (before if before is not None and before.shape == made.shape else 0)
        return self.before + 0 * made


class NoForward(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.a = conv(c_in, c_out)


class Hole(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        raise NotImplementedError("your code here")


class SuperForgotten(nn.Module):
    def __init__(self, c_in, c_out):
        self.a = conv(c_in, c_out)


ABlock = Base(3, 5)
ABlock.__name__ = "ABlock"


WRONG = {
    "the ReLU between the two convolutions is missing": NoInnerReLU,
    "the ReLU at the end is missing": NoLastReLU,
    "there is no ReLU at all": NoReLU,
    "ReLU stands in front of the norms": ReLUBeforeNorm,
    "the first ReLU stands in front of its norm": FirstReLUBeforeNorm,
    "the last ReLU stands in front of its norm": LastReLUBeforeNorm,
    "a ReLU on both sides of each norm": ReLUOnBothSides,
    "here one is a leaky ReLU": LeakyReLU,
    "here one is GELU": InnerGELU,
    "here one is ReLU6": ClippedReLU,
    r"^1 convolution\(s\) run": OneConvolution,
    r"^3 convolution\(s\) run": ThreeConvolutions,
    r"become \(3, 5, 11, 18\).*one pixel of padding": NoPadding,
    r"become \(3, 5, 7, 11\).*no pooling": Pooled,
    "padding_mode='reflect'": ReflectPadding,
    "padding_mode='replicate'": ReplicatePadding,
    "a kernel is 5x5 instead of 3x3": LargeKernel,
    "a kernel is 1x1 instead of 3x3": OneByOne,
    "dilation 2": Dilated,
    "stride 2 halves the size": Strided,
    "bias=False": NoBias,
    "both convolutions share one batch norm": SharedNorm,
    "batch norm is made but never called": NoNorm,
    r"1 batch norm\(s\) run": OneNorm,
    "run as conv, conv, norm, norm": NormsTogether,
    "run as norm, conv, norm, conv": NormFirst,
    "GroupNorm looks at each image by itself": GroupNorm,
    "InstanceNorm2d looks at each image": InstanceNorm,
    "LayerNorm looks at each image": LayerNorm,
    "affine=False": WithoutAffine,
    "track_running_stats=False": WithoutAverages,
    "Dropout2d is no part": Dropout,
    "two calls with the same batch differ by chance": FunctionalDropout,
    "something is kept from one call to the next": Sums,
    "two calls in evaluation mode differ by chance": DropoutForEver,
    "the first convolution makes 3 channels where c_out is 5": WidensLate,
    "each output channel then reads a part of the input": Depthwise,
    "self.layers is a plain list": PlainList,
    "made anew in every call": MadeInForward,
    "two blocks share their weights": FromTheClassBody,
    "the first half is added to the result": Residual,
    "the first half is added to the second": ResidualBeforeReLU,
    "a 1x1 convolution runs beside the two": ProjectedResidual,
    "changes its own input": InPlace,
    "changes its own mode": AlwaysTraining,
    "zeros are put around once": PaddedOnce,
    "mirror image": MirrorPad,
    "outermost pixels": EdgePad,
    r"from 3 images come \(3, 8, 15, 22\)": InputBesideIt,
    "norms use the averages they stored": FrozenNorms,
    "has no method forward": NoForward,
    "forward returns a tuple": ReturnsATuple,
    "still use the statistics of the batch": BatchStatisticsForEver,
    "is something detached": DetachedMiddle,
    "one from 3 to 64 was made: use the arguments": FixedWidths,
    "SwappedArguments stops with RuntimeError": SwappedArguments,
    r"forward never uses Conv2d\(5, 5, kernel_size=\(3, 3\)": BuiltAndForgotten,
    "forward returns nothing": ReturnsNothing,
    "values are below 0, and a ReLU at the end lets none through": AtTheEndALogit,
    "eps or momentum of a batch norm was changed": OtherEpsilon,
    "the shapes are right, the values are not": Standardised,
    "does not inherit from nn.Module": NotAModule,
    "this is one block: give the class itself": ABlock,
    "Hole is not written yet": Hole,
    "SuperForgotten stops with AttributeError": SuperForgotten,
}
