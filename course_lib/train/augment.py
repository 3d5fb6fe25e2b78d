"""Random changes that leave the answer right: flips, quarter turns, shifts, brightness and contrast.

Whole batches at once, on their own device, image and mask together. What happens is drawn first, from a
generator the caller passes in, so the same state gives the same batch on any device and any number of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

SHIFT = 1 / 12  # of the side, at most: a nucleus leaves the image rarely
CONTRAST, BRIGHTNESS = 0.25, 0.15  # at most, as shares of a channel's contrast and of the image's deviation


class Draw(NamedTuple):
    """What happens to each of N images; drawn on the CPU."""

    flip: Tensor  # bool (N, 2): upside down, left to right
    turn: Tensor  # bool (N,): rows become columns; with the flips, every quarter turn
    shift: Tensor  # float (N, 2): of the crop window, down and right, as shares of height and width
    gain: Tensor  # float (N, C): contrast factor of each channel
    offset: Tensor  # float (N, C): brightness added to each channel, in deviations of the image

    def part(self, which: slice) -> "Draw":
        """The same draw for a part of the batch."""
        return Draw(*(field[which] for field in self))

    def to(self, device: torch.device) -> "Draw":
        """The same draw on a device, where it need not be copied again."""
        return Draw(*(field.to(device) for field in self))


def draw(count: int, generator: Generator, *, channels: int = 3) -> Draw:
    """Draw for `count` images from a CPU generator."""

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(shape, generator=generator) - 1  # -1..1

    return Draw(
        flip=uniform(count, 2) > 0,
        turn=uniform(count) > 0,
        shift=SHIFT * uniform(count, 2),
        gain=1 + CONTRAST * uniform(count, channels),
        offset=BRIGHTNESS * uniform(count, channels),
    )


def join(draws: Sequence[Draw]) -> Draw:
    """The draws of several batches as that of one."""
    return Draw(*map(torch.cat, zip(*draws, strict=True)))


def apply(images: Tensor, masks: Tensor, drawn: Draw) -> tuple[Tensor, Tensor]:
    """Do what was drawn to images (N, C, H, W), floats, and masks (N, K, H, W); types are kept.
    Images that are not square are flipped and shifted but not turned.
    """
    both = torch.cat([images, masks.to(images.dtype)], dim=1)
    both = crop(turn(both, drawn), drawn)
    channels = images.shape[1]
    return light(both[:, :channels], drawn), both[:, channels:].to(masks.dtype)


def turn(batch: Tensor, drawn: Draw) -> Tensor:
    """Flip and transpose each image of (N, C, H, W) as drawn: the eight symmetries of the square."""
    flip = drawn.flip.to(batch.device)[:, :, None, None, None]
    batch = torch.where(flip[:, 0], batch.flip(2), batch)
    batch = torch.where(flip[:, 1], batch.flip(3), batch)
    if batch.shape[2] == batch.shape[3]:
        batch = torch.where(drawn.turn.to(batch.device)[:, None, None, None], batch.transpose(2, 3), batch)
    return batch


def crop(batch: Tensor, drawn: Draw) -> Tensor:
    """Shift (N, C, H, W) by whole pixels: a crop of the image continued by its mirror image."""
    height, width = batch.shape[2:]
    reach = [int(SHIFT * side) for side in (height, width)]
    padded = F.pad(batch, (reach[1], reach[1], reach[0], reach[0]), mode="reflect")
    shift = drawn.shift.to(batch.device)
    start = (shift * shift.new_tensor([height, width])).trunc().long() + torch.tensor(reach, device=batch.device)
    down, right = start[:, :, None].unbind(1)  # (N, 1) each
    rows = down + torch.arange(height, device=batch.device)  # (N, H)
    columns = right + torch.arange(width, device=batch.device)  # (N, W)
    image = torch.arange(len(batch), device=batch.device)[:, None, None]
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def light(images: Tensor, drawn: Draw) -> Tensor:
    """Contrast about the channel's mean and brightness, channel by channel (stains differ).

    Brightness is counted in deviations of the image, over its channels and pixels, and nothing is clipped: most
    microscope images are dark, and what would be a little light in 0..1 drowns all that they show.
    """
    gain, offset = (field.to(images)[:, :, None, None] for field in (drawn.gain, drawn.offset))
    mean = images.mean(dim=(2, 3), keepdim=True)
    deviation = images.std(dim=(1, 2, 3), keepdim=True, correction=0)
    return (images - mean) * gain + mean + offset * deviation
