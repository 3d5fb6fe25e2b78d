"""From a trained net to probability maps, for images of any size."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from course_lib.errors import UserError
from course_lib.predict.setting import Setting, torch_device, unwrapped

Head = int | str  # a level 1..depth, or "mean"
IMAGENET = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # mean and deviation of its channels, as torchvision states them
TILES = {"cuda": 4}  # that are computed at once; on a CPU one
QUIET = 0.02  # added to the deviation that images are divided by: the noise of an empty image stays small


def standardise(images: Tensor) -> Tensor:
    """Images (N, C, H, W) in 0..1 -> mean 0 and deviation 1 in each image, over its channels and pixels.

    A dark image and a bright one then differ in what they show, not in how long the shutter was open.
    """
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    deviation = images.std(dim=(1, 2, 3), keepdim=True, correction=0)
    return (images - mean) / (deviation + QUIET)


def imagenet(images: Tensor) -> Tensor:
    """RGB images (N, 3, H, W) in 0..1 -> minus the mean of ImageNet's images, by their deviation, channel by channel.
    Raises UserError for other channels.
    """
    if images.shape[1] != 3:
        raise UserError(f"images of {images.shape[1]} channels have no mean in ImageNet: it knows RGB alone")
    mean, deviation = (images.new_tensor(values)[:, None, None] for values in IMAGENET)
    return (images - mean) / deviation


# How pixels in 0..1 are prepared for a net, by the name that its file holds. "scaled": not at all.
PREPARATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "standardised": standardise,
    "scaled": lambda images: images,
    "imagenet": imagenet,
}


def as_input(images: Tensor, inputs: str = "standardised") -> Tensor:
    """uint8 images (N, C, H, W) -> what nets take: float32, prepared by PREPARATIONS. Floats count as prepared."""
    return PREPARATIONS[inputs](images.float() / 255) if images.dtype == torch.uint8 else images


def inputs_of(net: nn.Module) -> str:
    """How images are prepared for this net, a key of PREPARATIONS."""
    return getattr(unwrapped(net), "inputs", "standardised")


def probability(outputs: list[Tensor], head: Head = "mean") -> Tensor:
    """Logits of all heads -> one probability map (N, classes, H, W), float32.

    "mean" is the paper's accurate mode: the mean of the heads' maps. A number is its fast mode: that head alone.
    The last head is also called -1.
    Raises UserError: no such head.
    """
    if head == "mean":
        return torch.stack([logits.float().sigmoid() for logits in outputs]).mean(0)
    if head != -1 and head not in range(1, len(outputs) + 1):
        raise UserError(f"head {head!r} does not exist: choose 'mean' or a number from 1 to {len(outputs)}")
    return outputs[head if head == -1 else head - 1].float().sigmoid()


@torch.no_grad()
def probabilities(
    net: nn.Module, images: Tensor, *, head: Head = "mean", batch_size: int = 32, setting: Setting | None = None
) -> Tensor:
    """Probability maps (N, classes, H, W), float32 on the CPU, of images (N, C, H, W) the net takes as they are.

    The net is left in the mode it was in; without `Setting.fold` it is moved to the setting's device.
    """
    with _computing(net, head, setting) as maps_of:
        return torch.cat([maps_of(batch).cpu() for batch in images.split(batch_size)])


@torch.no_grad()
def predict(
    net: nn.Module,
    image: Tensor,
    *,
    head: Head = "mean",
    tile: int = 512,
    overlap: int = 64,
    setting: Setting | None = None,
) -> Tensor:
    """The probability map (classes, H, W), float32, of one image (C, H, W) of any size, uint8 or from `as_input`.

    The image is continued by its mirror image up to multiples of 2**depth. Where it is larger than `tile`, it
    is cut into tiles that share `overlap` pixels and are blended with weights falling towards their rims. Beside
    image and map, which lie on the device, TILES of them are held in memory. In a terminal a bar counts the tiles.
    Raises UserError: not a (C, H, W) image, tiles that do not suit the depth, or too little GPU memory.
    """
    if image.ndim != 3:
        raise UserError(f"the image has shape {tuple(image.shape)}: give one image as (channels, height, width)")
    step = 2 ** getattr(unwrapped(net), "depth", 0)
    if tile % step or overlap % step or not 0 <= overlap < tile:
        raise UserError(f"tile {tile} and overlap {overlap} do not fit: give multiples of {step}, overlap below tile")
    setting = setting or Setting()
    device = torch_device(setting.device)
    image = image.to(device)  # there the map is made as well: nothing goes back and forth tile by tile
    light = _light(image) if image.dtype == torch.uint8 and inputs_of(net) == "standardised" else None
    height, width = image.shape[1:]
    rows, columns = (
        torch.from_numpy(np.pad(np.arange(side), (0, -side % step), mode="reflect")).to(device)
        for side in (height, width)
    )
    bands = (_bands(len(side), tile, overlap, device) for side in (rows, columns))
    tiles, many, blended = list(product(*bands)), TILES.get(device.type, 1), None
    silent = len(tiles) == 1 or None  # None: tqdm shows a bar in a terminal alone
    with (
        _computing(net, head, setting) as maps_of,
        tqdm(total=len(tiles), unit="tile", leave=False, disable=silent) as bar,
    ):
        for some in (tiles[n : n + many] for n in range(0, len(tiles), many)):
            pieces = torch.stack([image[:, rows[y : y + tile]][:, :, columns[x : x + tile]] for (y, _), (x, _) in some])
            if light is not None:  # of the whole image: a tile of background alone would be all noise
                pieces = (pieces.float() / 255 - light[0]) / light[1]
            for ((y, down), (x, across)), found in zip(some, maps_of(pieces), strict=True):
                if blended is None:
                    blended = torch.zeros(len(found), height, width, device=device)
                place = blended[:, y : y + tile, x : x + tile]
                place += (down[:, None] * across * found)[:, : place.shape[1], : place.shape[2]]
            bar.update(len(some))
        return blended.cpu()


@contextmanager
def _computing(net: nn.Module, head: Head, setting: Setting | None) -> Iterator[Callable[[Tensor], Tensor]]:
    """A function from images to probability maps on the device; afterwards the net is in the mode it was in."""
    setting, training = setting or Setting(), net.training
    device = torch_device(setting.device)
    try:
        model = setting.for_inference(net)
        prepared = inputs_of(net)
        yield lambda images: probability(setting.forward(model, as_input(images.to(device), prepared)), head)
    except torch.OutOfMemoryError as problem:
        raise UserError("the GPU's memory is full: use smaller tiles or batches, or the device cpu") from problem
    finally:
        net.train(training)


def _light(image: Tensor) -> tuple[float, float]:
    """What `standardise` subtracts and divides by, from the histogram of a uint8 image: no copy of it as floats."""
    counts = sum(torch.bincount(band.flatten(), minlength=256) for band in image.split(256, dim=1)).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts * values).sum() / counts.sum()
    deviation = ((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt()
    return mean.item(), deviation.item() + QUIET


def _bands(side: int, tile: int, overlap: int, device: torch.device) -> list[tuple[int, Tensor]]:
    """Where tiles begin along one side, and each one's weights (length,): over all tiles they add up to 1.

    They are 1 inside a tile, fall linearly over the overlap and are never 0.
    """
    starts = [*range(0, side - tile, tile - overlap), max(side - tile, 0)]  # the last one is flush with the end
    ramp, total = torch.arange(1, min(side, tile) + 1) / (overlap + 1), torch.zeros(side)
    hat = torch.minimum(ramp, ramp.flip(0)).clamp(max=1)
    for start in starts:
        total[start : start + tile] += hat
    return [(start, (hat / total[start : start + tile]).to(device)) for start in starts]
