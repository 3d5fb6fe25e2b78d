"""Zip archives that may be damaged or hostile: checked before use, read in memory, never extracted to disk."""

import hashlib
import stat
from contextlib import suppress
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from course_lib.errors import UserError

MAX_ENTRY = 64 * 2**20  # bytes; the largest image of the data sets used here has 4 MB
MAX_RATIO = 200  # an entry above BIG_ENTRY that is packed tighter is a zip bomb
BIG_ENTRY = 16 * 2**20


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file as 64 hexadecimal digits.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from error


def open_archive(path: Path) -> ZipFile:
    """Opens a zip archive whose every entry has been checked; raises UserError that names the first bad one."""
    try:
        archive = ZipFile(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from error
    except Exception as error:  # zipfile has no one exception for damaged bytes
        raise UserError(f"{path} is not a whole zip archive: get a fresh copy") from error
    seen = set()
    for entry in archive.infolist():
        problem = "occurs twice" if entry.filename in seen else _problem(entry)
        if problem:
            archive.close()
            raise UserError(f"{path}: entry {entry.filename!r} {problem}: do not use this archive, get a fresh copy")
        seen.add(entry.filename)
    return archive


def read_entry(archive: ZipFile, name: str) -> bytes:
    """The bytes of one entry. Raises UserError where they are damaged or not as many as announced."""
    size = archive.getinfo(name).file_size
    try:
        with archive.open(name) as file:
            # A bare read() inflates all there is, even past the announced size; read(n) stops after n bytes.
            data = file.read(size + 1)
    except Exception as error:  # zipfile, zlib, bz2 and lzma raise their own kinds
        raise UserError(f"{archive.filename}: entry {name!r} is damaged: get a fresh copy") from error
    if len(data) != size:
        raise UserError(f"{archive.filename}: entry {name!r} is shorter than announced: get a fresh copy")
    return data


def download(url: str, sha256: str, path: Path, *, progress: bool = True) -> None:
    """Fetches `url` to `path` unless it is there already; what arrives with another hash is thrown away.

    Raises:
        UserError: no network, no room on the disk, or another SHA-256 than expected.
    """
    import pooch

    try:
        downloader = pooch.HTTPDownloader(progressbar=progress, timeout=60)
        pooch.retrieve(url, known_hash=sha256, fname=path.name, path=path.parent, downloader=downloader)
        with suppress(OSError):  # of another user's file
            path.chmod(0o644)  # pooch makes it for one user, and a room shares it
    except OSError as error:  # requests' exceptions are OSErrors without strerror
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"{url} could not be saved as {path} ({reason}): check the network and the disk, or use 'synthetic'"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{url} sent a file with another SHA-256 than expected, which was removed: try again later"
        ) from error


def _problem(entry: ZipInfo) -> str | None:
    """What is wrong with an entry, as the middle of a sentence."""
    name = entry.filename
    if name.startswith("/") or "\\" in name or name[1:2] == ":" or ".." in name.split("/"):
        return "points outside the archive"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "is a link"
    if entry.flag_bits & 1:
        return "is encrypted"
    if entry.file_size > MAX_ENTRY:
        return f"unpacks to {entry.file_size} bytes, more than {MAX_ENTRY}"
    if entry.file_size > BIG_ENTRY and entry.file_size > MAX_RATIO * entry.compress_size:
        return f"unpacks to more than {MAX_RATIO} times its size"
    return None
