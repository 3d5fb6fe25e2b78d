"""Published archives, read in memory and never extracted, and the cache of what is prepared from them.

Files are whole or absent, so any number of processes may share the folder.
"""

import errno
import hashlib
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from time import monotonic
from typing import Any, NamedTuple
from zipfile import ZipFile

import numpy as np
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from course_lib import files
from course_lib.errors import UserError

ARCHIVES = "course-archives"  # subfolder for what is downloaded
PATIENCE = 15 * 60  # seconds; to fetch and prepare BBBC038 takes about one minute
PATIENCE_A_READ = 60  # seconds in which a server sends something
SLOWEST = 1000  # bytes a second: BBBC038 would take a day
MAX_ENTRY = 64 * 2**20  # bytes; the largest image of the data sets used here has 4 MB
Arrays = dict[str, np.ndarray | list[str]]


class Source(NamedTuple):
    """A published archive (data/README.md has a card for each)."""

    url: str
    sha256: str  # "" where it is not known: what is inside is then checked
    variable: str  # environment variable that may name a local archive of the same layout
    mask_per_nucleus: bool  # <id>/images/*.png and <id>/masks/*.png; else images/<id>.* and masks/<id>.*
    licence: str


SOURCES = {
    "bbbc038": Source(
        url="https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip",
        sha256="dcb6edc2690f137406638b2309581a71522c4dff19157d118453b448dcddcb68",
        variable="COURSE_BBBC038_ARCHIVE",
        mask_per_nucleus=True,
        licence="CC0; cite image set BBBC038 of the Broad Bioimage Benchmark Collection",
    ),
    "dsb2018-fluo": Source(
        url="https://github.com/stardist/stardist/releases/download/0.1.0/dsb2018.zip",
        sha256="e44921950edce378063aa4457e625581ba35b4c2dbd9a07c19d48900129f386f",
        variable="COURSE_DSB2018_FLUO_ARCHIVE",
        mask_per_nucleus=False,
        licence="CC0, as its original images; cite image set BBBC038 and the StarDist repository",
    ),
    "vnc": Source(
        url="https://github.com/unidesigner/groundtruth-drosophila-vnc/archive/4a5f051466d24d8dc1e855ab55658bb1b1dcd6bf.zip",
        sha256="",
        variable="COURSE_VNC_ARCHIVE",
        mask_per_nucleus=False,
        licence="CC BY-NC-SA 3.0; cite Gerhard, Funke, Martel, Cardona and Fetter, doi 10.6084/m9.figshare.856713",
    ),
}


def licence_of(name: str) -> str | None:
    """The licence of a data set as in data/README.md; None for a folder, whose owner decides."""
    if name == "synthetic":
        return "drawn by the course (`course_lib/data/synthetic.py`), under the licence of its code"
    return SOURCES[name].licence if name in SOURCES else None


def best_at_hand() -> str:
    """ "bbbc038" where its archive is on this machine, else "synthetic". Looks, and downloads nothing."""
    there = os.environ.get(SOURCES["bbbc038"].variable) or (folder() / ARCHIVES / "bbbc038.zip").is_file()
    return "bbbc038" if there else "synthetic"


def folder() -> Path:
    """COURSE_DATA if set, else data/cache/ of the checkout, else the user's cache folder."""
    if os.environ.get("COURSE_DATA"):
        return Path(os.environ["COURSE_DATA"])
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file() and (checkout / "data").is_dir():
        return checkout / "data" / "cache"
    import pooch

    return Path(pooch.os_cache("unetpp-course"))


def given(name: str) -> Path | None:
    """The local archive that the variable of a source names. Raises UserError where it names no file."""
    path = os.environ.get(SOURCES[name].variable)
    if path and not Path(path).is_file():
        raise UserError(f"{SOURCES[name].variable} names {path}, which is not a file: correct it or unset it")
    return Path(path) if path else None


def fetched(name: str, *, download: bool, progress: bool = True) -> Path:
    """The published archive in the cache folder; `download` gets it where it is missing or damaged.
    Raises UserError: it is still missing or damaged. What arrives with another SHA-256 is thrown away.
    """
    source, path = SOURCES[name], folder() / ARCHIVES / f"{name}.zip"
    if path.is_file() and source.sha256 in ("", sha256_of(path)):
        return path
    if not download and path.is_file():
        raise UserError(
            f"{path} is damaged (its SHA-256 is not the published one): "
            f"delete it and run `python -m course_lib data {name}`"
        )
    if not download:
        raise UserError(
            f"{name} is not on this machine: run `python -m course_lib data {name}`, or set {source.variable} "
            "to a local archive, or use the built-in data set 'synthetic'"
        )
    import pooch

    try:
        downloader = partial(_download, progress=progress)
        pooch.retrieve(source.url, source.sha256 or None, path.name, path.parent, downloader=downloader)
        with suppress(OSError):  # of another user's file
            path.chmod(0o644)  # pooch makes it for one user, and a room shares it
        return path
    except OSError as error:  # requests' exceptions are OSErrors without strerror
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"{source.url} could not be saved as {path} ({reason}): check the network and the disk, or use 'synthetic'"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{source.url} sent a file with another SHA-256 than expected, which was removed: try again later"
        ) from error


def _download(url: str, file: str, _: Any, *, progress: bool) -> None:
    """As pooch's own, but a server that sends next to nothing is left, not only one that sends nothing.
    Raises OSError, as requests does.
    """
    import requests
    from requests.packages.urllib3.exceptions import HTTPError

    with requests.get(url, stream=True, timeout=PATIENCE_A_READ) as response, Path(file).open("wb") as out:
        response.raise_for_status()
        size, read = int(response.headers.get("Content-Length", 0)), getattr(response.raw, "read1", response.raw.read)
        began, got = monotonic(), 0
        try:
            with tqdm(total=size or None, unit="B", unit_scale=True, disable=not progress) as bar:
                while piece := read(2**16):  # what has come, be it a byte
                    got += out.write(piece)
                    bar.update(len(piece))
                    if (seconds := monotonic() - began) > PATIENCE_A_READ and got < SLOWEST * seconds:
                        raise OSError(errno.ETIMEDOUT, f"less than {SLOWEST} bytes a second")
        except HTTPError as problem:  # of urllib3: no OSError
            raise ConnectionError from problem


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file as 64 hexadecimal digits. Raises UserError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from error


def open_archive(path: Path) -> ZipFile:
    """Opens a zip archive. Raises UserError."""
    try:
        return ZipFile(path)
    except Exception as error:  # zipfile has no one exception for damaged bytes
        raise UserError(f"{path} is not a whole zip archive: get a fresh copy") from error


def read_entry(archive: ZipFile, name: str) -> bytes:
    """The bytes of one entry. Raises UserError where it is too large, damaged, or not as long as announced."""
    size = archive.getinfo(name).file_size
    if size > MAX_ENTRY:
        problem = f"unpacks to {size} bytes, more than {MAX_ENTRY}"
        raise UserError(f"{archive.filename}: entry {name!r} {problem}: get a fresh copy")
    try:
        with archive.open(name) as file:
            data = file.read(size + 1)  # a bare read() inflates all there is, even past the announced size
        if len(data) != size:
            raise EOFError
    except Exception as error:  # zipfile, zlib, bz2 and lzma raise their own kinds
        raise UserError(f"{archive.filename}: entry {name!r} is damaged: get a fresh copy") from error
    return data


def kept(path: Path, make: Callable[[], Arrays]) -> Arrays:
    """The arrays of a cache file. Where it is missing or damaged, what `make` returns, once it is written there.

    One process at a time makes it, and the others say that they wait. A process that is killed lets go at once. On a
    disk that knows no locks, beside the lock of another user, and after PATIENCE, all go on at once.
    Raises UserError for a full disk or a folder that cannot be written.
    """
    for leftover in ("*.npz.*.partial", f"{ARCHIVES}/tmp*"):  # of killed runs
        files.sweep(path.parent, leftover)
    if arrays := read(path):
        return arrays
    lock = FileLock(path.with_name(f".{path.name}.lock"), mode=0o666)  # one room, one cache, many users
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):  # what cannot be written is said now, and not after minutes of work
            pass
    except OSError as error:
        raise _refused(path, error) from error
    with suppress(NotImplementedError, OSError):  # Timeout is an OSError
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"another process makes {path.name}: waiting for it", file=sys.stderr, flush=True)
            lock.acquire(timeout=PATIENCE)
    try:
        if not (arrays := read(path)):  # else another process has made it meanwhile
            arrays, packed = make(), io.BytesIO()
            np.savez(packed, **arrays)
            try:
                files.write(path, packed.getvalue())
            except UserError as error:
                raise _refused(path, error.__cause__) from error
        return arrays
    finally:
        lock.release()  # does nothing where it is not held


def read(path: Path) -> Arrays | None:
    """The arrays of a cache file; None where it is missing, damaged, or holds others than images, labels and ids."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            images, labels, ids = stored["images"], stored["labels"], stored["ids"]
        n, height, width, _ = images.shape
        fits = labels.shape in ((n, height, width), (n, *labels.shape[1:2], height, width)) and ids.shape == (n,)
        kinds = images.dtype, labels.dtype, ids.dtype.kind
        return {"images": images, "labels": labels, "ids": ids} if fits and kinds == (np.uint8, np.int32, "U") else None
    except Exception:  # damage shows in many ways (each array has a CRC-32), and all end in preparing anew
        return None


def _refused(path: Path, error: OSError) -> UserError:
    advice = "free some space, or set COURSE_DATA to another folder"
    return UserError(
        f"the cache folder {path.parent} cannot be written ({getattr(error, 'strerror', None) or error}): {advice}"
    )
