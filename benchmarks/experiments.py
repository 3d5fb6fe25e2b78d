"""The experiments behind data/results: each can be repeated by `python -m benchmarks.experiments NAME`.

An experiment is a list of runs and one function that measures a run. What is finished waits in runs/NAME.jsonl,
a line a run, and the same command goes on behind it.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from benchmarks import decide
from benchmarks.race import RACE, RACE_GPU, Entrant, train
from course_lib import results
from course_lib.data import Split, Splits, draw, load
from course_lib.errors import UserError
from course_lib.files import append
from course_lib.grid import NestedUNet
from course_lib.measure import macs, matched_widths, parameters
from course_lib.metrics import count, iou, scores
from course_lib.predict import Head, probabilities
from course_lib.predict.baseline import otsu_masks
from course_lib.predict.setting import Setting
from course_lib.relatives import RELATIVES
from course_lib.train import Recipe, evaluate, fit
from tools.command import command

Row = dict[str, Any]
RUNS = Path("runs")
SMALL = (8, 16, 32, 64, 128)  # widths at which a run takes a minute on one core
MEDIUM = (16, 32, 64, 128, 256)
FULL = (32, 64, 128, 256, 512)  # the papers' widths


@dataclass(frozen=True)
class Scale:
    """How large an experiment is: widths of the nets, side of the images in pixels, epochs."""

    widths: tuple[int, ...]
    size: int
    epochs: int


ON_CPU = Scale(SMALL, 64, 15)  # every experiment in about an hour on two cores
ON_GPU = Scale(FULL, 96, 30)
SHORT = 30  # seconds of a run that is timed several times


@dataclass(frozen=True)
class Experiment:
    """What is measured.

    Attributes:
        about: one sentence for the reader of the table.
        runs: what tells the runs apart, one dict each: net, seed ... Or a function that lists them, from the rows that
            are there, where the later runs depend on the earlier ones.
        measure: called with a run's values by name; returns its numbers.
        alone: one run at a time, each in a fresh process: it is their time that counts.
    """

    about: str
    runs: list[Row] | Callable[[list[Row]], list[Row]]
    measure: Callable[..., Row]
    alone: bool = False

    def listed(self, rows: list[Row]) -> list[Row]:
        """The runs, as far as they are known."""
        return self.runs if isinstance(self.runs, list) else self.runs(rows)


def train_and_score(net: nn.Module, splits: Splits, *, epochs: int, seed: int, head: Head = "mean") -> Row:
    """Train as `fit` does by default; size, cost, and every score of the test part."""
    log = list(fit(net, splits, epochs=epochs, recipe=Recipe(seed=seed), setting=Setting.fast()))
    size = tuple(splits.test.images.shape[2:])
    cost = {"parameters": parameters(net), "macs": macs(net, size), "images": len(splits.test.ids)}
    found = evaluate(net, splits.test, head=head, setting=Setting.fast())
    return cost | found | {"val_iou": log[-1]["val_iou"], "seconds": sum(row["seconds"] for row in log)}


def fresh(seed: int, **config: Any) -> NestedUNet:
    """A net whose weights depend on the seed alone, not on the runs before it."""
    torch.manual_seed(seed)
    return NestedUNet(**config)


FIRST = {
    "unet": {"wiring": "unet"},
    "unet++ with deep supervision": {"wiring": "unet++", "deep_supervision": True},
}


def measure_first_real(net: str, seed: int | None) -> Row:
    splits = load("bbbc038", 96, progress=False)
    if seed is None:
        found = scores(otsu_masks(splits.test), splits.test.masks)
        return {"parameters": 0, "images": len(splits.test.ids)} | found
    model = fresh(seed, widths=MEDIUM, **FIRST[net])
    return train_and_score(model, splits, epochs=20, seed=seed)


DEPTHS = {f"L{depth}": SMALL[: depth + 1] for depth in (1, 2, 3, 4)} | {"L1 wide": (15, 30)}


def measure_depth(kind: str, net: str, seed: int) -> Row:
    """`kind` is a look of the built-in images, drawn anew for each seed, or the real nuclei."""
    if kind == "bbbc038":
        splits = load("bbbc038", 64, progress=False)
    else:
        splits = draw(300, 64, seed=seed, look=kind)
    return train_and_score(fresh(seed, widths=DEPTHS[net], wiring="unet"), splits, epochs=15, seed=seed)


def measure_heads(wiring: str, deep_supervision: bool, depth: int, seed: int) -> Row:
    """Beside the scores, which are those of the mean of heads, the pooled IoU of each head alone."""
    splits = load("bbbc038", 64, progress=False)
    net = fresh(seed, widths=SMALL[: depth + 1], wiring=wiring, deep_supervision=deep_supervision)
    row = train_and_score(net, splits, epochs=15, seed=seed)
    for head, level in enumerate(net.heads.values(), start=1):
        for name, part in (("val", splits.val), ("test", splits.test)):
            row[f"{name}_iou_L{level}"] = evaluate(net, part, head=head, setting=Setting.fast())["iou_pooled"]
    return row


VERDICT = {
    "unet": {"wiring": "unet"},
    "unet, parameters of unet++": {"wiring": "unet", "like": parameters},
    "unet, work of unet++": {"wiring": "unet", "like": macs},
    "unet-e, all heads": {"wiring": "unet-e", "deep_supervision": True},
    "unet+": {"wiring": "unet+"},
    "unet++": {"wiring": "unet++"},
    "unet++, all heads": {"wiring": "unet++", "deep_supervision": True},
}


def measure_verdict(net: str, seed: int, *, scale: Scale = ON_CPU) -> Row:
    """Beside the scores the IoU of every test image, for the net and for each of its pruned levels."""
    widths, options = contestant(net, scale.widths)
    splits = load("bbbc038", scale.size, progress=False)
    model = fresh(seed, widths=widths, **options)
    row = train_and_score(model, splits, epochs=scale.epochs, seed=seed) | {"widths": list(widths)}
    row["iou_of_images"] = iou_of_images(model, splits.test, "mean")
    for level in list(model.heads.values())[:-1]:
        row[f"iou_of_images_L{level}"] = iou_of_images(model, splits.test, level)
    return row


def contestant(net: str, widths: tuple[int, ...]) -> tuple[tuple[int, ...], Row]:
    """The widths of a net of `VERDICT`, matched in cost to UNet++ of `widths` where it says so, and its options."""
    options = dict(VERDICT[net])
    like = options.pop("like", None)
    if like is not None:
        with torch.device("meta"):
            wanted = like(NestedUNet(widths=widths, wiring="unet++"))
        widths = matched_widths(wanted, like, widths=widths)
    return widths, options


def measure_wirings(kind: str, net: str, seed: int) -> Row:
    """The nets of the verdict on one look of the built-in images, drawn anew for each seed."""
    splits = draw(300, 64, seed=seed, look=kind)
    widths, options = contestant(net, SMALL)
    return train_and_score(fresh(seed, widths=widths, **options), splits, epochs=15, seed=seed)


RELATED: dict[str, tuple[str | None, Row]] = {  # a relative and its options, or None: a net of VERDICT
    "unet": (None, {}),
    "unet, work of unet++": (None, {}),
    "unet++": (None, {}),
    **{name: (name, {}) for name in RELATIVES},
    "unet3+, all heads": ("unet3+", {"deep_supervision": True}),
}


def measure_relatives(net: str, seed: int) -> Row:
    """A relative of UNet++, or a net of the verdict, under one recipe.

    The heads of UNet 3+ stand on all rows, the deepest on a map of 4x4 pixels here, so the full-size one counts alone.
    (That was decided after the mean of heads had been scored on the test part. "val_iou" is of the mean, as in `fit`.)
    """
    splits = load("bbbc038", 64, progress=False)
    relative, options = RELATED[net]
    if relative is not None:
        torch.manual_seed(seed)
        model = RELATIVES[relative](in_channels=3, classes=1, widths=SMALL, **options)
    else:
        widths, options = contestant(net, SMALL)
        model = fresh(seed, widths=widths, **options)
    return train_and_score(model, splits, epochs=15, seed=seed, head=-1)


def measure_race(entrant: str, seed: int, *, scale: Scale = ON_CPU, race: dict[str, Entrant] = RACE) -> Row:
    """Validation IoU of every epoch; the test part is left alone."""
    splits, entering = load("bbbc038", scale.size, progress=False), race[entrant]
    log = list(train(entering, entering.net(scale.widths, seed), splits, seed, workers=0))
    return {
        "changed": entering.changed,
        "val_iou": [round(row["val_iou"], 4) for row in log],
        "seconds": sum(row["seconds"] for row in log),
    }


def measure_clock(entrant: str, *, scale: Scale = ON_CPU, race: dict[str, Entrant] = RACE) -> Row:
    """Seconds of a run in a fresh process, and of the median of three more in the same one; of a long run the first."""
    splits, entering, runs = load("bbbc038", scale.size, progress=False), race[entrant], []
    while len(runs) < (4 if not runs or runs[0]["seconds"] < SHORT else 1):
        log = list(train(entering, entering.net(scale.widths, len(runs)), splits, len(runs)))
        epochs = [round(row["seconds"], 3) for row in log]
        runs.append({"seconds": sum(epochs), "seconds_of_epochs": epochs})
    warm = sorted(runs[1:] or runs, key=lambda run: run["seconds"])
    return warm[len(warm) // 2] | {"fresh": runs[0]["seconds"]}


def iou_of_images(net: NestedUNet, part: Split, head: Head) -> list[float]:
    """The IoU of every image, four digits."""
    found = probabilities(net, part.images, head=head, setting=Setting.fast()) > 0.5
    return [round(value, 4) for value in iou(count(found, part.masks)).tolist()]


def entries(race: dict[str, Entrant]) -> list[Row]:
    """Twenty seeds of each entrant; five of those that take the popular recipe's hundred epochs."""
    seeds = {name: 5 if entrant.epochs == 100 else 20 for name, entrant in race.items()}
    return [{"entrant": name, "seed": s} for s in range(20) for name in race if s < seeds[name]]


RACE_TINY = {name: replace(entrant, epochs=2) for name, entrant in list(RACE_GPU.items())[:3]}
REHEARSED = {"scale": Scale((4, 6, 8, 8, 10), 32, 2), "race": RACE_TINY}
FIVE = range(5)
EXPERIMENTS = {
    "first_real": Experiment(
        "Otsu, U-Net and UNet++ with deep supervision on real nuclei: 20 epochs at 96x96, test part.",
        [{"net": "otsu", "seed": None}] + [{"net": n, "seed": s} for n, s in product(FIRST, range(3))],
        measure_first_real,
    ),
    "depth": Experiment(
        "U-Nets of depth 1 to 4 (widths 8, 16, ...) on three kinds of images: 15 epochs at 64x64, test part. "
        "L1 wide has depth 1 and widths 15 and 30, which costs what depth 4 costs.",
        [
            {"kind": k, "net": n, "seed": s}
            for k, s, n in product(["small-sharp", "large-blurred", "bbbc038"], FIVE, DEPTHS)
        ],
        measure_depth,
    ),
    "supervision": Experiment(
        "Four wirings with and without deep supervision on real nuclei: widths 8..128, 15 epochs at 64x64, test part.",
        [
            {"wiring": w, "deep_supervision": d, "depth": 4, "seed": s}
            for s, (w, d) in product(
                FIVE,
                [
                    ("unet", False),
                    ("unet-e", True),
                    ("unet+", False),
                    ("unet+", True),
                    ("unet++", False),
                    ("unet++", True),
                ],
            )
        ],
        measure_heads,
    ),
    "pruning": Experiment(
        "UNet++ of depth 1 to 3 with deep supervision, each trained alone on real nuclei: widths 8 to 64, 15 epochs at "
        "64x64, test part. The same levels trained inside the whole net are the heads of the experiment supervision.",
        [{"wiring": "unet++", "deep_supervision": True, "depth": d, "seed": s} for s, d in product(FIVE, [1, 2, 3])],
        measure_heads,
    ),
    "verdict": Experiment(
        "U-Net, U-Nets as large and as costly as UNet++, and the nested wirings on real nuclei: widths 8..128 where "
        "not matched, 15 epochs at 64x64, test part.",
        [{"net": n, "seed": s} for s, n in product(FIVE, VERDICT)],
        measure_verdict,
    ),
    "verdict_gpu": Experiment(
        "The experiment verdict at the papers' widths, 32 to 512: 30 epochs at 96x96, test part. Made for a CUDA GPU.",
        [{"net": n, "seed": s} for s, n in product(FIVE, VERDICT)],
        partial(measure_verdict, scale=ON_GPU),
    ),
    "wirings": Experiment(
        "The nets of the verdict on two looks of the built-in images, drawn anew for each seed: widths 8..128 where "
        "not matched, 15 epochs at 64x64, test part.",
        [
            {"kind": k, "net": n, "seed": s}
            for k, s, n in product(["small-sharp", "large-blurred"], FIVE, list(VERDICT))
        ],
        measure_wirings,
    ),
    "relatives": Experiment(
        "Networks that came after UNet++ or stand beside it, on real nuclei under one recipe: widths 8..128 where not "
        "matched, 15 epochs at 64x64, test part.",
        [{"net": n, "seed": s} for s, n in product(range(3), RELATED)],
        measure_relatives,
    ),
    "costs": Experiment(
        "Weights, multiplications for one tile of 96x96, and milliseconds for one on one thread, in the fast "
        "setting: every net of docs/protocol.md, and the levels it can be cut to.",
        decide.costs_runs(),
        decide.measure_costs,
        alone=True,
    ),
    "tuning": Experiment(
        "What docs/protocol.md chooses on validation: the U-Net for each budget, the learning rate for each net. "
        "960 steps, mean IoU of the validation images.",
        decide.tuning_runs,
        decide.measure_tuning,
    ),
    "decision": Experiment(
        "The runs of docs/protocol.md: nets of equal cost on three kinds of real images. IoU of every image of the "
        "test part.",
        lambda rows: decide.decision_runs(),
        decide.measure_decision,
    ),
    "sweeps": Experiment(
        "What docs/protocol.md shows besides: more steps, the noise of a rerun, fewer images, other depths, sizes of "
        "objects, the networks of lesson 11.",
        lambda rows: decide.sweep_runs(),
        decide.measure_decision,
    ),
    "decision_gpu": Experiment(
        "The primary family of docs/protocol.md at the papers' widths: every net four times as wide, all else as it "
        "was chosen on a CPU. Made for a CUDA GPU.",
        lambda rows: decide.gpu_runs(),
        partial(decide.measure_decision, wider=4),
    ),
    "decision_tiny": Experiment(
        "A rehearsal of decision_gpu.",
        [{"kind": "drawn both", "net": "unet 8..16", "seed": s, "lr": 1e-3, "steps": 4} for s in range(2)],
        partial(decide.measure_decision, wider=2),
    ),
    "race": Experiment(
        "The scores of the race: validation IoU of real nuclei after every epoch, UNet++ at widths 8..128, 64x64.",
        entries(RACE),
        measure_race,
    ),
    "race_clock": Experiment(
        "The seconds of the race: each entrant alone on one thread, in a process of its own, validation left out.",
        [{"entrant": e} for e in RACE],
        measure_clock,
        alone=True,
    ),
    "race_gpu": Experiment(
        "The experiment race at the papers' widths, 32 to 512, and 96x96. Made for a CUDA GPU.",
        entries(RACE_GPU),
        partial(measure_race, scale=ON_GPU, race=RACE_GPU),
    ),
    "race_clock_gpu": Experiment(
        "The seconds of the experiment race_gpu: each entrant alone on the GPU, in a process of its own.",
        [{"entrant": e} for e in RACE_GPU],
        partial(measure_clock, scale=ON_GPU, race=RACE_GPU),
        alone=True,
    ),
    "race_tiny": Experiment(
        "A rehearsal of race_gpu.",
        [{"entrant": e, "seed": s} for s, e in product(range(2), RACE_TINY)],
        partial(measure_race, **REHEARSED),
    ),
    "race_clock_tiny": Experiment(
        "A rehearsal of race_clock_gpu.",
        [{"entrant": e} for e in RACE_TINY],
        partial(measure_clock, **REHEARSED),
        alone=True,
    ),
}


def run(name: str, workers: int = 1, *, out: Path | None = None, seconds: float = float("inf")) -> Path:
    """Run one experiment and write data/results/NAME.json. Returns the path.

    With several `workers` that many runs go on at a time, each in a process of its own on one thread. With `out` the
    unfinished runs and the table lie there. After so many `seconds` no further run begins, and the path returned is
    that of the unfinished runs.

    Raises:
        UserError: the folder for unfinished runs cannot be written, or what `measure` raises.
    """
    experiment, unfinished, begun = EXPERIMENTS[name], (out or RUNS) / f"{name}.jsonl", time.monotonic()
    here = results.machine() | ({"workers": workers} if workers > 1 else {})
    done = read_lines(unfinished)
    if len(done) < 2:  # nothing was measured yet
        unfinished.unlink(missing_ok=True)
        append(unfinished, json.dumps(here) + "\n")
        done = [here]
    measured, rows = done[0], done[1:]
    if changed := [key for key in ("device", "torch") if measured.get(key) != here[key]]:
        raise UserError(
            f"{unfinished} was begun with {measured.get(changed[0])} and this is {here[changed[0]]}: go on there, or "
            f"delete the file and begin anew"
        )
    while todo := missing(experiment.listed(rows), rows):
        print(expected(name, len(todo), workers), flush=True)
        coming, total = _measured(name, todo, workers), len(rows) + len(todo)
        for row in tqdm(coming, desc=name, unit="run", initial=len(rows), total=total):
            rows.append(row)
            append(unfinished, json.dumps(row) + "\n")
            if time.monotonic() - begun > seconds and len(rows) < total:
                coming.close()  # what is running is waited for, and measured again another time
                print(f"{name}: {len(rows)} of {total} runs are done; the same command goes on", flush=True)
                return unfinished
    order = [next(row for row in rows if values.items() <= row.items()) for values in experiment.listed(rows)]
    command = f"python -m benchmarks.experiments {name}" + (f" --workers {workers}" if workers > 1 else "")
    folder = {} if out is None else {"folder": out}
    path = results.store(name, order, about=experiment.about, command=command, measured=measured, **folder)
    unfinished.unlink()  # the next call measures anew
    return path


def missing(runs: list[Row], rows: list[Row]) -> list[Row]:
    """The runs that have no row yet."""
    return [values for values in runs if not any(values.items() <= row.items() for row in rows)]


def expected(name: str, runs: int, workers: int) -> str:
    """How long it will take, from the seconds that the stored table took where it was measured."""
    try:
        stored = results.load_results(name)
        seconds = [row["seconds"] for row in stored["rows"] if "seconds" in row]
        minutes = runs * sum(seconds) / len(seconds) / workers / 60
    except (UserError, ZeroDivisionError):
        return f"{name}: {runs} runs; how long they take was not measured yet"
    return f"{name}: {runs} runs, about {minutes:.0f} minutes on {stored['measured']['device']}"


def _measured(name: str, todo: list[Row], workers: int) -> Iterator[Row]:
    """The rows of the runs in `todo`, as they finish."""
    alone = EXPERIMENTS[name].alone
    if workers == 1 and not alone:
        yield from (values | EXPERIMENTS[name].measure(**values) for values in todo)
        return
    options = {"initializer": torch.set_num_threads, "initargs": (1,), "max_tasks_per_child": 1 if alone else None}
    with ProcessPoolExecutor(1 if alone else workers, mp_context=get_context("spawn"), **options) as pool:
        waiting = [pool.submit(_one, name, values) for values in todo]
        problem = None
        try:
            for finished in as_completed(waiting):
                if finished.cancelled():
                    continue
                if finished.exception() is None:
                    yield finished.result()
                elif problem is None:  # what is running is finished and kept, nothing new is begun
                    problem = finished.exception()
                    for other in waiting:
                        other.cancel()
        finally:
            pool.shutdown(cancel_futures=True)
    if problem is not None:
        raise problem


def _one(name: str, values: Row) -> Row:
    return values | EXPERIMENTS[name].measure(**values)


def read_lines(path: Path) -> list[Row]:
    """The whole lines of a file of JSON lines; what a kill left of a last one is cut off."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.splitlines()]


@command
def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.experiments", description="Measure a stored table again.")
    parser.add_argument("name", choices=list(EXPERIMENTS))
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, each on one thread (default: 1)")
    parser.add_argument(
        "--out", type=Path, help="folder for unfinished runs and the table (default: runs, data/results)"
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after these no further run begins")
    options = parser.parse_args()
    print(run(options.name, max(1, options.workers), out=options.out, seconds=options.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
