"""Data sets: drawn, from an archive or from a folder, and split as every machine splits them."""

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from course_lib.data import cache, meaning, pixels, sections
from course_lib.data.layout import Files, Sample, class_names, find_samples, names_in
from course_lib.data.synthetic import Look, draw_nuclei
from course_lib.errors import UserError

LARGE = 4 * 2**20  # pixels; resizing takes some 16 bytes a pixel, so one such image at a time
TILE = "@"  # between the id of an image and the place of a tile in it
PREPARATION = 1  # goes up when prepared pixels would change: older cache files are then not used any more
OBJECT = ("nucleus",)  # what masks show where no classes are named

# Looks are told apart by channel means, which resizing does not change. In BBBC038 the channels of grey images
# are equal and those of stained ones differ by 7 or more; dark images have means below 60, bright ones above 200.
COLOUR = 3
BRIGHT = 128
DEAL = ("train", "val", "test", "train", "train")  # the first three images reach all parts


class Split(NamedTuple):
    """One part of a data set: N images of S x S pixels and C channels, and what K classes show in them."""

    images: Tensor  # uint8 (N, C, S, S)
    masks: Tensor  # uint8 (N, K, S, S), 1 where there is a nucleus, or what else a class shows
    labels: Tensor  # int32 (N, S, S): 0 background, 1..K the nuclei of one image; (N, K, S, S) of several classes
    ids: list[str]
    classes: tuple[str, ...] = OBJECT  # K names


class Splits(NamedTuple):
    """The three parts: the net learns from one, decisions are made on the second, the third is scored once."""

    train: Split
    val: Split
    test: Split


def draw(count: int = 600, size: int = 96, *, seed: int = 0, look: str | Look | None = None) -> Splits:
    """Built-in images of `size` x `size` pixels as train (60 %), val (20 %) and test (20 %).

    `look` is one kind, or the name of one in `synthetic.LOOKS`, such as "small-sharp"; without it all take turns.
    Raises UserError.
    """
    check_size(size)
    images, labels = draw_nuclei(count, size, seed=seed, look=look)
    return split(images, labels, ids=[f"synthetic-{seed}-{n:05d}" for n in range(count)])


def load(
    name: str | Path = "synthetic",
    size: int = 96,
    *,
    classes: Sequence[str] | int | None = None,
    tiles: bool = False,
    download: bool = False,
    progress: bool = True,
) -> Splits:
    """A data set of `size` x `size` images as train (60 %), val (20 %) and test (20 %).

    Args:
        name: "synthetic" (600 images of `draw`), "bbbc038", "dsb2018-fluo", "vnc" (`sections`), or a folder of png, tif
            or jpg files in one of the layouts of `layout`; masks hold one value or numbers of objects (`meaning`).
        classes: names or number of classes: masks then hold 0 and class numbers 1..K, or masks/ has a folder for each.
        tiles: cut images into tiles in place of resizing them; all tiles of an image are in one part.
        download: whether a missing archive may be fetched. Nothing is ever downloaded without it.
        progress: whether to show a bar while images are prepared.
    Raises UserError: one sentence that names the file and what to do.
    """
    check_size(size)
    if name == "synthetic":
        if tiles or classes is not None:
            raise UserError("the built-in images are drawn as they are, of one class: leave tiles and classes out")
        return draw(size=size)
    if name == "vnc":
        return _sections(size, sections.chosen(classes), tiles, download, progress)
    if name in cache.SOURCES:
        return _from_archive(name, size, classes, tiles, download, progress)
    if not Path(name).is_dir():
        raise UserError(
            f"there is no data set or folder {str(name)!r} (looked in {Path.cwd()}): "
            f"use synthetic, {', '.join(cache.SOURCES)} or a folder"
        )
    folder = Path(name)
    files = Files(folder, names_in(folder), lambda file: pixels.read_file(folder / file, f"{folder / file}"))
    names = class_names(files, classes)
    return _dealt(prepare(files, size, classes=names, tiles=tiles, progress=progress), tiles, names)


def _dealt(arrays: cache.Arrays, tiles: bool, classes: tuple[str, ...]) -> Splits:
    ids = [str(id) for id in arrays["ids"]]
    groups = [id.rpartition(TILE)[0] for id in ids] if tiles else None
    return split(arrays["images"], arrays["labels"], ids=ids, groups=groups, classes=classes or OBJECT)


def check_size(size: int) -> None:
    """Raises UserError for a side that no net of the course is made for."""
    if not 16 <= size <= 1024:
        raise UserError(f"size is {size}: use a number of pixels between 16 and 1024")


def _from_archive(
    name: str, size: int, classes: Sequence[str] | int | None, tiles: bool, download: bool, progress: bool
) -> Splits:
    source, local = cache.SOURCES[name], cache.given(name)
    if classes is not None:
        raise UserError(f"{name} has one class, its nuclei: leave classes out")

    def make() -> cache.Arrays:
        path = local or cache.fetched(name, download=download, progress=progress)
        with cache.open_archive(path) as archive:
            files = Files(path, archive.namelist(), partial(cache.read_entry, archive), source.mask_per_nucleus)
            return prepare(files, size, tiles=tiles, progress=progress)

    digest = cache.sha256_of(local) if local else source.sha256
    stem = f"{name}-{digest[:16]}-{size}{'-tiles' if tiles else ''}-v{PREPARATION}"
    return _dealt(cache.kept(cache.folder() / f"{stem}.npz", make), tiles, ())


def _sections(size: int, classes: tuple[str, ...], tiles: bool, download: bool, progress: bool) -> Splits:
    path = cache.given("vnc") or cache.fetched("vnc", download=download, progress=progress)
    make = partial(sections.prepare, path, size, classes=classes, tiles=tiles, progress=progress)
    stem = "-".join(["vnc", cache.sha256_of(path)[:16], *classes, str(size)])
    arrays = cache.kept(cache.folder() / f"{stem}{'-tiles' if tiles else ''}-v{PREPARATION}.npz", make)
    ids = [str(id) for id in arrays["ids"]]
    parts = {id: sections.part_of(id) for id in ids}
    return split(arrays["images"], arrays["labels"], ids=ids, parts=parts, classes=classes)


def prepare(
    files: Files, size: int, *, classes: Sequence[str] = (), tiles: bool = False, progress: bool = True
) -> cache.Arrays:
    """Reads, labels and resizes all images, or cuts them into tiles, in the order of their names.

    Returns "images", uint8 (N, S, S, C), "labels", int32 (N, S, S) or (N, K, S, S), and "ids". Raises UserError.
    """

    def pieces_of(sample: Sample) -> list[tuple[np.ndarray, np.ndarray, str]]:
        image = pixels.read_image(files.read(sample.image), f"{files.where}/{sample.image}")
        with alone if image[..., 0].size > LARGE else nullcontext():
            labels = _read_labels(files, sample, image.shape[:2], classes)
            if not tiles:
                return [(pixels.resize_image(image, size), pixels.resize_labels(labels, size), sample.id)]
            return [(*tile, f"{sample.id}{TILE}{place}") for place, tile in pixels.cut(image, labels, size).items()]

    samples, title, alone = find_samples(files, classes), f"preparing {files.where.name}", Lock()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding releases the interpreter's lock
        _check_meaning(files, samples, classes, pool)
        bar = tqdm(pool.map(pieces_of, samples), title, len(samples), disable=not progress)
        images, labels, ids = zip(*(piece for pieces in bar for piece in pieces), strict=True)
    channels = {image.shape[2]: id for image, id in zip(images, ids, strict=True)}
    if len(channels) > 1:
        few, many = sorted(channels)[:2]
        text = f"{channels[few]} has {few} channels and {channels[many]} has {many}"
        raise UserError(f"{files.where}: {text}: give all images the same channels")
    shown = np.any([one.any(axis=(-2, -1)) for one in labels], axis=0)
    if not shown.all():
        what = "a nucleus" if not shown.shape else f"anything of {classes[int(shown.argmin())]}"
        raise UserError(f"{files.where}: no mask holds {what} that shows at {size} x {size}: check the masks")
    return {"images": np.stack(images), "labels": np.stack(labels), "ids": list(ids)}


def _check_meaning(files: Files, samples: list[Sample], classes: Sequence[str], pool: ThreadPoolExecutor) -> None:
    """Raises UserError where masks have no one meaning; a mask of one object, or of class numbers, needs no guess."""
    if samples[0].each == "object" and len(classes) > 1:
        raise UserError(f"{files.where} has one mask an object, which tells no classes apart: name one at most")
    if samples[0].each == "object" or (samples[0].each == "image" and len(classes) > 1):
        return

    def numbers_of(name: str) -> meaning.Numbers:
        where = f"{files.where}/{name}"
        return meaning.look_at(meaning.read_mask(files.read(name), where), where)

    for masks in zip(*(sample.masks for sample in samples), strict=True):  # of one class after the other
        if doubts := meaning.doubts(pool.map(numbers_of, masks)):
            raise UserError(f"{doubts[0].where} {doubts[0].text}")


def _read_labels(files: Files, sample: Sample, shape: tuple[int, ...], classes: Sequence[str]) -> np.ndarray:
    """Labels int32 (H, W) of an image of that shape, or (K, H, W) of several classes."""
    if sample.each == "object":
        return _of_size(one_each(files, sample.masks), f"{files.where}/{sample.masks[0]}", shape)
    labels = []
    for name in sample.masks:
        where = f"{files.where}/{name}"
        mask = _of_size(meaning.read_mask(files.read(name), where), where, shape)
        if sample.each == "image" and len(classes) > 1:
            return meaning.label_classes(mask, len(classes), where)
        labels.append(meaning.label_mask(mask, where))
    return np.stack(labels) if sample.each == "class" else labels[0]


def _of_size(mask: np.ndarray, where: str, shape: tuple[int, ...]) -> np.ndarray:
    if mask.shape != shape:
        raise UserError(
            f"{where} has {mask.shape[0]} x {mask.shape[1]} pixels (rows x columns) but its image has "
            f"{shape[0]} x {shape[1]}: export both at the same size"
        )
    return mask


def one_each(files: Files, names: list[str]) -> np.ndarray:
    """Labels int32 (H, W) of masks of one object each; where two overlap, the later one has the pixel.
    Raises UserError for masks of two sizes, and for one that lies mostly under others.
    """
    labels, areas = None, []
    for number, name in enumerate(names, start=1):
        where = f"{files.where}/{name}"
        mask = meaning.read_mask(files.read(name), where)
        if ((mask > 0) & (mask != mask.max())).any():
            raise UserError(
                f"{where} is a mask of one object and has several numbers: save it as 0 and 255, not smoothed"
            )
        labels = np.zeros(mask.shape, np.int32) if labels is None else labels
        inside = _of_size(mask, where, labels.shape) > 0
        labels[inside] = number
        areas.append(np.count_nonzero(inside))
    left = np.bincount(labels.ravel(), minlength=len(names) + 1)[1:]
    for name, area, stays in zip(names, areas, left, strict=True):
        if 2 * stays < area:
            raise UserError(f"{files.where}/{name} overlaps others of its image by more than half: take one out")
    return labels


def look_of(image: np.ndarray) -> str:
    """The look of one uint8 image (S, S, 3): "colour", "bright" (grey) or "dark" (grey, fluorescence)."""
    means = image.mean(axis=(0, 1))
    if np.ptp(means) >= COLOUR:
        return "colour"
    return "bright" if means.mean() >= BRIGHT else "dark"


def split(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    ids: list[str],
    groups: list[str] | None = None,
    parts: dict[str, str] | None = None,
    classes: tuple[str, ...] = OBJECT,
) -> Splits:
    """Deals images uint8 (N, S, S, C) and labels int32 (N, S, S), or (N, K, S, S) of K classes, to train, val and test.

    Images of one of `groups`, such as the tiles of one picture, stay together: the groups are dealt, by their names,
    unless `parts` says the part of each.
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
    part_of = parts or deal({group: look_of(np.concatenate(images[which])) for group, which in members.items()})
    dealt = []
    for part in Splits._fields:
        which = sorted((n for group in members if part_of[group] == part for n in members[group]), key=ids.__getitem__)
        pictures = torch.from_numpy(images[which]).permute(0, 3, 1, 2).contiguous()
        shown = torch.from_numpy(labels[which])
        masks = (shown > 0).to(torch.uint8)
        masks = masks if masks.ndim == 4 else masks[:, None]
        dealt.append(Split(pictures, masks, shown, [ids[n] for n in which], classes))
    for k, name in enumerate(classes if len(classes) > 1 else ()):
        if not dealt[0].masks[:, k].any():
            raise UserError(f"no image of the training part shows {name}: add images that do, or leave that class out")
    return Splits(*dealt)


def deal(looks: dict[str, str]) -> dict[str, str]:
    """Id -> look of each image, to id -> "train", "val" or "test".

    Images are sorted by look and then by the SHA-256 of their id, and dealt in the order DEAL. So the parts
    depend on the ids, not on the order of files or on the machine, and each look is in all parts.
    """
    order = sorted(looks, key=lambda id: (looks[id], sha256(id.encode(errors="surrogateescape")).hexdigest()))
    return {id: DEAL[place % len(DEAL)] for place, id in enumerate(order)}


def join(splits: Splits) -> Split:
    """All that a data set holds as one part: train, then val, then test."""
    images, masks, labels, ids, classes = zip(*splits, strict=True)
    return Split(*map(torch.cat, (images, masks, labels)), [id for part in ids for id in part], classes[0])
