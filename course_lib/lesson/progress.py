"""A learner's progress, for those who ask for it: a line of JSON for every answer that a check has seen.

$COURSE_PROGRESS names the file; without it nothing is kept. No names, no network: whoever wants to show the file hands
it over. `python -m tools.run.progress FILES...` makes one table of many.
"""

import json
import os
import time
from pathlib import Path

from course_lib.errors import UserError

VARIABLE = "COURSE_PROGRESS"


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
