"""Execute the lessons and write a page about them: python -m tools.run [--only NN ...] [--preset P] [--out DIR]"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from course_lib.lesson.presets import PRESETS
from tools.checkout import ROOT
from tools.command import command
from tools.run.lessons import run_lessons


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Status 1 for a lesson that failed."""
    parser = argparse.ArgumentParser("python -m tools.run", description="Execute the lessons and write a page.")
    parser.add_argument("--preset", default="auto", choices=["auto", *PRESETS])
    parser.add_argument("--only", nargs="+", default=(), metavar="NN", help="lessons by number or name")
    parser.add_argument("--out", type=Path, default="build/course")
    options = parser.parse_args(argv)
    try:
        rows = run_lessons(ROOT / "notebooks", options.out, preset=options.preset, only=options.only)
    except KeyboardInterrupt:
        print("stopped; lessons that were done are on the page", file=sys.stderr)
        return 130
    return int(any(row["status"] != "passed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
