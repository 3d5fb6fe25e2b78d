"""The race: how many seconds until a net passes the score of the popular recipe?

The popular recipe trains UNet++ for 100 epochs of SGD in plain fp32 and changes every image by itself in Python. What
it reaches on our split is the mark. Each entrant keeps what an earlier one changed and changes one more thing, with the
number of epochs that goes with it. Those numbers were chosen after short tries on the same validation part: this is a
race to a mark, and no score to report.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from course_lib.data import Split, Splits
from course_lib.grid import NestedUNet
from course_lib.losses import bce_dice, deep_supervision
from course_lib.metrics import dice, iou
from course_lib.predict import standardise
from course_lib.predict.setting import Setting, torch_device
from course_lib.train import Recipe, Row, augment, batches, fit, validate

POPULAR = "popular recipe"
Feed = Callable[[Split, int, Generator], Iterator[tuple[Tensor, Tensor]]]


class OneByOne(Dataset):
    """The training images, each changed by itself on the CPU, as most training code does it."""

    def __init__(self, split: Split, generator: Generator):
        self.split, self.generator = split, generator

    def __len__(self) -> int:
        return len(self.split.ids)

    def __getitem__(self, n: int) -> tuple[Tensor, Tensor]:
        image, mask = self.split.images[n : n + 1].float() / 255, self.split.masks[n : n + 1].float()
        image, mask = augment.apply(image, mask, augment.draw(1, self.generator, channels=image.shape[1]))
        return standardise(image)[0], mask[0]


def one_by_one(split: Split, batch_size: int, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """What `train.batches` yields, from a data loader over single images."""
    images = OneByOne(split, generator)
    yield from DataLoader(images, batch_size, shuffle=True, drop_last=True, generator=generator)


def popular(
    net: NestedUNet,
    splits: Splits,
    *,
    epochs: int = 100,
    seed: int = 0,
    feed: Feed = one_by_one,
    setting: Setting | None = None,
) -> Iterator[Row]:
    """SGD at 1e-3 with momentum 0.9 and a cosine down to 1e-5, batches of 16; rows as `fit` yields them.

    The optimiser, schedule, batch, epochs and loss are those of the PyTorch code for UNet++ that is most widely used.
    How images are changed and standardised is ours, so that entrants differ in nothing else.
    """
    setting = setting or Setting()
    device, generator = torch_device(setting.device), Generator().manual_seed(seed)
    val = splits.val._replace(images=splits.val.images.to(device), masks=splits.val.masks.to(device))
    optimiser = torch.optim.SGD(setting.place(net).parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=epochs, eta_min=1e-5)
    loss_of, batch_size = deep_supervision(bce_dice), min(16, len(splits.train.ids))
    for epoch in range(1, epochs + 1):
        started, losses, lr = time.perf_counter(), [], schedule.get_last_lr()[0]
        net.train()
        for images, masks in feed(splits.train, batch_size, generator):
            loss = loss_of(setting.forward(net, images.to(device)), masks.to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())  # as it is usually done: the device waits here
        schedule.step()
        found = validate(net, val, setting)
        row = {"epoch": epoch, "loss": mean(losses), "val_iou": iou(found).item(), "val_dice": dice(found).item()}
        yield row | {"lr": lr, "seconds": time.perf_counter() - started}


@dataclass(frozen=True)
class Entrant:
    """One way to the mark.

    Attributes:
        changed: what is new, for the table.
        epochs: how many it trains.
        recipe: None trains with SGD as `popular` does.
        feed: of `popular`.
        fast: computed in `Setting.fast()` in place of plain fp32.
        wiring: of `NestedUNet`.
    """

    changed: str
    epochs: int
    recipe: Recipe | None = None
    feed: Feed = batches
    fast: bool = False
    wiring: str = "unet++"

    def train(self, net: NestedUNet, splits: Splits, seed: int) -> Iterator[Row]:
        setting = Setting.fast() if self.fast else Setting()
        if self.recipe is None:
            return popular(net, splits, epochs=self.epochs, seed=seed, feed=self.feed, setting=setting)
        return fit(net, splits, epochs=self.epochs, seed=seed, recipe=self.recipe, setting=setting)


RACE = {
    POPULAR: Entrant("SGD, 100 epochs, fp32, images changed one by one", epochs=100, feed=one_by_one),
    "whole batches": Entrant("images changed by the batch, on the device", epochs=100),
    "AdamW": Entrant("AdamW and one cycle, 15 epochs", epochs=15, recipe=Recipe(batch_size=16)),
    "fast setting": Entrant("channels last, half precision", epochs=15, recipe=Recipe(batch_size=16), fast=True),
    "short": Entrant("10 epochs", epochs=10, recipe=Recipe(batch_size=16), fast=True),
    "small batches": Entrant("batches of 4, 6 epochs", epochs=6, recipe=Recipe(batch_size=4), fast=True),
    "U-Net": Entrant("U-Net", epochs=6, recipe=Recipe(batch_size=4), fast=True, wiring="unet"),
}


def mark_of(rows: Sequence[Row]) -> float:
    """What the popular recipe ends with: its last validation IoU, the mean over seeds."""
    return mean(row["val_iou"][-1] for row in rows if row["entrant"] == POPULAR)


def seconds_to(mark: float, row: Row) -> float | None:
    """Seconds until the first epoch whose validation IoU reaches the mark; None where no epoch does."""
    seconds = 0.0
    for score, epoch in zip(row["val_iou"], row["seconds_of_epochs"], strict=True):
        seconds += epoch
        if score >= mark:
            return seconds
    return None


def standings(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One line an entrant that has run, in the order of `RACE`.

    "seconds" is the mean over seeds to the mark; for the popular recipe, which sets the mark, that of its whole run. It
    is None where a seed missed the mark. "times as fast" is against the popular recipe. A "record" is faster than every
    entrant before it.
    """
    mark, best, lines = mark_of(rows), None, []
    popular_seconds = mean(row["seconds"] for row in rows if row["entrant"] == POPULAR)
    for name in RACE:
        runs = [row for row in rows if row["entrant"] == name]
        if not runs:
            continue
        times = [row["seconds"] if name == POPULAR else seconds_to(mark, row) for row in runs]
        passed = [time for time in times if time is not None]
        seconds = mean(passed) if len(passed) == len(runs) else None
        record = seconds is not None and (best is None or seconds < best)
        best = seconds if record else best
        last = [row["val_iou"][-1] for row in runs]
        lines.append(
            {
                "entrant": name,
                "epochs": runs[0]["epochs"],
                "passed": "sets it" if name == POPULAR else f"{len(passed)} of {len(runs)}",
                "seconds": seconds,
                "spread": stdev(passed) if seconds is not None and len(passed) > 1 else None,
                "times as fast": None if seconds is None else popular_seconds / seconds,
                "last IoU": mean(last),
                "record": "yes" if record else "",
            }
        )
    return lines
