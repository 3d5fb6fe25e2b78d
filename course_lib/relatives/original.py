"""The U-Net of 2015: convolutions that lose their rim, images continued by their mirror image, weighted borders."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from course_lib.errors import UserError
from course_lib.relatives.nets import Relative


def valid_block(c_in: int, c_out: int) -> nn.Sequential:
    """(3x3 convolution, ReLU) twice, without padding: (N, c_in, h, w) -> (N, c_out, h - 4, w - 4)."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3), nn.ReLU(), nn.Conv2d(c_out, c_out, 3), nn.ReLU())


class OriginalUNet(Relative):
    """U-Net as in the paper (Ronneberger et al. 2015): 31,030,658 parameters, 572x572 pixels in, 388x388 out::

        x_i = H(D(x_{i-1})),   x_0 = H(image);      y_N = x_N,   y_i = H([ crop(x_i), U(y_{i+1}) ])

    H is `valid_block`, U a 2x2 up-convolution to widths[i] channels; crop cuts the middle of x_i to the size of
    U(y_{i+1}). N poolings cost a rim of 6 * 2^N - 4 pixels on every side. Weights have the deviation √(2/n), n the
    inputs of one output value (He et al., 2015): without batch norm this keeps the activations in range.

    The net itself continues an image of any size by its mirror image on all sides, hence its `depth` is 0.
    """

    def __init__(self, in_channels: int = 1, classes: int = 2, widths: Sequence[int] = (64, 128, 256, 512, 1024)):
        super().__init__(in_channels=in_channels, classes=classes, widths=widths)
        self.poolings, self.depth = self.depth, 0
        self.rim = 6 * 2**self.poolings - 4
        rows = list(pairwise(widths))
        self.down = nn.ModuleList(valid_block(c_in, c_out) for c_in, c_out in pairwise((in_channels, *widths)))
        self.D = nn.MaxPool2d(2)
        self.U = nn.ModuleList(nn.ConvTranspose2d(c_below, c, 2, stride=2) for c, c_below in rows)
        self.up = nn.ModuleList(valid_block(2 * c, c) for c, _ in rows)
        self.head = nn.Conv2d(widths[0], classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                inputs = module.in_channels * prod(module.kernel_size) / prod(module.stride)
                nn.init.normal_(module.weight, std=(2 / inputs) ** 0.5)
                nn.init.zeros_(module.bias)

    def valid(self, image: Tensor) -> Tensor:
        """Image (N, in_channels, H, W) -> logits (N, classes, H - 2 rim, W - 2 rim) of its middle, no pixel made up.
        Raises UserError (a ValueError): another number of channels, or H or W without output or odd before a pooling.
        """
        self.check_shape(image.shape)
        (height, width), step, least = image.shape[2:], 2**self.poolings, 2 * self.rim + 4
        if min(height, width) < least or (height + 4) % step or (width + 4) % step:
            raise UserError(
                f"{height}x{width} does not fit unpadded convolutions: give sides of {least}, {least + step}, "
                f"{least + 2 * step} ... pixels, or call the net itself, which continues the image"
            )
        x: list[Tensor] = []
        for H in self.down:
            x.append(H(self.D(x[-1]) if x else image))
        y = x.pop()
        for skip, U, H in zip(reversed(x), reversed(self.U), reversed(self.up), strict=True):
            up = U(y)
            rim = (skip.shape[-1] - up.shape[-1]) // 2  # the same on all sides
            y = H(torch.cat([F.pad(skip, [-rim] * 4), up], dim=1))
        return self.head(y)

    def _logits(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[2:]
        for axis, side in ((2, height), (3, width)):
            short = max(4 - side, (4 - side) % 2**self.poolings)  # of the next larger side that `valid` can put out
            # numpy reflects as often as it takes; torch refuses a rim wider than the image.
            places = np.pad(np.arange(side), (self.rim, self.rim + short), mode="reflect")
            image = image.index_select(axis, torch.from_numpy(places).to(image.device))
        return [self.valid(image)[:, :, :height, :width]]


def border_weights(labels: Tensor, *, w0: float = 10.0, sigma: float = 5.0) -> Tensor:
    """How much each pixel counts in the loss, by the formula commonly cited from the paper::

        w(x) = w_c(x) + w0 exp(-(d_1(x) + d_2(x))² / (2 σ²))

    d_1 and d_2 are the distances to the nearest and the second nearest nucleus, 0 inside of it, and like σ in pixels;
    with fewer than two nuclei the second term is 0. w_c gives the background and the nuclei of an image the same sum,
    and has mean 1; where one of them is missing it is 1.

    labels are integers (H, W) or (N, H, W), one number a nucleus, 0 the background -> float32, as large, on the CPU.
    Raises UserError: labels of another shape, or sigma that is not positive.
    """
    if labels.ndim not in (2, 3):
        raise UserError(f"the labels have shape {tuple(labels.shape)}: give (height, width) or (N, height, width)")
    if sigma <= 0:
        raise UserError(f"sigma is {sigma}: give a positive number of pixels")
    if labels.ndim == 3:
        return torch.stack([border_weights(one, w0=w0, sigma=sigma) for one in labels])
    nuclei = labels.cpu().numpy()
    d_1 = d_2 = np.full(nuclei.shape, np.inf)
    for number in np.unique(nuclei[nuclei > 0]):
        d = distance_transform_edt(nuclei != number)
        d_1, d_2 = np.minimum(d_1, d), np.minimum(d_2, np.maximum(d_1, d))
    share = (nuclei > 0).mean()
    w_c = np.where(nuclei > 0, 0.5 / share, 0.5 / (1 - share)) if 0 < share < 1 else 1.0
    return torch.from_numpy(w_c + w0 * np.exp(-((d_1 + d_2) ** 2) / (2 * sigma**2))).float()
