"""Prepared arrays kept on disk: written whole or not at all, without locks, safe with several processes at once."""

import io
import os
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import numpy as np

from course_lib.errors import UserError

ARCHIVES = "course-archives"  # subfolder for what is downloaded
DAY = 24 * 60 * 60  # seconds


def folder() -> Path:
    """COURSE_DATA if set, else data/cache/ of the checkout, else the user's cache folder."""
    if os.environ.get("COURSE_DATA"):
        return Path(os.environ["COURSE_DATA"])
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "data").is_dir():
        return checkout / "data" / "cache"
    import pooch

    return Path(pooch.os_cache("unetpp-course"))


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
        raise UserError(
            f"the cache folder {path.parent} cannot be written ({error.strerror}): "
            "free some space, or set COURSE_DATA to another folder"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def sweep(folder: Path) -> None:
    """Removes what killed runs left behind, once it is too old to belong to a running one."""
    for leftover in (*folder.glob("*.npz.*.partial"), *folder.glob(f"{ARCHIVES}/tmp*")):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > DAY:
                leftover.unlink()
