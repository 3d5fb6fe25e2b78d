"""UNet 3+: every decoder node reads every scale."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.errors import UserError
from course_lib.relatives.base import Encoder, Relative

CLOSED = -20.0  # the logit of a pixel in an image judged empty: probability 2e-9


def conv_norm_relu(c_in: int, c_out: int) -> nn.Sequential:
    """C and H: 3x3 convolution, batch norm, ReLU; half a `VGGBlock`."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU())


class UNet3Plus(Relative):
    """UNet 3+ (Huang et al., ICASSP 2020), of any depth N >= 1. x_En^i is the encoder of the grid, x^{i,0}::

        x_De^N = x_En^N
        x_De^i = H([ C(D(x_En^k)) for k < i,  C(x_En^i),  C(U(x_De^k)) for k > i ])     i < N

    Each scale is brought to row i, by max pooling D or bilinear U, and to `cat_width` channels by C; H keeps the
    cat_width * (N + 1) channels of the concatenation. C and H are a 3x3 convolution, batch norm and ReLU.

    Args:
        in_channels, classes, widths: as of `NestedUNet`, widths of the encoder.
        cat_width: channels that each scale gives to a decoder node; by default widths[0], as in the released code.
        deep_supervision: a 3x3 head on each x_De^i, N included, brought to full size by U, instead of one on x_De^0.
        classification: the classification-guided module: an image that `presence` judges empty gets an empty map.

    In the released code the module multiplies the logits by the verdict, 0 or 1; an image judged empty then has
    probability sigmoid(0) = 0.5 everywhere. Here its logits become `CLOSED`. As there the module acts in training too,
    and the verdict passes no gradient, so `presence` needs a loss of its own; until it has learned something every
    image counts as not empty.
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
        super().__init__(
            in_channels=in_channels,
            classes=classes,
            widths=widths,
            cat_width=cat_width,
            deep_supervision=deep_supervision,
            classification=classification,
        )
        cat_width = widths[0] if cat_width is None else cat_width
        if cat_width < 1:
            raise UserError(f"cat_width is {cat_width}: give a positive number of channels")
        N = self.depth
        joined = cat_width * (N + 1)
        decoded = [joined] * N + [widths[N]]  # channels of x_De^0 .. x_De^N
        self.encoder = Encoder(in_channels, widths)
        self.C = nn.ModuleList(
            nn.ModuleList(conv_norm_relu(c, cat_width) for c in [*widths[: i + 1], *decoded[i + 1 :]]) for i in range(N)
        )
        self.H = nn.ModuleList(conv_norm_relu(joined, joined) for _ in range(N))
        self.D = nn.ModuleList(nn.MaxPool2d(2**n) for n in range(N))  # n rows down
        self.U = nn.ModuleList(  # n rows up
            nn.Upsample(scale_factor=2**n, mode="bilinear", align_corners=True) for n in range(N + 1)
        )
        rows = range(N, -1, -1) if deep_supervision else [0]
        self.heads = nn.ModuleDict({str(i): nn.Conv2d(decoded[i], classes, 3, padding=1) for i in rows})
        if classification:
            scores = nn.Conv2d(widths[N], 2, 1)
            nn.init.zeros_(scores.weight)
            with torch.no_grad():
                scores.bias.copy_(torch.tensor([0.0, 1.0]))  # not empty, until training says otherwise
            self.classifier = nn.Sequential(nn.Dropout(0.5), scores, nn.AdaptiveMaxPool2d(1), nn.Flatten())

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (N, in_channels, H, W) -> a list of logits (N, classes, H, W), the deepest row's head first.

        Raises:
            UserError (a ValueError): another number of channels, or H or W not divisible by 2**depth.
        """
        self.check_shape(image.shape)
        x_en = self.encoder(image)
        x_de = {self.depth: x_en[-1]}
        for i in reversed(range(self.depth)):
            scales = [self.D[i - k](x_en[k]) for k in range(i)] + [x_en[i]]
            scales += [self.U[k - i](x_de[k]) for k in range(i + 1, self.depth + 1)]
            x_de[i] = self.H[i](torch.cat([C(x) for C, x in zip(self.C[i], scales, strict=True)], dim=1))
        outputs = [self.U[int(i)](head(x_de[int(i)])) for i, head in self.heads.items()]
        if not self.config["classification"]:
            return outputs
        there = self.classifier(x_en[-1]).argmax(dim=1).bool()[:, None, None, None]
        return [torch.where(there, logits, CLOSED) for logits in outputs]

    def presence(self, image: Tensor) -> Tensor:
        """Scores (N, 2) for "empty" and "not empty" of each image: the greater one is the verdict.

        Dropout, a 1x1 convolution of x_En^N and the maximum over all pixels. The sigmoid of the released code changes
        no verdict and is left to the loss: `cross_entropy(net.presence(images), masks.flatten(1).amax(1).long())`.

        Raises:
            UserError (a ValueError): the net has no classification module, or the image does not fit.
        """
        if not self.config["classification"]:
            raise UserError("this net has no classification module: make it with classification=True")
        self.check_shape(image.shape)
        return self.classifier(self.encoder(image)[-1])
