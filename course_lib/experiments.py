"""The experiments behind data/results: each can be repeated by `python -m course_lib experiment NAME`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from course_lib import results
from course_lib.baseline import otsu_masks
from course_lib.data import load
from course_lib.grid import NestedUNet
from course_lib.measure import parameters
from course_lib.metrics import scores
from course_lib.setting import Setting
from course_lib.train import evaluate, fit

SEEDS = (0, 1, 2)
WIDTHS = (16, 32, 64, 128, 256)
RUNS = Path("runs")  # checkpoints of unfinished runs; the same command goes on with them


def first_real() -> list[dict[str, Any]]:
    """Otsu, U-Net and UNet++ with deep supervision on real nuclei: 20 epochs at 96x96, test part."""
    splits = load("bbbc038", 96)
    images = {"images": len(splits.test.ids)}
    rows = [
        {"net": "otsu", "parameters": 0, "seed": None} | images | scores(otsu_masks(splits.test), splits.test.masks)
    ]
    nets = [("unet", False), ("unet++", True)]
    bar = tqdm([(net, seed) for net in nets for seed in SEEDS], desc="first_real", unit="run")
    for (wiring, supervised), seed in bar:
        torch.manual_seed(seed)
        net = NestedUNet(widths=WIDTHS, wiring=wiring, deep_supervision=supervised)
        setting, path = Setting.fast(), RUNS / f"first_real-{wiring}-{seed}.pt"
        log = list(fit(net, splits, epochs=20, seed=seed, setting=setting, checkpoint=path))
        rows.append(
            {
                "net": wiring + (" with deep supervision" if supervised else ""),
                "parameters": parameters(net),
                "seed": seed,
            }
            | images
            | evaluate(net, splits.test, setting=setting)
            | {"val_iou": log[-1]["val_iou"], "seconds": sum(row["seconds"] for row in log)}
        )
        bar.set_postfix({"IoU": f"{rows[-1]['iou_pooled']:.3f}"})
    return rows


EXPERIMENTS: dict[str, Callable[[], list[dict[str, Any]]]] = {"first_real": first_real}


def run(name: str) -> Path:
    """Run one experiment and write data/results/NAME.json. Returns the path."""
    experiment = EXPERIMENTS[name]
    measured = results.machine()
    rows = experiment()
    command = f"python -m course_lib experiment {name}"
    path = results.store(name, rows, about=experiment.__doc__, command=command, measured=measured)
    for finished in RUNS.glob(f"{name}-*.pt"):
        finished.unlink()  # the next call measures anew
    return path
