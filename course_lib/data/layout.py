"""Which mask belongs to which image: the layouts of names in a folder or an archive."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from course_lib.data.decode import SUFFIXES
from course_lib.errors import UserError

KINDS = ("images", "masks")  # folders
PICTURES = {".bmp", ".gif", ".webp", ".npy", ".npz", ".jp2", ".heic", ".nd2", ".czi", ".lif", ".dcm", ".mat", ".pgm"}
LAYOUT = "images/<id>.png and masks/<id>.png"  # of classes also masks/<class>/<id>.png
OF_OBJECTS = "<id>/images/<id>.png and <id>/masks/*.png"


class Files(NamedTuple):
    """The files of a folder or an archive."""

    where: Path
    names: list[str]
    read: Callable[[str], bytes]
    per_object: bool = False  # known to hold <id>/images/* and <id>/masks/*, one mask an object


class Sample(NamedTuple):
    """An image and its masks, one for each "image", "object" or "class"."""

    id: str
    image: str
    masks: list[str]
    each: str


class Place(NamedTuple):
    """Where an image file lies: `before`/images/`within`/`stem`, names as Unicode composes them (NFC)."""

    before: tuple[str, ...]
    kind: int  # of KINDS
    within: tuple[str, ...]
    stem: str


def names_in(folder: Path) -> list[str]:
    """The files of a folder, one to three levels below it, relative to it."""
    found = (path for pattern in ("*/*", "*/*/*", "*/*/*/*") for path in folder.glob(pattern))
    found = (path for path in found if path.suffix.lower() in SUFFIXES or not path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def place(name: str, suffixes: Container[str] = SUFFIXES) -> Place | None:
    """None for what is no png, tif or jpg in images/ or masks/, and for hidden files such as the ._files of macOS."""
    path = PurePosixPath(unicodedata.normalize("NFC", name))
    kinds = [n for n, part in enumerate(path.parts[:-1]) if part.lower() in KINDS]
    if not kinds or path.name[0] == "." or path.suffix.lower() not in suffixes:
        return None
    at = kinds[-1]
    return Place(path.parts[:at], KINDS.index(path.parts[at].lower()), path.parts[at + 1 : -1], path.stem)


def grouped(names: Iterable[str], key: Callable[[Place], Any]) -> dict[Any, tuple[list[str], list[str]]]:
    """Images and masks, in the order of their names, by what `key` says of their places; others are left out."""
    groups = defaultdict(lambda: ([], []))
    for name in sorted(names):
        if at := place(name):
            groups[key(at)][at.kind].append(name)
    return groups


def class_folders(names: Iterable[str]) -> list[str]:
    """The folders in masks/ that images/ has not: one a class, numbers in their order."""
    folders = [set(), set()]
    for at in filter(None, map(place, names)):
        folders[at.kind].update(at.within[-1:])
    return sorted(folders[1] - folders[0], key=lambda name: (len(name) if name.isdecimal() else 0, name))


def class_names(files: Files, classes: Sequence[str] | int | None) -> tuple[str, ...]:
    """The names of `classes`: those given, or for a count the names of the folders, or "1", "2" ...; none for None.
    Raises UserError: no class or more than 64, a name twice or one that makes no file name, folders of other classes.
    """
    folders = class_folders(files.names)
    if classes is None and len(folders) < 2:
        return ()
    there = f"{files.where} holds a folder of masks for each of {', '.join(folders[:8])}"
    if classes is None:
        raise UserError(f"{there}: name the classes that you want (classes=, --classes)")
    counted = isinstance(classes, int)
    if counted and folders and len(folders) != classes:
        raise UserError(f"{there}, and {classes} classes are asked for: give their count, or name those that you want")
    names = tuple(map(str, range(1, classes + 1) if counted else classes)) if not counted or classes <= 64 else ()
    if not 1 <= len(names) <= 64 or not are_class_names(names):
        raise UserError(
            f"classes are {classes!r}: give 1 to 64 different names of letters, digits, - and _, or a count"
        )
    if counted and len(folders) == len(names):
        return tuple(folders)
    numbered = len(folders) == len(names) and all(name.isdecimal() for name in folders)
    if folders and not (set(names) <= set(folders) or numbered):
        raise UserError(f"{there}, and the classes are {', '.join(names)}: name folders that are there")
    return names


def are_class_names(names: Sequence[str]) -> bool:
    """Whether classes can be called so: names become parts of names of files, for which A and a may be the same."""
    fit = all(0 < len(name) <= 64 and all(letter.isalnum() or letter in "-_" for letter in name) for name in names)
    return fit and len({name.casefold() for name in names}) == len(names)


def find_samples(files: Files, classes: Sequence[str] = ()) -> list[Sample]:
    """Id, image and masks by the layout of the names, whatever folders stand before it.
    Raises UserError where nothing has a known layout, and for an image or a mask that has no partner.
    """
    folders = class_folders(files.names)
    chosen = folders if not set(classes) <= set(folders) or not classes else list(classes)
    each = files.per_object or per_object(files.names)

    def key(at: Place) -> tuple[str, ...]:
        within = at.within[:-1] if at.kind and folders and not each else at.within
        return at.before if each else (*at.before, *within, at.stem)

    layout = OF_OBJECTS if each else LAYOUT
    _refuse_pairs_of_other_formats(files)
    groups = grouped(files.names, key)
    groups = {key: group for key, group in groups.items() if key}
    if not groups:
        raise UserError(f"{files.where} holds no images where they are looked for: the layout is {layout}")
    samples = []
    for key, (images, masks) in groups.items():
        if chosen and not each:
            of_class = {PurePosixPath(mask).parent.name: mask for mask in masks}
            masks = [of_class[name] for name in chosen if name in of_class]
        wanted = len(masks) if each else len(chosen) or 1
        if len(images) != 1 or not masks or len(masks) != wanted:
            there = f"{len(images)} image(s) and {len(masks)} mask(s)"
            raise UserError(
                f"{files.where}: {'/'.join(key)} has {there}, but the layout is {layout}: "
                "add what is missing or take out what is too much"
            )
        kind = "object" if each else "class" if len(chosen) > 1 else "image"
        samples.append(Sample(key[-1], images[0], masks, kind))
    return samples


def _refuse_pairs_of_other_formats(files: Files) -> None:
    """A part of the images would be missing without a word."""
    others = [(at.stem, at.kind, name) for name in files.names if (at := place(name, PICTURES))]
    if left := sorted({name for stem, kind, name in others if any((stem, 1 - kind) == one[:2] for one in others)}):
        raise UserError(f"{files.where}/{left[0]} is neither png nor tif nor jpg: save it as one, or take it out")


def per_object(names: Iterable[str]) -> bool:
    """Whether each folder holds one image, called like the folder: the layout of the 2018 Data Science Bowl."""
    places = [at for at in filter(None, map(place, names)) if at.kind == 0]
    folders = {at.before for at in places}
    return len(folders) == len(places) > 0 and all(at.before and at.before[-1] == at.stem for at in places)
