"""Does `fit` cost more than the bare loop? Time per step of both, in turn, on the same net, images and setting.

python benchmarks/fit_overhead.py [--repeats 7] [--json FILE]
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch.optim.lr_scheduler import LambdaLR

from course_lib.data import Splits, draw
from course_lib.grid import NestedUNet
from course_lib.losses import bce_dice, deep_supervision
from course_lib.predict import standardise
from course_lib.predict.setting import Setting
from course_lib.results import machine
from course_lib.train import Recipe, augment, fit, make_optimiser, one_cycle

WIDTHS, SIZE, IMAGES = (8, 16, 32, 64, 128), 96, 200


def make() -> NestedUNet:
    torch.manual_seed(0)
    return NestedUNet(widths=WIDTHS, deep_supervision=True)


def bare(splits: Splits, setting: Setting, recipe: Recipe) -> float:
    """Seconds a step of a loop that does the least: batch, forward, loss, backward, step."""
    net, images, masks = setting.place(make()), splits.train.images, splits.train.masks
    optimiser, loss_of = make_optimiser(net, recipe), deep_supervision(bce_dice)
    steps = len(images) // recipe.batch_size
    schedule = LambdaLR(optimiser, lambda step: one_cycle(step / steps))
    generator = torch.Generator().manual_seed(0)
    net.train()
    start = time.perf_counter()
    order = torch.randperm(len(images), generator=generator)
    for chosen in order.split(recipe.batch_size)[:steps]:
        drawn = augment.draw(len(chosen), generator)
        x, y = augment.apply(images[chosen].float() / 255, masks[chosen].float(), drawn)
        x = standardise(x)
        if setting.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.precision == "bf16"):
            outputs = net(x)
        loss = loss_of(outputs, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return (time.perf_counter() - start) / steps


def fitted(splits: Splits, setting: Setting, recipe: Recipe) -> float:
    """Seconds a step of one epoch of `fit`, which validates one image (as little as it can)."""
    (row,) = fit(make(), splits, epochs=1, recipe=recipe, setting=setting)
    return row["seconds"] / (len(splits.train.ids) // recipe.batch_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    splits, rows = draw(IMAGES, SIZE), []
    one = splits.val._replace(images=splits.val.images[:1], masks=splits.val.masks[:1], ids=splits.val.ids[:1])
    splits = splits._replace(val=one)
    print(machine())
    for name, setting in {"fp32": Setting("cpu"), "fast": Setting.fast("cpu")}.items():
        bare(splits, setting, Recipe())  # warm-up
        pairs = [(fitted(splits, setting, Recipe()), bare(splits, setting, Recipe())) for _ in range(options.repeats)]
        ratios = sorted(ours / theirs for ours, theirs in pairs)
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        rows.append({"setting": name, "fit_ms": 1000 * ours, "bare_ms": 1000 * theirs, "ratios": ratios})
        print(f"{name}: fit {1000 * ours:.1f} ms a step, bare loop {1000 * theirs:.1f} ms")
        print(f"  ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
    if options.json:
        options.json.write_text(json.dumps({"measured": machine(), "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
