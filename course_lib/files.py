"""Files that are whole or absent."""

import os
from contextlib import suppress
from pathlib import Path

from course_lib.errors import UserError


def write(path: str | Path, content: str | bytes) -> None:
    """Write a file in one move: a kill at any moment leaves the old file or the new one, never half of one.

    The folder is made where it is missing. What a killed writer left behind (.NAME.partial) is overwritten by
    the next one.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    scratch = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as problem:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)  # on a full disk, half a file is in the way
        reason = problem.strerror or str(problem)
        raise UserError(f"{path} cannot be written ({reason}): free some space or choose another folder") from problem
