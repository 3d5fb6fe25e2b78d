"""From a trained net to probability maps, for images of any size."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from course_lib.errors import UserError
from course_lib.setting import Setting, torch_device

Head = int | str  # a level 1..depth, or "mean"


def standardise(images: Tensor) -> Tensor:
    """Images (N, C, H, W) in 0..1 -> mean 0 and deviation 1 in each image, over its channels and pixels.

    A dark image and a bright one then differ in what they show, not in how long the shutter was open. The
    small constant keeps the noise of an empty image small.
    """
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    deviation = images.std(dim=(1, 2, 3), keepdim=True, correction=0)
    return (images - mean) / (deviation + 0.02)


def as_input(images: Tensor) -> Tensor:
    """uint8 images (N, C, H, W) -> what nets take: float32, standardised. Floats count as prepared already."""
    return standardise(images.float() / 255) if images.dtype == torch.uint8 else images


def probability(outputs: list[Tensor], head: Head = "mean") -> Tensor:
    """Logits of all heads -> one probability map (N, classes, H, W), float32.

    "mean" is the paper's accurate mode: the mean of the heads' probability maps. A number is its fast mode:
    that head alone. The last head is also called -1.

    Raises:
        UserError: no such head.
    """
    if head == "mean":
        return torch.stack([logits.float().sigmoid() for logits in outputs]).mean(0)
    if head != -1 and head not in range(1, len(outputs) + 1):
        raise UserError(f"head {head!r} does not exist: choose 'mean' or a number from 1 to {len(outputs)}")
    return outputs[head if head == -1 else head - 1].float().sigmoid()


@torch.no_grad()
def probabilities(
    net: nn.Module,
    images: Tensor,
    *,
    head: Head = "mean",
    batch_size: int = 32,
    setting: Setting | None = None,
) -> Tensor:
    """Probability maps (N, classes, H, W), float32 on the CPU, of images (N, C, H, W) the net takes as they are.

    The net is left in the mode it was in, on the setting's device.
    """
    setting = setting or Setting()
    device, training = torch_device(setting.device), net.training
    maps = []
    try:
        model = setting.compiled(setting.place(net.eval()))
        for batch in images.split(batch_size):
            outputs = setting.forward(model, as_input(batch.to(device)))
            maps.append(probability(outputs, head).cpu())
    finally:
        net.train(training)
    return torch.cat(maps)


def predict(
    net: nn.Module,
    image: Tensor,
    *,
    head: Head = "mean",
    tile: int = 512,
    overlap: int = 64,
    setting: Setting | None = None,
) -> Tensor:
    """The probability map (classes, H, W) of one image (C, H, W) of any size, uint8 or prepared by `as_input`.

    The image is continued by its mirror image up to multiples of 2**depth. Where it is larger than `tile`, it
    is cut into tiles that share `overlap` pixels and are blended with weights falling towards their rims.

    Raises:
        UserError: not a (C, H, W) image, or tiles that do not suit the depth.
    """
    if image.ndim != 3:
        raise UserError(f"the image has shape {tuple(image.shape)}: give one image as (channels, height, width)")
    step = 2 ** getattr(net, "depth", 0)
    if tile % step or overlap % step or not 0 <= overlap < tile:
        raise UserError(f"tile {tile} and overlap {overlap} do not fit: give multiples of {step}, overlap below tile")
    height, width = image.shape[1:]
    image = as_input(image[None])[0]  # the whole image: a tile of background alone would be all noise
    image = _mirror(image, *(-(-side // step) * step for side in (height, width)))
    corners = [(y, x) for y in _starts(image.shape[1], tile, overlap) for x in _starts(image.shape[2], tile, overlap)]
    blended, weights = 0, torch.zeros(image.shape[1:])
    for y, x in corners:
        piece = image[None, :, y : y + tile, x : x + tile]
        found = probabilities(net, piece, head=head, setting=setting)[0]
        if len(corners) == 1:
            return found[:, :height, :width]
        if y == x == 0:
            blended = torch.zeros(len(found), *image.shape[1:])
        weight = _hat(found.shape[1], overlap)[:, None] * _hat(found.shape[2], overlap)
        blended[:, y : y + tile, x : x + tile] += weight * found
        weights[y : y + tile, x : x + tile] += weight
    return (blended / weights)[:, :height, :width]


def _mirror(image: Tensor, height: int, width: int) -> Tensor:
    """(C, h, w) continued below and to the right by reflection, as often as it takes: (C, height, width)."""
    for dim, side in ((1, height), (2, width)):
        last = image.shape[dim] - 1
        there_and_back = torch.arange(side) % max(2 * last, 1)  # 0 .. last .. 1, and again
        image = image.index_select(dim, last - (last - there_and_back).abs())
    return image


def _starts(side: int, tile: int, overlap: int) -> Iterator[int]:
    """Where tiles begin along one side: evenly stepped, the last one flush with the end."""
    if side <= tile:
        return iter([0])
    return iter([*range(0, side - tile, tile - overlap), side - tile])


def _hat(side: int, overlap: int) -> Tensor:
    """Weights along one side of a tile: 1 inside, falling linearly over the overlap, never 0."""
    ramp = torch.arange(1, side + 1) / (overlap + 1)
    return torch.minimum(ramp, ramp.flip(0)).clamp(max=1)
