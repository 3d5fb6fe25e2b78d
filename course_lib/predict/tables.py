"""The two tables of `predict`: a row an image, and a row a nucleus, kept from call to call."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any

from course_lib import files
from course_lib.errors import UserError

COUNTS = ("file", "nuclei", "area")  # of several classes also "class", here and below
NUCLEI = ("file", "number", "area", "row", "column")


class Table:
    """A csv file that rows are added to, behind the whole rows of other images than `again` that it holds already."""

    def __init__(self, path: Path, columns: Sequence[str], again: Iterable[Path]):
        self.path, self.columns, self.begun = path, list(columns), False
        self.again = {image.stem.casefold() for image in again}  # as the files beside the table are called

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows, on the disk when this returns. Raises UserError: it cannot be written, or has other columns."""
        if not self.begun:
            files.write(self.path, as_csv(self._kept(), self.columns))
        self.begun = True
        files.append(self.path, as_csv(rows, self.columns, header=False))

    def _kept(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8", errors="surrogateescape")
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))  # behind it an interruption cut
        if reader.fieldnames not in (None, self.columns):
            raise UserError(f"{self.path} has other columns than {', '.join(self.columns)}: move it away first")
        whole = [row for row in reader if None not in row and None not in row.values()]
        return [row for row in whole if PurePath(row["file"]).stem.casefold() not in self.again]


def as_csv(rows: Iterable[dict[str, Any]], columns: Sequence[str], *, header: bool = True) -> str:
    """Rows as comma-separated text."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
