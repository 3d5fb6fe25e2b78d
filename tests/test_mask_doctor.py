"""The mask doctor: each fault is made by hand, found under its name, and mended to the very pixels it should have."""

import io
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib import data
from course_lib.data.mask_doctor import examine, mend, report
from course_lib.errors import UserError
from tests.image_files import encoded as png
from tests.image_files import tif

H, W = 40, 56
SIZE = 32
IDS = [f"cell{n}" for n in range(6)]


def picture(n):
    """A dark image with three bright nuclei of 9 x 10 pixels, each anywhere in its third, and its instance labels."""
    rng = np.random.default_rng(n)
    labels = np.zeros((H, W), np.uint8)
    for number in (1, 2, 3):
        y, x = rng.integers(1, H - 10), 18 * number - 17 + rng.integers(0, 8)
        labels[y : y + 9, x : x + 10] = number
    light = np.array([0, 90, 130, 170])[labels] + 40 + rng.normal(0, 8, (H, W))
    return np.clip(light, 0, 255).astype(np.uint8), labels


def binary(n):
    return np.uint8(picture(n)[1] > 0) * 255


@pytest.fixture
def own(tmp_path):
    """A folder without fault: six images, masks of 0 and 255."""
    for kind in ("images", "masks"):
        (tmp_path / "own" / kind).mkdir(parents=True)
    for n, name in enumerate(IDS):
        put(tmp_path / "own", f"images/{name}.png", picture(n)[0])
        put(tmp_path / "own", f"masks/{name}.png", binary(n))
    return tmp_path / "own"


def put(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else png(content))


def found(folder, size=SIZE):
    """(file, problem, mendable) of everything but the summary."""
    *findings, summary = examine(folder, size)
    assert summary.problem == "summary"
    return [(f.file, f.problem, f.mendable) for f in findings]


def detail(folder, problem, size=SIZE):
    return next(f.detail for f in examine(folder, size) if f.problem == problem)


def mended(folder, name="cell2", size=SIZE):
    """The mended mask of one image; checks on the way that nothing is left to mend and that the copy loads."""
    out = folder.parent / "mended"
    shutil.rmtree(out, ignore_errors=True)
    before = contents(folder)
    mend(folder, out, size)
    assert contents(folder) == before
    assert not [f for f in examine(out, size) if f.mendable]
    splits = data.load(out, size, progress=False)
    stored = {path.stem for path in (out / "images").iterdir()}
    assert stored == {path.stem for path in (out / "masks").iterdir()} == set(data.join(splits).ids)
    file = out / "masks" / f"{name}.png"
    return np.asarray(Image.open(file)) if file.exists() else None


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def same(one, other):
    pairs = zip(data.join(one), data.join(other), strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def partition(labels):
    """What a numbering says, whatever the numbers: which pixels belong together."""
    return sorted(tuple(np.flatnonzero(labels == n)) for n in np.unique(labels[labels > 0]))


# No fault


def test_nothing_is_found_where_nothing_is_wrong(own):
    put(own, "masks/cell0.png", picture(0)[1])  # instance numbers
    put(own, "masks/cell1.png", binary(1) // 255)  # 0 and 1
    put(own, "masks/cell3.png", binary(3) > 0)  # 1 bit
    put(own, "images/cell4.png", picture(4)[0].astype(np.uint16) * 257)
    assert found(own) == []
    assert report(examine(own, SIZE)) == (
        "of 12 files 12 are fine, 0 can be mended, 0 need a person; 40 x 56 to 40 x 56 pixels; 6 dark; "
        "3 to 3 nuclei an image"
    )


def test_mending_a_good_folder_changes_no_pixel_that_is_loaded(own, tmp_path):
    put(own, "images/cell4.png", picture(4)[0].astype(np.uint16) * 100 + 7)
    put(own, "masks/cell0.png", picture(0)[1])
    shutil.move(own / "images/cell3.png", own / "images/cell3.PNG")
    [summary] = mend(own, tmp_path / "out", SIZE)
    assert summary.detail.startswith(f"6 images with masks are in {tmp_path / 'out'}; 40 x 56")
    assert same(data.load(own, SIZE, progress=False), data.load(tmp_path / "out", SIZE, progress=False))
    mask = Image.open(tmp_path / "out/masks/cell2.png")
    assert (mask.mode, np.asarray(mask).max()) == ("I;16", 3)
    mend(own, tmp_path / "again", SIZE)
    assert contents(tmp_path / "out") == contents(tmp_path / "again")


# Values of masks

COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 200, 90], [9, 9, 255]], np.uint8)


@pytest.mark.parametrize("channels", [3, 4])
def test_each_colour_is_a_nucleus_and_grey_keeps_its_values(own, channels):
    labels = picture(2)[1]
    labels[0:3, 0:9], labels[3:7, 0:3] = 1, 2  # a second piece of nucleus 1 touches a second piece of nucleus 2
    for colours, problem in ((COLOURS // 4, "mask in colour"), (np.arange(4, dtype=np.uint8), "grey mask as RGB")):
        rgb = colours[labels] if colours.ndim == 2 else np.dstack([9 * colours[labels]] * 3)
        put(own, "masks/cell2.png", np.dstack([rgb, np.full((H, W), 255, np.uint8)])[..., :channels])
        assert found(own) == [("masks/cell2.png", problem, True)]
        assert partition(mended(own)) == partition(labels)


def test_one_colour_and_colours_used_again(own):
    labels = picture(2)[1]
    labels[labels == 3] = 0
    put(own, "masks/cell2.png", COLOURS[np.uint8(labels > 0)])  # two nuclei in one red
    assert partition(mended(own)) == partition(labels)
    many = np.kron(np.arange(1, 13).reshape(3, 4) * [[1], [0], [1]], np.ones((H // 3, W // 4), int))
    many = np.pad(many, ((0, 1), (0, 0)))  # eight nuclei in two rows
    many[:, ::14] = 0
    put(own, "masks/cell2.png", COLOURS[np.where(many > 0, 1 + many % 2, 0)])
    assert partition(mended(own)) == partition(many)


def test_colours_that_are_left_to_a_person(own):
    put(own, "masks/cell0.png", np.maximum(COLOURS, 1)[picture(0)[1]])  # nothing is black
    large = Image.fromarray(COLOURS[picture(1)[1]]).resize((W * 2, H * 2), Image.Resampling.BICUBIC)
    put(own, "masks/cell1.png", np.asarray(large.resize((W, H), Image.Resampling.BICUBIC)))
    photo = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)
    photo[0, 0] = 0
    put(own, "masks/cell2.png", photo)
    assert found(own) == [(f"masks/cell{n}.png", "unreadable", False) for n in range(3)]
    texts = [f.detail for f in examine(own, SIZE)[:3]]
    assert "without black" in texts[0]
    assert "colours, most of them thin" in texts[1]
    assert "colours, most of them thin" in texts[2]
    assert mended(own) is mended(own, "cell0") is mended(own, "cell1") is None


def smooth(mask):
    large = Image.fromarray(mask).resize((W * 2, H * 2), Image.Resampling.BICUBIC)
    return np.asarray(large.resize((W, H), Image.Resampling.BILINEAR))


def lossy(mask):
    return np.asarray(Image.open(io.BytesIO(png(mask, "JPEG", quality=60))))


def faint(mask):
    """Noise around 0 and 250, so that 255 does not occur, which `data.load` takes for instance numbers."""
    noise = np.random.default_rng(0).integers(0, 5, mask.shape)
    return np.where(mask > 0, 250 - noise, noise).astype(np.uint8)


def tinted(mask):
    """As a JPEG of a coloured scan is, nearly grey."""
    return np.dstack([lossy(mask), np.clip(lossy(mask), 3, 252), np.clip(lossy(mask), 6, 255)])


@pytest.mark.parametrize("spoil", [smooth, lossy, faint, tinted, lambda mask: np.dstack([lossy(mask)] * 3)])
def test_grey_borders_are_cut_at_half(own, spoil):
    put(own, "masks/cell2.png", spoil(binary(2)))
    assert ("masks/cell2.png", "grey borders", True) in found(own)
    assert partition(mended(own)) == partition(picture(2)[1])


@pytest.mark.parametrize(("low", "half"), [(0, 0.5), (120, 0.3)])
def test_a_grey_picture_is_no_mask(own, low, half):
    """Many pixels lie between a quarter and three quarters: half of all, or 30 % in a bright picture."""
    rng = np.random.default_rng(1)
    grey = np.where(
        rng.random((H, W)) < half, rng.integers(65, 190, (H, W)), rng.integers(low // 120 * 200, 256, (H, W))
    )
    put(own, "masks/cell2.png", grey.astype(np.uint8))
    assert found(own) == [("masks/cell2.png", "grey borders", False)]
    assert mended(own) is None


def test_classes_are_not_cut_but_pointed_out(own):
    classes = np.uint8(np.indices((H, W)).sum(axis=0) % 8 < 3) * 1
    classes[(np.indices((H, W)) % 8 == 3).all(axis=0)] = 2
    classes *= 4  # mostly 4, some 8 and 1
    classes[0, ::3] = 1
    put(own, "masks/cell2.png", classes)
    assert found(own) == [("masks/cell2.png", "numbers or classes", False)]
    assert "3 numbers in" in detail(own, "numbers or classes")
    assert mended(own) is None  # `data.load` refuses it too
    with pytest.raises(UserError, match=r"cell2\.png has 3 numbers in \d+ pieces, so they may be classes or smoothed"):
        data.load(own, SIZE, progress=False)
    for n in (0, 1, 3, 4, 5):  # among many clean masks it is one whose objects are cut
        put(own, f"masks/cell{n}.png", np.kron(np.arange(140).reshape(10, 14) + n, np.ones((4, 4))).astype(np.uint8))
    assert ("masks/cell2.png", "numbers in pieces", False) in found(own)


def test_jpg_masks(own):
    (own / "masks/cell2.png").unlink()
    put(own, "masks/cell2.jpg", png(binary(2), "JPEG"))
    assert found(own) == []
    assert partition(mended(own)) == partition(picture(2)[1])
    for lost in (binary(2) // 255 * 9, picture(2)[1] * 20, picture(2)[1] * 80):
        put(own, "masks/cell2.jpg", png(lost, "JPEG"))
        assert found(own) == [("masks/cell2.jpg", "unreadable", False)]


# Inverted masks


@pytest.mark.parametrize("bright", [False, True])
def test_inverted_masks_are_swapped_where_most_are(own, bright):
    for n, name in enumerate(IDS):
        put(own, f"images/{name}.png", 255 - picture(n)[0] if bright else picture(n)[0])
    for n in range(4):
        put(own, f"masks/cell{n}.png", 255 - binary(n))
    assert found(own) == [(f"masks/cell{n}.png", "inverted mask", True) for n in range(4)]
    assert partition(mended(own)) == partition(picture(2)[1])
    assert "3 to 3 nuclei" in examine(own, SIZE)[-1].detail
    put(own, "masks/cell3.png", binary(3))  # three of six are not most
    assert found(own) == [(f"masks/cell{n}.png", "inverted mask", False) for n in range(3)]
    assert mended(own) is None
    put(own, "masks/cell0.png", np.full((H, W), 255, np.uint8))
    assert ("masks/cell0.png", "inverted mask", False) in found(own)


@pytest.mark.parametrize("bright", [False, True])
def test_crowded_images_are_not_inverted(own, bright):
    """Nuclei cover 3/4 of the image and of its border, in all images."""
    for n, name in enumerate(IDS):
        rng = np.random.default_rng(n)
        gaps = np.zeros((H, W), bool)
        gaps[np.arange(3 + n % 3, H, 9)] = gaps[:, np.arange(4 + n // 3, W, 9)] = True
        assert (~gaps).mean() > 0.7
        light = np.where(gaps, 20, rng.integers(70, 120, (H, W))).astype(np.uint8)
        put(own, f"images/{name}.png", 255 - light if bright else light)
        put(own, f"masks/{name}.png", np.uint8(~gaps) * 255)
    assert found(own) == []


def test_touching_instances_and_a_frame_are_not_inverted(own):
    """Dark where the mask has its foreground, but the foreground is numbered, or is only at the border."""
    for name in IDS:
        noise = np.random.default_rng(int(name[-1])).integers(0, 9, (H, W))
        cells = np.kron(np.arange(1, 5).reshape(2, 2), np.ones((H // 2, W // 2), np.uint8)).astype(np.uint8)
        cells[8:12, 8:12] = 0
        frame = np.pad(np.zeros((H - 4, W - 4), np.uint8), 2, constant_values=255)
        mask = cells if name < "cell3" else frame
        put(own, f"images/{name}.png", np.where(mask > 0, noise, 60 + noise).astype(np.uint8))
        put(own, f"masks/{name}.png", mask)
    assert "inverted mask" not in {problem for _, problem, _ in found(own)}


# Empty masks, few images, no layout


def test_empty_masks(own):
    put(own, "masks/cell2.png", binary(2) * 0)
    assert found(own) == [("masks/cell2.png", "empty mask", False)]
    assert examine(own, SIZE)[-1].detail.startswith("of 12 files 12 are fine")  # legal
    assert mended(own).max() == 0
    for name in IDS:
        put(own, f"masks/{name}.png", binary(2) * 0)
    assert (".", "all masks empty", False) in found(own)


def test_missing_layout_and_size(own, tmp_path):
    for size in (15, 1025):
        with pytest.raises(UserError, match=f"size is {size}: use"):
            examine(own, size)
    shutil.rmtree(own / "masks")
    with pytest.raises(UserError, match=r"own has no folder masks: the layout is images/<id>.png and masks/<id>.png"):
        examine(own)
    with pytest.raises(UserError, match="nowhere has no folder images"):
        mend(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Sizes


def test_sizes_of_masks(own):
    put(own, "masks/cell0.png", np.ascontiguousarray(binary(0).T))
    put(own, "masks/cell1.png", picture(1)[1][::2, ::2])
    put(own, "masks/cell2.png", binary(2)[:-1])
    put(own, "masks/cell3.png", binary(3)[::2])  # half the height alone
    put(own, "masks/cell4.png", np.kron(binary(4), np.ones((2, 2), np.uint8)))  # larger than its image
    put(own, "masks/cell5.png", np.full((1, 1), 255, np.uint8))
    mendable = dict.fromkeys(range(6), False) | {0: True, 1: True}
    assert found(own)[1:] == [(f"masks/cell{n}.png", "other size", mendable[n]) for n in range(6)]
    assert found(own)[0] == (".", "too few images", False)
    assert "has 56 x 40 pixels (rows x columns) but its image has 40 x 56: mend transposes" in detail(own, "other size")
    put(own, "masks/cell2.png", binary(2))
    assert mended(own, "cell3") is mended(own, "cell4") is None
    assert partition(mended(own, "cell0")) == partition(picture(0)[1])
    doubled = picture(1)[1][::2, ::2].repeat(2, axis=0).repeat(2, axis=1)
    assert partition(mended(own, "cell1")) == partition(doubled)


def test_a_mask_is_enlarged_up_to_eight_times_and_a_square_one_is_never_transposed(own):
    put(own, "images/cell2.png", picture(2)[0][:, :H])
    put(own, "masks/cell2.png", binary(2)[:, :H])
    assert found(own) == []
    assert partition(mended(own)) == partition(picture(2)[1][:, :H])
    put(own, "masks/cell0.png", np.full((5, 7), 255, np.uint8))  # of 40 x 56
    put(own, "images/cell1.png", picture(1)[0][:36, :36])
    put(own, "masks/cell1.png", np.full((4, 4), 255, np.uint8))
    assert {("masks/cell0.png", "other size", True), ("masks/cell1.png", "other size", False)} <= set(found(own))


# Names


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a.png", "a_mask.png"),
        ("a.png", "a-masks.tif"),
        ("a.png", "mask_a.png"),
        ("a.png", "a_cp_masks.png"),
        ("a.ome.tif", "a.tif"),
        ("a.tif", "a.ome.tif"),
        ("a_b.tif", "A_B_Label.ome.tif"),
        ("img_007.png", "mask_007.png"),
        ("image7.png", "mask7.png"),
    ],
)
def test_names_that_nearly_agree(own, image, mask):
    (own / "images/cell2.png").unlink()
    (own / "masks/cell2.png").unlink()
    put(own, f"images/{image}", tif(picture(2)[0]) if image.endswith("tif") else picture(2)[0])
    put(own, f"masks/{mask}", tif(binary(2)) if mask.endswith("tif") else binary(2))
    assert found(own) == [(f"masks/{mask}", "other name", True)]
    assert f"its image is images/{image}" in detail(own, "other name")
    assert partition(mended(own, Path(image).stem)) == partition(picture(2)[1])


def test_names_that_do_not_agree(own):
    (own / "masks/cell0.png").rename(own / "masks/other0.png")
    (own / "masks/cell1.png").rename(own / "masks/cell1_mask.png")
    put(own, "masks/mask_cell1.png", binary(1))  # two masks for one image
    put(own, "masks/cell2_mask.png", binary(2))  # cell2 has a mask of its very name
    put(own, "images/cell3.jpg", png(picture(3)[0], "JPEG"))  # two images for one mask
    put(own, "masks/cell4.npy", b"x")
    put(own, "masks/.hidden.png", b"x")
    assert found(own) == [
        ("images/cell0.png", "no mask", False),
        ("images/cell1.png", "unclear partner", False),
        ("images/cell3.jpg", "unclear partner", False),
        ("images/cell3.png", "unclear partner", False),
        ("masks/cell1_mask.png", "unclear partner", False),
        ("masks/cell2_mask.png", "no image", False),
        ("masks/cell3.png", "unclear partner", False),
        ("masks/cell4.npy", "other format", False),
        ("masks/mask_cell1.png", "unclear partner", False),
        ("masks/other0.png", "no image", False),
    ]
    assert examine(own, SIZE)[-1].detail.startswith("of 16 files 6 are fine, 0 can be mended, 10 need a person")
    assert partition(mended(own)) == partition(picture(2)[1])
    assert {Path(name).stem for name in contents(own.parent / "mended")} == {"cell2", "cell4", "cell5"}


# Files that cannot be read


def test_files_for_a_person(own):
    whole = (own / "masks/cell0.png").read_bytes()
    put(own, "masks/cell0.png", whole[: len(whole) // 2])
    put(own, "images/cell0.png", b"")
    put(own, "images/cell1.png", b"a text")
    (own / "masks/cell2.png").unlink()
    put(own, "masks/cell2.tif", tif(np.zeros((9, H, W), np.uint8), photometric="minisblack"))
    (own / "masks/cell3.png").unlink()
    (own / "masks/cell3.png").mkdir()
    (own / "masks/cell4.png").unlink()
    put(own, "masks/cell4.tif", tif(np.full((H, W), 0.5, np.float32)))
    huge = bytearray((own / "images/cell5.png").read_bytes())
    huge[16:24] = b"\0\0\xff\xff" * 2
    put(own, "images/cell5.png", bytes(huge))
    assert found(own) == [
        (".", "too few images", False),
        ("images/cell0.png", "unreadable", False),
        ("images/cell1.png", "unreadable", False),
        ("images/cell5.png", "unreadable", False),
        ("masks/cell0.png", "unreadable", False),
        ("masks/cell2.tif", "unreadable", False),
        ("masks/cell3.png", "unreadable", False),
        ("masks/cell4.tif", "unreadable", False),
    ]
    texts = {f.file: f.detail for f in examine(own, SIZE)}
    assert texts["images/cell1.png"].startswith("the file cannot be read as a png, tif or jpg image")
    assert "holds 9 images: save one" in texts["masks/cell2.tif"]
    assert "is not a file" in texts["masks/cell3.png"]
    assert "fractions" in texts["masks/cell4.tif"]


def test_a_file_without_permission_and_masks_of_no_nuclei(own, monkeypatch):
    (own / "masks/cell2.png").unlink()
    volume = tif(np.zeros((16, 32, 32, 3), np.uint16), photometric="rgb", volumetric=True, tile=(16, 16, 16))
    put(own, "masks/cell2.tif", volume)
    specks = np.zeros((520, 520), np.uint8)
    specks[::2, ::2] = 1  # 67,600
    put(own, "masks/cell3.png", specks)
    read = Path.read_bytes

    def refuse(path):
        if path.name == "cell1.png":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    texts = {f.file: f.detail for f in examine(own, SIZE)}
    assert texts["images/cell1.png"] == "the file cannot be read (Permission denied): check its permissions"
    assert "(16, 32, 32, 3)" in texts["masks/cell2.tif"]
    assert "67600 pieces" in texts["masks/cell3.png"]


def test_damaged_files_never_crash(own):
    """Bits are flipped in pngs, tifs and jpgs; each ends in findings, and what is left can be mended and loaded."""
    rng = random.Random(0)
    rgb = np.dstack([picture(0)[0]] * 3)
    makers = [lambda: png(rgb), lambda: tif(binary(0)), lambda: png(rgb, "JPEG"), lambda: tif(binary(0).astype(float))]
    unreadable = 0
    for trial in range(40):
        for kind in ("images", "masks"):
            for old in (own / kind).glob("cell0.*"):
                old.unlink()
            damaged = bytearray(makers[trial % 4]())
            for _ in range(4):
                damaged[rng.randrange(min(len(damaged), 400))] ^= 1 << rng.randrange(8)
            put(own, f"{kind}/cell0.{('png', 'tif', 'jpg', 'tif')[trial % 4]}", bytes(damaged))
        problems = found(own)
        unreadable += any(problem == "unreadable" for _, problem, _ in problems)
    assert unreadable > 20
    mended(own)


# Twins


def parts(folder):
    splits = data.load(folder, SIZE, progress=False)
    return {name: part for part, split in zip(splits._fields, splits, strict=True) for name in split.ids}


def two_names(folder, *, apart):
    """Two ids, in order, that are dealt to different parts, or to the same one."""
    where = parts(folder)
    return next((a, b) for a in IDS for b in IDS if a < b and (where[a] != where[b]) == apart)


@pytest.mark.parametrize("apart", [True, False])
def test_equal_and_nearly_equal_images(own, apart):
    first, second = two_names(own, apart=apart)
    where, image = parts(own), np.asarray(Image.open(own / f"images/{first}.png"))
    brighter = np.clip(image * 1.15 + 9 + np.random.default_rng(0).normal(0, 2, image.shape), 0, 255).astype(np.uint8)
    put(own, f"images/{second}.png", brighter)
    assert found(own) == ([(f"images/{second}.png", "nearly same image", True)] if apart else [])
    if apart:
        text = f"this one is in {where[second]}, that one in {where[first]}"
        assert text in detail(own, "nearly same image")
    mended(own)
    put(own, f"images/{second}.png", np.dstack([image] * 3))  # other bytes, equal pixels
    assert found(own) == [(f"images/{second}.png", "same image", True)]
    assert f"has the pixels of images/{first}.png" in detail(own, "same image")
    assert mended(own, second) is None
    assert mended(own, first) is not None


def test_parts_are_those_of_data_split_also_with_several_looks(own):
    for n in range(3, 6):
        put(own, f"images/cell{n}.png", 255 - picture(n)[0])
    before = contents(own)
    where = parts(own)
    pairs = [(a, b) for n in (0, 3) for a in IDS[n : n + 3] for b in IDS[n : n + 3] if a < b]
    assert len({where[a] != where[b] for a, b in pairs}) == 2
    for a, b in pairs:
        put(own, f"images/{b}.png", np.asarray(Image.open(own / f"images/{a}.png")) - np.uint8(1))
        assert len(found(own)) == (where[a] != where[b])
        put(own, f"images/{b}.png", before[f"images/{b}.png"])


def test_uneven_light_that_all_images_share_makes_no_twins(own):
    light = 140 + 80 * np.cos(np.linspace(-1.2, 1.2, H))[:, None] * np.cos(np.linspace(-1.2, 1.2, W))
    shared = []
    for n, name in enumerate(IDS):
        image = np.clip(light - 0.1 * picture(n)[0], 0, 255).astype(np.uint8)
        put(own, f"images/{name}.png", image)
        shared.append(image.reshape(8, 5, 8, 7).mean(axis=(1, 3)).ravel())
    assert np.corrcoef(shared).min() > 0.9  # what a grid of plain means would say
    assert found(own) == []
    for n, name in enumerate(IDS):  # flat images neither
        put(own, f"images/{name}.png", np.full((H, W), 30 + n, np.uint8))
    assert found(own) == []


def test_twins_are_left_out_until_none_are_left(own):
    """Seven frames of one film: those that are in one part at first come apart when others leave."""
    for n in range(9):
        noise = np.random.default_rng(n).normal(0, 2, (H, W))
        put(own, f"images/film{n}.png", np.clip(picture(50)[0] + noise, 0, 255).astype(np.uint8))
        put(own, f"masks/film{n}.png", binary(50))
    where = parts(own)
    assert 0 < len(found(own)) < 8
    mended(own)  # asserts that nothing is left to mend
    left = [path.stem for path in (own.parent / "mended/images").glob("film*")]
    assert len({parts(own.parent / "mended")[name] for name in left}) == 1
    assert len({where[f"film{n}"] for n in range(9)}) > 1


# Nuclei that resizing loses


def test_small_nuclei(own):
    for n, name in enumerate(IDS):
        large = np.zeros((256, 256), np.uint8)
        large[8::32, 8::32] = large[9::32, 8::32] = large[8::32, 9::32] = large[9::32, 9::32] = 255  # 64 of 2 x 2
        noise = np.random.default_rng(n).integers(0, 99, large.shape).astype(np.uint8)
        put(own, f"images/{name}.png", noise + large // 2)
        put(own, f"masks/{name}.png", large)
    assert found(own, 64) == [(".", "small nuclei", False)]
    text = "384 of 384 nuclei have fewer than 4 pixels at 64 x 64: size=256 keeps 95 %, and so does"
    assert text in detail(own, "small nuclei", 64)
    assert found(own, 256) == []


def test_five_in_a_hundred_may_vanish(own):
    """19 nuclei in all, and one speck of a pixel, then two: 1 of 20 and 2 of 21."""
    for n, nuclei in enumerate((9, 9, 1, 0, 0, 0)):
        mask = np.zeros((H, W), np.uint8)
        for k in range(nuclei):
            mask[2 + k // 3 * 12 :, 2 + k % 3 * 16 :][:8, :9] = 255
        mask[39, 55] = 255 * (n == 0)
        put(own, f"masks/cell{n}.png", mask)
    assert "small nuclei" not in {problem for _, problem, _ in found(own)}
    mask[39, 55] = 255
    put(own, "masks/cell5.png", mask)
    text = "2 of 21 nuclei have fewer than 4 pixels at 32 x 32: size=96 keeps 95 %"
    assert detail(own, "small nuclei").startswith(text)


# The copy and the table


def test_where_the_copy_may_go(own, tmp_path):
    for inside in (own, own / "out", own / "images", own.parent / "other" / ".." / "own" / "x"):
        with pytest.raises(UserError, match=r"is inside .*own, which stays as it is"):
            mend(own, inside)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    for taken in (tmp_path / "full", tmp_path / "full/x"):
        with pytest.raises(UserError, match="is there already and not empty"):
            mend(own, taken)
    (tmp_path / "empty").mkdir()
    mend(own, tmp_path / "empty", SIZE)
    assert len(contents(tmp_path / "empty")) == 12
    assert len(contents(own)) == 12


def test_what_was_done_and_the_table(own, tmp_path):
    put(own, "masks/cell0.png", COLOURS[picture(0)[1]])
    put(own, "masks/cell1.png", binary(1) * 0)
    put(own, "masks/cell2.png", b"")
    (own / "masks/cell3.png").rename(own / "masks/cell3_mask.png")
    put(own, "images/cell3.png", b"")  # so the mended name is of no use
    (own / "masks/cell4.png").unlink()
    *done, summary = mend(own, tmp_path / "out", SIZE)
    assert [(f.file, f.problem, f.detail.split(":")[0]) for f in done] == [
        ("images/cell3.png", "unreadable", "left out"),
        ("images/cell4.png", "no mask", "left out"),
        ("masks/cell0.png", "mask in colour", "mended"),
        ("masks/cell1.png", "empty mask", "kept"),
        ("masks/cell2.png", "unreadable", "left out"),
        ("masks/cell3_mask.png", "other name", "left out"),
    ]
    assert summary.detail.startswith("3 images with masks are in")
    findings = examine(own, SIZE)
    assert findings == examine(own, SIZE)
    *lines, closing = report(findings).splitlines()
    assert lines[0].split() == ["file", "problem", "mendable", "detail"]
    assert [line.split()[0] for line in lines[1:]] == [f.file for f in findings[:-1]]
    assert len({line.index(f.detail) for line, f in zip(lines[1:], findings, strict=False)}) == 1  # aligned
    assert closing.startswith("of 11 files 6 are fine, 2 can be mended, 3 need a person; ")
    assert "yes" in lines[3] and "no" in lines[1]
