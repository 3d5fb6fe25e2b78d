"""Files that are whole or absent."""

import glob
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from course_lib.errors import UserError

DAY = 24 * 60 * 60  # seconds


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """A new folder to fill, which takes the name `folder` when all of it is written, and vanishes when it is not.

    Raises:
        UserError: `folder` is there already and not empty, or it cannot be written.
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
        advice = "free some space or choose another folder"
        raise UserError(f"{folder} cannot be written ({problem.strerror}): {advice}") from problem
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write(path: str | Path, content: str | bytes) -> None:
    """Write a file in one move: a kill at any moment leaves the old file or the new one, never half of one.

    The folder is made where it is missing. Several processes may write the same file (not on Windows): the last one
    stays. What a killed writer left behind (.NAME.*.partial) is removed once it is a day old.

    Raises:
        UserError: the disk is full or the folder cannot be written.
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
        reason = problem.strerror or str(problem)
        raise UserError(f"{path} cannot be written ({reason}): free some space or choose another folder") from problem


def sweep(folder: Path, pattern: str) -> None:
    """Remove what killed writers left behind, once it is too old to belong to a running one."""
    for leftover in folder.glob(pattern):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > DAY:
                leftover.unlink()
