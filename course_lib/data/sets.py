"""Data sets: drawn, from an archive or from a folder, and split as every machine splits them."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from course_lib.data import cache, pixels
from course_lib.data.synthetic import draw_nuclei
from course_lib.errors import UserError

KINDS = ("images", "masks")  # folders
LARGE = 4 * 2**20  # pixels; resizing takes some 16 bytes a pixel, so one such image at a time
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


class Files(NamedTuple):
    """The files of a folder or an archive."""

    where: Path
    names: list[str]
    read: Callable[[str], bytes]
    mask_per_nucleus: bool = False  # else one mask for the whole image


def draw(count: int = 600, size: int = 96, *, seed: int = 0, look: str | None = None) -> Splits:
    """Built-in images of `size` x `size` pixels as train (60 %), val (20 %) and test (20 %).

    `look` names one kind, such as "small-sharp" (`synthetic.LOOKS`); without it all kinds take turns. Raises UserError.
    """
    check_size(size)
    images, labels = draw_nuclei(count, size, seed=seed, look=look)
    return split(images, labels, ids=[f"synthetic-{seed}-{n:05d}" for n in range(count)])


def load(
    name: str | Path = "synthetic",
    size: int = 96,
    *,
    tiles: bool = False,
    download: bool = False,
    progress: bool = True,
) -> Splits:
    """A data set of `size` x `size` images as train (60 %), val (20 %) and test (20 %).

    Args:
        name: "synthetic" (600 images of `draw`), "bbbc038", "dsb2018-fluo", or a folder that holds images/ and masks/
            with equal file names (endings aside): png, tif or jpg; masks hold 0/1, 0/255 or instance numbers.
        tiles: cut images into tiles in place of resizing them; all tiles of an image are in one part.
        download: whether a missing archive may be fetched. Nothing is ever downloaded without it.
        progress: whether to show a bar while images are prepared.
    Raises UserError: one sentence that names the file and what to do.
    """
    check_size(size)
    if name == "synthetic":
        if tiles:
            raise UserError("the built-in images are drawn at the size asked for: leave tiles out")
        return draw(size=size)
    if name in cache.SOURCES:
        arrays = _from_archive(name, size, tiles, download, progress)
    elif Path(name).is_dir():
        folder = Path(name)
        names = [f"{kind}/{file.name}" for kind in KINDS for file in (folder / kind).glob("*")]
        files = Files(folder, names, lambda file: pixels.read_file(folder / file, f"{folder / file}"))
        arrays = prepare(files, size, tiles=tiles, progress=progress)
    else:
        raise UserError(
            f"there is no data set or folder {str(name)!r} (looked in {Path.cwd()}): "
            f"use synthetic, {', '.join(cache.SOURCES)} or a folder"
        )
    ids = [str(id) for id in arrays["ids"]]
    groups = [id.rpartition(TILE)[0] for id in ids] if tiles else None
    return split(arrays["images"], arrays["labels"], ids=ids, groups=groups)


def check_size(size: int) -> None:
    """Raises UserError for a side that no net of the course is made for."""
    if not 16 <= size <= 1024:
        raise UserError(f"size is {size}: use a number of pixels between 16 and 1024")


def _from_archive(name: str, size: int, tiles: bool, download: bool, progress: bool) -> cache.Arrays:
    source, local = cache.SOURCES[name], cache.given(name)

    def make() -> cache.Arrays:
        path = local or cache.fetched(name, download=download, progress=progress)
        with cache.open_archive(path) as archive:
            files = Files(path, archive.namelist(), partial(cache.read_entry, archive), source.mask_per_nucleus)
            return prepare(files, size, tiles=tiles, progress=progress)

    digest = cache.sha256_of(local) if local else source.sha256
    stem = f"{name}-{digest[:16]}-{size}{'-tiles' if tiles else ''}-v{PREPARATION}"
    return cache.kept(cache.folder() / f"{stem}.npz", make)


def prepare(files: Files, size: int, *, tiles: bool = False, progress: bool = True) -> cache.Arrays:
    """Reads, labels and resizes all images, or cuts them into tiles, in the order of their names.

    Returns "images", uint8 (N, S, S, 3), "labels", int32 (N, S, S), and "ids". Raises UserError.
    """

    def pieces_of(sample: tuple[str, str, list[str]]) -> list[tuple[np.ndarray, np.ndarray, str]]:
        id, name, masks = sample
        image = pixels.read_image(files.read(name), f"{files.where}/{name}")
        with alone if image[..., 0].size > LARGE else nullcontext():
            labels = _read_labels(files, masks, image.shape[:2])
            if not tiles:
                return [(pixels.resize_image(image, size), pixels.resize_labels(labels, size), id)]
            return [(*tile, f"{id}{TILE}{place}") for place, tile in pixels.cut(image, labels, size).items()]

    samples, title, alone = find_samples(files), f"preparing {files.where.name}", Lock()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding releases the interpreter's lock
        bar = tqdm(pool.map(pieces_of, samples), title, len(samples), disable=not progress)
        images, labels, ids = zip(*(piece for pieces in bar for piece in pieces), strict=True)
    if not any(one.any() for one in labels):
        raise UserError(f"{files.where}: no mask holds a nucleus that shows at {size} x {size}: check the masks")
    return {"images": np.stack(images), "labels": np.stack(labels), "ids": list(ids)}


def find_samples(files: Files) -> list[tuple[str, str, list[str]]]:
    """Id, image and masks by the layout of the names, whatever folders stand before it.
    Raises UserError where nothing has that layout, and for an image or a mask that has no partner.
    """
    many = files.mask_per_nucleus
    layout = "<id>/images/<id>.png and <id>/masks/*.png" if many else "images/<id>.png and masks/<id>.png"
    groups = grouped(files.names, lambda path: path.parent.parent / ("" if many else path.stem))
    groups = {key: group for key, group in groups.items() if key.name}
    if not groups:
        raise UserError(f"{files.where} holds no images where they are looked for: the layout is {layout}")
    for key, (images, masks) in groups.items():
        if len(images) != 1 or not masks or (len(masks) > 1 and not many):
            there = f"{len(images)} image(s) and {len(masks)} mask(s)"
            raise UserError(
                f"{files.where}: {key} has {there}, but the layout is {layout}: "
                "add what is missing or take out what is too much"
            )
    return [(key.name, images[0], masks) for key, (images, masks) in groups.items()]


def grouped(names: Iterable[str], key: Callable[[PurePosixPath], Any]) -> dict[Any, tuple[list[str], list[str]]]:
    """The image files in images/ and those in masks/, in the order of their names, by what `key` says of their paths.

    Hidden files, such as the ._files that macOS puts beside the real ones, count as none.
    """
    groups = defaultdict(lambda: ([], []))
    for name in sorted(names):
        path = PurePosixPath(name)
        if path.parent.name in KINDS and path.suffix.lower() in pixels.SUFFIXES and path.name[0] != ".":
            groups[key(path)][KINDS.index(path.parent.name)].append(name)
    return groups


def _read_labels(files: Files, masks: list[str], shape: tuple[int, ...]) -> np.ndarray:
    """Instance labels int32 (H, W) of an image of that shape."""
    labels = np.zeros(shape, np.int32)
    for number, name in enumerate(masks, start=1):
        where = f"{files.where}/{name}"
        mask = pixels.read_mask(files.read(name), where)
        if mask.shape != shape:
            raise UserError(
                f"{where} has {mask.shape[0]} x {mask.shape[1]} pixels (rows x columns) but its image has "
                f"{shape[0]} x {shape[1]}: export both at the same size"
            )
        if not files.mask_per_nucleus:
            return pixels.label_mask(mask, where)
        labels[mask > 0] = number
    return labels


def look_of(image: np.ndarray) -> str:
    """The look of one uint8 image (S, S, 3): "colour", "bright" (grey) or "dark" (grey, fluorescence)."""
    means = image.mean(axis=(0, 1))
    if np.ptp(means) >= COLOUR:
        return "colour"
    return "bright" if means.mean() >= BRIGHT else "dark"


def split(images: np.ndarray, labels: np.ndarray, *, ids: list[str], groups: list[str] | None = None) -> Splits:
    """Deals images uint8 (N, S, S, 3) and labels int32 (N, S, S) to train, val and test.

    Images of one of `groups`, such as the tiles of one picture, stay together: the groups are dealt, by their names.
    Raises UserError for fewer than three images or groups and for an id that occurs twice.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for n, group in enumerate(groups or ids):
        members[group].append(n)
    if len(members) < 3:
        raise UserError(f"the data set has {len(members)} image(s): train, val and test need at least 3, so add some")
    if len(set(ids)) < len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise UserError(f"two images have the id {twice!r}: rename or remove one")
    part_of = deal({group: look_of(np.concatenate(images[which])) for group, which in members.items()})
    parts = []
    for part in Splits._fields:
        which = sorted((n for group in members if part_of[group] == part for n in members[group]), key=ids.__getitem__)
        pictures = torch.from_numpy(images[which]).permute(0, 3, 1, 2).contiguous()
        nuclei = torch.from_numpy(labels[which])
        parts.append(Split(pictures, (nuclei > 0).to(torch.uint8)[:, None], nuclei, [ids[n] for n in which]))
    return Splits(*parts)


def deal(looks: dict[str, str]) -> dict[str, str]:
    """Id -> look of each image, to id -> "train", "val" or "test".

    Images are sorted by look and then by the SHA-256 of their id, and dealt in the order DEAL. So the parts
    depend on the ids, not on the order of files or on the machine, and each look is in all parts.
    """
    order = sorted(looks, key=lambda id: (looks[id], sha256(id.encode(errors="surrogateescape")).hexdigest()))
    return {id: DEAL[place % len(DEAL)] for place, id in enumerate(order)}


def join(splits: Splits) -> Split:
    """All that a data set holds as one part: train, then val, then test."""
    images, masks, labels, ids = zip(*splits, strict=True)
    return Split(torch.cat(images), torch.cat(masks), torch.cat(labels), [id for part in ids for id in part])
