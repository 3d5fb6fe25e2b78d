"""Files that are whole or absent, and text that is added to them."""

import glob
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from course_lib.errors import UserError


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """A new folder to fill, which takes the name `folder` when all of it is written, and vanishes when it is not.
    Raises UserError: `folder` is there already and not empty, or it cannot be written.
    """
    folder = Path(folder)
    if not folder.name or folder.name == "..":
        raise UserError(f"{folder} is no name for a new folder: choose another one")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not empty: choose another folder")
    empty = folder.exists()  # its parent may be somebody else's
    scratch = (folder if empty else folder.parent) / f".{folder.name}.{uuid4().hex}.partial"
    try:
        scratch.mkdir(parents=True)
        yield scratch
        if not empty:
            scratch.replace(folder)
            return
        for child in list(scratch.iterdir()):
            child.replace(folder / child.name)
    except OSError as problem:
        raise _refused(folder, problem) from problem
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write(path: str | Path, content: str | bytes) -> None:
    """Write a file in one move: a kill at any moment leaves the old file or the new one, never half of one.

    Several processes may write the same file (not on Windows): the last one stays. What a killed writer left behind
    (.NAME.*.partial) is removed once it is a day old. Folders are made. Raises UserError: it cannot be written.
    """
    path = Path(path)
    content = content.encode(errors="surrogateescape") if isinstance(content, str) else content
    scratch = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, f".{glob.escape(path.name)}.*.partial")
        with scratch.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as problem:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)  # on a full disk, half a file is in the way
        raise _refused(path, problem) from problem


def append(path: str | Path, text: str) -> None:
    """Add `text` to a file, on the disk when this returns. Folders are made. Raises UserError: it cannot be written."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(text.encode(errors="surrogateescape"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as problem:
        raise _refused(path, problem) from problem


def sweep(folder: Path, pattern: str) -> None:
    """Remove what killed writers left behind, once it is too old to belong to a running one."""
    for leftover in folder.glob(pattern):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > 24 * 60 * 60:  # seconds
                leftover.unlink()


def _refused(path: Path, problem: OSError) -> UserError:
    reason = problem.strerror or str(problem)
    return UserError(f"{path} cannot be written ({reason}): free some space or choose another folder")
