"""Execute the lessons and write a page about them: python -m tools.run [--only NN ...] [--preset P] [--out DIR]"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from course_lib.errors import UserError
from course_lib.lesson.presets import PRESETS
from tools.run.lessons import run_lessons

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 for a lesson that failed, 2 for a user's mistake."""
    parser = argparse.ArgumentParser("python -m tools.run", description="Execute the lessons and write a page.")
    parser.add_argument("--preset", default="auto", choices=["auto", *PRESETS])
    parser.add_argument("--only", nargs="+", default=(), metavar="NN", help="lessons by number or name")
    parser.add_argument("--out", default="build/course")
    options = parser.parse_args(arguments)
    try:
        rows = run_lessons(
            ROOT / "notebooks", Path(options.out), preset=options.preset, only=options.only, progress=True
        )
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; lessons that were done are on the page", file=sys.stderr)
        return 130
    return int(any(row["status"] != "passed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
