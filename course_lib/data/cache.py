"""Prepared arrays kept on disk: written whole or not at all, so that any number of processes may share the folder.

A lock spares them the work of each other. Files are whole without it, too.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout

from course_lib import files
from course_lib.errors import UserError

ARCHIVES = "course-archives"  # subfolder for what is downloaded
PATIENCE = 15 * 60  # seconds; to fetch and prepare BBBC038 takes about one
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def folder() -> Path:
    """COURSE_DATA if set, else data/cache/ of the checkout, else the user's cache folder."""
    if os.environ.get("COURSE_DATA"):
        return Path(os.environ["COURSE_DATA"])
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file() and (checkout / "data").is_dir():
        return checkout / "data" / "cache"
    import pooch

    return Path(pooch.os_cache("unetpp-course"))


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process at a time makes `path`; the others say that they wait. A process that is killed lets go at once.

    On a disk that knows no locks, or beside the lock of a user whom this one may not follow, all go on at once; where
    that cannot be told from a lock that is held, after PATIENCE. Files are whole in any case.

    Raises:
        UserError: the folder cannot be written.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), mode=0o666)  # one room, one cache, many users
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"another process makes {path.name}: waiting for it", file=sys.stderr, flush=True)
            lock.acquire(timeout=PATIENCE)
    except (NotImplementedError, Timeout):
        pass
    except OSError as error:
        writable = path.parent.is_dir() and os.access(path.parent, os.W_OK)
        if error.errno not in NO_LOCKS and not writable:
            raise _refused(path, error) from error
    try:
        yield
    finally:
        lock.release()  # does nothing where it is not held


def read(path: Path, names: tuple[str, ...]) -> list[np.ndarray] | None:
    """The arrays of a cache file in the order of `names`; None where it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return [stored[name] for name in names]
    except Exception:  # damage shows in many ways (each array has a CRC-32), and all end in preparing anew
        return None


def write(path: Path, **arrays: np.ndarray | list[str]) -> None:
    """Writes beside `path` and renames: a kill at any moment leaves the old file, the new one, or none.

    Raises UserError for a full disk or a folder that cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(packed.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def sweep(folder: Path) -> None:
    """Removes what killed runs left behind, once it is too old to belong to a running one."""
    for pattern in ("*.npz.*.partial", f"{ARCHIVES}/tmp*"):
        files.sweep(folder, pattern)


def _refused(path: Path, error: OSError) -> UserError:
    return UserError(
        f"the cache folder {path.parent} cannot be written ({error.strerror}): "
        "free some space, or set COURSE_DATA to another folder"
    )
