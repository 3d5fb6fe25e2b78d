import torch
import torch.nn.functional as F
from torch import nn

from course_lib.checks import check_vgg_block

CHECK, LESSON, EXERCISE = check_vgg_block, "02_vgg_block", "VGGBlock"


def conv(c_in, c_out, **other):
    return nn.Conv2d(c_in, c_out, 3, **({"padding": 1} | other))


class Base(nn.Module):
    """A right block in pieces, so that each wrong answer changes one."""

    def __init__(self, c_in, c_out):
        super().__init__()
        self.a, self.m = conv(c_in, c_out), nn.BatchNorm2d(c_out)
        self.b, self.n = conv(c_out, c_out), nn.BatchNorm2d(c_out)

    def forward(self, x):
        return F.relu(self.n(self.b(F.relu(self.m(self.a(x))))))


def with_convs(name, **other):
    class Changed(Base):
        def __init__(self, c_in, c_out):
            super().__init__(c_in, c_out)
            self.a, self.b = conv(c_in, c_out, **other), conv(c_out, c_out, **other)

    Changed.__name__ = name
    return Changed


def with_norms(name, make):
    class Changed(Base):
        def __init__(self, c_in, c_out):
            super().__init__(c_in, c_out)
            self.m, self.n = make(c_out), make(c_out)

    Changed.__name__ = name
    return Changed


def with_forward(name, forward):
    return type(name, (Base,), {"forward": forward})


NoPadding = with_convs("NoPadding", padding=0)
ReflectPadding = with_convs("ReflectPadding", padding_mode="reflect")
ReplicatePadding = with_convs("ReplicatePadding", padding_mode="replicate")
Dilated = with_convs("Dilated", dilation=2, padding=2)
NoBias = with_convs("NoBias", bias=False)
GroupNorm = with_norms("GroupNorm", lambda c: nn.GroupNorm(1, c))
InstanceNorm = with_norms("InstanceNorm", lambda c: nn.InstanceNorm2d(c, affine=True))
WithoutAffine = with_norms("WithoutAffine", lambda c: nn.BatchNorm2d(c, affine=False))
WithoutAverages = with_norms("WithoutAverages", lambda c: nn.BatchNorm2d(c, track_running_stats=False))
OtherEpsilon = with_norms("OtherEpsilon", lambda c: nn.BatchNorm2d(c, eps=1e-1))

NoInnerReLU = with_forward("NoInnerReLU", lambda s, x: F.relu(s.n(s.b(s.m(s.a(x))))))
NoLastReLU = with_forward("NoLastReLU", lambda s, x: s.n(s.b(F.relu(s.m(s.a(x))))))
NoReLU = with_forward("NoReLU", lambda s, x: s.n(s.b(s.m(s.a(x)))))
ReLUBeforeNorm = with_forward("ReLUBeforeNorm", lambda s, x: s.n(F.relu(s.b(s.m(F.relu(s.a(x)))))))
FirstReLUBeforeNorm = with_forward("FirstReLUBeforeNorm", lambda s, x: F.relu(s.n(s.b(s.m(F.relu(s.a(x)))))))
LastReLUBeforeNorm = with_forward("LastReLUBeforeNorm", lambda s, x: s.n(F.relu(s.b(F.relu(s.m(s.a(x)))))))
ReLUOnBothSides = with_forward("ReLUOnBothSides", lambda s, x: F.relu(s.n(F.relu(s.b(F.relu(s.m(F.relu(s.a(x)))))))))
LeakyReLU = with_forward("LeakyReLU", lambda s, x: F.leaky_relu(s.n(s.b(F.leaky_relu(s.m(s.a(x)))))))
InnerGELU = with_forward("InnerGELU", lambda s, x: F.relu(s.n(s.b(F.gelu(s.m(s.a(x)))))))
ClippedReLU = with_forward("ClippedReLU", lambda s, x: F.relu6(s.n(s.b(F.relu6(s.m(s.a(x)))))))
SharedNorm = with_forward("SharedNorm", lambda s, x: F.relu(s.m(s.b(F.relu(s.m(s.a(x)))))))
NoNorm = with_forward("NoNorm", lambda s, x: F.relu(s.b(F.relu(s.a(x)))))
OneNorm = with_forward("OneNorm", lambda s, x: F.relu(s.n(s.b(F.relu(s.a(x))))))
NormsTogether = with_forward("NormsTogether", lambda s, x: F.relu(s.n(s.m(s.b(F.relu(s.a(x)))))))
FunctionalDropout = with_forward("FunctionalDropout", lambda s, x: F.dropout(Base.forward(s, x), 0.5, s.training))
DropoutForEver = with_forward("DropoutForEver", lambda s, x: F.dropout(Base.forward(s, x), 0.5, not s.training))
Pooled = with_forward("Pooled", lambda s, x: F.max_pool2d(Base.forward(s, x), 2))
AtTheEndALogit = with_forward("AtTheEndALogit", lambda s, x: Base.forward(s, x) - 1)
ReturnsNothing = with_forward("ReturnsNothing", lambda s, x: None if Base.forward(s, x) is not None else x)
InPlace = with_forward("InPlace", lambda s, x: Base.forward(s, x.relu_()))
Standardised = with_forward("Standardised", lambda s, x: Base.forward(s, (x - x.mean()) / x.std()))
ReturnsATuple = with_forward("ReturnsATuple", lambda s, x: (Base.forward(s, x), x))
InputBesideIt = with_forward("InputBesideIt", lambda s, x: torch.cat([Base.forward(s, x), x], dim=1))
FrozenNorms = with_forward("FrozenNorms", lambda s, x: (s.m.eval(), s.n.eval(), Base.forward(s, x))[2])
DetachedMiddle = with_forward("DetachedMiddle", lambda s, x: F.relu(s.n(s.b(F.relu(s.m(s.a(x))).detach()))))
AlwaysTraining = with_forward("AlwaysTraining", lambda s, x: Base.forward(s.train(), x))
Residual = with_forward("Residual", lambda s, x: (h := F.relu(s.m(s.a(x)))) + F.relu(s.n(s.b(h))))
ResidualBeforeReLU = with_forward("ResidualBeforeReLU", lambda s, x: F.relu((h := F.relu(s.m(s.a(x)))) + s.n(s.b(h))))


def padded(name, mode):
    class Changed(Base):
        def __init__(self, c_in, c_out):
            super().__init__(c_in, c_out)
            self.a, self.b = conv(c_in, c_out, padding=0), conv(c_out, c_out, padding=0)

        def forward(self, x):
            x = F.relu(self.m(self.a(F.pad(x, (1, 1, 1, 1), mode=mode))))
            return F.relu(self.n(self.b(F.pad(x, (1, 1, 1, 1), mode=mode))))

    Changed.__name__ = name
    return Changed


MirrorPad, EdgePad = padded("MirrorPad", "reflect"), padded("EdgePad", "replicate")


def batch_statistics(norm, x):
    return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)


class BatchStatisticsForEver(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.m.forward = lambda x: batch_statistics(self.m, x)
        self.n.forward = lambda x: batch_statistics(self.n, x)


class LargeKernel(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.a, self.b = nn.Conv2d(c_in, c_out, 5, padding=2), nn.Conv2d(c_out, c_out, 5, padding=2)


class OneConvolution(nn.Sequential):
    def __init__(self, c_in, c_out):
        super().__init__(conv(c_in, c_out), nn.BatchNorm2d(c_out), nn.ReLU())


class PaddedOnce(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.a, self.b = conv(c_in, c_out, padding=2), conv(c_out, c_out, padding=0)


class OneByOne(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.b = nn.Conv2d(c_out, c_out, 1)


class Strided(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.a = conv(c_in, c_out, stride=2)


class WidensLate(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.a, self.m, self.b = conv(c_in, c_in), nn.BatchNorm2d(c_in), conv(c_in, c_out)


class ThreeConvolutions(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.c, self.o = conv(c_out, c_out), nn.BatchNorm2d(c_out)

    def forward(self, x):
        return F.relu(self.o(self.c(super().forward(x))))


class ProjectedResidual(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.c = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x):
        return super().forward(x) + self.c(x)


class Depthwise(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.b = conv(c_out, c_out, groups=c_out)


class FixedWidths(Base):
    def __init__(self, c_in, c_out):
        super().__init__(3, 64)


class SwappedArguments(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_out, c_in)


class LayerNorm(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.m, self.n = nn.LayerNorm([15, 22]), nn.LayerNorm([15, 22])


class NormFirst(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.m = nn.BatchNorm2d(c_in)

    def forward(self, x):
        return F.relu(self.b(self.n(F.relu(self.a(self.m(x))))))


class Dropout(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.drop = nn.Dropout2d(0.1)

    def forward(self, x):
        return self.drop(super().forward(x))


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


class BuiltAndForgotten(Base):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out)
        self.c = conv(c_out, c_out)


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
