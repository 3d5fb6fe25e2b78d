"""The mask doctor: all that is wrong with a folder of images and masks, not only the first fault, and a mended copy."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image
from skimage.measure import label

from course_lib.data import meaning, pixels
from course_lib.data.decode import decode
from course_lib.data.layout import (
    KINDS,
    LAYOUT,
    PICTURES,
    Files,
    class_folders,
    class_names,
    find_samples,
    grouped,
    names_in,
    per_object,
)
from course_lib.data.sets import check_size, deal, look_of, one_each
from course_lib.errors import UserError
from course_lib.results import table

SUMMARY, EMPTY, PIECES = "summary", "empty mask", "numbers in pieces"
NOTES = (SUMMARY, EMPTY, PIECES)  # no faults: `mend` keeps the file, and it counts as fine
IT = "the file"  # how details call a file, whose name stands beside them
WORD = r"(?:cp_)?(?:image|img|mask|label|seg|gt)s?"  # what programs add to the names of images and masks
ALIKE = 0.9  # two frames of one film in BBBC038 reach 0.93, all other pairs of its 565 images at most 0.47
SHOWS = 4  # pixels of a nucleus below which it hardly counts
SIZES = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)  # suggested; nets of depth 4 halve each of them


class Finding(NamedTuple):
    """One thing to know about a folder."""

    file: str  # relative to the folder; "." is the data set
    problem: str  # a short name that stays
    detail: str  # what is wrong and what to do
    mendable: bool  # by `mend`


@dataclass
class Pair:
    """An image and its mask, or a file without partner: what is known of them once their pixels are out of memory."""

    image: str  # names relative to the folder
    mask: str
    objects: list[str] = field(default_factory=list)  # masks of one object each, in place of one of all
    findings: list[Finding] = field(default_factory=list)
    usable: bool = False
    inverted: bool = False  # by its own signs, before the vote
    shape: tuple[int, ...] = ()
    channels: int = 0
    look: str = ""
    digest: str = ""
    steps: np.ndarray | None = None  # (480,), of length 1, to tell images that are nearly the same
    nuclei: int = 0
    lost: Counter[int] = field(default_factory=Counter)  # size -> nuclei below SHOWS pixels
    numbers: meaning.Numbers | None = None  # where the mask is taken as it is

    @property
    def id(self) -> str:
        return unicodedata.normalize("NFC", PurePosixPath(self.image).stem)

    def note(self, problem: str, detail: str, *, mendable: bool = False) -> None:
        """Something about the mask."""
        self.findings.append(Finding(self.mask, problem, detail, mendable))


def examine(folder: str | Path, size: int = 96, *, classes: Sequence[str] | int | None = None) -> list[Finding]:
    """All that `data.load(folder, size, classes=...)` would refuse, one by one, and what it would let pass in silence.

    The findings are sorted; the last one, "summary", counts the files and says what the images look like.

    - *Names.* Pairs have equal names (endings aside). Of the rest, an image and a mask are a pair that agree in lower
      case, without ".ome" and without a first or last word such as mask, label, seg, gt, image or img.
    - *Values.* A mask in colour: each colour is a nucleus, black is background. Grey borders (smoothing, or JPEG saved
      as png) are cut at half of the largest value, where few pixels lie in between. All else that `meaning.doubts`
      finds in the masks needs a person.
    - *Sizes.* A mask with height and width swapped is transposed; one that is 2 to 8 times too small is repeated.
    - *Inverted masks.* A guess that takes five signs: the foreground is more than half of the image and of its border;
      half of it is one piece; it is darker than the rest in a dark image, lighter in others; its pieces do not touch;
      and all this holds for most masks. Where it holds for few, a person decides.
    - *Twins.* Equal pixels; or images that `data.split` deals to different parts and that are nearly equal: the steps
      between neighbours on a 16 x 16 grid of area means correlate, so light does not count.
    - *Nuclei lost by resizing.* More than 5 % of all keep fewer than 4 pixels at `size`.

    Raises UserError: images/ or masks/ is missing, or a size that `data.load` refuses.
    """
    pairs, files = _diagnose(Path(folder), size, classes)
    usable = [pair for pair in pairs if pair.usable]
    once = list({pair.image: pair for pair in usable}.values())  # an image may have a mask of each class
    findings = list({finding for pair in pairs for finding in pair.findings})
    findings += [finding for _, finding in _twins(once)] + _whole(usable, size)
    faults = [finding for finding in findings if finding.problem not in NOTES and finding.file != "."]
    person = {finding.file for finding in faults if not finding.mendable}
    mendable = {finding.file for finding in faults} - person
    fine = files - len(person | mendable)
    text = f"of {files} files {fine} are fine, {len(mendable)} can be mended, {len(person)} need a person"
    return [*sorted(findings), Finding(".", SUMMARY, text + _facts(once), False)]


def mend(
    folder: str | Path, out: str | Path, size: int = 96, *, classes: Sequence[str] | int | None = None
) -> list[Finding]:
    """Writes a clean copy, as `pixels.write_folder` does; masks hold numbers of objects or classes. Says what it did.

    The folder itself stays as it is. What needs a person is left out; of twins the first by name is kept, again and
    again, because leaving one out deals the others anew. `examine(out, size)` then has nothing to mend. Each detail
    begins with "mended", "left out" or "kept".
    Raises UserError: as `examine`, and for an `out` that holds something, or lies inside the folder.
    """
    folder, out = Path(folder), Path(out)
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{out} is inside {folder}, which stays as it is: choose a folder beside it")
    named = class_names(Files(folder, names_in(folder), bytes), classes)
    if len(class_folders(names_in(folder))) > 1 and len(named) != 1:
        raise UserError(f"{folder} holds a folder of masks a class: mend one of them at a time, by its name")
    pairs, _ = _diagnose(folder, size, classes)
    while twins := _twins(kept := [pair for pair in pairs if pair.usable]):
        for pair, finding in twins:
            pair.findings.append(finding)
            pair.usable = False
    read = (_read(folder, Pair(pair.image, pair.mask, pair.objects), len(named)) for pair in kept)
    pixels.write_folder(out, ((pair.id, *both) for pair, both in zip(kept, read, strict=True)))
    told = []
    for pair, finding in ((one, finding) for one in pairs for finding in one.findings):
        did = "left out" if not pair.usable else "mended" if finding.mendable else "kept"
        told.append(finding._replace(detail=f"{did}: {finding.detail}"))
    summary = f"{len(kept)} images with masks are in {out}{_facts(kept)}"
    return [*sorted(told), Finding(".", SUMMARY, summary, False)]


def report(findings: list[Finding]) -> str:
    """The findings of `examine` or `mend` as an aligned table, and their summary as the last line."""
    rows = [{**f._asdict(), "mendable": "yes" if f.mendable else "no"} for f in findings if f.problem != SUMMARY]
    lines = [table(rows, ["file", "problem", "mendable", "detail"])] if rows else []
    return "\n".join(lines + [f.detail for f in findings if f.problem == SUMMARY])


def _diagnose(folder: Path, size: int, classes: Sequence[str] | int | None) -> tuple[list[Pair], int]:
    """All pairs and files without partner, with what is to say of each; and the number of files."""
    check_size(size)
    names = [name for name in names_in(folder) if PurePosixPath(name).name[0] != "."]
    files = Files(folder, names, bytes)
    named, folders = class_names(files, classes), class_folders(names)
    pairs = []
    if objects := per_object(names):
        pairs = [Pair(one.image, str(PurePosixPath(one.masks[0]).parent), one.masks) for one in find_samples(files)]
    there = {path.name.lower() for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    for kind in () if objects else KINDS:
        if kind not in there:
            raise UserError(f"{folder} has no folder {kind}: the layout is {LAYOUT}")
    for chosen in () if objects else [name for name in folders if name in named] or folders or [""]:
        others = {f"masks/{name}/" for name in folders if name != chosen}
        pairs += _pair([name for name in names if not any(name.startswith(other) for other in others)])
    pairs.sort(key=lambda pair: (pair.image, pair.mask))
    for pair in pairs:
        several = len(named) if len(folders) < 2 else 1
        if pair.mask and (read := _read(folder, pair, several)):
            _scan(pair, read[0], label(read[1]).astype(np.int32) if several > 1 else read[1], size)
    _doubt(pairs)
    inverted = [pair for pair in pairs if pair.inverted]
    most = 2 * len(inverted) > sum(pair.inverted or pair.nuclei > 0 for pair in pairs)
    advice = "as in most masks: mend swaps the two" if most else "unlike most masks: look at it and swap the two"
    for pair in inverted:
        pair.note("inverted mask", f"the foreground looks like background, {advice}", mendable=most)
        pair.usable = most
    return pairs, len(names)


def _doubt(pairs: list[Pair]) -> None:
    """What all masks together leave open."""
    of_mask = {pair.mask: pair for pair in pairs}
    for doubt in meaning.doubts(pair.numbers for pair in pairs if pair.numbers and not pair.inverted):
        pair = of_mask[doubt.where]
        pair.findings = [finding for finding in pair.findings if finding.problem != PIECES]
        pair.note(doubt.problem, doubt.text)
        pair.usable = False


def _pair(names: list[str]) -> list[Pair]:
    """Pairs by the rule in `examine`, and every file without partner, with the reason."""
    pairs, left = [], names
    for key in (lambda at: at.stem, lambda at: _plain(at.stem)):
        groups = grouped(left, key).values()
        whole = [(*images, *masks) for images, masks in groups if len(images) == len(masks) == 1]
        pairs += [Pair(*names) for names in whole]
        left = set(left).difference(*whole)
    for images, masks in groups:
        group = [*images, *masks]
        problem, text = "unclear partner", f"{', '.join(group)} could belong together: leave one image and one mask"
        if not images or not masks:
            problem = "no image" if masks else "no mask"
            text = f"{problem} is left that has this name or a similar one: add it, or take the file out"
        pairs += [Pair(name, "", [], [Finding(name, problem, text, False)]) for name in left.intersection(group)]
        left = left.difference(group)
    text = "neither png nor tif nor jpg, so data.load does not read it: save it as png"
    left = [name for name in left if PurePosixPath(name).suffix.lower() in PICTURES]
    return pairs + [Pair(name, "", [], [Finding(name, "other format", text, False)]) for name in left]


def _plain(stem: str) -> str:
    """ "A_mask.ome" -> "a"."""
    plain = re.sub(r"\.ome(?![a-z0-9])", "", stem.lower())
    return re.sub(rf"^{WORD}(?:[ ._-]+|(?=\d))|[ ._-]+{WORD}$", "", plain) or plain


def _read(folder: Path, pair: Pair, classes: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Image uint8 (H, W, C) and mended labels int32 (H, W), or numbers of classes where they are several; None where a
    person is needed. The pair gets findings.
    """
    arrays, readers = [], {pair.image: lambda: pixels.read_image(pixels.read_file(folder / pair.image, IT), IT)}
    readers[pair.mask] = lambda: _labels(folder, pair, classes)
    for name, read in readers.items():
        try:
            arrays.append(read())
        except UserError as error:
            others = [finding for finding in pair.findings if finding.file != name]
            pair.findings = [*others, Finding(name, "unreadable", str(error), False)]
    if not pair.objects and unicodedata.normalize("NFC", PurePosixPath(pair.mask).stem) != pair.id:
        pair.note("other name", f"its image is {pair.image}: mend gives both one name", mendable=True)
    if len(arrays) < 2:
        return None
    image, labels = arrays
    (rows, columns), (height, width) = labels.shape, image.shape[:2]
    if (rows, columns) != (height, width):
        factor, advice = height // rows, ""
        if (rows, columns) == (width, height):
            labels, advice = labels.T, "mend transposes it; look whether it was turned instead"
        elif 2 <= factor <= 8 and (rows * factor, columns * factor) == (height, width):
            labels = labels.repeat(factor, axis=0).repeat(factor, axis=1)
            advice = f"mend repeats each pixel {factor} x {factor} times"
        text = f"has {rows} x {columns} pixels (rows x columns) but its image has {height} x {width}: "
        pair.note("other size", text + (advice or "export both at the same size"), mendable=bool(advice))
        if not advice:
            return None
    pair.inverted = classes < 2 and _looks_inverted(image, labels)
    return image, label(labels == 0).astype(np.int32) if pair.inverted else labels


def _scan(pair: Pair, image: np.ndarray, labels: np.ndarray, size: int) -> None:
    """What is asked of a readable pair later."""
    pair.usable, pair.shape, pair.channels, pair.nuclei = True, labels.shape, image.shape[2], int(labels.max())
    if pair.nuclei == 0:
        pair.note(EMPTY, "holds no nucleus: right if the image shows none, else annotate it")
    pair.look = look_of(pixels.resize_image(image, size))
    pair.digest = sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    grey = Image.fromarray(image.mean(axis=2, dtype=np.float32))
    grid = np.asarray(grey.resize((16, 16), Image.Resampling.BOX), np.float64)
    steps = np.concatenate([np.diff(grid, axis=0).ravel(), np.diff(grid, axis=1).ravel()])
    pair.steps = steps / (np.linalg.norm(steps) or 1)
    for side in (size, *(side for side in SIZES if side > size)):
        areas = np.bincount(pixels.resize_labels(labels, side).ravel())[1:]
        pair.lost[side] = pair.nuclei - int((areas >= SHOWS).sum())
        if pair.lost[side] == 0:
            break


def _labels(folder: Path, pair: Pair, classes: int) -> np.ndarray:
    """The mask of a pair -> instance labels int32 (H, W), or numbers of several classes. The pair gets findings."""
    if pair.objects:
        return one_each(Files(folder, [], lambda name: pixels.read_file(folder / name, name)), pair.objects)
    content = pixels.read_file(folder / pair.mask, IT)
    stored = decode(content, IT, as_mask=True).pixels
    rgb = pixels.as_bytes(stored, IT).astype(np.int64) if stored.shape[2] == 3 else None
    if rgb is not None and (spread := np.ptp(rgb, axis=2).max()) > 0:
        if classes > 1:
            raise UserError(f"{IT} is a mask in colour, and which colour is which class only you know: save numbers")
        text = "each colour is taken for one nucleus, black for background: mend numbers them"
        pair.note("mask in colour", text, mendable=True)
        if spread > 16:  # JPEG tints grey by less
            return _number_colours(rgb, IT)
        mask = rgb[..., 1]
    else:
        mask = meaning.read_mask(content, IT)
        if rgb is not None:
            pair.note("grey mask as RGB", "one channel is enough: mend keeps one", mendable=True)
    if classes > 1:
        meaning.label_classes(mask, classes, IT)  # refuses other numbers
        return mask.astype(np.int32)
    numbers = meaning.look_at(mask, pair.mask)
    if numbers.doubt and numbers.doubt.problem == meaning.BORDERS and meaning.two_levels(mask, mask.max()):
        values = len(numbers.values)
        pair.note(meaning.BORDERS, f"{values} grey values: mend cuts at half of the largest", mendable=True)
        return label(2 * mask.astype(np.int64) > mask.max()).astype(np.int32)
    labels, pair.numbers = meaning.label_mask(mask, IT), numbers
    if numbers.pieces > 2 * len(numbers.values) > 2:
        text = f"{len(numbers.values)} values in {numbers.pieces} pieces: check that they are numbers of nuclei"
        pair.note(PIECES, text)
    return labels


def _number_colours(colours: np.ndarray, where: str) -> np.ndarray:
    """Colours (H, W, 3) on black -> labels. A single colour, and colours used again, are taken apart into pieces."""
    codes, index = np.unique(colours @ [65536, 256, 1], return_inverse=True)
    if codes[0] != 0:
        raise UserError(f"{where} is a mask in colour without black: make its background black")
    if 2 * len(meaning.solid(index)) < len(codes) - 1:  # borders that were smoothed are a pixel wide
        raise UserError(f"{where} has {len(codes)} colours, most of them thin: save it without smoothing or JPEG")
    pieces = label(index)
    return (pieces if index.max() == 1 or pieces.max() > 2 * index.max() else index).astype(np.int32)


def _looks_inverted(image: np.ndarray, labels: np.ndarray) -> bool:
    """The signs of a single mask, see `examine`. On BBBC038 none of 565 masks shows them, and 564 inverted ones do."""
    inside, border = labels > 0, np.ones(labels.shape, bool)
    border[1:-1, 1:-1] = False
    pieces = label(inside)
    if min(inside.mean(), inside[border].mean()) <= 0.5 or pieces.max() < labels.max():
        return False
    if 2 * np.bincount(pieces[inside]).max() < inside.sum():
        return False
    grey = image.mean(axis=2, dtype=np.float32)
    return inside.all() or (grey[inside].mean() < grey[~inside].mean()) == (look_of(image) == "dark")


def _twins(pairs: list[Pair]) -> list[tuple[Pair, Finding]]:
    """The pairs whose image shows what an earlier one shows, by the rule in `examine`."""
    parts = deal({pair.id: pair.look for pair in pairs})
    alone, twins = [], []
    for pair in pairs:
        for other in alone:
            if other.digest == pair.digest:
                text = f"has the pixels of {other.image}: mend keeps that one; look whose mask is right"
                twins.append((pair, Finding(pair.image, "same image", text, True)))
                break
            if other.steps @ pair.steps >= ALIKE and parts[other.id] != parts[pair.id]:
                places = f"this one is in {parts[pair.id]}, that one in {parts[other.id]}"
                text = f"is nearly {other.image}, and {places}, so scores would be too good: mend keeps that one"
                twins.append((pair, Finding(pair.image, "nearly same image", text, True)))
                break
        else:
            alone.append(pair)
    return twins


def _whole(pairs: list[Pair], size: int) -> list[Finding]:
    """Findings about the data set."""
    findings, total = [], sum(pair.nuclei for pair in pairs)
    lost = sum((pair.lost for pair in pairs), Counter())
    if len(pairs) < 3:
        text = f"{len(pairs)} can be used: train, val and test need at least 3, so add some"
        findings.append(Finding(".", "too few images", text, False))
    channels = Counter(pair.channels for pair in pairs)
    for pair in pairs if len(channels) > 1 else ():
        if pair.channels != max(channels, key=channels.__getitem__):
            text = f"has {pair.channels} channels, unlike most images: give all the same channels"
            findings.append(Finding(pair.image, "other channels", text, False))
    if pairs and total == 0:
        findings.append(Finding(".", "all masks empty", "there is nothing to learn: annotate nuclei", False))
    if 20 * lost[size] > total:
        enough = [side for side in SIZES if side > size and 20 * lost[side] <= total]
        advice = f"size={enough[0]} keeps 95 %, and so does cutting tiles" if enough else "cut the images into tiles"
        text = f"{lost[size]} of {total} nuclei have fewer than {SHOWS} pixels at {size} x {size}: {advice}"
        findings.append(Finding(".", "small nuclei", text, False))
    return findings


def _facts(pairs: list[Pair]) -> str:
    if not pairs:
        return ""
    small, large = (pick((pair.shape for pair in pairs), key=np.prod) for pick in (min, max))
    kinds = ", ".join(f"{count} {look}" for look, count in sorted(Counter(pair.look for pair in pairs).items()))
    nuclei = [pair.nuclei for pair in pairs]
    sizes = f"{small[0]} x {small[1]} to {large[0]} x {large[1]} pixels"
    return f"; {sizes}; {kinds}; {min(nuclei)} to {max(nuclei)} nuclei an image"
