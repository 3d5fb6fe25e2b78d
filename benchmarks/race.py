"""The race, run: how many seconds until a net passes the score of the popular recipe?

The popular recipe trains UNet++ for 100 epochs of SGD in plain fp32 and changes every image by itself in Python. What
it reaches on our split is the mark. Each entrant keeps what an earlier one changed and changes one more thing, with the
number of epochs that goes with it. Those numbers were chosen after short tries on the same validation part: this is a
race to a mark, and no score to report.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import mean

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from course_lib.data import Split, Splits
from course_lib.grid import NestedUNet
from course_lib.losses import bce_dice, deep_supervision
from course_lib.metrics import dice, iou
from course_lib.predict import standardise
from course_lib.predict.setting import Setting, torch_device
from course_lib.results.race import POPULAR
from course_lib.train import Recipe, Row, augment, batches, fit, validate

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
        return fit(net, splits, epochs=self.epochs, recipe=replace(self.recipe, seed=seed), setting=setting)


RACE = {
    POPULAR: Entrant("SGD, 100 epochs, fp32, images changed one by one", epochs=100, feed=one_by_one),
    "whole batches": Entrant("images changed by the batch, on the device", epochs=100),
    "AdamW": Entrant("AdamW and one cycle, 15 epochs", epochs=15, recipe=Recipe(batch_size=16)),
    "fast setting": Entrant("channels last, half precision", epochs=15, recipe=Recipe(batch_size=16), fast=True),
    "short": Entrant("10 epochs", epochs=10, recipe=Recipe(batch_size=16), fast=True),
    "small batches": Entrant("batches of 4, 6 epochs", epochs=6, recipe=Recipe(batch_size=4), fast=True),
    "U-Net": Entrant("U-Net", epochs=6, recipe=Recipe(batch_size=4), fast=True, wiring="unet"),
}
