"""How long each lesson takes on this machine's GPU: all of them at once, for a card that is rented by the minute.

    python -m benchmarks.lesson_minutes --out DIR [--seconds 480] [--preset gpu] [--only NN ...] [--store]

Every lesson runs in a process of its own, `python -m tools.run --only NN`, all at the same time. So the minutes are an
upper bound of what a lesson takes alone. What is not done when --seconds have passed is stopped and said so.
--store writes data/results/lessons_gpu.json.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from course_lib.results import machine, store, table

ROOT = Path(__file__).resolve().parents[1]
ABOUT = "Seconds of each lesson at the preset {preset}, {count} lessons at the same time on one device."


def measure(names: list[str], out: Path, *, preset: str, seconds: float) -> list[dict[str, Any]]:
    """One row a lesson: "lesson", "status" (passed, failed, stopped), "seconds" (None: not at its end), "error"."""
    threads = max(1, (os.cpu_count() or 1) // len(names))
    env = os.environ | {"OMP_NUM_THREADS": str(threads)}
    running = {}
    for name in names:
        command = [sys.executable, "-m", "tools.run", "--only", name, "--preset", preset, "--out", str(out / name)]
        with (out / f"{name}.log").open("w", encoding="utf-8") as log:
            running[name] = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
    end, rows = time.monotonic() + seconds, []
    for name, process in running.items():
        try:
            process.wait(max(0.1, end - time.monotonic()))
            row = json.loads((out / name / "summary.json").read_text(encoding="utf-8"))["lessons"][0]
            seconds = row["seconds"] if row["status"] == "passed" else None
            rows.append(
                {
                    "lesson": name,
                    "status": row["status"],
                    "seconds": seconds,
                    "error": row["error"] and row["error"]["message"],
                }
            )
        except subprocess.TimeoutExpired:
            process.terminate()
            rows.append({"lesson": name, "status": "stopped", "seconds": None, "error": f"not done in {seconds:g} s"})
        except OSError:
            rows.append({"lesson": name, "status": "failed", "seconds": None, "error": f"see {name}.log"})
        print(rows[-1], flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for pages and logs")
    parser.add_argument("--seconds", type=float, default=480, help="for everything together")
    parser.add_argument("--preset", default="gpu")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="these lessons, by number")
    parser.add_argument("--store", action="store_true", help="write data/results/lessons_gpu.json")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    names = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    names = [name for name in names if not options.only or name[:2] in options.only]
    here = machine()
    rows = measure(names, options.out, preset=options.preset, seconds=options.seconds)
    print(table(rows, ["lesson", "status", "seconds"]))
    command = f"python -m benchmarks.lesson_minutes --out DIR --seconds {options.seconds:g} --preset {options.preset}"
    about = ABOUT.format(preset=options.preset, count=len(names))
    folder = {} if options.store else {"folder": options.out}
    print(store("lessons_gpu", rows, about=about, command=command, measured=here, **folder))
    return int(any(row["status"] != "passed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
