"""What one GPU does, in one command, for a card that is rented by the minute.

    python -m benchmarks.gpu_day --out DIR [--seconds 560] [--stages NAME ...] [--tiny]
    python -m benchmarks.gpu_day --out DIR --join

Stages run one after the other, each in a process of its own with a deadline: one that fails, hangs or crashes the
driver is reported, and the next begins; one that no longer fits is skipped and said so, for another call. What a stage
has measured lies in DIR as it goes. --tiny takes small nets and few repeats: on a CPU it rehearses everything but the
recording, in under five minutes. --join runs nothing. It puts what lies in DIR, of one call or several on the same
kind of card, into data/results: gpu_day.json, race_gpu.json, race_clock_gpu.json, decision_gpu.json.

The race needs the real nuclei: what `python -m course_lib data bbbc038` prepared in data/cache, or the archive itself.
The decision needs what `python -m benchmarks.decide` writes to data/cache, and takes a call of its own.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.experiments import EXPERIMENTS, read_lines
from benchmarks.speed import STAGES, joined
from benchmarks.timing import GPU
from course_lib.files import write
from course_lib.results import as_json, machine, store, table
from course_lib.results.race import standings
from course_lib.results.records import STORED
from tools.command import command

ABOUT = "One GPU, measured in one command: UNet++ with all heads, widths 32 to 512, images of 96x96."
DEADLINES = {  # seconds, in this order; the start of Python and CUDA included
    "tests": 90,
    "peaks": 45,
    "proof": 75,
    "step": 120,
    "batch": 90,
    "inference": 75,
    "pruning": 45,
    "convolution": 45,
    "timeline": 45,
    "profile": 45,
    "feeding": 45,
    "upsampling": 45,
    "large image": 60,
    "peers": 60,
    "race_clock": 240,
    "race": 400,
    "decision": 540,
    "compile": 150,
}
RACES = ("race_clock", "race")
EXPERIMENT = (*RACES, "decision")  # stages that are experiments: their names without _gpu
Row = dict[str, Any]


def call_of(name: str, out: Path, seconds: float, *, tiny: bool) -> list[str]:
    """The command of a stage, which may take so many seconds."""
    python, small = [sys.executable, "-m"], ["--tiny"] if tiny else []
    if name == "tests":  # those that need a GPU: recorded training is eager training, and so on
        return [*python, "pytest", "-q", "-m", "gpu", "tests"]
    if name in EXPERIMENT:
        experiment = name + ("_tiny" if tiny else "_gpu")
        begin = max(1, 0.8 * seconds - 15)  # the last run has to end, too
        options = ["--out", str(out), "--seconds", f"{begin:.0f}", "--workers", "2" if tiny else "6"]
        return [*python, "benchmarks.experiments", experiment, *options]
    if name == "large image":
        return [*python, "benchmarks.large_image", "--out", str(out), *small]
    return [*python, "benchmarks.speed", "--out", str(out), "--stages", name, *small]


def run(out: Path, names: list[str], seconds: float, *, tiny: bool) -> None:
    """Run the stages that fit."""
    begun = time.monotonic()
    for name in names:
        deadline, left = DEADLINES[name], seconds - (time.monotonic() - begun)
        if left < deadline / 2:
            print(f"== {name}: skipped, {left:.0f} s are left and it may take {deadline}", flush=True)
            continue
        started, may = time.monotonic(), min(deadline, left)
        try:
            status = subprocess.run(call_of(name, out, may, tiny=tiny), timeout=may).returncode
            said = "done" if status == 0 else f"ended with {status}"
        except subprocess.TimeoutExpired:
            said = "its deadline passed"
        print(f"\n== {name}: {said}, {time.monotonic() - started:.0f} s", flush=True)


def rows_in(out: Path, name: str) -> list[Row]:
    """What a stage has measured, also where it was stopped."""
    if (file := out / f"{name}.json").is_file():
        content = json.loads(file.read_text(encoding="utf-8"))
        return content["rows"] if isinstance(content, dict) else content
    return read_lines(out / f"{name}.jsonl")[1:]  # the first line is the machine


def join(out: Path, *, tiny: bool, folder: Path) -> None:
    """Store what the stages have measured, and print it."""
    here = json.loads((out / "machine.json").read_text(encoding="utf-8"))
    stages = {name: rows_in(out, name) for name in (*STAGES, "large image")}
    stages = {name: rows for name, rows in stages.items() if rows}
    large = [{"stage": "large image", **row} for row in stages.pop("large image", [])]
    call = "python -m benchmarks.gpu_day --out DIR"
    print(store("gpu_day", joined(stages) + large, about=ABOUT, command=call, measured=here, folder=folder))
    measured = {name: rows_in(out, name + ("_tiny" if tiny else "_gpu")) for name in EXPERIMENT}
    for name, rows in measured.items():
        if rows:
            about = EXPERIMENTS[f"{name}_gpu"].about
            print(store(f"{name}_gpu", rows, about=about, command=call, measured=here, folder=folder))
    for name, rows in stages.items():
        if name != "timeline":
            print(f"\n{name}\n{table(rows)}")
    if measured["race"]:
        print(table(standings(measured["race"], measured["race_clock"])))


@command
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the stages' files")
    parser.add_argument("--seconds", type=float, default=560, help="for everything together")
    parser.add_argument("--stages", nargs="+", choices=list(DEADLINES), default=list(DEADLINES))
    parser.add_argument("--tiny", action="store_true", help="small nets: a rehearsal")
    parser.add_argument("--join", action="store_true", help="run nothing, and write the tables in data/results")
    options = parser.parse_args()
    if not options.join:
        here = machine()
        print(here, flush=True)
        write(options.out / "machine.json", as_json(here))
        names = [name for name in options.stages if GPU or name != "tests"]
        run(options.out, names, options.seconds, tiny=options.tiny)
    join(options.out, tiny=options.tiny, folder=STORED if options.join else options.out / "joined")
    return 0


if __name__ == "__main__":
    sys.exit(main())
