"""A learner's progress, for those who ask for it: a line of JSON for every answer that a check has seen.

$COURSE_PROGRESS names the file; without it nothing is kept. No names, no network: whoever wants to show the file hands
it over. `python -m tools.run.progress FILES...` makes one table of many.
"""

import json
import os
import time

from course_lib.errors import UserError
from course_lib.files import append

VARIABLE = "COURSE_PROGRESS"


def note(exercise: str, said: str | None) -> None:
    """Add a line for one answer: `said` is what the check said against it, None where it was correct.
    Raises UserError: the file cannot be written.
    """
    if not (path := os.environ.get(VARIABLE)):
        return
    line = {"exercise": exercise, "correct": said is None, "said": said, "time": round(time.time())}
    try:
        append(path, json.dumps(line, ensure_ascii=False) + "\n")
    except UserError as problem:
        reason = f"{VARIABLE} names {path}, which cannot be written ({problem.__cause__.strerror})"
        raise UserError(f"{reason}: correct it or unset it") from problem
