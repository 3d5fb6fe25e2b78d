"""A learner's progress, for those who ask for it: a line of JSON for every answer that a check has seen.

$COURSE_PROGRESS names the file; without it nothing is kept. No names, no network: whoever wants to show the file hands
it over. `python -m course_lib progress FILES...` makes one table of many.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from course_lib.errors import UserError

VARIABLE = "COURSE_PROGRESS"
Row = dict[str, Any]


def note(exercise: str, said: str | None) -> None:
    """Add a line for one answer: `said` is what the check said against it, None where it was correct.

    Raises:
        UserError: the file cannot be written.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return
    line = {"exercise": exercise, "correct": said is None, "said": said, "time": round(time.time())}
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    except OSError as problem:
        raise UserError(
            f"{VARIABLE} names {path}, which cannot be written ({problem.strerror}): correct it or unset it"
        ) from problem


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
