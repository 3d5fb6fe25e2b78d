"""Reading images and masks of all kinds, and resizing them exactly."""

import io
import struct
import tracemalloc
import zlib
from collections import Counter

import numpy as np
import pytest
import tifffile
from PIL import Image

from course_lib.data import decode, meaning, pixels
from course_lib.errors import UserError
from tests.image_files import encoded, png_header, tif


@pytest.fixture
def rng():
    return np.random.default_rng(3)


# Values known by hand


def test_image_pixel_is_the_mean_of_its_area():
    image = np.array([[0, 30, 60], [90, 120, 150]], np.uint8)[..., None]
    # three old columns make two new ones: old column 1 lies half in each
    assert pixels.resize_image(image, 2)[..., 0].tolist() == [[10, 50], [100, 140]]
    assert pixels.resize_image(np.array([[0, 1]], np.uint8)[..., None], 1).item() == 1  # a half rounds up


def test_half_of_the_area_makes_a_nucleus_and_less_does_not():
    half, less = np.zeros((2, 4, 4), np.int32)
    half[:2, :1] = half[:2, 2:] = 1  # new pixel (0, 0) is covered by half, (0, 1) entirely
    less[0, 0] = less[:2, 2:] = 1
    assert pixels.resize_labels(half, 2).tolist() == [[1, 1], [0, 0]]
    assert pixels.resize_labels(less, 2).tolist() == [[0, 1], [0, 0]]


def test_a_pixel_belongs_to_the_nucleus_that_covers_most_of_it():
    labels = np.array([[5, 7, 9, 3], [0, 7, 9, 3], [0, 0, 0, 0], [0, 0, 0, 0]], np.int32)
    # left, 7 covers two quarters and 5 one; right, a draw, which the lower number wins; 9 is gone
    assert pixels.resize_labels(labels, 2).tolist() == [[2, 1], [0, 0]]


# An independent reference: blow every pixel up until old and new borders meet, then look at whole blocks


def blocks(array, size):
    height, width = array.shape[:2]
    large = array.repeat(size, axis=0).repeat(size, axis=1)
    return large.reshape(size, height, size, width, *array.shape[2:]).swapaxes(1, 2)


@pytest.mark.parametrize(("shape", "size"), [((16, 24), 10), ((9, 5), 7), ((5, 6), 8), ((13, 13), 4), ((6, 6), 6)])
def test_resizing_agrees_with_counting_blocks(rng, shape, size):
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    means = np.floor(blocks(image.astype(int), size).sum(axis=(2, 3)) / np.prod(shape) + 0.5)
    assert (pixels.resize_image(image, size) == means).all()

    labels = rng.integers(0, 4, shape).astype(np.int32)
    labels[0, 0] = 3
    expected = np.zeros((size, size), int)
    for (y, x), _ in np.ndenumerate(expected):
        counts = Counter(blocks(labels, size)[y, x].ravel().tolist())
        if 2 * counts.pop(0, 0) <= labels.size:
            expected[y, x] = min(counts, key=lambda number: (-counts[number], number))
    kept = np.unique(expected[expected > 0])
    renumbered = np.where(expected > 0, np.searchsorted(kept, expected) + 1, 0)
    assert pixels.resize_labels(labels, size).tolist() == renumbered.tolist()


# Kinds of files


GREY = np.array([[0, 100, 200], [50, 150, 255]], np.uint8)
RGB = np.stack([GREY, GREY // 2, 255 - GREY], axis=-1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(GREY), GREY),
        (encoded(GREY, mode="LA"), GREY),
        (encoded(GREY, "TIFF", compression="tiff_lzw"), GREY),
        (encoded(GREY, "TIFF", compression="zstd"), GREY),
        (encoded(GREY.astype(np.uint16) * 16, "TIFF", compression="tiff_lzw"), GREY),
        (encoded(GREY, "TIFF", mode="LA"), GREY),
        (encoded(RGB, "TIFF", mode="CMYK"), RGB),
        (encoded(RGB, "TIFF", mode="P"), np.asarray(Image.fromarray(RGB).convert("P").convert("RGB"))),
        (encoded(GREY > 99, "TIFF"), 255 * (GREY > 99)),
        (tif(GREY, photometric="miniswhite"), 255 - GREY),
        (tif(GREY.astype(np.float32), byteorder=">", compression="zlib"), GREY),
        (tif(GREY), GREY),
        (encoded(GREY > 99), 255 * (GREY > 99)),
        (encoded(RGB), RGB),
        (encoded(np.dstack([RGB, GREY])), RGB),
        (encoded(RGB, mode="P"), np.asarray(Image.fromarray(RGB).convert("P").convert("RGB"))),
        (encoded(GREY.astype(np.uint16) * 16 + 1000), GREY),
        (tif(GREY.astype(np.uint16) * 16 + 1000), GREY),
        (tif(GREY.astype(np.uint16) * 16, byteorder=">"), GREY),
        (tif(np.dstack([GREY] * 3).astype(np.uint16) * 7, photometric="rgb"), GREY),
        (tif(np.dstack([GREY] * 3 + [GREY * 0]).astype(np.uint16) + 9, photometric="rgb", extrasamples=[2]), GREY),
        (tif(np.stack([GREY] * 3).astype(np.uint16), photometric="rgb", planarconfig="separate"), GREY),
        (tif(GREY.astype(np.float32) / 255), GREY),
        (tif(GREY.astype(np.float64) / 255), GREY),
        (encoded(np.full((2, 3), 9, np.uint16)), np.zeros((2, 3))),
    ],
)
def test_every_kind_of_image_becomes_rgb_bytes(data, expected):
    image = pixels.read_image(data, "x")
    assert (image.dtype, image.shape) == (np.uint8, (2, 3, 3))
    assert (image == (expected if expected.ndim == 3 else expected[..., None])).all()


TWO = np.array([[1, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], np.uint8)  # two pieces
TWO_LABELS = [[1, 1, 0, 2], [0, 0, 0, 2], [0, 0, 0, 0]]
NUMBERS = np.array([[7, 7, 3, 3], [0, 0, 0, 3], [0, 7, 0, 0]], np.uint8)  # touching, one in two pieces
NUMBERS_LABELS = [[2, 2, 1, 1], [0, 0, 0, 1], [0, 2, 0, 0]]
PALETTE = Image.fromarray(NUMBERS)
PALETTE.putpalette([0, 0, 0, *range(255, 0, -1), *range(255, 0, -1), *range(255, 0, -1)])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(TWO), TWO_LABELS),
        (encoded(TWO * 255), TWO_LABELS),
        (encoded(TWO > 0), TWO_LABELS),
        (encoded(np.dstack([TWO * 255] * 3)), TWO_LABELS),
        (encoded(np.dstack([TWO * 255] * 3 + [TWO])), TWO_LABELS),
        (encoded(TWO, mode="LA"), TWO_LABELS),
        (tif(TWO.astype(np.float32)), TWO_LABELS),
        (encoded(np.eye(3, dtype=np.uint8)), np.eye(3)),  # corners connect
        (encoded(NUMBERS), NUMBERS_LABELS),
        (encoded(np.asarray(PALETTE)), NUMBERS_LABELS),
        (tif(NUMBERS.astype(np.uint16) * 9000), NUMBERS_LABELS),
        (tif(NUMBERS.astype(np.int32) * 2**28), NUMBERS_LABELS),
        (tif(NUMBERS.astype(np.int64)), NUMBERS_LABELS),
        (encoded(np.zeros((3, 4), np.uint8)), np.zeros((3, 4))),
        (encoded(np.kron(TWO, np.full((9, 9), 255, np.uint8)), "JPEG"), np.kron(TWO_LABELS, np.ones((9, 9)))),
    ],
)
def test_every_kind_of_mask_becomes_labels(data, expected):
    labels = meaning.label_mask(meaning.read_mask(data, "x"), "x")
    assert labels.dtype == np.int32
    assert labels.tolist() == np.asarray(expected).tolist()


def test_a_palette_mask_gives_its_indices():
    file = io.BytesIO()
    PALETTE.save(file, "PNG")
    assert (meaning.read_mask(file.getvalue(), "x") == NUMBERS).all()
    white_first = PALETTE.copy()
    white_first.putpalette([255, 255, 255, 0, 0, 0])
    white_first.save(file := io.BytesIO(), "PNG")
    with pytest.raises(UserError, match="x has a palette in which 0 is not black: save its numbers without"):
        meaning.read_mask(file.getvalue(), "x")


def test_channels_stay_as_they_are_but_grey_and_transparency():
    values = np.arange(4 * 5 * 9, dtype=np.uint8).reshape(4, 5, 9)
    for channels in range(2, 9):
        contig = tif(values[..., :channels].copy(), photometric="minisblack", planarconfig="contig")
        planes = tif(np.moveaxis(values[..., :channels], 2, 0).copy(), photometric="minisblack")
        for data in (contig, planes):
            assert (pixels.read_image(data, "x") == values[..., :channels]).all()
    assert (pixels.read_image(tif(values[..., 0].copy()), "x") == np.repeat(values[..., :1], 3, axis=2)).all()
    assert (pixels.read_image(encoded(values[..., :4].copy()), "x") == values[..., :3]).all()
    deep = tif(np.moveaxis(np.stack([GREY, GREY // 9], axis=2), 2, 0).astype(np.uint16), photometric="minisblack")
    assert (pixels.read_image(deep, "x").max(axis=(0, 1)) == 255).all()  # each has its own range


@pytest.mark.parametrize(("stored", "wanted"), [(1, 3), (1, 4), (3, 1), (3, 4), (4, 4), (4, 1), (5, 5)])
def test_an_image_is_read_as_a_net_wants_it(stored, wanted):
    values = np.random.default_rng(1).integers(0, 256, (6, 7, stored), dtype=np.uint8)
    flat = tif(np.moveaxis(values, 2, 0).copy(), photometric="minisblack")
    data = encoded(values.squeeze()) if stored < 5 else flat
    image = pixels.read_image(data, "x", wanted, fourth=True)
    if wanted == 4 and stored < 5:
        with pytest.raises(UserError, match=r"x has . channels and the net takes 4"):
            pixels.read_image(data, "x", 4)  # a dye is not made up
    assert image.shape == (6, 7, wanted)
    if wanted == 1:
        assert (image[..., 0] == np.rint(values[..., :3] @ [0.299, 0.587, 0.114])).all()
    elif stored in (3, 4, 5):
        assert (image[..., :stored] == values).all() and (image[..., stored:] == 255).all()
    with pytest.raises(UserError, match=r"x has . channels and the net takes 7: give an image like"):
        pixels.read_image(data, "x", 7)


UPRIGHT = {  # EXIF orientation -> what is seen, by Pillow's names
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_images_and_masks_are_turned_upright(orientation):
    image, exif = Image.fromarray(NUMBERS), Image.Exif()
    exif[0x0112] = orientation
    seen = np.asarray(image.transpose(UPRIGHT[orientation]))
    tag = [(274, "H", 1, orientation, True)]
    for data in (encoded(NUMBERS, exif=exif), tif(NUMBERS, extratags=tag), encoded(NUMBERS, "TIFF", exif=exif)):
        assert (meaning.read_mask(data, "x") == seen).all()
        assert pixels.read_image(data, "x").shape == (*seen.shape, 3)
    assert pixels.read_image(encoded(NUMBERS, "JPEG", exif=exif), "x").shape == (*seen.shape, 3)


# Tiles


@pytest.mark.parametrize(
    ("shape", "size"), [((24, 36), 16), ((16, 16), 16), ((10, 50), 16), ((3, 4), 16), ((33, 17), 16)]
)
def test_tiles_cover_the_image_at_its_own_resolution(shape, size):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    labels = np.random.default_rng(1).integers(0, 3, shape)
    seen = np.zeros(shape, bool)
    for place, (piece, numbers) in pixels.cut(image, labels, size).items():
        y, x = map(int, place.split(","))
        assert piece.shape == (size, size, 3) and numbers.shape == (size, size) and numbers.dtype == np.int32
        there = image[y : y + size, x : x + size]
        assert (piece[: there.shape[0], : there.shape[1]] == there).all()
        part = labels[y : y + size, x : x + size]
        assert ((numbers[: part.shape[0], : part.shape[1]] > 0) == (part > 0)).all()
        seen[y : y + size, x : x + size] = True
    assert seen.all()


def test_labels_of_a_tile_count_from_one_without_gaps():
    labels = np.zeros((8, 16), int)
    labels[2:4, 2:4], labels[2:4, 6:10], labels[6:8, 12:14] = 3, 7, 9
    left, right = (numbers for _, numbers in pixels.cut(np.zeros((8, 16, 3), np.uint8), labels, 8).values())
    assert set(np.unique(left)) == {0, 1, 2} and left[2, 2] == 1 and left[2, 6] == 2
    assert set(np.unique(right)) == {0, 1, 2} and right[2, 0] == 1 and right[6, 4] == 2
    full = pixels.cut(np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 5), 8)["0,0"][1]
    assert (full == 1).all()


def test_tiles_are_few_and_even():
    corners = list(pixels.cut(np.zeros((40, 16, 3), np.uint8), np.zeros((40, 16), int), 16))
    assert corners == ["0,0", "12,0", "24,0"]


# Refusals


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a.png cannot be read as a png"),
        (b"not an image", "a.png cannot be read as a png"),
        (encoded(RGB)[:-30], "a.png cannot be read as a png"),
        (tif(GREY)[:-4], "a.png cannot be read as a png"),
        (encoded(GREY, "GIF"), "a.png cannot be read as a png"),
        (png_header(2, 1, 16, 2, bytes(13)), "16-bit colour: as tif only"),
        (png_header(10241, 10240), "a.png announces 10241 x 10240 pixels: cut it"),
        (png_header(65000, 65000), "a.png announces 65000 x 65000 pixels: cut it"),
        (png_header(1, 10**8), "a.png announces 1 x 100000000 pixels: cut it"),
        (tif(np.zeros((9, 5, 6), np.uint8), photometric="minisblack"), "a.png holds 9 images: save one"),
        (tif(np.zeros((4, 5, 6), "u1"), imagej=True, metadata={"axes": "ZYX"}), "a.png holds 4 images along Z: save"),
        (tif(np.full((4, 4), np.nan, np.float32)), "a.png holds values that are not finite"),
        (tif(np.full((4, 4), 1j, np.complex64)), "a.png holds values of type complex64"),
        (tif(np.full((4, 4), 7, np.uint16), photometric="miniswhite"), "a.png stores white as 0: save it with black"),
        (
            tif(np.zeros((4, 4, 10), np.uint8), photometric="minisblack", planarconfig="contig"),
            r"has shape \(4, 4, 10\): save",
        ),
        (tif(np.arange(64, dtype=np.uint8).reshape(4, 4, 4)), "a.png marks its fourth channel as transparency, and"),
    ],
)
def test_images_that_are_refused(data, message):
    with pytest.raises(UserError, match=message):
        pixels.read_image(data, "a.png")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded(RGB), "a.png is a mask in colour: save one image"),
        (tif(np.array([[0, 0.5]], np.float32)), "a.png is a mask with fractions"),
        (tif(np.array([[0, np.nan]], np.float32)), "a.png is a mask with fractions"),
        (tif(np.array([[0, -1]], np.int16)), "a.png is a mask with fractions or negative values"),
        (encoded(TWO)[:-30], "a.png cannot be read"),
        (tif(np.array([[0, 1e300]])), "a.png is a mask with fractions"),
        (tif(np.array([[0, -5]], np.int8)), "a.png is a mask with fractions or negative values"),
        (tif(np.array([[0, 1j]], np.complex64)), "a.png is a mask with fractions"),
        (tif(np.array([[0, 7]], np.uint16), photometric="miniswhite"), "a.png stores white as 0"),
    ],
)
def test_masks_that_are_refused(data, message):
    with pytest.raises(UserError, match=message):
        meaning.read_mask(data, "a.png")


def test_the_upper_half_of_32_bits_is_not_negative_and_signed_bytes_may_be():
    image = pixels.read_image(tif(np.array([[0, 3_000_000_000], [1, 2_000_000_000]], np.uint32)), "a.png")
    assert image[..., 0].tolist() == [[0, 255], [0, 170]]
    mask = np.array([[0, 70_000], [1, 2_000_000_000]], np.uint32)
    assert (meaning.read_mask(tif(mask), "a.png") == mask).all()
    image = pixels.read_image(tif(np.array([[-5, 0], [5, 5]], np.int8)), "a.png")
    assert image[..., 0].tolist() == [[0, 128], [255, 255]]


@pytest.mark.parametrize(("count", "ending"), [(0, ".png"), (65_535, ".png"), (65_536, ".tif")])
def test_every_object_keeps_its_number_in_a_file(count, ending):
    labels = np.zeros((300, 300), np.int32)
    labels.flat[:count] = np.arange(1, count + 1)
    found, data = pixels.labels_file(labels)
    assert found == ending
    assert (meaning.read_mask(data, "labels") == labels).all()


def test_a_mask_with_grey_borders_is_refused():
    for radius in (4, 12):
        disk = Image.fromarray(np.uint8(np.hypot(*np.mgrid[-40:40, -40:40]) < radius) * 255)
        smooth = disk.resize((61, 67), Image.Resampling.BICUBIC)
        lossy = Image.open(io.BytesIO(encoded(np.asarray(disk), "JPEG")))  # then saved as png
        for mask in (smooth, lossy):
            assert meaning.look_at(np.asarray(mask), "m.png").doubt.problem == meaning.BORDERS
    many = np.zeros((32, 32), np.uint8)
    many[::2, ::2] = np.arange(256).reshape(16, 16)  # 255 objects of one pixel are no such thing
    assert meaning.look_at(many, "m.png").doubt is None and meaning.label_mask(many, "m.png").max() == 255


def test_a_strip_that_unpacks_to_more_than_the_image_is_not_unpacked(tmp_path, monkeypatch):
    """A hundred million zeros where 4,096 are announced."""
    data = bytearray(tif(np.zeros((64, 64), np.uint8), compression="zlib"))
    bomb = zlib.compress(bytes(10**8), 9)
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        for name, value in (("StripOffsets", len(data)), ("StripByteCounts", len(bomb))):
            tag = opened.pages.first.tags[name]
            data[tag.offset + 2 : tag.offset + 4] = struct.pack("<H", 4)
            data[tag.valueoffset : tag.valueoffset + 4] = struct.pack("<I", value)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a\.png holds more than its header announces: get a fresh copy"):
        pixels.read_image(bytes(data) + bomb, "a.png")
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()
    monkeypatch.setattr(decode, "MAX_BYTES", 2**20)
    with pytest.raises(
        UserError, match=r"announces 600 x 600 pixels: cut it into tiles of at most 1 MiB \(8 bytes a pixel"
    ):
        pixels.read_image(tif(np.zeros((600, 600))), "a.png")
