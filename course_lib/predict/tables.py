"""The two tables of `predict`: a row an image, and a row a nucleus, kept from call to call."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from course_lib.errors import UserError
from course_lib.files import write

COUNTS = ("file", "nuclei", "area")
NUCLEI = ("file", "number", "area", "row", "column")


class Table:
    """A csv file that rows are added to; rows of images that are predicted again leave first.

    The file begins with the rows of other images that an earlier call left. Rows that an interruption cut are left out.
    """

    def __init__(self, path: Path, columns: Sequence[str], again: Iterable[Path]):
        self.path, self.columns, self.begun = path, list(columns), False
        self.names = {image.name for image in again}

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows, on the disk when this returns.

        Raises:
            UserError: the file cannot be written, or is no table of these columns.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        if not self.begun:
            writer.writeheader()
            writer.writerows(self._kept())
        writer.writerows(rows)
        if not self.begun:
            write(self.path, text.getvalue())
            self.begun = True
            return
        try:
            with self.path.open("ab") as file:
                file.write(text.getvalue().encode(errors="surrogateescape"))
        except OSError as problem:
            raise UserError(f"{self.path} cannot be written ({problem.strerror}): free some space") from problem

    def _kept(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8", errors="surrogateescape")
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))  # behind it an interruption cut
        if reader.fieldnames not in (None, self.columns):
            raise UserError(f"{self.path} has other columns than {', '.join(self.columns)}: move it away first")
        rows = [row for row in reader if None not in row and None not in row.values()]
        return [row for row in rows if row["file"] not in self.names]
