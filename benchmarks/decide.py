"""When does UNet++ pay? What docs/protocol.md compares: nets, images, training and scores, one function each.

`benchmarks/experiments.py` runs them: `costs`, then `tuning`, which looks at validation alone, then `decision`, whose
nets and learning rates are those that `tuning` chose. `python -m benchmarks.decide` writes the tiles of the real
images to data/cache, for a machine that has no archives.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib import data
from course_lib.data.cache import folder as cache_folder
from course_lib.data.synthetic import Look, fluorescence
from course_lib.grid import NestedUNet
from course_lib.losses import bce_dice
from course_lib.measure import macs, median_ms, parameters
from course_lib.metrics import Counts, boundary_iou, count, iou
from course_lib.predict import Head, Setting, probabilities
from course_lib.relatives import RELATIVES
from course_lib.results import load_results
from course_lib.results.decision import (
    BUDGETS,
    FEWER,
    KINDS,
    MAIN,
    NESTED,
    PLAIN,
    PRIMARY,
    SECONDARY,
    SEEDS,
    SUPERVISED,
    TUNED,
    TUNING_SEEDS,
    Tables,
    named,
    ranking,
    rate,
    sides,
)
from course_lib.train import Recipe, fit
from tools.command import command

Row = dict[str, Any]
SIZE = 96  # pixels, the side of a tile
BATCH, STEPS = 4, MAIN["steps"]
RATES = (1e-3, 3e-3, 1e-2)  # learning rates to choose from; nets are compared at the middle one before that
TILES = 4  # at most, of one image of nuclei: large pictures would fill every batch
SIZES = {"small": (0.03, 0.045), "large": (0.13, 0.2), "both": (0.03, 0.2)}  # radii of drawn nuclei, of the side
FIELDS = ("images", "masks", "labels")
SHARES = (1 / 12, 1 / 4, 1 / 2)  # of the training images, or of the sections


@dataclass(frozen=True)
class Net:
    """A net to train.

    Attributes:
        wiring: of the grid, or the name of a relative.
        widths: channels of its rows.
        loss: "one" head alone, or of all heads "mean" or "sum" of their losses.
    """

    wiring: str
    widths: tuple[int, ...]
    loss: str = "one"

    @property
    def name(self) -> str:
        """Such as "unet++ 8..128, mean": widths of the first and the last row."""
        heads = "" if self.loss == "one" else f", {self.loss}"
        return f"{self.wiring} {self.widths[0]}..{self.widths[-1]}{heads}"

    def wider(self, times: int) -> "Net":
        """The same with so many times the channels in every row."""
        return replace(self, widths=tuple(times * width for width in self.widths))

    def make(self) -> nn.Module:
        """The net with weights drawn from torch's global state."""
        options = {"widths": self.widths, "deep_supervision": self.loss != "one"}
        if self.wiring in RELATIVES:
            return RELATIVES[self.wiring](in_channels=3, classes=1, widths=self.widths)
        return NestedUNet(wiring=self.wiring, **options)


def rows(first: int, depth: int) -> tuple[int, ...]:
    """Widths that double from row to row."""
    return tuple(first * 2**row for row in range(depth + 1))


# The U-Nets that are tuned: of one first width and every depth; of every depth that suits the work of UNet++ of depth 4
# cut to a level, and of the whole; and two of its weights. tests/test_decide.py counts what they cost.
U_NETS = [
    *[Net("unet", rows(8, depth)) for depth in (1, 2, 3, 4, 5)],
    *[Net("unet", widths) for widths in ((6, 12, 23), (5, 10, 19, 39))],  # level 1: 8, 16 does the same work
    *[Net("unet", widths) for widths in ((10, 19, 38), (7, 14, 27, 55, 109))],  # level 2: so does 8..64
    *[Net("unet", widths) for widths in ((13, 27, 54), (11, 22, 44, 89), (10, 19, 38, 77, 154))],  # level 3
    *[Net("unet", widths) for widths in ((17, 35, 70), (14, 29, 58, 116), (13, 25, 50, 100, 200))],  # level 4
    Net("unet", (11, 23, 45, 91, 181, 362)),  # level 4
    *[Net("unet", widths) for widths in ((9, 17, 35, 69, 138), (17, 35, 69, 139))],  # the weights of the whole
]
# UNet++ of other depths and the work of the whole, with one head and with all.
NESTED_TOO = [
    Net("unet++", widths, loss) for widths, loss in product(((15, 29, 58), (10, 21, 42, 84)), ("one", "mean"))
]


def nested(first: int = 8, depth: int = 4) -> list[Net]:
    """The other wirings. (U-Net^e with one head is U-Net with nodes that do nothing, so it has all heads.)"""
    kinds = (("unet-e", "mean"), ("unet+", "one"), ("unet++", "one"), ("unet++", "mean"))
    return [Net(wiring, rows(first, depth), loss) for wiring, loss in kinds]


RELATED = [Net(name, rows(8, 4)) for name in RELATIVES]  # the networks of lesson 11
NETS = {net.name: net for net in [*U_NETS, *nested(), *NESTED_TOO, *RELATED, Net("unet++", rows(8, 4), "sum")]}
NETS |= {net.name: net for depth in (1, 2, 3, 5) for net in nested(8, depth)[3:]}


@cache
def images(kind: str) -> data.Splits:
    """The tiles of one kind, dealt by image or section; of drawn images whole ones. What was `kept` comes first."""
    if kept(kind).is_file():
        with np.load(kept(kind)) as file:
            fields = {name: torch.from_numpy(file[name]) for name in file.files if not name.endswith("ids")}
            ids = {name: file[name].tolist() for name in file.files if name.endswith("ids")}
        parts = data.Splits._fields
        return data.Splits(*(data.Split(*(fields[f"{p}-{f}"] for f in FIELDS), ids[f"{p}-ids"]) for p in parts))
    if kind == "nuclei":
        return data.Splits(*map(few_tiles, data.load("bbbc038", SIZE, tiles=True, progress=False)))
    if kind in KINDS:
        return data.load("vnc", SIZE, tiles=True, classes=[kind], progress=False)
    look = Look(fluorescence, (4, 45), SIZES[kind.removeprefix("drawn ")], (0.8, 1.3), (0.005, 0.012))
    return data.draw(600, SIZE, look=look)


def kept(kind: str) -> Path:
    """The file in which `keep` has put the tiles of a kind."""
    return cache_folder() / f"decide-{kind}-{SIZE}.npz"


def keep(kind: str) -> Path:
    """Write the tiles of a kind, for a machine without the archives: some 20 MB."""
    arrays = {}
    for name, part in images(kind)._asdict().items():
        arrays |= {f"{name}-{field}": getattr(part, field).numpy() for field in FIELDS} | {f"{name}-ids": part.ids}
    kept(kind).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(kept(kind), **arrays)
    return kept(kind)


def image_of(id: str) -> str:
    """The image, or section, of a tile."""
    return id.rpartition("@")[0] or id


def few_tiles(part: data.Split) -> data.Split:
    """At most TILES of each image, evenly spaced in their order: row by row, from the first to the last."""
    tiles = defaultdict(list)
    for n, id in enumerate(part.ids):
        tiles[image_of(id)].append(n)
    last = TILES - 1
    few = [ns if len(ns) <= TILES else [ns[k * (len(ns) - 1) // last] for k in range(TILES)] for ns in tiles.values()]
    return part_of(part, [n for ns in few for n in ns])


def part_of(part: data.Split, which: Sequence[int]) -> data.Split:
    """Some of the tiles."""
    chosen = {field: getattr(part, field)[list(which)] for field in FIELDS}
    return part._replace(ids=[part.ids[n] for n in which], **chosen)


def share_of(part: data.Split, share: float) -> data.Split:
    """The first of its images: nuclei in the order of their ids, which are hashes; sections as they lie."""
    names = list(dict.fromkeys(map(image_of, part.ids)))
    first = set(names[: max(1, round(share * len(names)))])
    return part_of(part, [n for n, id in enumerate(part.ids) if image_of(id) in first])


def four_bce_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Four times the loss, whose mean over four heads is the sum of the paper (UNet++, 2020)."""
    return 4 * bce_dice(logits, target)


def train(net: Net, kind: str, *, lr: float, seed: int, steps: int = STEPS, share: float = 1) -> tuple[nn.Module, Row]:
    """A trained net, and what it took. `fit` as it is, for as many whole epochs as come nearest to `steps`."""
    part = share_of(images(kind).train, share)
    few = part_of(images(kind).val, range(BATCH))  # `fit` scores every epoch, and here nothing is decided by that
    epochs = max(1, round(steps / (len(part.ids) // BATCH)))
    torch.manual_seed(seed)
    model = net.make()
    recipe = Recipe(batch_size=BATCH, lr=lr, seed=seed, loss=four_bce_dice if net.loss == "sum" else bce_dice)
    setting = replace(Setting.fast(), record=torch.cuda.is_available())  # small batches: a GPU would wait for Python
    log = list(fit(model, data.Splits(part, few, few), epochs=epochs, recipe=recipe, setting=setting))
    return model, {"epochs": epochs, "loss": log[-1]["loss"], "seconds": round(sum(row["seconds"] for row in log), 1)}


def heads_of(model: nn.Module) -> list[Head]:
    """The ways to read a net: its one head, or with several the mean of all and each alone."""
    heads = getattr(model, "heads", {})
    return ["mean", *heads.values()] if len(heads) > 1 else [-1]


def iou_of_images(maps: Tensor, part: data.Split) -> Tensor:
    """IoU of every image at threshold 0.5, pixels of its tiles pooled, float64 (images,) in the order of ids."""
    counts, which = torch.stack(count(maps > 0.5, part.masks), dim=1), defaultdict(list)
    for n, id in enumerate(part.ids):
        which[image_of(id)].append(n)
    return iou(Counts(*torch.stack([counts[ns].sum(0) for ns in which.values()], dim=1)))


def scores_of(maps: Tensor, part: data.Split) -> Row:
    """IoU of every image, four digits; the pooled IoU; the mean boundary IoU of tiles."""
    return {
        "iou": [round(value, 4) for value in iou_of_images(maps, part).tolist()],
        "pooled": iou(count(maps > 0.5, part.masks).pooled()).item(),
        "boundary": boundary_iou(maps > 0.5, part.masks).mean().item(),
    }


def maps_of(model: nn.Module, part: data.Split, head: Head) -> Tensor:
    """Probability maps of one head, or of "flips": the deepest head's mean over an image and its mirror image."""
    if head != "flips":
        return probabilities(model, part.images, head=head, setting=Setting.fast())
    mirrored = probabilities(model, part.images.flip(-1), head=-1, setting=Setting.fast()).flip(-1)
    return (maps_of(model, part, -1) + mirrored) / 2


def validation(model: nn.Module, kind: str) -> dict[str, float]:
    """Head -> the mean over the validation images of their IoU."""
    part = images(kind).val
    return {str(h): iou_of_images(maps_of(model, part, h), part).mean().item() for h in heads_of(model)}


def measure_tuning(kind: str, net: str, lr: float, seed: int) -> Row:
    """One run: validation alone."""
    model, row = train(NETS[net], kind, lr=lr, seed=seed)
    return row | {"val": validation(model, kind)}


def measure_decision(
    kind: str, net: str, seed: int, lr: float, *, steps: int = STEPS, share: float = 1, threads: int = 1, wider: int = 1
) -> Row:
    """A run whose test part is scored by each head, and with one head by the mean of two views ("flips") as well.

    The plain U-Net is trained twice, with seed + 100 again: "pair" is the mean of the two, at no more than the work of
    UNet++. With two threads sums are taken in another order, as on another machine: the noise of a rerun. `wider` is
    for a GPU: 4 makes the widths those of the papers.
    """
    torch.set_num_threads(threads)
    model, row = train(NETS[net].wider(wider), kind, lr=lr, seed=seed, steps=steps, share=share)
    part, heads = images(kind).test, heads_of(model)
    maps = {str(head): maps_of(model, part, head) for head in (heads if len(heads) > 1 else [-1, "flips"])}
    row["val"] = validation(model, kind)
    if net == PLAIN and (steps, share, threads) == (STEPS, 1, 1):
        second, _ = train(NETS[net].wider(wider), kind, lr=lr, seed=seed + 100)
        maps["pair"] = (maps["-1"] + maps_of(second, part, -1)) / 2
    torch.set_num_threads(1)
    return row | {"test": {head: scores_of(found, part) for head, found in maps.items()}}


def measure_costs(net: str) -> Row:
    """Weights, work at 96x96 and milliseconds of a net, and of each level it can be cut to: a tile on one thread."""
    torch.set_num_threads(1)
    model, tile, levels = NETS[net].make(), torch.zeros(1, 3, SIZE, SIZE), {}
    for level in range(1, model.depth + 1) if NETS[net].loss == "mean" else [model.depth]:
        small = model if level == model.depth else model.prune(level)
        ready = Setting.fast().for_inference(small)
        with torch.inference_mode():
            Setting.fast().forward(ready, tile.expand(16, -1, -1, -1))  # memory is then kept, not fetched every time
            run = lambda: Setting.fast().forward(ready, tile)  # noqa: B023, E731
            ms = min(median_ms(run, repeats=40) for _ in range(5))  # what else the machine does only adds
        levels[str(level)] = {"parameters": parameters(small), "macs": macs(small), "ms": round(ms, 2)}
    whole = levels.pop(str(model.depth))
    return whole | ({"levels": levels} if levels else {})


def costs_runs() -> list[Row]:
    """Every net."""
    return [{"net": name} for name in NETS]


def tuning_runs(rows: list[Row]) -> list[Row]:
    """What validation has to choose from, in three steps; the later ones depend on the rows of the earlier ones.

    First every net at the middle rate. Then the finalists at the other rates. Then the best four U-Nets of each budget,
    and the best three UNet++, with two more seeds, because one run says little.
    """
    at, seeds = RATES[1], TUNING_SEEDS
    nets = [net.name for net in (*U_NETS, *nested(), *NESTED_TOO)]
    first = [{"kind": kind, "net": net, "lr": at, "seed": 0} for kind, net in product(KINDS, nets)]
    if not all(any(values.items() <= row.items() for row in rows) for values in first):
        return first
    alone = Tables(load_results("costs")["rows"], [row for row in rows if row["seed"] == 0], [])
    second = [
        {"kind": kind, "net": net, "lr": lr, "seed": 0}
        for kind in KINDS
        for net in dict.fromkeys(
            [PLAIN, *(ranking(alone, kind, name)[0] for name in (*BUDGETS, TUNED)), *(n.name for n in nested())]
        )
        for lr in RATES
        if lr != at
    ]
    few = {(kind, net) for kind, name in product(KINDS, BUDGETS) for net in ranking(alone, kind, name)[:4]}
    few |= {(kind, net) for kind in KINDS for net in ranking(alone, kind, TUNED)[:3]}
    third = [{"kind": k, "net": n, "lr": at, "seed": s} for (k, n), s in product(sorted(few), seeds[1:])]
    return first + second + third


def contestants(kind: str, tables: Tables) -> dict[str, Sequence[int]]:
    """The nets that are compared on one kind, and their seeds."""
    found: dict[str, Sequence[int]] = {}
    for compared, seeds in ((PRIMARY, SEEDS), (SECONDARY, FEWER)):
        for side in compared.values():
            for net, _ in sides(tables, kind, side):
                found.setdefault(net, seeds)
    return found


def decision_runs() -> list[Row]:
    """Everything that is compared, seed by seed."""
    tables = Tables(load_results("costs")["rows"], load_results("tuning")["rows"], [])
    return [
        run_of(tables, kind, net, seed)
        for seed, kind in product(SEEDS, KINDS)
        for net, seeds in contestants(kind, tables).items()
        if seed in seeds
    ]


def run_of(tables: Tables, kind: str, net: str, seed: int, like: str = "", **sweep: Any) -> Row:
    """A run at the learning rate that validation chose for its wiring, or for that of a net like it."""
    return {"kind": kind, "net": net, "seed": seed, "lr": rate(tables.tuning, like or net), **MAIN, **sweep}


def sweep_runs() -> list[Row]:
    """What is shown besides, in the order of docs/protocol.md. Runs that the decision has already are left out."""
    tables = Tables(load_results("costs")["rows"], load_results("tuning")["rows"], [])
    of, few = partial(run_of, tables), ("nuclei", "mitochondria")
    summed = [of(kind, "unet++ 8..128, sum", s, SUPERVISED) for s, kind in product(FEWER[:2], KINDS)]
    longer = [of(k, n, s, steps=2 * STEPS) for s, k, n in product(FEWER, KINDS, (PLAIN, NESTED))]
    again = [of(k, n, s, threads=2) for s, k, n in product(FEWER[:2], KINDS, (PLAIN, NESTED))]
    fewer = [
        of(kind, net, s, share=share)
        for s, kind, share in product(FEWER[:2], few, SHARES)
        for net in (named(tables, kind, "work"), SUPERVISED)
    ]
    deep = [
        of(kind, net, s, like)
        for s, kind, depth in product(FEWER, few, (1, 2, 3, 5))
        for like, net in ((PLAIN, f"unet 8..{8 * 2**depth}"), (SUPERVISED, f"unet++ 8..{8 * 2**depth}, mean"))
        if s in FEWER[:2] or net != "unet++ 8..256, mean"  # which takes the longest
    ]
    drawn = [
        {"kind": f"drawn {sizes}", "net": net, "seed": s, "lr": RATES[1], **MAIN}
        for s, sizes, net in product(FEWER[:2], SIZES, (PLAIN, "unet 17..70", NESTED))
    ]
    related = [of("nuclei", net.name, s, NESTED) for s, net in product(FEWER[:3], RELATED)]
    decided = decision_runs()
    listed = [*summed, *longer, *again, *fewer, *deep, *drawn, *related]
    return [run for n, run in enumerate(listed) if run not in listed[:n] and run not in decided]


def gpu_runs() -> list[Row]:
    """The primary family, seed by seed. Every net is then made four times as wide, with all else as it was chosen."""
    tables = Tables(load_results("costs")["rows"], load_results("tuning")["rows"], [])
    kept_on = {kind: {n for side in PRIMARY.values() for n, _ in sides(tables, kind, side)} for kind in KINDS}
    return [run for run in decision_runs() if run["net"] in kept_on[run["kind"]]]


@command
def main() -> int:
    """Write the tiles of every real kind."""
    for kind in KINDS:
        print(keep(kind))
    return 0


if __name__ == "__main__":
    sys.exit(main())
