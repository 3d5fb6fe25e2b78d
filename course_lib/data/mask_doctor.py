"""The mask doctor: everything that is wrong with a folder of images and masks, at once, and a mended copy of it.

`data.load` stops at the first fault. `examine` looks at every file, `report` prints what it found, and `mend` writes
a copy without what it cannot mend. Both see a pair through `_read`, so the copy holds what the report says.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from skimage.measure import label

from course_lib import data
from course_lib.data import pixels
from course_lib.errors import UserError
from course_lib.files import whole_folder
from course_lib.results import table

SUMMARY, INVERTED, EMPTY, CLASSES = "summary", "inverted mask", "empty mask", "numbers in pieces"
NOTES = (SUMMARY, EMPTY, CLASSES)  # no faults: `mend` keeps the file, and it counts as fine
IT = "the file"  # how details call a file, whose name stands beside them
WORD = r"(?:cp_)?(?:image|img|mask|label|seg|gt)s?"  # what programs add to the names of images and masks
ALIKE = 0.9  # two frames of one film in BBBC038 reach 0.93, all other pairs of its 565 images at most 0.47
SHOWS = 4  # pixels of a nucleus below which it hardly counts
SIZES = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)  # suggested; nets of depth 4 halve each of them


class Finding(NamedTuple):
    """One thing that was found in a folder."""

    file: str  # relative to the folder; "." is the data set
    problem: str  # a short name that stays
    detail: str  # what is wrong and what to do
    mendable: bool  # by `mend`


@dataclass
class Scan:
    """What stays of a pair once its pixels are out of memory."""

    image: str  # names relative to the folder
    mask: str
    findings: list[Finding]
    usable: bool = False
    inverted: bool = False  # by its own signs, before the vote
    shape: tuple[int, ...] = ()
    means: np.ndarray | None = None  # (3,), of the channels
    digest: str = ""
    fingerprint: np.ndarray | None = None  # (480,), of length 1
    nuclei: int = 0
    lost: dict[int, int] = field(default_factory=dict)  # size -> nuclei below SHOWS pixels

    @property
    def id(self) -> str:
        return PurePosixPath(self.image).stem


def examine(folder: str | Path, size: int = 96) -> list[Finding]:
    """All that `data.load(folder, size)` would refuse, one by one, and what it would let pass in silence.

    The findings are sorted; the last one, "summary", counts the files and says what the images look like.

    - *Names.* Pairs have equal names (endings aside). What is left over is compared in lower case, without ".ome" and
      without a first or last word such as mask, label, seg, gt, image or img: one image and one mask that then agree,
      with no third file, are a pair.
    - *Values.* A mask in colour: each colour is a nucleus, black is background. Grey borders (smoothing, or JPEG saved
      as png) are cut at half of the largest value, where few pixels lie in between.
    - *Sizes.* A mask with height and width swapped is transposed; one that is 2 to 8 times too small is repeated.
    - *Inverted masks.* A guess, so five signs are asked for: the foreground is more than half of the image and of its
      border; half of it is one piece; in a dark image it is darker than the rest, in a bright or stained one lighter;
      its pieces do not touch; and all this holds for most masks. Where it holds for few, a person decides. Cells that
      fill the image lack the second sign, and crowded nuclei the third. Nuclei that are dark in a dark image lack it
      too, when inverted: those stay as they are.
    - *Twins.* Equal pixels; or nearly equal images that `data.split` deals to different parts, so that scores would be
      too good. Nearly: steps between neighbours on a 16 x 16 grid of area means, correlated. So brightness, contrast,
      and slowly varying light that all images share do not count.
    - *Nuclei lost by resizing.* More than 5 % of all keep fewer than 4 pixels at `size`.

    Raises UserError: images/ or masks/ is missing, or a size that `data.load` refuses.
    """
    scans, findings, files = _diagnose(Path(folder), size)
    usable = [scan for scan in scans if scan.usable]
    findings += [finding for scan in scans for finding in scan.findings]
    findings += [finding for _, finding in _twins(usable)] + _whole(usable, size)
    faults = [finding for finding in findings if finding.problem not in NOTES and finding.file != "."]
    person = {finding.file for finding in faults if not finding.mendable}
    mendable = {finding.file for finding in faults} - person
    fine = files - len(person | mendable)
    text = f"of {files} files {fine} are fine, {len(mendable)} can be mended, {len(person)} need a person"
    return [*sorted(findings), Finding(".", SUMMARY, text + _facts(usable), False)]


def mend(folder: str | Path, out: str | Path, size: int = 96) -> list[Finding]:
    """Writes a clean copy, images/ID.png (uint8 RGB) and masks/ID.png (instance numbers), and says what it did.

    The folder itself stays as it is. What needs a person is left out; of twins the first by name is kept, again and
    again, because leaving one out deals the others anew. `examine(out, size)` then finds nothing to mend. Each detail
    begins with "mended", "left out" or "kept".

    Raises UserError: as `examine`, and for an `out` that holds something, or lies inside the folder.
    """
    folder, out = Path(folder), Path(out)
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{out} is inside {folder}, which stays as it is: choose a folder beside it")
    scans, alone, _ = _diagnose(folder, size)
    kept = [scan for scan in scans if scan.usable]
    while twins := _twins(kept):
        for scan, finding in twins:
            scan.findings.append(finding)
            scan.usable = False
        kept = [scan for scan in kept if scan.usable]
    with whole_folder(out) as scratch:
        for kind in ("images", "masks"):
            (scratch / kind).mkdir()
        for scan in kept:
            image, labels, *_ = _read(folder, scan.image, scan.mask)
            Image.fromarray(image).save(scratch / f"images/{scan.id}.png")
            ending, content = pixels.labels_file(labels)
            (scratch / f"masks/{scan.id}{ending}").write_bytes(content)
    done = [("left out", finding) for finding in alone]
    for scan in scans:
        for finding in scan.findings:
            done.append(("left out" if not scan.usable else "mended" if finding.mendable else "kept", finding))
    told = sorted(finding._replace(detail=f"{did}: {finding.detail}") for did, finding in done)
    return [*told, Finding(".", SUMMARY, f"{len(kept)} images with masks are in {out}{_facts(kept)}", False)]


def report(findings: list[Finding]) -> str:
    """The findings of `examine` or `mend` as an aligned table, and their summary as the last line."""
    rows = [{**f._asdict(), "mendable": "yes" if f.mendable else "no"} for f in findings if f.problem != SUMMARY]
    lines = [table(rows, ["file", "problem", "mendable", "detail"])] if rows else []
    return "\n".join(lines + [f.detail for f in findings if f.problem == SUMMARY])


def _diagnose(folder: Path, size: int) -> tuple[list[Scan], list[Finding], int]:
    """All pairs by name, the findings about files that are in none, and the number of files."""
    if not 16 <= size <= 1024:
        raise UserError(f"size is {size}: use a number of pixels between 16 and 1024")
    names = []
    for kind in ("images", "masks"):
        if not (folder / kind).is_dir():
            raise UserError(f"{folder} has no folder {kind}: the layout is images/<id>.png and masks/<id>.png")
        names += sorted(f"{kind}/{path.name}" for path in (folder / kind).iterdir() if path.name[0] != ".")
    known = [name for name in names if PurePosixPath(name).suffix.lower() in pixels.SUFFIXES]
    text = "neither png nor tif nor jpg, so data.load passes it over: save it as png"
    findings = [Finding(name, "other format", text, False) for name in names if name not in known]
    pairs, alone = _pair(known)
    scans = [_scan(folder, *pair, size) for pair in pairs]
    inverted = [scan for scan in scans if scan.inverted]
    most = 2 * len(inverted) > sum(scan.inverted or scan.nuclei > 0 for scan in scans)
    advice = "as in most masks: mend swaps the two" if most else "unlike most masks: look at it and swap the two"
    for scan in inverted:
        scan.findings.append(Finding(scan.mask, INVERTED, f"the foreground looks like background, {advice}", most))
        scan.usable = most
    return scans, findings + alone, len(names)


def _pair(names: list[str]) -> tuple[list[tuple[str, str, list[Finding]]], list[Finding]]:
    """(image, mask, finding about the names) by the rule in `examine`, and a finding for every file without partner."""

    def kinds(group: list[str]) -> list[str]:
        return [PurePosixPath(name).parent.name for name in group]

    pairs, findings, left = [], [], names
    for key in (str, _plain):
        groups = defaultdict(list)
        for name in left:
            groups[key(PurePosixPath(name).stem)].append(name)
        for image, mask in [group for group in groups.values() if kinds(group) == ["images", "masks"]]:
            finding = Finding(mask, "other name", f"its image is {image}: mend gives both one name", True)
            pairs.append((image, mask, [finding] if key is _plain else []))
        left = [name for group in groups.values() if kinds(group) != ["images", "masks"] for name in group]
    for name in left:
        group = groups[_plain(PurePosixPath(name).stem)]
        problem, text = "unclear partner", f"{', '.join(group)} could belong together: leave one image and one mask"
        if len(set(kinds(group))) == 1:
            problem = {"images": "no mask", "masks": "no image"}[kinds(group)[0]]
            text = f"{problem} is left that has this name or a similar one: add it, or take the file out"
        findings.append(Finding(name, problem, text, False))
    return sorted(pairs), findings


def _plain(stem: str) -> str:
    """ "A_mask.ome" -> "a"."""
    plain = re.sub(r"\.ome(?![a-z0-9])", "", stem.lower())
    return re.sub(rf"^{WORD}(?:[ ._-]+|(?=\d))|[ ._-]+{WORD}$", "", plain) or plain


def _scan(folder: Path, image_name: str, mask_name: str, findings: list[Finding], size: int) -> Scan:
    image, labels, found, inverted = _read(folder, image_name, mask_name)
    scan = Scan(image_name, mask_name, findings + found)
    if image is None or labels is None:
        return scan
    scan.usable, scan.inverted, scan.shape, scan.nuclei = True, inverted, labels.shape, int(labels.max())
    if scan.nuclei == 0:
        text = "holds no nucleus: right if the image shows none, else annotate it"
        scan.findings.append(Finding(mask_name, EMPTY, text, False))
    scan.means = pixels.resize_image(image, size).mean(axis=(0, 1))
    scan.digest = sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    grey = Image.fromarray(image.mean(axis=2, dtype=np.float32))
    grid = np.asarray(grey.resize((16, 16), Image.Resampling.BOX), np.float64)
    steps = np.concatenate([np.diff(grid, axis=0).ravel(), np.diff(grid, axis=1).ravel()])
    scan.fingerprint = steps / (np.linalg.norm(steps) or 1)
    for s in _from(size):
        counts = np.bincount(pixels.resize_labels(labels, s).ravel())[1:]
        scan.lost[s] = scan.nuclei - int((counts >= SHOWS).sum())
        if scan.lost[s] == 0:
            break
    return scan


def _from(size: int) -> list[int]:
    return [size, *(s for s in SIZES if s > size)]


def _read(
    folder: Path, image_name: str, mask_name: str
) -> tuple[np.ndarray | None, np.ndarray | None, list[Finding], bool]:
    """Image uint8 (H, W, 3), mended labels int32 (H, W), findings, and whether the labels had to be inverted.

    What needs a person is None.
    """
    findings: list[Finding] = []

    def attempt(name: str, read: Callable[[bytes, str], Any]) -> Any:
        try:
            if not (folder / name).is_file():
                raise UserError("it is not a file: take it out")
            content = (folder / name).read_bytes()
            if not pixels._decode(content, IT, as_colour=False).size:
                raise UserError(f"{IT} holds no pixels: replace it or take it out")
            return read(content, IT)
        except OSError as error:
            text = f"cannot be read ({error.strerror}): check its permissions"
        except UserError as error:
            text = str(error)
        findings.append(Finding(name, "unreadable", text, False))
        return None

    image = attempt(image_name, pixels.read_image)
    labels, found = attempt(mask_name, _labels) or (None, [])
    findings += [Finding(mask_name, problem, text, problem not in NOTES) for problem, text in found]
    if image is None or labels is None:
        return None, None, findings, False
    shape, (height, width) = labels.shape, image.shape[:2]
    if shape != (height, width):
        factor, advice = height // shape[0], "export both at the same size"
        if mendable := shape == (width, height):
            labels, advice = labels.T, "mend transposes it; look whether it was turned instead"
        elif mendable := 2 <= factor <= 8 and (shape[0] * factor, shape[1] * factor) == (height, width):
            labels = labels.repeat(factor, axis=0).repeat(factor, axis=1)
            advice = f"mend repeats each pixel {factor} x {factor} times"
        text = f"has {shape[0]} x {shape[1]} pixels (rows x columns) but its image has {height} x {width}: {advice}"
        findings.append(Finding(mask_name, "other size", text, mendable))
        if not mendable:
            return None, None, findings, False
    inverted = _looks_inverted(image, labels)
    return image, label(labels == 0).astype(np.int32) if inverted else labels, findings, inverted


def _labels(content: bytes, where: str) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """The bytes of a mask -> instance labels int32 (H, W), and the problems and details of what was mended."""
    found = []
    stored = pixels._decode(content, where, as_colour=False)
    try:
        mask = pixels.read_mask(content, where)
        if stored.ndim == 3:
            found.append(("grey mask as RGB", "one channel is enough: mend keeps one"))
    except UserError:
        colours = pixels.read_image(content, where).astype(np.int64)
        spread = np.ptp(colours, axis=2).max()
        if spread == 0:
            raise  # it was not for its colours
        found.append(
            ("mask in colour", "each colour is taken for one nucleus, black for background: mend numbers them")
        )
        if spread > 16:  # JPEG tints grey by less
            return _number_colours(colours, where), found
        mask = colours[..., 1]
    if mask.ndim != 2:
        raise UserError(f"{where} has shape {mask.shape}: save it as one channel")
    grey = stored if stored.ndim == 2 else stored[..., :3].mean(axis=2)
    if mask.dtype == bool and grey.dtype != bool and grey.any() and (grey.max() < 128 or not _two_levels(grey, 255)):
        raise UserError(f"{where} is a jpg of other values than 0 and 255, which jpg does not keep: save it as png")
    mask = mask.astype(np.int64)
    values, pieces = np.unique(mask[mask > 0]), label(mask).max()
    smooth = len(values) > 2 and values[-1] >= 128 and _two_levels(mask, values[-1])
    scattered = len(values) > 1 and pieces > 2 * len(values)
    try:
        labels = pixels.label_mask(mask, where)
    except UserError:
        if not smooth:
            raise
        scattered = True
    if scattered and smooth:
        found.append(("grey borders", f"{len(values)} grey values: mend cuts at half of the largest"))
        labels = label(2 * mask > values[-1]).astype(np.int32)
    elif scattered:
        text = f"{len(values)} values in {pieces} pieces: check that they are numbers of nuclei, not of classes"
        found.append((CLASSES, text))
    if labels.max() > np.iinfo(np.uint16).max:
        raise UserError(f"{where} holds {labels.max()} pieces, too many for nuclei: check it")
    return labels, found


def _two_levels(mask: np.ndarray, top: int) -> bool:
    """Whether few pixels lie between a quarter and three quarters of `top`."""
    bright, high = mask > 0.25 * top, mask >= 0.75 * top
    return (bright & ~high).sum() <= min(mask.size / 5, bright.sum() / 2)


def _number_colours(colours: np.ndarray, where: str) -> np.ndarray:
    """Colours (H, W, 3) on black -> labels. A single colour, and colours used again, are taken apart into pieces."""
    codes, index = np.unique(colours @ [65536, 256, 1], return_inverse=True)
    if codes[0] != 0:
        raise UserError(f"{where} is a mask in colour without black: make its background black")
    corner, right, below, across = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    solid = np.unique(corner[(corner == right) & (corner == below) & (corner == across) & (corner > 0)])
    if 2 * len(solid) < len(codes) - 1:  # borders that were smoothed are a pixel wide
        raise UserError(f"{where} has {len(codes)} colours, most of them thin: save it without smoothing or JPEG")
    pieces = label(index)
    return (pieces if index.max() == 1 or pieces.max() > 2 * index.max() else index).astype(np.int32)


def _looks_inverted(image: np.ndarray, labels: np.ndarray) -> bool:
    """The signs of a single mask, see `examine`. On BBBC038 none of 565 masks shows them, and 564 inverted ones do."""
    inside = labels > 0
    border = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    pieces = label(inside)
    if inside.mean() <= 0.5 or border.mean() <= 0.5 or pieces.max() < labels.max():
        return False
    if 2 * np.bincount(pieces.ravel())[1:].max() < inside.sum():
        return False
    if inside.all():
        return True
    grey = image.mean(axis=2, dtype=np.float32)
    return (grey[inside].mean() < grey[~inside].mean()) == (data.look_of(image) == "dark")


def _twins(scans: list[Scan]) -> list[tuple[Scan, Finding]]:
    """Each image that shows what an earlier one shows, by the rule in `examine`."""
    parts, fingerprints = _parts(scans), np.array([scan.fingerprint for scan in scans])
    twins, left_out = [], set()
    for n, scan in enumerate(scans):
        alike = fingerprints @ scan.fingerprint
        earlier = [(other, r) for other, r in zip(scans[:n], alike[:n], strict=True) if other.id not in left_out]
        same = [other.image for other, _ in earlier if other.digest == scan.digest]
        near = [other for other, r in earlier if r >= ALIKE and parts[other.id] != parts[scan.id]]
        if same:
            text = f"has the pixels of {same[0]}: mend keeps that one; look whose mask is right"
            finding = Finding(scan.image, "same image", text, True)
        elif near:
            places = f"this one is in {parts[scan.id]}, that one in {parts[near[0].id]}"
            text = f"is nearly {near[0].image}, and {places}, so scores would be too good: mend keeps that one"
            finding = Finding(scan.image, "nearly same image", text, True)
        else:
            continue
        left_out.add(scan.id)
        twins.append((scan, finding))
    return twins


def _parts(scans: list[Scan]) -> dict[str, str]:
    """Id -> the part to which `data.split` deals it. It gets the mean of each image, which is all it looks at."""
    if len(scans) < 3:
        return dict.fromkeys((scan.id for scan in scans), "no part")
    means = np.stack([scan.means for scan in scans])[:, None, None]  # (N, 1, 1, 3)
    splits = data.split(means, np.zeros(means.shape[:3], np.int32), [scan.id for scan in scans])
    return {id: name for name, part in zip(splits._fields, splits, strict=True) for id in part.ids}


def _whole(scans: list[Scan], size: int) -> list[Finding]:
    """Findings about the data set."""
    findings, total = [], sum(scan.nuclei for scan in scans)
    if len(scans) < 3:
        text = f"{len(scans)} can be used: train, val and test need at least 3, so add some"
        findings.append(Finding(".", "too few images", text, False))
    if scans and total == 0:
        findings.append(Finding(".", "all masks empty", "there is nothing to learn: annotate nuclei", False))
    lost = {s: sum(scan.lost.get(s, 0) for scan in scans) for s in _from(size)}
    if 20 * lost[size] > total:
        enough = [s for s in lost if 20 * lost[s] <= total]
        advice = f"size={enough[0]} keeps 95 %, and so does cutting tiles" if enough else "cut the images into tiles"
        text = f"{lost[size]} of {total} nuclei have fewer than {SHOWS} pixels at {size} x {size}: {advice}"
        findings.append(Finding(".", "small nuclei", text, False))
    return findings


def _facts(scans: list[Scan]) -> str:
    if not scans:
        return ""
    small, large = (pick((scan.shape for scan in scans), key=np.prod) for pick in (min, max))
    looks = Counter(data.look_of(scan.means[None, None]) for scan in scans)
    kinds = ", ".join(f"{count} {look}" for look, count in sorted(looks.items()))
    nuclei = [scan.nuclei for scan in scans]
    sizes = f"{small[0]} x {small[1]} to {large[0]} x {large[1]} pixels"
    return f"; {sizes}; {kinds}; {min(nuclei)} to {max(nuclei)} nuclei an image"
