"""Image files to pixels: reads what microscopes and annotators save, and brings it to the size of the course.

Two rules hold throughout. Nothing is guessed: what could be read in two ways is refused in one sentence. And
resizing uses whole numbers only, so that every machine gets the same pixels.
"""

import io
from itertools import product

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from skimage.measure import label

from course_lib.errors import UserError

SUFFIXES = {".png", ".tif", ".tiff", ".jpg", ".jpeg"}
KINDS = (
    (b"\x89PNG", PngImageFile),
    (b"\xff\xd8", JpegImageFile),
    (b"II*\0", TiffImageFile),
    (b"MM\0*", TiffImageFile),
)
LARGEST = 10_240  # pixels along a side of a square
MAX_PIXELS = LARGEST * LARGEST  # a header that announces more is a mistake or an attack: refused before decoding


def read_image(data: bytes, where: str) -> np.ndarray:
    """The bytes of a png, tif or jpg file -> uint8 (H, W, 3).

    Grey is repeated three times, of two channels the third is empty, and a fourth (alpha) is dropped. What has more
    than 8 bits a pixel is stretched to 0..255 by its own darkest and brightest value, because such files rarely use
    their whole range. `where` names the file in the UserError raised for anything else.
    """
    pixels = _decode(data, where, as_colour=True)
    pixels = _as_bytes(np.atleast_3d(pixels)[..., :3], where)
    height, width, channels = pixels.shape
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    return pixels if channels == 3 else np.dstack([pixels, np.zeros((height, width), np.uint8)])


def _as_bytes(pixels: np.ndarray, where: str) -> np.ndarray:
    """Any numbers -> uint8, the lowest of them 0 and the highest 255; uint8 as it is."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind not in "buif":
        raise UserError(f"{where} holds values of type {pixels.dtype}: save it with 8 or 16 bits")
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite(high - low):
        raise UserError(f"{where} holds values that are not finite numbers: export the image again")
    scale = 255 / ((high - low) or 1)
    if pixels.dtype == np.uint16:  # by a table: a large image is not copied as float64
        every = np.arange(int(low), int(high) + 1).astype(np.float64)
        return np.rint((every - low) * scale).astype(np.uint8)[pixels - np.uint16(low)]
    return np.rint((pixels.astype(np.float64) - low) * scale).astype(np.uint8)


def read_mask(data: bytes, where: str) -> np.ndarray:
    """The bytes of a mask file -> its values: bool or integers >= 0, (H, W). Raises UserError for anything else."""
    pixels = _decode(data, where, as_colour=False)
    if pixels.ndim == 3:  # grey + alpha, or a grey mask saved as RGB(A)
        colours = pixels[..., : 3 if pixels.shape[2] >= 3 else 1]
        if (colours != colours[..., :1]).any():
            raise UserError(f"{where} is a mask in colour: save one channel that holds 0 and 255, or instance numbers")
        pixels = colours[..., 0]
    if data.startswith(b"\xff\xd8"):  # JPEG smears values around every border: only 0/255 survives it
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

    One value besides 0 makes a binary mask: its connected components (8 neighbours) are the nuclei. Several
    values are instance numbers. Raises UserError for a mask with grey borders, which is neither.
    """
    values = np.unique(mask[mask > 0])
    pieces = label(mask.astype(np.int64))
    if len(values) > 1:
        # Instance numbers come in about one piece each, and no single number covers much of the nuclei.
        mostly_255 = (mask == 255).sum() > np.count_nonzero(mask) / 4
        if values[-1] == 255 and (mostly_255 or pieces.max() > 2 * len(values)):
            raise UserError(
                f"{where} is a mask with grey borders ({len(values)} values in {pieces.max()} pieces): "
                "save it without smoothing or JPEG, as 0 and 255 or as instance numbers"
            )
        pieces = np.where(mask > 0, np.searchsorted(values, mask) + 1, 0)
    return pieces.astype(np.int32)


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, C) -> uint8 (size, size, C): the mean over the area of each new pixel.

    Height and width are scaled separately, so the aspect ratio is lost (as in the popular recipe for these
    data). Averaging areas is what keeps fine texture from turning into a false pattern (aliasing).
    """
    area = image.shape[0] * image.shape[1]  # of a new pixel, see _pieces
    total = _sums(_sums(image, size).swapaxes(0, 1), size).swapaxes(0, 1)
    return ((2 * total + area) // (2 * area)).astype(np.uint8)  # rounds half up


def resize_labels(labels: np.ndarray, size: int) -> np.ndarray:
    """Instance labels (H, W) -> int32 (size, size), again whole instances, numbered 1..K without gaps.

    A new pixel is nucleus where nuclei cover at least half of its area, and belongs to the one that covers most
    of it (the lower number where two cover the same). Interpolating a 0/1 mask would invent half-labels, and
    taking the nearest pixel would let chance decide about thin nuclei. What fills half of no pixel vanishes:
    compare `labels.max()` before and after.
    """
    (old_y, new_y, heights), (old_x, new_x, widths) = (_pieces(length, size) for length in labels.shape)
    kinds = int(labels.max()) + 1  # background and nuclei
    owner = np.zeros((size, size), np.int32)
    for row in range(size if kinds > 1 else 0):
        band = new_y == row
        pixel_and_kind = new_x * kinds + labels[old_y[band]][:, old_x]
        areas = np.outer(heights[band], widths)
        cover = np.bincount(pixel_and_kind.ravel(), areas.ravel(), size * kinds).reshape(size, kinds)
        owner[row] = np.where(2 * cover[:, 0] <= labels.size, cover[:, 1:].argmax(axis=1) + 1, 0)
    kept, consecutive = np.unique(owner, return_inverse=True)
    first = int(kept[0] > 0)  # where no background is left, counting still starts at 1
    return (consecutive.reshape(owner.shape) + first).astype(np.int32)


def labels_file(labels: np.ndarray) -> tuple[str, bytes]:
    """Instance labels (H, W) as a file, ending and bytes: a 16-bit png, or a 32-bit tif for more than it can number."""
    file, deep = io.BytesIO(), labels.max(initial=0) >= 2**16
    Image.fromarray(labels.astype(np.int32 if deep else np.uint16)).save(file, "tiff" if deep else "png")
    return ".tif" if deep else ".png", file.getvalue()


def extent(data: bytes) -> int:
    """How many pixels a file announces; 0 where that cannot be told (`read_image` then says why)."""
    try:
        kind = next(kind for start, kind in KINDS if data.startswith(start))
        with kind(io.BytesIO(data)) as image:
            return image.width * image.height
    except Exception:  # decoders raise a dozen kinds on damaged files
        return 0


def cut(image: np.ndarray, labels: np.ndarray, size: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Tiles of `size` x `size` that cover image (H, W, C) and labels (H, W): "row,column" of their corner -> the two.

    As few as cover it, evenly placed, so neighbours overlap where `size` does not divide the side. A side below `size`
    is continued by its mirror image. The labels of a tile are numbered 1..K; an object that is cut keeps one number.
    """
    short = [(0, max(0, size - side)) for side in labels.shape]
    image, labels = np.pad(image, [*short, (0, 0)], mode="symmetric"), np.pad(labels, short, mode="symmetric")
    found = {}
    for y, x in product(*(_corners(side, size) for side in labels.shape)):
        place = np.s_[y : y + size, x : x + size]
        kinds, numbers = np.unique(labels[place], return_inverse=True)
        numbers = numbers.reshape(size, size) + int(kinds[0] > 0)  # without background counting still starts at 1
        found[f"{y},{x}"] = image[place].copy(), numbers.astype(np.int32)  # a view would keep the whole image
    return found


def _corners(side: int, size: int) -> list[int]:
    count = -(-side // size)
    return [(side - size) * n // max(1, count - 1) for n in range(count)]


def _pieces(length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts an axis at the borders of its `length` old and `size` new pixels.

    Returns each piece's old pixel, its new pixel, and its length in units of 1/size of an old pixel. An old
    pixel is `size` units long and a new one `length`: whole numbers, so that sums are exact on every machine.
    """
    borders = np.union1d(np.arange(length) * size, np.arange(size) * length)
    return borders // size, borders // length, np.diff(borders, append=length * size)


def _sums(values: np.ndarray, size: int) -> np.ndarray:
    """Integrates (length, ...) over each of `size` new pixels along the first axis -> (size, ...), int64."""
    old, new, lengths = _pieces(len(values), size)
    return np.stack([np.tensordot(lengths[new == n], values[old[new == n]], axes=1) for n in range(size)])


def _decode(data: bytes, where: str, *, as_colour: bool) -> np.ndarray:
    """Bytes -> (H, W) or (H, W, C) as stored; `as_colour` turns palettes and the like into RGB."""
    try:
        kind = next(kind for start, kind in KINDS if data.startswith(start))
        with kind(io.BytesIO(data)) as image:  # Image.open would warn of large images, whose extent is checked here
            _check_extent(where, *image.size, pages=image.n_frames if image.format == "TIFF" else 1)
            deep = image.mode.startswith(("I", "F"))
            bits, form, two_channels = 16 if ";16" in str(image.tile) else 8, 1, False
            if image.format == "TIFF":
                bits = np.max(image.tag_v2.get(258, 1))  # BitsPerSample
                form = np.max(image.tag_v2.get(339, 1))  # SampleFormat: 1 unsigned, 2 signed, 3 float
                if bits > 8 and image.tag_v2.get(262) == 0:  # PhotometricInterpretation; Pillow mends 8 bits itself
                    raise UserError(f"{where} stores white as 0: save it with black as 0")
                deep &= form != 1 or bits <= 16  # Pillow would take the upper half of 32 bits for negative numbers
                samples, alpha = image.tag_v2.get(277, 1), image.tag_v2.get(338, (0,))[0]  # alpha: of ExtraSamples
                two_channels = samples == 2 and not alpha
            # Of 16-bit colour Pillow would keep 8 bits or less, and of two channels the first.
            if deep or (bits <= 8 and form != 2 and not two_channels):
                return np.array(image.convert("RGB") if as_colour and not deep else image)  # writable
    except UserError:
        raise
    except Exception:  # decoders raise a dozen kinds on damaged files; tifffile below reads some of these
        pass
    try:
        import tifffile  # comes with scikit-image; knows 16-bit colour and 64-bit labels

        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages[0]
            _check_extent(where, page.imagewidth, page.imagelength, pages=len(tiff.pages))
            pixels = page.asarray()
        pixels = np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels
        if pixels.ndim not in (2, 3) or not pixels.size or (pixels.ndim == 3 and pixels.shape[2] > 4):
            raise UserError(f"{where} has shape {pixels.shape}: save it as one image of one to four channels")
        return pixels
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{where} cannot be read as a png, tif or jpg image (16-bit colour: as tif only): "
            "replace the file or take it out"
        ) from error


def _check_extent(where: str, width: int, height: int, *, pages: int) -> None:
    if width * height > MAX_PIXELS:
        raise UserError(
            f"{where} announces {width} x {height} pixels: cut it into tiles of at most {LARGEST} x {LARGEST}"
        )
    if pages > 1:
        raise UserError(f"{where} holds {pages} images: save one image per file")
