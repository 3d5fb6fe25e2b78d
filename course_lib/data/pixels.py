"""Pixels of images and labels: read, written, resized and cut, the same on every machine."""

import io
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from scipy.ndimage import find_objects
from skimage.segmentation import relabel_sequential

from course_lib.data.decode import decode
from course_lib.errors import UserError
from course_lib.files import whole_folder

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in grey (ITU-R BT.601)


def read_file(path: Path, where: str) -> bytes:
    """The bytes of a file. Raises UserError, which calls it `where`: it is missing, a folder, or not permitted."""
    if not path.is_file():
        raise UserError(f"{where} is not a file: check its name, or take it out")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error.strerror}): check its permissions") from error


def read_image(data: bytes, where: str, channels: int | None = None, *, fourth: bool = False) -> np.ndarray:
    """The bytes of a png, tif or jpg file -> uint8 (H, W, C), as a net of so many channels wants it (`as_channels`).

    None: as the file has it, C = 2..8, where grey is repeated three times and transparency is dropped. `fourth`: the
    transparency of RGBA is a channel of its own, opaque where there is none, if four are wanted.
    Raises UserError, which calls the file `where`.
    """
    pixels, alpha = decode(data, where)
    if fourth and alpha is not None and channels == pixels.shape[2] + 1 == 4:
        pixels = np.concatenate([pixels, alpha[..., None]], axis=2)
    image = as_bytes(pixels, where)
    native = 3 if image.shape[2] == 1 else image.shape[2]
    return as_channels(image, channels or native, where, fourth=fourth)


def as_channels(image: np.ndarray, channels: int, where: str, *, fourth: bool = False) -> np.ndarray:
    """(..., C) -> (..., channels): grey is repeated, colour becomes grey by its luma, a `fourth` channel is opaque.
    Raises UserError where the two have nothing to do with each other.
    """
    there = image.shape[-1]
    if there == channels:
        return image
    if there == 1 and channels == 3:
        return np.repeat(image, 3, axis=-1)
    if there == 3 and channels == 1:
        return np.rint(image @ np.array(LUMA, np.float32)).astype(image.dtype)[..., None]
    if fourth and there in (1, 3) and channels == 4:
        opaque = np.full((*image.shape[:-1], 1), 255, image.dtype)
        return np.concatenate([as_channels(image, 3, where), opaque], axis=-1)
    raise UserError(f"{where} has {there} channels and the net takes {channels}: give an image like those of training")


def as_rgb(image: np.ndarray) -> np.ndarray:
    """uint8 (..., C) -> (..., 3) to look at: two channels in green and magenta, of more than three the first three."""
    shown = {1: [0, 0, 0], 2: [1, 0, 1]}.get(image.shape[-1], [0, 1, 2])
    return image if image.shape[-1] == 3 else image[..., shown]


def as_bytes(pixels: np.ndarray, where: str) -> np.ndarray:
    """Any numbers (H, W, C) -> uint8, stretched to 0..255 unless they are that already: deep images rarely use their
    whole range. Grey and RGB have one range; of 2 or more than 3 channels each has its own, as each had its own light.
    Raises UserError for complex numbers and the like, and for what is not finite.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind not in "buif":
        raise UserError(f"{where} holds values of type {pixels.dtype}: save it with 8 or 16 bits")
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3):
        return np.concatenate([as_bytes(one, where) for one in np.split(pixels, pixels.shape[2], axis=2)], axis=2)
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite(high - low):
        raise UserError(f"{where} holds values that are not finite numbers: export the image again")
    scale, bands = 255 / ((high - low) or 1), np.array_split(pixels, 1 + pixels.size // 2**22)  # small ones as float64
    return np.concatenate([np.rint((band.astype(np.float64) - low) * scale).astype(np.uint8) for band in bands])


def labels_file(labels: np.ndarray) -> tuple[str, bytes]:
    """Instance labels (H, W) as a file, ending and bytes: a 16-bit png, or a 32-bit tif for more than it can number."""
    file, deep = io.BytesIO(), labels.max(initial=0) >= 2**16
    Image.fromarray(labels.astype(np.int32 if deep else np.uint16)).save(file, "tiff" if deep else "png")
    return ".tif" if deep else ".png", file.getvalue()


def write_folder(folder: str | Path, pairs: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> None:
    """Writes (id, image, labels) as images/ID.png, as planes of ID.tif where an image is neither grey nor RGB, and as
    masks/ID.png, as `labels_file` does; all of them or none.
    Raises UserError: the folder is there and not empty, or cannot be written.
    """
    with whole_folder(folder) as scratch:
        for kind in ("images", "masks"):
            (scratch / kind).mkdir()
        for id, image, labels in pairs:
            if image.ndim == 2 or image.shape[2] == 3:
                Image.fromarray(image).save(scratch / f"images/{id}.png")
            else:
                tifffile.imwrite(scratch / f"images/{id}.tif", np.moveaxis(image, 2, 0), photometric="minisblack")
            ending, content = labels_file(labels)
            (scratch / f"masks/{id}{ending}").write_bytes(content)


def resize_image(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, C) -> uint8 (size, size, C), or of (height, width): the mean over the area of each new pixel.

    In a square the aspect ratio is lost. Means of areas keep fine texture from turning into a false pattern (aliasing).
    """
    height, width = size if isinstance(size, tuple) else (size, size)
    rows, columns = _shares(image.shape[0], height), _shares(image.shape[1], width).T
    area = image.shape[0] * image.shape[1]  # the sum of all shares of a new pixel
    sums = np.stack([rows @ channel.astype(np.float64) @ columns for channel in np.moveaxis(image, 2, 0)], axis=-1)
    return ((2 * sums + area) // (2 * area)).astype(np.uint8)  # whole numbers: a half rounds up on every machine


def resize_labels(labels: np.ndarray, size: int) -> np.ndarray:
    """Instance labels 0..K (H, W) -> int32 (size, size), again whole instances, numbered 1..K without gaps.
    Labels (classes, H, W) of several classes are resized one by one.

    A new pixel is nucleus where nuclei cover at least half of its area, and belongs to the one that covers most of it
    (the lower number where two cover the same). What fills half of no pixel vanishes.
    """
    if labels.ndim == 3:
        return np.stack([resize_labels(one, size) for one in labels])
    owner, most, covered = np.zeros((3, size, size))
    rows, columns = (_shares(side, size) for side in labels.shape)
    for number, place in enumerate(find_objects(labels), start=1):
        if place is None:
            continue
        y, x = (
            slice(old.start * size // side, -(-old.stop * size // side))
            for old, side in zip(place, labels.shape, strict=True)
        )
        cover = rows[y, place[0]] @ (labels[place] == number) @ columns[x, place[1]].T
        owner[y, x][cover > most[y, x]] = number
        most[y, x] = np.maximum(most[y, x], cover)
        covered[y, x] += cover
    owner[2 * covered < labels.size] = 0
    return consecutive(owner.astype(np.int32))


def _shares(length: int, size: int) -> np.ndarray:
    """How much of each old pixel of a side lies in each new one, (size, length), in units of 1 / size old pixels.

    These are whole numbers, so sums are exact everywhere.
    """
    old, new = np.arange(length) * size, np.arange(size)[:, None] * length
    return (np.minimum(old + size, new + length) - np.maximum(old, new)).clip(0).astype(np.float64)


def consecutive(labels: np.ndarray) -> np.ndarray:
    """Whole numbers >= 0 -> int32: 0 stays, the others become 1..K in their order."""
    return relabel_sequential(labels)[0].astype(np.int32)


def cut(image: np.ndarray, labels: np.ndarray, size: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Tiles of `size` x `size` that cover image (H, W, C) and labels (H, W) or (classes, H, W): "row,column" of their
    corner -> the two.

    As few as cover it, evenly placed, so neighbours overlap where `size` does not divide the side. A side below `size`
    is continued by its mirror image. The labels of a tile are numbered 1..K; an object that is cut keeps one number.
    """
    several = labels.ndim == 3
    labels = labels if several else labels[None]
    short = [(0, max(0, size - side)) for side in labels.shape[1:]]
    image = np.pad(image, [*short, (0, 0)], mode="symmetric")
    labels = np.pad(labels, [(0, 0), *short], mode="symmetric")
    tiles = {}
    for y, x in product(*(_corners(side, size) for side in labels.shape[1:])):
        down, across = slice(y, y + size), slice(x, x + size)
        piece = np.stack([consecutive(one[down, across]) for one in labels])
        tiles[f"{y},{x}"] = image[down, across].copy(), piece if several else piece[0]  # a view keeps the whole image
    return tiles


def _corners(side: int, size: int) -> list[int]:
    count = -(-side // size)
    return [(side - size) * n // max(1, count - 1) for n in range(count)]
