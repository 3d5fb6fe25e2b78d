"""The bytes of a png, tif or jpg file as numbers, turned upright. What could be read in two ways is refused."""

import io
import zlib
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from tifffile import COMPRESSION, PHOTOMETRIC, TiffFile, TiffPage

from course_lib.errors import UserError

SUFFIXES = {".png", ".tif", ".tiff", ".jpg", ".jpeg"}
JPG = b"\xff\xd8"  # how such a file begins
LARGEST = 10_240  # pixels along a side of a square
MAX_SIDE = 2**16  # resizing weighs each pixel of a side for each new one
MAX_BYTES = 2**30  # of decoded numbers
CHANNELS = 8  # of an image, at most
DEFLATE = (COMPRESSION.DEFLATE, COMPRESSION.ADOBE_DEFLATE)
PLAIN = (COMPRESSION.NONE, COMPRESSION.PACKBITS, *DEFLATE)
GREY_OR_RGB = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB)
FLIPS = ((1, 1), (1, -1), (-1, -1), (-1, 1))  # steps down and right of EXIF orientations 1 to 4, and 5 to 8


class Stored(NamedTuple):
    """The numbers of a file, of the type it stores."""

    pixels: np.ndarray  # (H, W, C), C = 1..8
    alpha: np.ndarray | None  # (H, W): transparency


def decode(data: bytes, where: str, *, as_mask: bool = False) -> Stored:
    """The numbers of a file; a mask's palette and a mask's white stay the numbers that its writer meant.

    Planes of one tif are channels, unless it says that they are depths or times. Raises UserError for anything else.
    """
    try:
        if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
            return _tif(data, where, as_mask)
        kind = JpegImageFile if data.startswith(JPG) else PngImageFile  # Image.open warns of large images
        with kind(io.BytesIO(data)) as image:
            _check_extent(where, *image.size)
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise UserError(f"{where} holds {frames} images: save one image per file")
            deep = ";16" in str(image.tile)
            stored = _by_pillow(ImageOps.exif_transpose(image), where, as_mask)
            if deep and stored.pixels.dtype == np.uint8:
                raise ValueError("Pillow keeps 8 bits of 16-bit colour")
            return stored
    except UserError:
        raise
    except Exception as error:  # decoders raise a dozen kinds on damaged files
        raise UserError(
            f"{where} cannot be read as a png, tif or jpg image (16-bit colour: as tif only): "
            "replace the file or take it out"
        ) from error


def _check_extent(where: str, width: int, height: int, bytes_a_pixel: int = 1) -> None:
    """Before anything is decoded: a header that announces more is a mistake or an attack."""
    if width * height > LARGEST**2 or max(width, height) > MAX_SIDE:
        limit = f"{LARGEST} x {LARGEST}"
    elif width * height * bytes_a_pixel > MAX_BYTES:
        limit = f"{MAX_BYTES // 2**20} MiB ({bytes_a_pixel} bytes a pixel)"
    else:
        return
    raise UserError(f"{where} announces {width} x {height} pixels: cut it into tiles of at most {limit}")


def _by_pillow(image: Image.Image, where: str, as_mask: bool) -> Stored:
    """What Pillow makes of one image; colours of other kinds than grey and RGB become RGB."""
    if as_mask and image.mode in ("P", "PA") and any(image.getpalette("RGB")[:3]):
        raise UserError(f"{where} has a palette in which 0 is not black: save its numbers without a palette")
    if image.mode == "P" and not as_mask:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode == "1" and not as_mask:
        image = image.convert("L")
    elif image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA") and not image.mode.startswith(("I", "F")):
        image = image.convert("RGB")
    pixels = np.atleast_3d(np.array(image))  # np.array: writable
    transparent = image.mode in ("LA", "PA", "RGBA")
    return Stored(pixels[..., :-1], pixels[..., -1]) if transparent else Stored(pixels, None)


def _tif(data: bytes, where: str, as_mask: bool) -> Stored:
    """tifffile knows all numbers; Pillow knows palettes, inks, and compressions that tifffile needs a package for."""
    with TiffFile(io.BytesIO(data)) as tif:
        page, planes = tif.pages.first, _planes(tif, where)
        if page.dtype is None or not page.size:
            raise ValueError("no numbers of a known type")
        samples = page.samplesperpixel * planes
        _check_extent(where, page.imagewidth, page.imagelength, samples * page.dtype.itemsize)
        if page.ndim > 3 or samples > CHANNELS + 1:
            raise UserError(f"{where} has shape {page.shape}: save it as one image of 1 to {CHANNELS} channels")
        raw = as_mask and _writer_means_the_numbers(page)
        bits, readable = np.max(page.bitspersample), page.compression in PLAIN or find_spec("imagecodecs")
        if page.photometric == PHOTOMETRIC.MINISWHITE and not raw and (as_mask or bits > 8):
            raise UserError(f"{where} stores white as 0: save it with black as 0")
        if page.photometric in GREY_OR_RGB and (bits % 8 == 0 or page.dtype == bool) and readable:
            return _by_tifffile(tif, where, inverted=page.photometric == PHOTOMETRIC.MINISWHITE and not raw)
        stored = _pillows_planes(data, planes, where, as_mask)
        if stored is None or not (page.dtype in (bool, np.uint8) or stored.pixels.dtype.name == page.dtype.name):
            name = getattr(page.compression, "name", page.compression)
            advice = "pip install imagecodecs, or save it without compression"
            raise UserError(f"{where} is compressed by {name}, which needs the package imagecodecs: {advice}")
        return stored


def _planes(tif: TiffFile, where: str) -> int:
    """How many images of one size, one for each channel, the file holds; smaller copies of the first do not count."""
    series, images = tif.series[0], len(tif.pages)
    if len([one for one in tif.series if not one.keyframe.is_reduced]) > 1 or images > CHANNELS * len(tif.series):
        raise UserError(f"{where} holds {images} images: save one image per file")
    planes = len(series)
    if planes > 1 and series.axes not in ("CYX", "QYX", "IYX"):
        raise UserError(f"{where} holds {planes} images along {series.axes[:-2]}: save one depth or time per file")
    return planes


def _writer_means_the_numbers(page: TiffPage) -> bool:
    """Whether a mask's numbers count, though the file says that 0 is white: what tifffile writes for True, and ImageJ
    for objects under an inverting look-up table."""
    return (page.dtype == bool and page.software == "tifffile.py") or page.description.startswith("ImageJ=")


def _by_tifffile(tif: TiffFile, where: str, *, inverted: bool) -> Stored:
    page = tif.pages.first
    for one in tif.series[0].pages if page.compression in DEFLATE else ():
        _check_strips(tif, one.aspage(), where)
    pixels = tif.series[0].asarray() if len(tif.series[0]) > 1 else page.asarray()
    pixels = np.atleast_3d(np.moveaxis(pixels, 0, -1) if len(tif.series[0]) > 1 or page.axes == "SYX" else pixels)
    pixels = _upright(pixels, page.tags.valueof("Orientation", 1))
    if inverted:
        pixels = ~pixels
    transparent = page.samplesperpixel in (2, 4) and any(page.extrasamples)
    if not transparent and not (page.photometric == PHOTOMETRIC.RGB and page.samplesperpixel == 4):
        return Stored(pixels, None)
    alpha = pixels[..., -1]
    if page.samplesperpixel == 4 and (alpha != alpha.flat[0]).any():
        text = "marks its fourth channel as transparency, and it is not the same everywhere"
        raise UserError(f"{where} {text}: save four channels as planes, or the colours without transparency")
    return Stored(pixels[..., :-1], alpha)


def _check_strips(tif: TiffFile, page: TiffPage, where: str) -> None:
    """A strip that unpacks to more than its share of the image would be unpacked whole: refused before."""
    expected = int(np.prod(page.chunks)) * page.dtype.itemsize
    for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
        tif.filehandle.seek(offset)
        if len(zlib.decompressobj().decompress(tif.filehandle.read(length), expected + 1)) > expected:
            raise UserError(f"{where} holds more than its header announces: get a fresh copy")


def _pillows_planes(data: bytes, planes: int, where: str, as_mask: bool) -> Stored | None:
    """All planes by Pillow, which turns them upright by itself; None where it cannot decode them."""
    stored = []
    try:
        with TiffImageFile(io.BytesIO(data)) as image:
            for plane in range(planes):
                image.seek(plane)
                stored.append(_by_pillow(image, where, as_mask))
    except (OSError, KeyError, RuntimeError, SyntaxError):  # SyntaxError: numbers it does not know
        return None
    return stored[0] if planes == 1 else Stored(np.concatenate([one.pixels for one in stored], axis=2), None)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, C) as EXIF says that it is to be seen: from 5 on rows are columns."""
    if orientation not in range(1, 9):
        return pixels
    down, right = FLIPS[(orientation - 1) % 4]
    return (pixels.swapaxes(0, 1) if orientation > 4 else pixels)[::down, ::right]
