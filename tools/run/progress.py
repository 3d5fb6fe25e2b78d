"""One table of many learners' files, which checks write where COURSE_PROGRESS names one.

python -m tools.run.progress FILE...
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from statistics import median
from typing import Any

from course_lib import results
from course_lib.errors import UserError
from course_lib.lesson.progress import VARIABLE
from tools.command import command

Row = dict[str, Any]


def overview(files: Sequence[str | Path]) -> list[Row]:
    """One row an exercise, in the order in which learners came to it; each file is one learner.

    "tried" and "correct" count learners, "tries" is the median number of answers up to the first correct one, and "said
    most" the sentence that most learners met.

    Raises:
        UserError: a file that is not there, or holds something else; no answer in any of them.
    """
    learners = [read(file) for file in files]
    if not any(learners):
        raise UserError(f"{', '.join(map(str, files))} hold(s) no answer yet: run a check first")
    places: dict[str, list[int]] = {}
    for lines in learners:
        for place, exercise in enumerate(dict.fromkeys(line["exercise"] for line in lines)):
            places.setdefault(exercise, []).append(place)
    rows = []
    for exercise in sorted(places, key=lambda name: (sum(places[name]) / len(places[name]), name)):
        answers = [[line for line in lines if line["exercise"] == exercise] for lines in learners]
        firsts = [next((n for n, line in enumerate(of, start=1) if line["correct"]), None) for of in answers]
        done = [first for first in firsts if first is not None]
        met = Counter(said for of in answers for said in {line["said"] for line in of if not line["correct"]})
        rows.append(
            {
                "exercise": exercise,
                "tried": sum(map(bool, answers)),
                "correct": len(done),
                "tries": median(done) if done else None,
                "said most": min(met, key=lambda said: (-met[said], said)) if met else None,
            }
        )
    return rows


def read(file: str | Path) -> list[Row]:
    """The lines of one learner's file.

    Raises:
        UserError: it is not there, or holds something else.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    except OSError as problem:
        raise UserError(f"{file} cannot be read ({problem.strerror}): check the path") from problem
    except ValueError as problem:
        raise _foreign(file) from problem
    for line in lines:
        good = (
            isinstance(line, dict) and isinstance(line.get("exercise"), str) and isinstance(line.get("correct"), bool)
        )
        if not good or not (line["correct"] or isinstance(line.get("said"), str)):
            raise _foreign(file)
    return lines


def _foreign(file: str | Path) -> UserError:
    return UserError(f"{file} is no file of {VARIABLE}, a line of JSON for each answer: leave it out")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser("python -m tools.run.progress", description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    named, files = parser.parse_args(argv).files, []
    for path in named:  # the shells of Windows hand "*.jsonl" over as it is
        here = path.parent.iterdir() if "*" in path.name and path.parent.is_dir() else ()
        files += sorted(one for one in here if fnmatch(one.name, path.name)) if "*" in path.name else [path]
    if not files:
        raise UserError(f"no file is called {' or '.join(map(str, named))}: check the path")
    print(results.table(overview(files)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
