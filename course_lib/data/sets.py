"""Data sets by name or folder, prepared once, cached, and split in a way that every machine repeats.

`load` is the whole story, from top to bottom; what it calls follows in that order.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from course_lib.data import cache, pixels
from course_lib.data.archive import download as download_archive
from course_lib.data.archive import open_archive, read_entry, sha256_of
from course_lib.data.synthetic import draw_nuclei
from course_lib.errors import UserError

LARGE = 4 * 2**20  # pixels; a pixel takes about 32 bytes while it is prepared
TILE = "@"  # between the id of an image and the place of a tile in it
PREPARATION = 1  # goes up when prepared pixels would change: older cache files are then not used any more

# Looks are told apart by channel means, which resizing does not change. In BBBC038 the channels of grey images
# are equal and those of stained ones differ by 7 or more; dark images have means below 60, bright ones above 200.
COLOUR = 3
BRIGHT = 128
DEAL = ("train", "val", "test", "train", "train")  # the first three images reach all parts


class Split(NamedTuple):
    """One part of a data set: N images of S x S pixels."""

    images: Tensor  # uint8 (N, 3, S, S)
    masks: Tensor  # uint8 (N, 1, S, S), 1 where there is a nucleus
    labels: Tensor  # int32 (N, S, S): 0 background, 1..K the nuclei of one image
    ids: list[str]


class Splits(NamedTuple):
    """The three parts: the net learns from one, decisions are made on the second, the third is scored once."""

    train: Split
    val: Split
    test: Split


class Prepared(NamedTuple):
    """A data set at its final size, not yet split."""

    images: np.ndarray  # uint8 (N, S, S, 3)
    labels: np.ndarray  # int32 (N, S, S)
    ids: list[str]


class Sample(NamedTuple):
    """Where the pixels of one image are: names of files, or of entries of an archive."""

    id: str
    image: str
    masks: list[str]
    mask_per_nucleus: bool  # else one mask for the whole image


class Source(NamedTuple):
    """A published archive (data/README.md has a card for each)."""

    url: str
    sha256: str
    variable: str  # environment variable that may name a local archive of the same layout
    mask_per_nucleus: bool  # <id>/images/*.png and <id>/masks/*.png; else images/<id>.* and masks/<id>.*


SOURCES = {
    "bbbc038": Source(
        url="https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip",
        sha256="dcb6edc2690f137406638b2309581a71522c4dff19157d118453b448dcddcb68",
        variable="COURSE_BBBC038_ARCHIVE",
        mask_per_nucleus=True,
    ),
    "dsb2018-fluo": Source(
        url="https://github.com/stardist/stardist/releases/download/0.1.0/dsb2018.zip",
        sha256="e44921950edce378063aa4457e625581ba35b4c2dbd9a07c19d48900129f386f",
        variable="COURSE_DSB2018_FLUO_ARCHIVE",
        mask_per_nucleus=False,
    ),
}


def load(
    name: str | os.PathLike = "synthetic",
    size: int = 96,
    *,
    count: int = 600,
    seed: int = 0,
    look: str | None = None,
    tiles: bool = False,
    download: bool = False,
    progress: bool = True,
) -> Splits:
    """A data set of `size` x `size` images as train (60 %), val (20 %) and test (20 %).

    Args:
        name: "synthetic", "bbbc038", "dsb2018-fluo", or a folder that holds images/ and masks/ with equal file
            names (endings aside): png, tif or jpg; masks hold 0/1, 0/255 or instance numbers.
        count, seed: of the images drawn for "synthetic".
        look: "synthetic" images of one kind, such as "small-sharp" (`synthetic.LOOKS`); None: all kinds in turn.
        tiles: cut images into tiles at their own resolution in place of resizing them, for what is thin or small.
            All tiles of an image are in one part; the shares are then those of images.
        download: whether a missing archive may be fetched. Nothing is ever downloaded without it.
        progress: whether to show a bar while images are prepared.

    Raises UserError: one sentence that names the file and what to do.
    """
    if not 16 <= size <= 1024:
        raise UserError(f"size is {size}: use a number of pixels between 16 and 1024")
    if look is not None and name != "synthetic":
        raise UserError(f"look {look!r} is for the built-in images: leave it out for {str(name)!r}")
    if tiles and name == "synthetic":
        raise UserError("the built-in images are drawn at the size asked for: leave tiles out")
    if name == "synthetic":
        ids = [f"synthetic-{seed}-{i:05d}" for i in range(count)]
        prepared = Prepared(*draw_nuclei(count, size, seed=seed, look=look), ids)
    elif name in SOURCES:
        prepared = _from_archive(name, size, tiles, download, progress)
    elif Path(name).is_dir():
        prepared = _from_folder(Path(name), size, tiles, progress)
    else:
        raise UserError(
            f"there is no data set or folder {str(name)!r} (looked in {Path.cwd()}): "
            f"use synthetic, {', '.join(SOURCES)} or a folder"
        )
    return split(*prepared, [id.rpartition(TILE)[0] for id in prepared.ids] if tiles else None)


def best_at_hand() -> str:
    """ "bbbc038" where its archive is on this machine, else "synthetic". Looks, and downloads nothing."""
    source = SOURCES["bbbc038"]
    there = os.environ.get(source.variable) or (cache.folder() / cache.ARCHIVES / "bbbc038.zip").is_file()
    return "bbbc038" if there else "synthetic"


def _from_archive(name: str, size: int, tiles: bool, download: bool, progress: bool) -> Prepared:
    source, folder = SOURCES[name], cache.folder()
    cache.sweep(folder)
    local = os.environ.get(source.variable)
    if local and not Path(local).is_file():
        raise UserError(f"{source.variable} names {local}, which is not a file: correct it or unset it")
    digest = sha256_of(Path(local)) if local else source.sha256
    cached = folder / f"{name}-{digest[:16]}-{size}{'-tiles' if tiles else ''}-v{PREPARATION}.npz"
    if prepared := _cached(cached):
        return prepared
    path = Path(local) if local else _at_hand(name, folder, download, progress)
    with cache.alone(cached):
        if prepared := _cached(cached):  # another process has made it meanwhile
            return prepared
        with open_archive(path) as archive:
            samples = find_samples(archive.namelist(), path, mask_per_nucleus=source.mask_per_nucleus)
            prepared = prepare(samples, partial(read_entry, archive), size, path, tiles=tiles, progress=progress)
        cache.write(cached, **prepared._asdict())
    return prepared


def _cached(path: Path) -> Prepared | None:
    if (stored := cache.read(path, Prepared._fields)) is None:
        return None
    images, labels, ids = stored
    return Prepared(images, labels, ids.tolist())


def _at_hand(name: str, folder: Path, download: bool, progress: bool) -> Path:
    """The official archive in the cache folder, with its hash checked."""
    source, path = SOURCES[name], folder / cache.ARCHIVES / f"{name}.zip"
    if download:
        with cache.alone(path):
            download_archive(source.url, source.sha256, path, progress=progress)
    elif not path.is_file():
        raise UserError(
            f"{name} is not on this machine: run `python -m course_lib data {name}`, or set {source.variable} "
            "to a local archive, or use the built-in data set 'synthetic'"
        )
    elif sha256_of(path) != source.sha256:
        raise UserError(
            f"{path} is damaged (its SHA-256 is not the published one): "
            f"delete it and run `python -m course_lib data {name}`"
        )
    return path


def _from_folder(folder: Path, size: int, tiles: bool, progress: bool) -> Prepared:
    files = [file for kind in ("images", "masks") for file in (folder / kind).glob("*")]
    samples = find_samples((file.relative_to(folder).as_posix() for file in files), folder)

    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except OSError as error:
            raise UserError(f"{folder / name} cannot be read ({error.strerror}): check its permissions") from error

    return prepare(samples, read, size, folder, tiles=tiles, progress=progress)


def find_samples(names: Iterable[str], where: Path, *, mask_per_nucleus: bool = False) -> list[Sample]:
    """Pairs images with their masks by the layout of the names, whatever folders stand before it.

    Raises UserError where nothing has that layout, and for an image or a mask that has no partner.
    """
    layout = "<id>/images/<id>.png and <id>/masks/*.png" if mask_per_nucleus else "images/<id>.png and masks/<id>.png"
    found = defaultdict(lambda: {"images": [], "masks": []})
    for name in sorted(names):
        path = PurePosixPath(name)
        kind, above = path.parent.name, path.parent.parent
        key = above if mask_per_nucleus else above / path.stem
        hidden = path.name.startswith(".")  # such as the ._files that macOS puts beside the real ones
        if kind in ("images", "masks") and path.suffix.lower() in pixels.SUFFIXES and key.name and not hidden:
            found[key][kind].append(name)
    if not found:
        raise UserError(f"{where} holds no images where they are looked for: the layout is {layout}")
    for key, files in found.items():
        images, masks = len(files["images"]), len(files["masks"])
        if images != 1 or masks < 1 or (masks > 1 and not mask_per_nucleus):
            raise UserError(
                f"{where}: {key} has {images} image(s) and {masks} mask(s), but the layout is {layout}: "
                "add what is missing or take out what is too much"
            )
    return [Sample(key.name, *files["images"], files["masks"], mask_per_nucleus) for key, files in found.items()]


def prepare(
    samples: list[Sample],
    read: Callable[[str], bytes],
    size: int,
    where: Path,
    *,
    tiles: bool = False,
    progress: bool = True,
) -> Prepared:
    """Reads, labels and resizes all samples, or cuts them into tiles. Threads share the work (decoding releases the
    interpreter's lock); results come back in the order of the samples. A few full-size images are held at a time, of
    those above LARGE pixels one."""
    alone = Lock()

    def work(sample: Sample) -> list[tuple[np.ndarray, np.ndarray, str]]:
        content = read(sample.image)
        with alone if pixels.extent(content) > LARGE else nullcontext():
            return pieces_of(sample, content)

    def pieces_of(sample: Sample, content: bytes) -> list[tuple[np.ndarray, np.ndarray, str]]:
        image, labels = _read_sample(sample, content, read, where)
        if tiles:
            return [(*piece, f"{sample.id}{TILE}{place}") for place, piece in pixels.cut(image, labels, size).items()]
        return [(pixels.resize_image(image, size), pixels.resize_labels(labels, size), sample.id)]

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        bar = tqdm(pool.map(work, samples), f"preparing {where.name}", len(samples), disable=not progress)
        images, labels, ids = zip(*(piece for pieces in bar for piece in pieces), strict=True)
    labels = np.stack(labels)
    if not labels.any():
        raise UserError(f"{where}: no mask holds a nucleus that shows at {size} x {size}: check the masks")
    return Prepared(np.stack(images), labels, list(ids))


def _read_sample(
    sample: Sample, content: bytes, read: Callable[[str], bytes], where: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 (H, W, 3), whose file is `content`, and instance labels int32 (H, W), at the size of the files."""
    image = pixels.read_image(content, f"{where}/{sample.image}")
    labels = np.zeros(image.shape[:2], np.int32)
    for number, name in enumerate(sample.masks, start=1):
        mask = pixels.read_mask(read(name), f"{where}/{name}")
        if mask.shape != labels.shape:
            raise UserError(
                f"{where}/{name} has {mask.shape[0]} x {mask.shape[1]} pixels (rows x columns) but its image has "
                f"{labels.shape[0]} x {labels.shape[1]}: export both at the same size"
            )
        if sample.mask_per_nucleus:
            labels[mask > 0] = number
        else:
            labels = pixels.label_mask(mask, f"{where}/{name}")
    return image, labels


def look_of(image: np.ndarray) -> str:
    """The look of one uint8 image (S, S, 3): "colour", "bright" (grey) or "dark" (grey, fluorescence)."""
    means = image.mean(axis=(0, 1))
    if np.ptp(means) >= COLOUR:
        return "colour"
    return "bright" if means.mean() >= BRIGHT else "dark"


def split(images: np.ndarray, labels: np.ndarray, ids: list[str], groups: list[str] | None = None) -> Splits:
    """Deals images uint8 (N, S, S, 3) and labels int32 (N, S, S) to train, val and test.

    Images are sorted by look and then by the SHA-256 of their id, and dealt in the order DEAL. So the parts
    depend on the ids, not on the order of files or on the machine, and each look is in all parts. Images of one of
    `groups`, such as the tiles of one picture, stay together: the groups are dealt, by their names. Raises UserError
    for fewer than three images or groups and for an id that occurs twice.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for n, group in enumerate(groups or ids):
        members[group].append(n)
    if len(ids) < 3 or len(members) < 3:
        raise UserError(f"the data set has {len(members)} image(s): train, val and test need at least 3, so add some")
    if len(set(ids)) < len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise UserError(f"two images have the id {twice!r}: rename or remove one")
    hashed = {group: sha256(group.encode(errors="surrogateescape")).hexdigest() for group in members}
    looks = {group: look_of(np.concatenate(images[found])) for group, found in members.items()}
    dealt: dict[str, list[int]] = {part: [] for part in Splits._fields}
    for place, group in enumerate(sorted(members, key=lambda group: (looks[group], hashed[group]))):
        dealt[DEAL[place % len(DEAL)]] += members[group]
    return Splits(*(_part(images, labels, ids, sorted(chosen, key=ids.__getitem__)) for chosen in dealt.values()))


def _part(images: np.ndarray, labels: np.ndarray, ids: list[str], chosen: list[int]) -> Split:
    pictures = torch.from_numpy(images[chosen]).permute(0, 3, 1, 2).contiguous()  # (N, 3, S, S)
    nuclei = torch.from_numpy(labels[chosen])
    return Split(pictures, (nuclei > 0).to(torch.uint8)[:, None], nuclei, [ids[n] for n in chosen])


def join(splits: Splits) -> Split:
    """All that a data set holds as one part: train, then val, then test."""
    images, masks, labels, ids = zip(*splits, strict=True)
    return Split(torch.cat(images), torch.cat(masks), torch.cat(labels), [id for part in ids for id in part])
