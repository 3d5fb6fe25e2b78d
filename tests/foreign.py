"""Data sets as other programs write them, and what is right for each: read exactly, or refused in a sentence.

What can be understood in one way only is read; of what can be understood in two ways nothing is guessed.
`python -m tests.foreign [WORD]` prints what happens to each (to those with that word in their name).
"""

import io
import re
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from unicodedata import normalize

import matplotlib
import numpy as np
import tifffile
import torch
from imageio import v3 as imageio
from PIL import Image
from scipy.ndimage import binary_dilation, gaussian_filter

from course_lib import data
from course_lib.data import mask_doctor
from course_lib.errors import UserError
from tests.image_files import encoded, tif

SIZE = 64
IDS = tuple(f"cell-{n}" for n in range(1, 6))


class Scene(NamedTuple):
    """One image and the truth."""

    id: str
    image: np.ndarray  # uint8 (H, W, C), each channel from 0 to 255: stretching changes nothing
    labels: np.ndarray  # int32 (H, W): 0 background, objects 1..n

    @property
    def classes(self) -> np.ndarray:
        """0 background, 1 in odd and 2 in even objects."""
        return np.where(self.labels > 0, 2 - self.labels % 2, 0).astype(np.uint8)


Scenes = tuple[Scene, ...]
Make = Callable[[Scene], bytes | list[bytes] | None]


def scene(id: str, labels: np.ndarray, channels: int = 1, seed: int = 0) -> Scene:
    """Bright objects on dark noise."""
    rng = np.random.default_rng([seed, *id.encode()])
    light = np.append(0, rng.uniform(120, 220, labels.max()))[labels][..., None] * rng.uniform(0.5, 1, channels)
    light = light + rng.normal(30, 6, light.shape)
    low, high = light.min(axis=(0, 1)), light.max(axis=(0, 1))
    return Scene(id, np.rint(255 * (light - low) / (high - low)).astype(np.uint8), labels.astype(np.int32))


@cache
def scenes(counts=(9, 7, 8, 10, 6), channels=(1,) * 5, ids=IDS, radius=(2.5, 4.5)) -> Scenes:
    """Images of 48 x 64 pixels, not square, so that turns show. Objects keep apart, so a mask of 0/255 tells them."""
    made, (y, x) = [], np.indices((48, 64))
    for n, (count, id) in enumerate(zip(counts, ids, strict=True)):
        rng, labels = np.random.default_rng(n), np.zeros((48, 64), np.int32)
        while labels.max() < count:
            (high, wide), centre = rng.uniform(*radius, 2), rng.uniform(5, [43, 59])
            blob = ((y - centre[0]) / high) ** 2 + ((x - centre[1]) / wide) ** 2 <= 1
            if blob.any() and not labels[binary_dilation(blob, iterations=4)].any():
                labels[blob] = labels.max() + 1
        made.append(scene(id, labels, channels[n]))
    return tuple(made)


def drawn(draw: Callable[[int], np.ndarray]) -> Scenes:
    """Scenes of other labels, by the number of the image."""
    return tuple(scene(id, draw(n)) for n, id in enumerate(IDS))


def crowd(n: int) -> np.ndarray:
    """400 objects of 3 x 3 pixels."""
    labels = np.zeros((100, 130), np.int32)
    for number in range(400):
        row, column = divmod(number, 25)
        labels[5 * row + 1 + n : 5 * row + 4 + n, 5 * column + 1 : 5 * column + 4] = number + 1
    return labels


def nested(n: int) -> np.ndarray:
    """Object 1 inside object 2, and object 3 alone."""
    (y, x), labels = np.indices((48, 64)), np.zeros((48, 64), np.int32)
    for number, row, column, radius in ((2, 22, 18 + n, 12), (1, 22, 18 + n, 5), (3, 20 + n, 50, 7)):
        labels[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = number
    return labels


def in_two_pieces(n: int) -> np.ndarray:
    """The last object is part of the first."""
    labels = USUAL[n].labels
    return np.where(labels == labels.max(), 1, labels)


USUAL = scenes()
RGB = scenes(channels=(3,) * 5)
FEW = scenes((3, 1, 2, 3, 2))
THREE = scenes((3,) * 5)
POINTS = scenes((12, 9, 15, 10, 8), radius=(0.4, 0.49))
TWO, FOUR, FIVE = (scenes(channels=(n,) * 5) for n in (2, 4, 5))
CROWD = drawn(crowd)
CROWD_255 = drawn(lambda n: crowd(n) * (crowd(n) <= 255))
NESTED = drawn(nested)

# What happens to pixels


def grey(s: Scene) -> np.ndarray:
    return s.image[..., 0]


def binary(s: Scene, value: int = 255) -> np.ndarray:
    return ((s.labels > 0) * value).astype(np.uint8)


def rgb(array: np.ndarray) -> np.ndarray:
    return np.stack([array] * 3, axis=-1)


def planes(s: Scene) -> np.ndarray:
    return np.moveaxis(s.image, -1, 0)


def with_alpha(array: np.ndarray, alpha) -> np.ndarray:
    return np.dstack([array, np.broadcast_to(alpha, array.shape[:2]).astype(array.dtype)])


def deep(s: Scene, dtype: type) -> np.ndarray:
    return s.image.astype(np.uint16) * 257 if dtype == np.uint16 else (s.image / 255).astype(dtype)


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """As a camera stores it. Exif 2.3 says for each number which sides of the scene the first row and column are."""
    turned = upright.swapaxes(0, 1) if orientation > 4 else upright
    down = -1 if orientation in (3, 4, 6, 7) else 1  # -1: the first row is the bottom, or from 5 on the right
    right = -1 if orientation in (2, 3, 7, 8) else 1  # -1: the first column is the right, or from 5 on the bottom
    return np.ascontiguousarray(turned[::down, ::right])


def smooth(array: np.ndarray, how: str, top: int = 0, dtype: type = np.uint8) -> np.ndarray:
    """Blurred, or halved and enlarged again; spread so that `top` is the largest value, if it is given."""
    soft = array.astype(np.float32)
    if how == "gaussian":
        soft = gaussian_filter(soft, 1)
    else:
        kind, (height, width) = Image.Resampling[how.upper()], array.shape
        half = Image.fromarray(soft).resize((width // 2, height // 2), kind)
        soft = np.array(half.resize((width, height), kind)).clip(0)
    return np.rint(soft * (top / soft.max() if top else 1)).astype(dtype)


def antialiased(s: Scene) -> np.ndarray:
    """Outlines with soft edges: the share of each pixel inside, for a shape moved by a third of a pixel."""
    fine = np.pad(binary(s).repeat(3, axis=0).repeat(3, axis=1), ((1, 0), (1, 0)))[:-1, :-1].astype(float)
    return np.rint(fine.reshape(len(s.labels), 3, -1, 3).mean(axis=(1, 3))).astype(np.uint8)


def voided(array: np.ndarray) -> np.ndarray:
    """As PASCAL VOC: a rim of 255 around every object."""
    return np.where(binary_dilation(array > 0) & (array == 0), 255, array).astype(np.uint8)


# What programs write


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gray(values: np.ndarray, name: str = "gray") -> bytes:
    """What matplotlib's imsave makes of numbers: RGBA."""
    return encoded((matplotlib.colormaps[name](values / values.max()) * 255).astype(np.uint8))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[274] = orientation
    return tags


# The colours of PASCAL VOC, labelme and CVAT: the bits of a number are dealt to red, green and blue.
VOC = [sum((n >> 3 * bit + c & 1) << 7 - bit for bit in range(3)) for n in range(256) for c in range(3)]
COLOURS = np.uint8(VOC).reshape(256, 3)


def palette(array: np.ndarray, colours: Sequence[int] = VOC, **options) -> bytes:
    image = Image.fromarray(array.astype(np.uint8))
    image.putpalette(colours)
    return saved(image, **options)


def png(array: np.ndarray, *chunks: tuple[bytes, bytes], bits: int = 8, interlaced: bool = False) -> bytes:
    """What Pillow does not write: few bits of grey, 16 of colour, interlaced rows (Adam7), any chunks."""
    adam7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    body = b""
    for y, x, down, right in adam7 if interlaced else [(0, 0, 1, 1)]:
        for row in array[y::down, x::right]:
            few = np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:]) if bits < 8 else row
            body += b"\0" + few.astype(">u2" if bits == 16 else "u1").tobytes()
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[np.atleast_3d(array).shape[2]]
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], bits, colour, 0, 0, interlaced)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in parts
    )


def retagged(content: bytes, tag: int, old: int, new: int) -> bytes:
    """A little-endian tif with another number in a tag."""
    before, after = (struct.pack("<HHIH", tag, 3, 1, number) for number in (old, new))
    assert content.count(before) == 1
    return content.replace(before, after)


def packed(array: np.ndarray, compression: int, pack: Callable[[bytes], bytes], **options) -> bytes:
    """A tif whose one strip (or one a plane) was compressed by `pack`, whatever tifffile can do."""
    parts = array if options.get("planarconfig") == "separate" else [array]
    strips = iter([pack(np.ascontiguousarray(part).tobytes()) for part in parts])
    options |= {"shape": array.shape, "dtype": array.dtype, "rowsperstrip": len(parts[0]), "metadata": None}
    return retagged(tif(strips, compression=8, **options), 259, 8, compression)


def lzw(content: bytes) -> bytes:
    """LZW that begins anew before its codes grow longer than 9 bits."""
    codes = [code for n in range(0, len(content), 200) for code in (256, *content[n : n + 200])] + [257]
    bits = "".join(f"{code:09b}" for code in codes)
    return int(bits + "0" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big")


def zstd(content: bytes) -> bytes:
    """A Zstandard frame of one raw block."""
    return (
        b"\x28\xb5\x2f\xfd\xa0"
        + struct.pack("<I", len(content))
        + struct.pack("<I", len(content) << 3 | 1)[:3]
        + content
    )


def jpeg2000(array: np.ndarray) -> bytes:
    return packed(array, 34712, lambda _: saved(Image.fromarray(array), "JPEG2000", no_jp2=True))


def white_is_0(array: np.ndarray, description: str | None = None, **options) -> bytes:
    return tif(array, photometric="miniswhite", description=description, metadata=None, software=False, **options)


def with_small_copy(array: np.ndarray, subifds: int) -> bytes:
    """A pyramid: the image and a half as large copy, as its SubIFD or as a second page."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(array, subifds=subifds, metadata=None)
        writer.write(array[::2, ::2], subfiletype=1, metadata=None)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def one_by_one(s: Scene, *, inner: bool = False) -> list[bytes]:
    """A mask for each object; `inner`: object 2 has object 1 inside."""
    masks = [s.labels == number for number in range(1, s.labels.max() + 1)]
    if inner:
        masks[1] |= masks[0]
    return [encoded((255 * mask).astype(np.uint8)) for mask in masks]


def first(make: Make) -> Make:
    """For three images only."""
    return lambda s: make(s) if s.id in IDS[:3] else None


def last(make: Make) -> Make:
    """For the other two."""
    return lambda s: None if s.id in IDS[:3] else make(s)


# What is right

ALPHA, WHITE, VOID = r"alpha|transparen", r"white", r"void"
BACKGROUND, CLASSES, CHANNELS = r"background", r"class", r"channel"
SMOOTH = r"smooth|resampl|interpol|grey (borders|values|levels)|soft|fractions"
STACK = r"stack|slices|pages|frames|time|holds \d+ images|one image"
SIZES = r"\d+ x \d+|size|turn"
COLOUR = r"colour|palette"
JPG = r"jpe?g"
CODECS = r"imagecodecs"
ANY = r""
PARTNER = r"\bimage\(s\)|partner|pair|no mask|no image|layout|name|format"


@dataclass(frozen=True)
class Case:
    """Five images, how they are written, and what is right."""

    name: str
    files: dict[str, Make]  # {0} is the id, in {2} NFD and in {3} NFC; {1} counts, if one has several
    words: str | None = None  # of the sentence that refuses it, as a regular expression; None: it has to be read
    either: bool = False  # to read it exactly is right too
    scenes: Scenes = USUAL
    classes: int | Sequence[str] | None = None
    grey: float = 2  # mean difference of images that is allowed
    iou: float = 1
    never: str = "replace the file"  # not to be said of a file that is whole; "" where nothing is forbidden
    doctor: bool | None = None  # whether the mask doctor has to find something; None: where the files are refused
    layout: bool = True  # False: none that is known, so the doctor may refuse it too

    @property
    def right(self) -> str:
        return "read" if self.words is None else "read or refused" if self.either else "refused"


def numbers(s: Scene) -> bytes:
    return encoded(s.labels.astype(np.uint16))


def white(s: Scene) -> bytes:
    return encoded(binary(s))


def photo(s: Scene) -> bytes:
    return encoded(np.squeeze(s.image))


jpg = partial(encoded, kind="JPEG", quality=95, subsampling=0)


def image(name: str, ending: str, make: Make, words: str | None = None, **options) -> Case:
    """Images that are special, and plain masks."""
    return Case(name, {f"images/{{}}{ending}": make, "masks/{}.png": numbers}, words, **options)


def mask(name: str, ending: str, make: Make, words: str | None = None, **options) -> Case:
    """Masks that are special, and plain images."""
    return Case(name, {"images/{}.png": photo, f"masks/{{}}{ending}": make}, words, **options)


def folders(name: str, of: dict[str, int], words: str | None = None, **options) -> Case:
    """One folder of masks of 0 and 255 for each class."""
    files = {
        f"masks/{key}/{{}}.png": lambda s, k=k: encoded((255 * (s.classes == k)).astype(np.uint8))
        for key, k in of.items()
    }
    return Case(name, {"images/{}.png": photo, **files}, words, **options)


def label_tif(dtype: type, times: float = 1, **options) -> Make:
    return lambda s: tif(s.labels.astype(dtype) * dtype(times), **options)


def names(name: str, ids: Sequence[str], **options) -> Case:
    return Case(name, {"images/{}.png": photo, "masks/{}.png": numbers}, scenes=scenes(ids=tuple(ids)), **options)


def grey_alpha(s: Scene, dtype: type, config: str, code: int, pack: Callable[[bytes], bytes]) -> bytes:
    """A tif of which tifffile says that the second channel is alpha."""
    both = with_alpha(deep(s, dtype), np.linspace(0, deep(s, dtype).max(), 64)[None])
    array = np.moveaxis(both, -1, 0) if config == "separate" else both
    return packed(array, code, pack, photometric="minisblack", planarconfig=config, extrasamples=["unassalpha"])


def raw(content: bytes) -> Make:
    return lambda s: content


ORIENTED = [
    case
    for o in range(2, 9)
    for case in (
        image(f"EXIF {o} in a jpg (phone, labelme)", ".jpg",
              lambda s, o=o: jpg(stored(s.image, o), exif=exif(o)), grey=6, scenes=RGB),
        image(f"EXIF {o} in a png", ".png", lambda s, o=o: encoded(stored(grey(s), o), exif=exif(o))),
        image(f"Orientation {o} in a tif", ".tif",
              lambda s, o=o: tif(stored(grey(s), o), extratags=[(274, "H", 1, o, True)])),
        Case(f"EXIF {o} in image and mask", {
            "images/{}.jpg": lambda s, o=o: jpg(stored(grey(s), o), exif=exif(o)),
            "masks/{}.png": lambda s, o=o: encoded(stored(binary(s), o), exif=exif(o)),
        }, grey=6),
    )
] + [
    image("EXIF 6 in a jpg, the mask of the pixels as stored", ".jpg",
          lambda s: jpg(grey(s), exif=exif(6)), SIZES, grey=6),
]  # fmt: skip

WHITES = [
    mask("bool by tifffile", ".tif", lambda s: tif(s.labels > 0)),
    mask("bool by tifffile, deflate", ".tif", lambda s: tif(s.labels > 0, compression="zlib")),
    mask("bool by imageio.v3", ".tif", lambda s: imageio.imwrite("<bytes>", s.labels > 0, extension=".tif")),
    mask("bool tif by Pillow", ".tif", lambda s: encoded(s.labels > 0, "TIFF")),
    mask("8-bit mask with inverting LUT (ImageJ)", ".tif",
         lambda s: white_is_0(binary(s), "ImageJ=1.53t\nunit=pixel\n", byteorder=">")),
    mask("8-bit white-is-0 without signature", ".tif", lambda s: white_is_0(binary(s)), WHITE),
    mask("16-bit labels, white-is-0 without signature", ".tif", lambda s: white_is_0(s.labels.astype(np.uint16)),
         WHITE),
    mask("1-bit fax tif, white is 0 (scanners)", ".tif",
         lambda s: retagged(encoded(s.labels == 0, "TIFF", compression="group4"), 262, 1, 0), f"{WHITE}|{CODECS}",
         either=True),
    mask("inverting LUT saved as palette png (ImageJ)", ".png",
         lambda s: palette(binary(s), [255 - n for n in range(256) for _ in range(3)]), f"{COLOUR}|{WHITE}",
         either=True),
    mask("palette png, white comes first (GIMP, optimised)", ".png",
         lambda s: palette(s.labels == 0, [255] * 3 + [0] * 3), f"{COLOUR}|{WHITE}|{BACKGROUND}", either=True),
    mask("black objects on white", ".png", lambda s: encoded(binary(s)), ANY,
         scenes=tuple(s._replace(labels=(s.labels == 0).astype(np.int32)) for s in USUAL), either=True, doctor=True),
]  # fmt: skip

NO_ZERO = [
    mask("classes 1 and 2, no 0 (ilastik)", ".png", lambda s: encoded(binary(s, 1) + 1), BACKGROUND),
    mask("classes 1 and 2, no 0, tif (ilastik)", ".tif", lambda s: tif(binary(s, 1) + 1), BACKGROUND),
    mask("labels + 1 (watershed)", ".png", lambda s: encoded((s.labels + 1).astype(np.uint16)), BACKGROUND),
    mask("trimaps: 1 object, 2 background, 3 rim (Oxford pets)", ".png",
         lambda s: encoded(np.select([s.labels > 0, voided(s.labels) > 0], [1, 3], 2).astype(np.uint8)), BACKGROUND),
    mask("masks entirely 255", ".png", lambda s: encoded(np.full_like(binary(s), 255)), ANY),
    mask("masks entirely 0", ".png", lambda s: encoded(np.zeros_like(binary(s))), ANY),
    mask("one of five masks is empty", ".png", numbers, scenes=scenes((9, 0, 8, 10, 6))),
    Case("folders swapped", {"masks/{}.png": photo, "images/{}.png": numbers}, ANY),
]  # fmt: skip

ALPHAS = [
    mask("mask in alpha, colour constant, RGBA", ".png",
         lambda s: encoded(with_alpha(rgb(binary(s) * 0) + np.uint8([200, 30, 90]), binary(s))), ALPHA),
    mask("mask in alpha, white, RGBA (Label Studio, Photoshop)", ".png",
         lambda s: encoded(with_alpha(rgb(binary(s) | 255), binary(s))), ALPHA),
    mask("mask in alpha, black, RGBA", ".png", lambda s: encoded(with_alpha(rgb(binary(s) * 0), binary(s))), ALPHA),
    mask("mask in alpha, LA", ".png", lambda s: encoded(with_alpha(binary(s) | 255, binary(s))), ALPHA),
    mask("mask in alpha, RGBA tif", ".tif",
         lambda s: tif(with_alpha(rgb(binary(s) | 255), binary(s)), photometric="rgb", extrasamples=["unassalpha"]),
         ALPHA),
    mask("alpha agrees with the colour, RGBA", ".png", lambda s: encoded(with_alpha(rgb(binary(s)), binary(s)))),
    mask("alpha 255 everywhere, RGBA", ".png", lambda s: encoded(with_alpha(rgb(binary(s)), 255))),
    mask("alpha 255 everywhere, LA numbers", ".png", lambda s: encoded(with_alpha(s.labels.astype(np.uint8), 255))),
    mask("alpha of another shape than the colour", ".png",
         lambda s: encoded(with_alpha(binary(s), np.where(s.labels == 1, 0, 255))), ALPHA),
    image("grey + alpha png", ".png", lambda s: encoded(with_alpha(grey(s), 255 - grey(s)))),
    image("RGBA png (screenshot, sRGB and gamma)", ".png",
          lambda s: png(with_alpha(s.image, 255), (b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 45455))), scenes=RGB),
    image("RGBA 16-bit tif", ".tif",
          lambda s: tif(with_alpha(deep(s, np.uint16), 65535), photometric="rgb", extrasamples=["unassalpha"]),
          scenes=RGB),
] + [
    image(f"grey + alpha tif, {np.dtype(dtype)}, {config}, {how}", ".tif",
          partial(grey_alpha, dtype=dtype, config=config, code=code, pack=pack),
          CODECS if how == "lzw" else None, either=how == "lzw")
    for dtype in (np.uint16, np.float32)
    for config in ("contig", "separate")
    for how, code, pack in (("plain", 1, bytes), ("deflate", 32946, zlib.compress), ("lzw", 5, lzw))
]  # fmt: skip

SMOOTHED = [
    *(mask(f"{how} mask up to {top}", ".png",
           lambda s, how=how, top=top: encoded(smooth(s.labels > 0, how, top, np.min_scalar_type(top))),
           SMOOTH)
      for how in ("bilinear", "bicubic", "gaussian") for top in (255, 200, 1000, 17)),
    *(mask(f"{how} instance numbers", ".tif", lambda s, how=how: tif(smooth(s.labels, how, 0, np.uint16)), SMOOTH)
      for how in ("bilinear", "bicubic")),
    mask("bilinear float numbers", ".tif", lambda s: tif(smooth(s.labels, "bilinear", 0, np.float32)), SMOOTH),
    mask("soft outlines (GIMP, Photoshop)", ".png", lambda s: encoded(antialiased(s)), SMOOTH),
    mask("soft outlines, one image only", ".png",
         lambda s: encoded(antialiased(s) if s.id == IDS[3] else binary(s)), SMOOTH),
    mask("probabilities, 8 bits (a net's output)", ".png", lambda s: encoded(smooth(s.labels > 0, "gaussian", 250)),
         SMOOTH),
    mask("probabilities, float (ilastik)", ".tif",
         lambda s: tif(gaussian_filter((s.labels > 0).astype(np.float32), 1)), SMOOTH),
    mask("a rim of 128 around objects of 255 (unsure)", ".png",
         lambda s: encoded(np.where(voided(s.labels) == 255, 128, binary(s))), ANY),
    mask("jpg of 0 and 1", ".jpg", lambda s: encoded(binary(s, 1), "JPEG"), JPG),
    mask("jpg of 0 and 1, called png", ".png", lambda s: encoded(binary(s, 1), "JPEG"), JPG),
    mask("jpg of instance numbers", ".jpg", lambda s: jpg(s.labels.astype(np.uint8)), JPG),
    mask("jpg of class numbers, classes=2", ".jpg", lambda s: encoded(s.classes, "JPEG"), JPG, classes=2),
    mask("jpg of 0 and 255", ".jpg", lambda s: jpg(binary(s)), iou=0.97),
]  # fmt: skip

VALUES = [
    mask("0 and 1", ".png", lambda s: encoded(binary(s, 1))),
    mask("0 and 255", ".png", lambda s: encoded(binary(s))),
    mask("0 and 2", ".png", lambda s: encoded(binary(s, 2))),
    mask("0 and 65535", ".png", lambda s: encoded(binary(s).astype(np.uint16) * 257)),
    mask("png of one bit (mode 1, MATLAB logical)", ".png", lambda s: encoded(s.labels > 0)),
    mask("three objects of 85, 170, 255", ".png", lambda s: encoded((85 * s.labels).astype(np.uint8)), scenes=THREE),
    mask("palette png of instance numbers (labelme)", ".png", lambda s: palette(s.labels), scenes=FEW),
    mask("palette png of four bits", ".png", lambda s: palette(s.labels, VOC[:48], bits=4)),
    mask("palette png with transparent background", ".png", lambda s: palette(s.labels, transparency=0)),
    mask("palette tif (glasbey LUT, Fiji)", ".tif", lambda s: tif(
        s.labels.astype(np.uint8), photometric="palette", colormap=COLOURS.T.astype(np.uint16) * 257)),
    mask("grey png of four bits, instance numbers", ".png", lambda s: png(s.labels.astype(np.uint8), bits=4)),
    mask("grey png with a transparent grey (tRNS)", ".png", lambda s: png(binary(s), (b"tRNS", b"\0\0"))),
    mask("png with a gamma of 1.0", ".png", lambda s: png(binary(s), (b"gAMA", struct.pack(">I", 100000)))),
    mask("interlaced png", ".png", lambda s: png(binary(s), interlaced=True)),
    mask("RGB with equal channels", ".png", lambda s: encoded(rgb(binary(s)))),
    mask("RGB tif with equal channels", ".tif", lambda s: tif(rgb(s.labels.astype(np.uint8)), photometric="rgb")),
    mask("matplotlib's grey, 0 and 255", ".png", lambda s: gray(s.labels > 0)),
    mask("matplotlib's viridis", ".png", lambda s: gray(s.labels, "viridis"), COLOUR),
    mask("one colour an object (label2rgb)", ".png", lambda s: encoded(COLOURS[s.labels]), COLOUR),
    mask("one number for two pieces", ".png", numbers, scenes=drawn(in_two_pieces)),
    mask("numbers above 255 (CellProfiler)", ".png", numbers, scenes=CROWD),
    mask("numbers wrapped at 256", ".png", lambda s: encoded(s.labels.astype(np.uint8)), "256|wrap", scenes=CROWD),
    mask("numbers wrapped at 256, tif", ".tif", label_tif(np.uint8), "256|wrap", scenes=CROWD),
    mask("255 numbers in uint8", ".png", lambda s: encoded(s.labels.astype(np.uint8)), scenes=CROWD_255),
    mask("numbers that end at 255 (OpenCV, saturated)", ".png",
         lambda s: encoded(s.labels.clip(0, 255).astype(np.uint8)), "25[56]|saturat|clip|wrap", scenes=CROWD),
    mask("numbers spread over 255 greys (mat2gray)", ".png",
         lambda s: encoded((s.labels * (255 / s.labels.max())).astype(np.uint8))),
    mask("numbers as greys (imsave gray)", ".png", lambda s: gray(s.labels)),
    mask("numbers that go on from image to image (TrackMate)", ".png",
         lambda s: encoded((s.labels + (s.labels > 0) * 30 * IDS.index(s.id)).astype(np.uint16))),
    mask("red on black (Paint)", ".png", lambda s: encoded(COLOURS[binary(s, 1)]), COLOUR, either=True),
    mask("int8 numbers wrapped to negative ones", ".tif", label_tif(np.int8), "negative", scenes=CROWD),
    mask("-1 is background, int16", ".tif", lambda s: tif((s.labels - (s.labels == 0)).astype(np.int16)),
         "negative|-1"),
    mask("-1 is background, float32", ".tif", lambda s: tif((s.labels - (s.labels == 0)).astype(np.float32)),
         "negative|-1"),
    mask("nan is background", ".tif", lambda s: tif(np.where(s.labels, s.labels, np.nan).astype(np.float32)),
         "nan|finite|fractions|background"),
    *(mask(f"{np.dtype(dtype)} numbers in a tif (napari, cellpose, StarDist)", ".tif", label_tif(dtype))
      for dtype in (np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64)),
    mask("uint32 numbers up to 4e9", ".tif", label_tif(np.uint32, 400_000_000), "number|value|large", either=True),
    mask("uint64 numbers up to 1e13", ".tif", label_tif(np.uint64, 10**12), "number|value|large", either=True),
    mask("float32 of 0 and 1", ".tif", lambda s: tif((s.labels > 0).astype(np.float32))),
    mask("points, numbered", ".png", numbers, "point|pixel", either=True, scenes=POINTS, never="grey borders"),
    mask("points of 255", ".png", lambda s: encoded(binary(s)), "point|pixel", either=True, scenes=POINTS,
         never="grey borders"),
    mask("half as large as the image", ".png", lambda s: encoded(binary(s)[::2, ::2]), SIZES),
    mask("transposed (MATLAB, h5py)", ".png", lambda s: encoded(binary(s).T), SIZES),
]  # fmt: skip

OF_CLASSES = [
    mask("class numbers", ".png", lambda s: encoded(s.classes), CLASSES),
    mask("class numbers, classes=2", ".png", lambda s: encoded(s.classes), classes=2),
    mask("class numbers, names", ".png", lambda s: encoded(s.classes), classes=("cell", "nucleus")),
    mask("class numbers, float tif, classes=2", ".tif", lambda s: tif(s.classes.astype(np.float32)), classes=2),
    mask("class numbers, ome.tif (QuPath)", ".ome.tif", lambda s: tif(s.classes, ome=True), f"{CLASSES}|{PARTNER}"),
    mask("one class, 0 and 1, classes=1", ".png", lambda s: encoded(binary(s, 1)), classes=1),
    mask("one class, 0 and 255, one name", ".png", lambda s: encoded(binary(s)), CLASSES, either=True,
         classes=("cell",)),
    mask("instance numbers, classes=2", ".png", numbers, CLASSES, classes=2, doctor=False),
    mask("0 and 255, classes=2", ".png", lambda s: encoded(binary(s)), f"{CLASSES}|255", classes=2, doctor=False),
    mask("a class above K in one file", ".png",
         lambda s: encoded(s.classes + (s.labels == 2) * np.uint8(s.id == IDS[4])), CLASSES, classes=2),
    mask("grey png of two bits, classes=2", ".png", lambda s: png(s.classes, bits=2), CLASSES, either=True, classes=2),
    mask("class numbers in 1/2 of white (imsave gray), classes=2", ".png", lambda s: gray(s.classes),
         CLASSES, classes=2),
    mask("class numbers in 1/2 of white (imsave gray)", ".png", lambda s: gray(s.classes),
         f"{CLASSES}|{SMOOTH}"),
    mask("palette png (CVAT SegmentationClass)", ".png", lambda s: palette(s.classes), CLASSES),
    mask("palette png (CVAT SegmentationClass), classes=2", ".png", lambda s: palette(s.classes), classes=2),
    mask("colours for classes (CVAT)", ".png", lambda s: encoded(COLOURS[s.classes]), COLOUR),
    mask("colours for classes (CVAT), classes=2", ".png",
         lambda s: encoded(COLOURS[s.classes]), COLOUR, classes=2),
    mask("VOC classes with void", ".png", lambda s: palette(voided(s.classes)), VOID),
    mask("VOC classes with void, classes=2", ".png", lambda s: palette(voided(s.classes)), VOID, classes=2),
    mask("VOC class 15 with void", ".png", lambda s: palette(voided(binary(s, 15))), VOID),
    mask("VOC objects with void", ".png", lambda s: palette(voided(s.labels)), VOID, scenes=FEW),
    mask("VOC classes with void, grey png", ".png", lambda s: encoded(voided(s.classes)), VOID),
    folders("a folder a class, names", {"cell": 1, "nucleus": 2}, classes=("cell", "nucleus")),
    folders("a folder a class, names in another order", {"nucleus": 1, "cell": 2}, classes=("nucleus", "cell")),
    folders("a folder a class, names, without classes", {"cell": 1, "nucleus": 2}, CLASSES),
    folders("a folder a class, 0 and 1, classes=2", {"0": 1, "1": 2}, classes=2),
    folders("a folder a class, 0 and 1, names", {"0": 1, "1": 2}, classes=("cell", "nucleus")),
    folders("a folder a class, 0 and 1, without classes", {"0": 1, "1": 2}, CLASSES),
    folders("a folder a class, a folder missing", {"cell": 1, "nucleus": 2}, "other|folder|class",
            classes=("cell", "nucleus", "other")),
    folders("a folder more than there are classes", {"0": 1, "1": 2}, "folder|class", classes=1),
    Case("a folder a class, a mask missing", {
        "images/{}.png": photo, "masks/cell/{}.png": lambda s: encoded((s.classes == 1).astype(np.uint8)),
        "masks/nucleus/{}.png": first(lambda s: encoded((s.classes == 2).astype(np.uint8))),
    }, ANY, classes=("cell", "nucleus")),
    Case("a folder a class, instance numbers", {
        "images/{}.png": photo, "masks/0/{}.png": lambda s: encoded((s.labels * (s.classes == 1)).astype(np.uint16)),
        "masks/1/{}.png": lambda s: encoded((s.labels * (s.classes == 2)).astype(np.uint16)),
    }, classes=2),
    Case("masks/0/<id>.png only (popular UNet++ code)", {"images/{}.png": photo, "masks/0/{}.png": white}),
    Case("masks/0/<id>.png only, classes=1", {"images/{}.png": photo, "masks/0/{}.png": white}, classes=1),
]  # fmt: skip

MANY_CHANNELS = [
    image("2 channels, OME planes", ".tif",
          lambda s: tif(planes(s), photometric="minisblack", ome=True, metadata={"axes": "CYX"}), scenes=TWO),
    image("2 channels, ImageJ hyperstack", ".tif",
          lambda s: tif(planes(s), imagej=True, metadata={"axes": "CYX"}), scenes=TWO),
    image("2 channels, 16-bit ImageJ hyperstack", ".tif",
          lambda s: tif(np.moveaxis(deep(s, np.uint16), -1, 0), imagej=True, metadata={"axes": "CYX"}), scenes=TWO),
    image("2 channels, interleaved uint16", ".tif",
          lambda s: tif(deep(s, np.uint16), photometric="minisblack", planarconfig="contig"), scenes=TWO),
    image("3 channels, ImageJ hyperstack", ".tif",
          lambda s: tif(planes(s), imagej=True, metadata={"axes": "CYX"}), scenes=RGB),
    image("5 channels, planes", ".tif",
          lambda s: tif(planes(s), photometric="minisblack", planarconfig="separate"), scenes=FIVE),
    image("4 channels, uint16 planes", ".tif",
          lambda s: tif(np.moveaxis(deep(s, np.uint16), -1, 0), photometric="minisblack", planarconfig="separate"),
          scenes=FOUR),
    image("4 pages that do not say what they are", ".tif", lambda s: tif(planes(s), photometric="minisblack"),
          f"{STACK}|{CHANNELS}", either=True, scenes=FOUR),
    image("images of 2 and of 3 channels", ".tif",
          lambda s: tif(planes(s), photometric="minisblack", ome=True, metadata={"axes": "CYX"}), CHANNELS,
          scenes=scenes(channels=(2, 2, 2, 3, 3))),
    image("grey and RGB images mixed", ".png", photo, scenes=scenes(channels=(1, 1, 3, 3, 1))),
    image("9 pages", ".tif", lambda s: tif(np.stack([grey(s)] * 9), photometric="minisblack"), STACK),
    *(image(f"ImageJ hyperstack, {axes}", ".tif",
            lambda s, axes=axes: tif(np.stack([grey(s)] * 5), imagej=True, metadata={"axes": axes}), STACK)
      for axes in ("ZYX", "TYX")),
    *(image(f"OME stack, {axes}", ".tif", lambda s, axes=axes: tif(
        np.stack([grey(s)] * 5), photometric="minisblack", ome=True, metadata={"axes": axes}), STACK)
      for axes in ("ZYX", "TYX")),
    mask("a page an object", ".tif",
         lambda s: tif(np.stack([(s.labels == n + 1) * np.uint8(255) for n in range(3)]), photometric="minisblack"),
         STACK, scenes=THREE),
    mask("labels as an ImageJ stack of two slices", ".tif",
         lambda s: tif(np.stack([s.labels, s.labels * 0]).astype(np.uint16), imagej=True), STACK),
]  # fmt: skip

OTHERS = {
    "bmp": partial(encoded, kind="BMP"),
    "gif": partial(encoded, kind="GIF"),
    "webp": partial(encoded, kind="WEBP", lossless=True),
    "jp2": partial(encoded, kind="JPEG2000"),
    "npy": npy,
}

FILES = [
    image("12 bits in uint16", ".tif", lambda s: tif(np.rint(s.image[..., 0] / 255 * 4095).astype(np.uint16))),
    image("int16 with negative values", ".tif", lambda s: tif(grey(s).astype(np.int16) * 100 - 12000)),
    *(image(f"{np.dtype(dtype)} from 0 to 1", ".tif", lambda s, dtype=dtype: tif(deep(s, dtype)[..., 0]))
      for dtype in (np.float16, np.float32, np.float64)),
    image("float32 with a nan", ".tif",
          lambda s: tif(np.where(np.indices((48, 64)).sum(axis=0), deep(s, np.float32)[..., 0], np.nan)), "nan|finite"),
    image("16-bit RGB png", ".png", lambda s: png(deep(s, np.uint16), bits=16), "16", either=True, scenes=RGB,
          never=""),
    image("16-bit grey + alpha png", ".png", lambda s: png(with_alpha(deep(s, np.uint16), 65535), bits=16), "16",
          either=True, never=""),
    image("16-bit grey png", ".png", lambda s: png(deep(s, np.uint16), bits=16)),
    image("interlaced RGB png", ".png", lambda s: png(s.image, interlaced=True), scenes=RGB),
    image("palette png", ".png",
          lambda s: palette(np.random.default_rng(0).permutation(256)[grey(s)],
                            rgb(np.argsort(np.random.default_rng(0).permutation(256))).ravel().tolist())),
    image("RGB jpg, progressive", ".JPG", lambda s: jpg(s.image, progressive=True), grey=6, scenes=RGB),
    image("CMYK jpg (Photoshop)", ".jpg", lambda s: jpg(s.image, mode="CMYK"), grey=6, scenes=RGB),
    image("tif with jpeg inside (slide scanners)", ".tif",
          lambda s: encoded(s.image, "TIFF", compression="jpeg", quality=95), CODECS, either=True, grey=6, scenes=RGB),
    image("RGB tif, planes of 16 bits", ".tif", lambda s: tif(
        np.moveaxis(deep(s, np.uint16), -1, 0), photometric="rgb", planarconfig="separate"), scenes=RGB),
    image("RGB tif (ImageJ)", ".tif", lambda s: tif(s.image, imagej=True), scenes=RGB),
    image("animated png", ".png", lambda s: saved(Image.fromarray(grey(s)), save_all=True, append_images=[
        Image.fromarray(255 - grey(s))]), r"frames|anima|holds \d+ images|one image"),
    mask("animated png mask", ".png", lambda s: saved(Image.fromarray(binary(s)), save_all=True, append_images=[
        Image.fromarray(255 - binary(s))]), r"frames|anima|holds \d+ images|one image"),
    image("pyramid tif (SubIFD, QuPath)", ".tif", lambda s: with_small_copy(grey(s), 1)),
    image("small copy as second page", ".tif", lambda s: with_small_copy(grey(s), 0), STACK, either=True),
    mask("big-endian 16-bit labels (ImageJ)", ".tif",
         lambda s: tif(s.labels.astype(np.uint16), imagej=True, metadata={"min": 0.0, "max": 10.0})),
    mask("tiles, predictor, deflate", ".tif",
         label_tif(np.uint16, tile=(16, 16), predictor=True, compression="zlib")),
    mask("BigTIFF", ".TIF", label_tif(np.int32, bigtiff=True)),
    mask("packbits", ".tiff", lambda s: encoded(binary(s), "TIFF", compression="packbits")),
    mask("lzw, 8 bits", ".tif", lambda s: encoded(s.labels.astype(np.uint8), "TIFF", compression="tiff_lzw")),
    mask("lzw, uint16", ".tif", lambda s: packed(s.labels.astype(np.uint16), 5, lzw), CODECS, either=True),
    mask("lzw, uint32", ".tif", lambda s: packed(s.labels.astype(np.uint32), 5, lzw), CODECS, either=True),
    mask("zstd, uint8", ".tif", lambda s: packed(s.labels.astype(np.uint8), 50000, zstd), CODECS, either=True),
    mask("zstd, uint32", ".tif", lambda s: packed(s.labels.astype(np.uint32), 50000, zstd), CODECS, either=True),
    mask("jpeg2000", ".tif", lambda s: jpeg2000(s.labels.astype(np.uint8)), CODECS, either=True),
    image("jpeg2000 image", ".tif", lambda s: jpeg2000(grey(s)), CODECS, either=True),
    mask("endings in capitals", ".PNG", numbers),
    mask("tif called png", ".png", label_tif(np.uint16)),
    mask("png called tif", ".tif", numbers),
    mask("truncated png", ".png", lambda s: numbers(s)[:-60], ANY, never=""),
    mask("truncated tif", ".tif", lambda s: tif(s.labels.astype(np.uint16))[:-2000], ANY, never=""),
    image("truncated jpg", ".jpg", lambda s: encoded(grey(s), "JPEG")[:1200], ANY, never=""),
    mask("empty files", ".png", raw(b""), ANY, never=""),
    *(Case(f"all files are {ending}", {
        f"images/{{}}.{ending}": lambda s, make=make: make(grey(s)),
        f"masks/{{}}.{ending}": lambda s, make=make: make(binary(s)),
    }, rf"{ending}|{PARTNER}", either=True) for ending, make in OTHERS.items()),
    *(Case(f"two of five pairs are {ending}", {
        "images/{}.png": first(photo), "masks/{}.png": first(numbers),
        f"images/{{}}.{ending}": last(lambda s, make=make: make(grey(s))),
        f"masks/{{}}.{ending}": last(lambda s, make=make: make(binary(s))),
    }, rf"{ending}|{PARTNER}", either=True) for ending, make in OTHERS.items()),
    mask("npy masks", ".npy", lambda s: npy(s.labels), rf"npy|{PARTNER}", either=True),
    Case("NEF images", {"images/{}.nef": photo, "masks/{}.png": numbers}, rf"nef|{PARTNER}"),
]  # fmt: skip

RUBBISH = {"Thumbs.db": b"\xd0\xcf\x11\xe0", ".DS_Store": b"\0\0\0\1Bud1", "desktop.ini": b"[.ShellClassInfo]\r\n"}

FOLDERS = [
    Case("unpacked BBBC038", {
        "{0}/images/{0}.png": lambda s: encoded(with_alpha(rgb(grey(s)), 255)), "{0}/masks/{0}-{1}.png": one_by_one}),
    Case("one mask inside another, the inner one first", {
        "{0}/images/{0}.png": photo, "{0}/masks/{1}.png": partial(one_by_one, inner=True)},
        "overlap|inside|cover|hid|lost", either=True, scenes=NESTED),
    Case("every mask twice", {
        "{0}/images/{0}.png": photo, "{0}/masks/{1}.png": lambda s: one_by_one(s) * 2},
        "twice|same|identical|equal|overlap|cover|hid|lost", either=True),
    Case("masks of objects that are smoothed", {"{0}/images/{0}.png": photo, "{0}/masks/{1}.png": lambda s: [
        encoded(smooth(s.labels == n + 1, "bilinear", 255)) for n in range(s.labels.max())]}, SMOOTH),
    Case("masks of objects in the alpha channel", {"{0}/images/{0}.png": photo, "{0}/masks/{1}.png": lambda s: [
        encoded(with_alpha(rgb(binary(s) | 255), 255 * (s.labels == n + 1))) for n in range(s.labels.max())]}, ALPHA),
    Case("images/train, images/val, masks/train, masks/val", {"images/{}.png": photo, "masks/{}.png": numbers},
         scenes=scenes(ids=("train/a", "train/b", "train/c", "val/d", "val/e"))),
    Case("the same names in train and val", {"images/{}.png": photo, "masks/{}.png": numbers},
         "twice|same|two images", either=True, scenes=scenes(ids=("train/1", "train/2", "train/3", "val/1", "val/2"))),
    Case("NFD for images, NFC for masks", {
        "images/{2}.png": photo, "masks/{3}.png": numbers},
        scenes=scenes(ids=("café", "cell", "müller", "ñandú", "한글"))),
    names("names with dots, spaces and signs",
          ("#5 (copy)", "50%", "Screen Shot 2024-01-01 at 10.11.12", "a [1]", "x@2x")),
    names("names that begin with - and _", ("-1", "--size", "_a", "~b", "é")),
    names("a name of 204 bytes", [f"{n}{'x' * 199}" for n in range(5)]),
    Case("rubbish beside the images", {
        "images/{}.png": photo, "masks/{}.png": numbers,
        **{f"{kind}/{name}": raw(content) for kind in ("images", "masks") for name, content in RUBBISH.items()},
        "images/._{}.png": raw(b"\0\5\x16\7"), "masks/._{}.png": raw(b"\0\5\x16\7"),
        "images/{}.json": raw(b'{"version": "5.0.1", "shapes": []}')}),
    Case("<id>_seg.npy beside the images (cellpose)", {
        "images/{}.png": photo, "masks/{}.png": numbers, "images/{}_seg.npy": lambda s: npy(s.labels)}, "npy",
         either=True),
    Case("labelme without masks", {"images/{}.png": photo, "images/{}.json": raw(b'{"shapes": []}')}, ANY,
         layout=False),
    Case("masks/<id>_cp_masks.png (cellpose)", {"images/{}.png": photo, "masks/{}_cp_masks.png": numbers}, PARTNER,
         either=True),
    Case("<id>_cp_masks.png beside <id>.png (cellpose)", {"{}.png": photo, "{}_cp_masks.png": numbers}, ANY,
         either=True, layout=False),
    Case("images/img_<n>.png and masks/mask_<n>.png", {"images/img_{}.png": photo, "masks/mask_{}.png": numbers},
         PARTNER, either=True),
    Case("ome.tif and ome.tif (QuPath)", {
        "images/{}.ome.tif": lambda s: tif(grey(s), ome=True), "masks/{}.ome.tif": label_tif(np.uint16, ome=True)}),
    Case("a jpg preview beside each tif", {
        "images/{}.tif": lambda s: tif(grey(s)), "images/{}.jpg": lambda s: encoded(grey(s), "JPEG"),
        "masks/{}.png": numbers}, ANY),
    Case("one mask is missing", {
        "images/{}.png": photo, "masks/{}.png": lambda s: None if s.id == IDS[2] else numbers(s)}, ANY),
    Case("Images and Masks", {"Images/{}.png": photo, "Masks/{}.png": numbers}, ANY, either=True, layout=False),
]  # fmt: skip

CASES = [
    *ORIENTED, *WHITES, *NO_ZERO, *ALPHAS, *SMOOTHED, *VALUES, *OF_CLASSES, *MANY_CHANNELS, *FILES, *FOLDERS,
]  # fmt: skip


# What happens


def write(folder: Path, case: Case) -> None:
    for s in case.scenes:
        for pattern, make in case.files.items():
            made = make(s)
            for n, content in enumerate(made if isinstance(made, list) else [made]):
                path = folder / pattern.format(s.id, n, normalize("NFD", s.id), normalize("NFC", s.id))
                if content is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)


def by_name(splits: data.Splits) -> data.Split:
    """All parts as one, sorted by id."""
    images, masks, labels, ids, _ = data.join(splits)
    order = sorted(range(len(ids)), key=lambda n: normalize("NFC", ids[n]))
    return data.Split(images[order], masks[order], labels[order], [normalize("NFC", ids[n]) for n in order])


def plain(images: list[np.ndarray], labels: list[np.ndarray]) -> data.Split:
    """The data set as png images and 16-bit png masks of instance numbers."""
    with tempfile.TemporaryDirectory() as folder:
        for n, arrays in enumerate(zip(images, labels, strict=True)):
            for kind, array in zip(("images", "masks"), arrays, strict=True):
                path = Path(folder, kind, f"{n}.png")
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(encoded(array))
        return by_name(data.load(folder, SIZE, progress=False))


EXPECTED: dict[tuple[int, int], data.Split] = {}


def expected(case: Case) -> data.Split:
    """What the case would be if it was written plainly; a class and a channel at a time where there are several."""
    count = case.classes if isinstance(case.classes, int) else len(case.classes or "")
    if (key := (id(case.scenes), count)) not in EXPECTED:
        truth = sorted(case.scenes, key=lambda s: normalize("NFC", s.id))
        wholes = [
            s.labels if count < 2 else s.labels * (s.classes == k + 1) for k in range(max(1, count)) for s in truth
        ]
        wholes = [np.unique(whole, return_inverse=True)[1].astype(np.uint16) for whole in wholes]
        classes = [wholes[n : n + len(truth)] for n in range(0, len(wholes), len(truth))]
        if all(s.image.shape[2] in (1, 3) for s in truth):
            images = [np.squeeze(s.image) for s in truth]
            parts = [plain(images, labels) for labels in classes]
            pixels = parts[0].images
        else:
            channels = range(truth[0].image.shape[2])
            parts = [plain([s.image[..., channel] for s in truth], classes[0]) for channel in channels]
            pixels = torch.cat([part.images[:, :1] for part in parts], dim=1)
            parts = parts[:1]
        masks = torch.cat([part.masks for part in parts], dim=1)
        labels = torch.stack([part.labels for part in parts], dim=1) if len(parts) > 1 else parts[0].labels
        EXPECTED[key] = data.Split(pixels, masks, labels, [normalize("NFC", s.id) for s in truth])
    return EXPECTED[key]


def differences(case: Case, part: data.Split) -> tuple[str, list[str]]:
    """How a data set that was read agrees with what it should be, and where it does not."""
    try:
        right = expected(case)
    except UserError as error:
        return "read", [f"written plainly it is refused: {error}"]
    for name in ("images", "masks", "labels"):
        there, here = (tuple(getattr(one, name).shape) for one in (right, part))
        if there != here:
            return f"read: {name} {here}", [f"{name} have shape {here}, not {there}"]
    masks, truth = part.masks.bool().flatten(1), right.masks.bool().flatten(1)
    iou = float(((masks & truth).sum(1) / (masks | truth).sum(1).clamp(min=1) + ~(masks | truth).any(1)).min())
    grey = float((part.images.float() - right.images.float()).abs().flatten(1).mean(1).max())
    counts, there = (one.labels.amax(dim=(-2, -1)).tolist() for one in (part, right))
    wrong = [] if iou >= case.iou else [f"the IoU of masks is {iou:.3f}"]
    wrong += [] if grey <= case.grey else [f"images differ by {grey:.1f} grey levels"]
    wrong += [] if counts == there else [f"{counts} objects, not {there}"]
    if not all(PurePosixPath(a).name in b for a, b in zip(right.ids, part.ids, strict=True)):
        wrong.append(f"ids are {part.ids}")
    return f"read: IoU {iou:.3f}, images differ by {grey:.1f}", wrong


def loading(case: Case, folder: Path) -> tuple[str, list[str]]:
    """What `data.load` does, and what is wrong with that."""
    options = {} if case.classes is None else {"classes": case.classes}
    try:
        part = by_name(data.load(folder, SIZE, progress=False, **options))
    except UserError as error:
        said = " ".join(normalize("NFC", str(error)).split())
        bare = said.replace(normalize("NFC", str(folder)), "")
        named = bare != said or any(normalize("NFC", PurePosixPath(s.id).name) in said for s in case.scenes)
        wrong = [] if named else ["no file is named"]
        if case.words is None:
            wrong.append("not read")
        elif not re.search(case.words, bare, re.IGNORECASE):
            wrong.append(f"the sentence says nothing of {case.words}")
        if case.never and case.never in bare:
            wrong.append(f"the sentence says {case.never!r}")
        return f"refused: {bare.strip('/: ')}", wrong
    except Exception as error:
        return f"{type(error).__name__}: {error}", ["another exception than UserError"]
    if case.words is not None and not case.either:
        return differences(case, part)[0], ["read, not refused"]
    return differences(case, part)


def examining(case: Case, folder: Path, refused: bool) -> tuple[str, list[str]]:
    """What the mask doctor finds, and what is wrong with that."""
    try:
        findings = mask_doctor.examine(folder, classes=case.classes)
    except UserError as error:
        return f"refused: {error}", ["the doctor raises UserError"] if case.layout and not refused else []
    except Exception as error:
        return f"{type(error).__name__}: {error}", [f"the doctor raises {type(error).__name__}"]
    whole = "small nuclei", "too few images"  # of the data set, and no word on any file
    faults = sorted({one.problem for one in findings if one.problem not in (*mask_doctor.NOTES, *whole)})
    silent = (refused if case.doctor is None else case.doctor) and not faults
    return ", ".join(faults), ["the doctor finds nothing"] if silent else []


def happens(case: Case, folder: Path) -> tuple[str, str, list[str]]:
    """What `data.load` and the mask doctor do with a case, and all that is wrong with that."""
    write(folder, case)
    said, wrong = loading(case, folder)
    refused = case.words is not None and (not case.either or said.startswith("refused"))
    found, silent = examining(case, folder, refused)
    return said, found, wrong + silent


def main(word: str = "") -> None:
    print("| case | right | what happens | the doctor finds | wrong |\n|---|---|---|---|---|")
    cases, faults = [case for case in CASES if word in case.name], 0
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            said, found, wrong = happens(case, Path(folder))
        faults += bool(wrong)
        cells = case.name, case.right, said, found, "; ".join(wrong)
        print("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |", flush=True)
    print(f"\n{faults} of {len(cases)} cases are not right")


if __name__ == "__main__":
    main(*sys.argv[1:])
