"""vnc: electron microscopy of a fly larva's nerve cord, 20 sections of 1024 x 1024 pixels in a row (data/README.md).

Neighbours in depth look alike, so sections are dealt in blocks, and never by their names.
"""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from tqdm.auto import tqdm

from course_lib.data import cache, meaning, pixels
from course_lib.data.decode import decode
from course_lib.errors import UserError

CLASSES = ("membranes", "mitochondria", "synapses")  # folders of masks; a pixel may be of several
PARTS = {"test": range(4), "val": range(4, 8), "train": range(8, 20)}
SHRINK = 2  # a section that is cut into tiles is halved first
# Of the names and bytes of the 80 files used: the archive itself is packed anew by its host and has no hash of its own.
CONTENT = "5ff69ffb3cc017d2e5e30a31e0851e3b4a4c259f1839872727d24f6ebc25ce4a"


def part_of(id: str) -> str:
    """The part of a section, or of a tile of it."""
    return next(part for part, sections in PARTS.items() if int(id[:2]) in sections)


def chosen(classes: Sequence[str] | int | None) -> tuple[str, ...]:
    """Raises UserError where `classes` are not some of CLASSES, each once."""
    names = tuple(classes) if isinstance(classes, Sequence) else ()
    if not names or len(set(names)) < len(names) or not set(names) <= set(CLASSES):
        raise UserError(f"vnc has the classes {', '.join(CLASSES)}: name those that you want (classes=, --classes)")
    return names


def prepare(path: Path, size: int, *, classes: Sequence[str], tiles: bool, progress: bool) -> cache.Arrays:
    """Images, labels and ids, as `sets.prepare` makes them: sections resized, or at half size and cut into tiles.
    Raises UserError: another content than the published one.
    """
    images, labels, ids = [], [], []
    with cache.open_archive(path) as archive:
        root = _checked(archive)
        for n in tqdm(range(20), "preparing vnc", disable=not progress):
            read = partial(cache.read_entry, archive)
            image = pixels.read_image(read(f"{root}raw/{n:02d}.tif"), f"{path}/raw/{n:02d}.tif")
            names = [f"{root}{name}/{n:02d}.png" for name in classes]
            masks = {name: decode(read(name), name).pixels[..., 0] for name in names}  # 0..255, also of one bit
            # Mitochondria have borders of a few grey values.
            label = np.stack([meaning.label_mask(mask > 127, name) for name, mask in masks.items()])
            side = len(image) // SHRINK if tiles else size
            image, label = pixels.resize_image(image, side), pixels.resize_labels(label, side)
            for place, (one, of_one) in pixels.cut(image, label, size).items():
                images.append(one)
                labels.append(of_one if len(classes) > 1 else of_one[0])
                ids.append(f"{n:02d}@{place}" if tiles else f"{n:02d}")
    return {"images": np.stack(images), "labels": np.stack(labels), "ids": ids}


def _checked(archive: ZipFile) -> str:
    """The folder before raw/, where the archive holds what was published."""
    names = [name for name in archive.namelist() if name.endswith("raw/00.tif") and "stack1" in name]
    root, seen = (names or ["raw/00.tif"])[0].removesuffix("raw/00.tif"), sha256()
    for n in range(20):
        for name in (f"raw/{n:02d}.tif", *(f"{kind}/{n:02d}.png" for kind in CLASSES)):
            if root + name not in archive.namelist():
                raise UserError(f"{archive.filename} holds no {root}{name}: get the archive named in data/README.md")
            seen.update(name.encode() + cache.read_entry(archive, root + name))
    if seen.hexdigest() != CONTENT:
        raise UserError(
            f"{archive.filename} holds other sections than the published ones: delete it and get a fresh copy"
        )
    return root
