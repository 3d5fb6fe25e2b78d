"""UNet++ with gates on its skips or with dense blocks, and two other decoders on its encoder: UNet 3+ and RefineNet."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.errors import UserError
from course_lib.grid import WIDTHS, NestedUNet, VGGBlock, sizes

CLOSED = -20.0  # the logit of a pixel in an image judged empty: probability 2e-9
conv3x3 = partial(nn.Conv2d, kernel_size=3, padding=1)
upsample = partial(nn.Upsample, mode="bilinear", align_corners=True)


class UNetPlusPlus(NestedUNet):
    """The grid with wiring "unet++" and no other. Args, `nodes`, `skips`, `heads` and `prune` as of `NestedUNet`."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options, wiring="unet++")
        del self.config["wiring"]


class Gate(nn.Module):
    """The additive gate of Attention U-Net (Oktay et al., 2018), with the signal g at the size of f::

        α = sigmoid(W_ψ relu(W_g g + W_f f)),   out = α f

    W are 1x1 convolutions, each with batch norm. f (N, c_skip, h, w), g (N, c_signal, h, w) -> out as f.
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


class AttentionUNetPlusPlus(UNetPlusPlus):
    """UNet++ whose skips are gated by what comes from below (Li et al., Attention UNet++, ICIP 2020)::

        x^{i,j} = H([ Gate(x^{i,k}, g) for k < j,  g ]),   g = U(x^{i+1,j-1}),   j > 0

    Each skip x^{i,k} -> x^{i,j} has a gate of its own: 20 at depth 4.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        widths = self.config["widths"]
        for i, j in self.nodes:
            for k in self.skips.get(j, []):
                self.add_module(f"gate{i}_{k}_{j}", Gate(widths[i], widths[i + 1]))

    def gate(self, i: int, k: int, j: int) -> Gate:
        """The gate on the skip x^{i,k} -> x^{i,j}."""
        return self.get_submodule(f"gate{i}_{k}_{j}")

    def join(self, i: int, j: int, skips: list[Tensor], up: Tensor) -> Tensor:
        """As in the grid, of skips that passed their gates."""
        gated = [self.gate(i, k, j)(f, up) for k, f in zip(self.skips[j], skips, strict=True)]
        return super().join(i, j, gated, up)


class DenseBlock(nn.Module):
    """H as DenseNet builds it (Huang et al., 2017): every layer reads all that came before it in the block::

        x_1 = H_1(x_0),   x_2 = H_2([x_0, x_1]),   out = T([x_0, x_1, x_2])

    H_l is batch norm, ReLU and a 3x3 convolution to k = c_out / 2 channels; two see as far as `VGGBlock`, 5x5. T is a
    1x1 convolution, with no ReLU before it: in the first node x_0 is the image, and its dark half would be lost.
    (N, c_in, h, w) -> (N, c_out, h, w).
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        k = max(1, c_out // 2)
        self.bn1, self.conv1 = nn.BatchNorm2d(c_in), conv3x3(c_in, k)
        self.bn2, self.conv2 = nn.BatchNorm2d(c_in + k), conv3x3(c_in + k, k)
        self.transition = nn.Conv2d(c_in + 2 * k, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        for norm, conv in ((self.bn1, self.conv1), (self.bn2, self.conv2)):
            x = torch.cat([x, conv(F.relu(norm(x)))], dim=1)
        return self.transition(x)


class DenseUNetPlusPlus(UNetPlusPlus):
    """UNet++ with `DenseBlock` for H: dense inside each node as well as along each row."""

    block = DenseBlock


class Relative(nn.Module):
    """A network that is no grid, with `config`, `depth`, `inputs` and `check_shape` as of `NestedUNet`.
    Raises UserError (a ValueError): fewer widths than `fewest`, or one below 1.
    """

    inputs: str = NestedUNet.inputs
    check_shape = NestedUNet.check_shape

    def __init__(self, fewest: int = 2, **config: Any):
        super().__init__()
        in_channels, classes, *widths = sizes(config["in_channels"], config["classes"], *config["widths"])
        if len(widths) < fewest:
            raise UserError(f"widths {tuple(widths)} make no {type(self).__name__}: give {fewest} or more numbers")
        self.config = {**config, "in_channels": in_channels, "classes": classes, "widths": tuple(widths)}
        self.depth = len(widths) - 1

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (N, in_channels, H, W) -> logits (N, classes, H, W), row 0's last. Raises UserError: `check_shape`."""
        self.check_shape(image.shape)
        return self._logits(image)


class Encoder(nn.Module):
    """The first column of the grid, x^{0,0} = H(image), x^{i,0} = H(D(x^{i-1,0})): image -> [x^{0,0}, x^{1,0}, ...]."""

    def __init__(self, in_channels: int, widths: Sequence[int]):
        super().__init__()
        self.H = nn.ModuleList(VGGBlock(c_in, c_out) for c_in, c_out in pairwise((in_channels, *widths)))
        self.D = nn.MaxPool2d(2)

    def forward(self, image: Tensor) -> list[Tensor]:
        x: list[Tensor] = []
        for H in self.H:
            x.append(H(self.D(x[-1]) if x else image))
        return x


def conv_norm_relu(c_in: int, c_out: int) -> nn.Sequential:
    """C and H of UNet 3+: half a `VGGBlock`."""
    return nn.Sequential(conv3x3(c_in, c_out), nn.BatchNorm2d(c_out), nn.ReLU())


class UNet3Plus(Relative):
    """UNet 3+ (Huang et al., ICASSP 2020), of any depth N >= 1, on the encoder of the grid, x_En^i = x^{i,0}::

        x_De^N = x_En^N
        x_De^i = H([ C(D(x_En^k)) for k < i,  C(x_En^i),  C(U(x_De^k)) for k > i ])     i < N

    D (max pooling) or U (bilinear) brings each scale to row i, C to `cat_width` channels (by default widths[0], as in
    the released code), and H keeps all cat_width * (N + 1). C and H are a 3x3 convolution, batch norm and ReLU.

    `deep_supervision`: a 3x3 head on each x_De^i, N included, brought to full size by U, instead of one on x_De^0.
    `classification`: the logits of an image that `presence` judges empty become `CLOSED`; times 0, as in the released
    code, they would mean probability 0.5. As there this holds in training too, and the verdict passes no gradient:
    `presence` needs a loss of its own, and until it has learned something no image counts as empty.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        *,
        cat_width: int | None = None,
        deep_supervision: bool = False,
        classification: bool = False,
    ):
        options = {"cat_width": cat_width, "deep_supervision": deep_supervision, "classification": classification}
        super().__init__(in_channels=in_channels, classes=classes, widths=widths, **options)
        cat_width = widths[0] if cat_width is None else cat_width
        if cat_width < 1:
            raise UserError(f"cat_width is {cat_width}: give a positive number of channels")
        N, joined = self.depth, cat_width * len(widths)
        decoded = [joined] * N + [widths[N]]  # channels of x_De^0 .. x_De^N
        self.encoder = Encoder(in_channels, widths)
        scales = [[*widths[: i + 1], *decoded[i + 1 :]] for i in range(N)]  # channels of what x_De^i reads
        self.C = nn.ModuleList(nn.ModuleList(conv_norm_relu(c, cat_width) for c in row) for row in scales)
        self.H = nn.ModuleList(conv_norm_relu(joined, joined) for _ in range(N))
        self.D = nn.ModuleList(nn.MaxPool2d(2**n) for n in range(N))  # n rows down
        self.U = nn.ModuleList(upsample(scale_factor=2**n) for n in range(N + 1))  # n rows up
        rows = range(N, -1, -1) if deep_supervision else [0]
        self.heads = nn.ModuleDict({str(i): conv3x3(decoded[i], classes) for i in rows})
        if classification:
            scores = nn.Conv2d(widths[N], 2, 1)
            scores.weight.data.zero_()
            scores.bias.data.copy_(torch.tensor([0.0, 1.0]))  # not empty, until training says otherwise
            self.classifier = nn.Sequential(nn.Dropout(0.5), scores, nn.AdaptiveMaxPool2d(1), nn.Flatten())

    def _logits(self, image: Tensor) -> list[Tensor]:
        x = self.encoder(image)  # x_En, which becomes x_De from below
        for i in reversed(range(self.depth)):
            down = [self.D[i - k](x[k]) for k in range(i)]
            up = [self.U[k - i](x[k]) for k in range(i + 1, self.depth + 1)]
            scales = zip(self.C[i], [*down, x[i], *up], strict=True)
            x[i] = self.H[i](torch.cat([C(scale) for C, scale in scales], dim=1))
        outputs = [self.U[int(i)](head(x[int(i)])) for i, head in self.heads.items()]
        if not self.config["classification"]:
            return outputs
        there = self.classifier(x[-1]).argmax(dim=1).bool()[:, None, None, None]
        return [torch.where(there, logits, CLOSED) for logits in outputs]

    def presence(self, image: Tensor) -> Tensor:
        """Scores (N, 2) for "empty" and "not empty" of each image: the greater one is the verdict. The sigmoid of the
        released code is left to the loss: `cross_entropy(net.presence(images), masks.flatten(1).amax(1).long())`.
        Raises UserError (a ValueError): the net has no classification module, or the image does not fit.
        """
        if not self.config["classification"]:
            raise UserError("this net has no classification module: make it with classification=True")
        self.check_shape(image.shape)
        return self.classifier(self.encoder(image)[-1])


class ResidualUnit(nn.Module):
    """RCU, without batch norm: x + conv(relu(conv(relu(x)))). (N, c, h, w) -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2 = conv3x3(channels, channels), conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fusion(nn.Module):
    """conv(x) + U(conv(y)), both convolutions to c channels. x (N, c, h, w), y (N, c_below, h/2, w/2) -> as x."""

    def __init__(self, channels: int, c_below: int):
        super().__init__()
        self.conv_x, self.conv_y = conv3x3(channels, channels), conv3x3(c_below, channels)
        self.U = upsample(scale_factor=2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conv_x(x) + self.U(self.conv_y(y))


class Pooling(nn.Module):
    """CRP, chained residual pooling: p_0 = relu(x), p_n = conv(max5x5(p_{n-1})), p_0 + p_1 + p_2. As `ResidualUnit`."""

    def __init__(self, channels: int):
        super().__init__()
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.convs = nn.ModuleList(conv3x3(channels, channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        out = p = F.relu(x)
        for conv in self.convs:
            p = conv(self.pool(p))
            out = out + p
        return out


class RefineNet(Relative):
    """RefineNet (Lin et al., CVPR 2017) on the encoder of the grid, x^{i,0}, N = depth >= 2::

        y_N = RCU(CRP(RCU²(x^{N,0})))
        y_i = RCU(CRP(RCU²(x^{i,0}) fused with RCU²(y_{i+1})))     i < N

    RCU is `ResidualUnit`, RCU² two of them, CRP `Pooling`; row i has widths[i] channels. The encoder is no ResNet
    here, and the cascade goes up to the image's own size, where the head, 1x1, reads y_0.
    """

    def __init__(self, in_channels: int = 3, classes: int = 1, widths: Sequence[int] = WIDTHS):
        super().__init__(fewest=3, in_channels=in_channels, classes=classes, widths=widths)
        self.encoder = Encoder(in_channels, widths)
        self.adapt_x = nn.ModuleList(nn.Sequential(ResidualUnit(c), ResidualUnit(c)) for c in widths)
        self.adapt_y = nn.ModuleList(nn.Sequential(ResidualUnit(c), ResidualUnit(c)) for c in widths[1:])
        self.fuse = nn.ModuleList(Fusion(c, c_below) for c, c_below in pairwise(widths))
        self.refine = nn.ModuleList(nn.Sequential(Pooling(c), ResidualUnit(c)) for c in widths)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def _logits(self, image: Tensor) -> list[Tensor]:
        x = self.encoder(image)
        y = self.refine[-1](self.adapt_x[-1](x[-1]))
        for i in reversed(range(self.depth)):
            y = self.refine[i](self.fuse[i](self.adapt_x[i](x[i]), self.adapt_y[i](y)))
        return [self.head(y)]
