"""Image files to pixels, exactly: what could be read in two ways is refused, and every machine resizes to the same."""

import io
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from scipy.ndimage import find_objects
from skimage.measure import label
from skimage.segmentation import relabel_sequential
from skimage.transform import resize_local_mean
from tifffile import COMPRESSION, PHOTOMETRIC, TiffFile

from course_lib.errors import UserError
from course_lib.files import whole_folder

SUFFIXES = {".png", ".tif", ".tiff", ".jpg", ".jpeg"}
JPG = b"\xff\xd8"  # how such a file begins
LARGEST = 10_240  # pixels along a side of a square
PLAIN = (COMPRESSION.NONE, COMPRESSION.PACKBITS, COMPRESSION.DEFLATE, COMPRESSION.ADOBE_DEFLATE)
MAX_SIDE = 2**16  # resizing weighs each pixel of a side for each new one


def read_file(path: Path, where: str) -> bytes:
    """The bytes of a file. Raises UserError, which calls it `where`: it is missing, a folder, or not permitted."""
    if not path.is_file():
        raise UserError(f"{where} is not a file: take it out")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error.strerror}): check its permissions") from error


def read_image(data: bytes, where: str) -> np.ndarray:
    """The bytes of a png, tif or jpg file -> uint8 (H, W, 3). Raises UserError, which calls the file `where`.

    Grey is repeated three times, of two channels the third is empty, and a fourth (alpha) is dropped.
    """
    pixels = as_bytes(np.atleast_3d(decode(data, where, as_colour=True))[..., :3], where)
    missing = 3 - pixels.shape[2]
    return np.pad(pixels, [(0, 0), (0, 0), (0, missing)], mode="edge" if missing == 2 else "constant")


def as_bytes(pixels: np.ndarray, where: str) -> np.ndarray:
    """Any numbers -> uint8, stretched to 0..255 unless they are that already: deep images rarely use their whole range.
    Raises UserError for complex numbers and the like, and for what is not finite.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind not in "buif":
        raise UserError(f"{where} holds values of type {pixels.dtype}: save it with 8 or 16 bits")
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite(high - low):
        raise UserError(f"{where} holds values that are not finite numbers: export the image again")
    scale, bands = 255 / ((high - low) or 1), np.array_split(pixels, 1 + pixels.size // 2**22)  # small ones as float64
    return np.concatenate([np.rint((band.astype(np.float64) - low) * scale).astype(np.uint8) for band in bands])


def read_mask(data: bytes, where: str) -> np.ndarray:
    """The bytes of a mask file -> its values: bool or integers >= 0, (H, W). Raises UserError for anything else."""
    pixels = decode(data, where)
    if pixels.ndim == 3:  # grey + alpha, or a grey mask saved as RGB(A)
        colours = pixels[..., : 3 if pixels.shape[2] >= 3 else 1]
        if (colours != colours[..., :1]).any():
            raise UserError(f"{where} is a mask in colour: save one channel that holds 0 and 255, or instance numbers")
        pixels = colours[..., 0]
    if data.startswith(JPG):  # it smears values around every border: only 0/255 survives it
        pixels = pixels > 127
    if pixels.dtype.kind in "bu":
        return pixels
    whole = pixels.dtype.kind in "if" and bool(((pixels >= 0) & (pixels < 2**31)).all())  # also False for nan
    mask = pixels.astype(np.int64) if whole else None
    if mask is None or (mask != pixels).any():
        raise UserError(f"{where} is a mask with fractions or negative values: save 0 and 255, or instance numbers")
    return mask


def label_mask(mask: np.ndarray, where: str) -> np.ndarray:
    """Mask values (H, W) -> instance labels, int32 (H, W): 0 is background, nuclei count from 1.

    The connected components (8 neighbours) of a mask of one value are its nuclei. Several values are instance numbers.
    Raises UserError for a mask with grey borders, which is neither.
    """
    values, pieces = np.unique(mask[mask > 0]), label(mask.astype(np.int64))
    if len(values) < 2:
        return pieces.astype(np.int32)
    # Instance numbers come in about one piece each, and no single number covers much of the nuclei.
    mostly_255 = (mask == 255).sum() > np.count_nonzero(mask) / 4
    if values[-1] == 255 and (mostly_255 or pieces.max() > 2 * len(values)):
        raise UserError(
            f"{where} is a mask with grey borders ({len(values)} values in {pieces.max()} pieces): "
            "save it without smoothing or JPEG, as 0 and 255 or as instance numbers"
        )
    return _consecutive(mask)


def labels_file(labels: np.ndarray) -> tuple[str, bytes]:
    """Instance labels (H, W) as a file, ending and bytes: a 16-bit png, or a 32-bit tif for more than it can number."""
    file, deep = io.BytesIO(), labels.max(initial=0) >= 2**16
    Image.fromarray(labels.astype(np.int32 if deep else np.uint16)).save(file, "tiff" if deep else "png")
    return ".tif" if deep else ".png", file.getvalue()


def write_folder(folder: str | Path, pairs: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> None:
    """Writes (id, image, labels) as images/ID.png and masks/ID.png, as `labels_file` does; all of them or none.
    Raises UserError: the folder is there and not empty, or cannot be written.
    """
    with whole_folder(folder) as scratch:
        for kind in ("images", "masks"):
            (scratch / kind).mkdir()
        for id, image, labels in pairs:
            Image.fromarray(image).save(scratch / f"images/{id}.png")
            ending, content = labels_file(labels)
            (scratch / f"masks/{id}{ending}").write_bytes(content)


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, C) -> uint8 (size, size, C): the mean over the area of each new pixel.

    The aspect ratio is lost. Averaging areas keeps fine texture from turning into a false pattern (aliasing).
    """
    channels = np.moveaxis(image, 2, 0)  # one at a time in memory
    means = np.stack([resize_local_mean(one, (size, size), preserve_range=True) for one in channels], axis=-1)
    # Exact means are multiples of 1 / (H W), at least 1e-8. So a half rounds up whatever the last bits of a machine.
    return np.floor(means + 0.5 + 1e-9).astype(np.uint8)


def resize_labels(labels: np.ndarray, size: int) -> np.ndarray:
    """Instance labels 0..K (H, W) -> int32 (size, size), again whole instances, numbered 1..K without gaps.

    A new pixel is nucleus where nuclei cover at least half of its area, and belongs to the one that covers most of it
    (the lower number where two cover the same). What fills half of no pixel vanishes.
    """
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
    return _consecutive(owner.astype(np.int32))


def _shares(length: int, size: int) -> np.ndarray:
    """How much of each old pixel of a side lies in each new one, (size, length), in units of 1 / size old pixels.

    These are whole numbers, so sums are exact everywhere.
    """
    old, new = np.arange(length) * size, np.arange(size)[:, None] * length
    return (np.minimum(old + size, new + length) - np.maximum(old, new)).clip(0).astype(np.float64)


def _consecutive(labels: np.ndarray) -> np.ndarray:
    """Whole numbers >= 0 -> int32: 0 stays, the others become 1..K in their order."""
    return relabel_sequential(labels)[0].astype(np.int32)


def cut(image: np.ndarray, labels: np.ndarray, size: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Tiles of `size` x `size` that cover image (H, W, C) and labels (H, W): "row,column" of their corner -> the two.

    As few as cover it, evenly placed, so neighbours overlap where `size` does not divide the side. A side below `size`
    is continued by its mirror image. The labels of a tile are numbered 1..K; an object that is cut keeps one number.
    """
    short = [(0, max(0, size - side)) for side in labels.shape]
    image, labels = np.pad(image, [*short, (0, 0)], mode="symmetric"), np.pad(labels, short, mode="symmetric")
    tiles = {}
    for y, x in product(*(_corners(side, size) for side in labels.shape)):
        place = np.s_[y : y + size, x : x + size]
        tiles[f"{y},{x}"] = image[place].copy(), _consecutive(labels[place])  # a view would keep the whole image
    return tiles


def _corners(side: int, size: int) -> list[int]:
    count = -(-side // size)
    return [(side - size) * n // max(1, count - 1) for n in range(count)]


def decode(data: bytes, where: str, *, as_colour: bool = False) -> np.ndarray:
    """The bytes of a png, tif or jpg file -> (H, W) or (H, W, C), C up to 4, as stored.

    `as_colour` turns palettes and the like into RGB. Raises UserError for anything else.
    """
    try:
        if data.startswith((b"II*\0", b"MM\0*")):
            return _decode_tif(data, where, as_colour)
        kind = JpegImageFile if data.startswith(JPG) else PngImageFile  # Image.open warns of large images
        with kind(io.BytesIO(data)) as image:
            _check_extent(where, *image.size)
            deep = ";16" in str(image.tile)
            pixels = _by_pillow(image, as_colour)
            if deep and pixels.dtype == np.uint8:
                raise ValueError("Pillow keeps 8 bits of 16-bit colour")
            return pixels
    except UserError:
        raise
    except Exception as error:  # decoders raise a dozen kinds on damaged files
        raise UserError(
            f"{where} cannot be read as a png, tif or jpg image (16-bit colour: as tif only): "
            "replace the file or take it out"
        ) from error


def _check_extent(where: str, width: int, height: int) -> None:
    """Before anything is decoded: a header that announces more is a mistake or an attack."""
    if width * height > LARGEST**2 or max(width, height) > MAX_SIDE:
        raise UserError(
            f"{where} announces {width} x {height} pixels: cut it into tiles of at most {LARGEST} x {LARGEST}"
        )


def _decode_tif(data: bytes, where: str, as_colour: bool) -> np.ndarray:
    """tifffile knows all numbers; Pillow knows palettes, inks, and compressions that tifffile needs a package for."""
    with TiffFile(io.BytesIO(data)) as tif:
        page, images = tif.pages.first, len(tif.pages)
        _check_extent(where, page.imagewidth, page.imagelength)
        bits = np.max(page.bitspersample)
        if images > 1:
            raise UserError(f"{where} holds {images} images: save one image per file")
        if page.photometric == PHOTOMETRIC.MINISWHITE and bits > 8:  # Pillow mends 8 bits
            raise UserError(f"{where} stores white as 0: save it with black as 0")
        if page.dtype is None or not page.size:
            raise ValueError("no numbers of a known type")
        if page.ndim > 3 or page.samplesperpixel > 4:
            raise UserError(f"{where} has shape {page.shape}: save it as one image of one to four channels")
        grey_or_rgb = page.photometric in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB)
        if not grey_or_rgb or bits % 8 or page.compression not in PLAIN:
            with TiffImageFile(io.BytesIO(data)) as image:
                pixels = _by_pillow(image, as_colour)
            if page.dtype in (bool, np.uint8) or pixels.dtype.name == page.dtype.name:  # else Pillow keeps too few bits
                return pixels
        pixels = np.moveaxis(page.asarray(), 0, -1) if page.axes == "SYX" else page.asarray()
        return pixels[..., 0] if page.samplesperpixel == 2 and any(page.extrasamples) else pixels  # grey + alpha


def _by_pillow(image: Image.Image, as_colour: bool) -> np.ndarray:
    deep = image.mode.startswith(("I", "F"))
    return np.array(image.convert("RGB") if as_colour and not deep else image)  # writable
