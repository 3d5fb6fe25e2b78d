"""The race: in how few seconds can UNet++ be trained to what the popular recipe makes of it?

    python -m benchmarks.experiments race          the scores, side by side
    python -m benchmarks.experiments race_clock    the seconds, one run at a time

The rules:

1. Net, split, input and metric are fixed: UNet++, the course's split of the real nuclei at one size, the pooled IoU of
   the validation part for the mean of heads. No other data, no trained weights.
2. **The mark** is what the popular recipe ends with: 100 epochs of SGD in fp32, as the most widely used PyTorch code
   for UNet++ has it, with four loader processes (fewer on fewer cores) and cuDNN's search. How images are changed and
   standardised is ours.
3. An entrant's recipe and epochs are fixed beforehand, chosen with seeds from 100 on. It is scored after its last
   epoch, with the seeds 0 to 19, and every score is stored.
4. It passes where its mean is above that of the popular recipe with p < 0.01 in Welch's t-test, one-sided.
5. The clock runs from data on the device to the last step, alone on the machine; validation is left out for all. One
   column for a fresh process, in which kernels are chosen and steps recorded, one for a process that is warm.
6. The test part is left alone: this is a race to a mark, and no score to report.

Each entrant keeps what the one before it changed and changes one thing more.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import cos, pi
from multiprocessing import get_all_start_methods
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset

from course_lib.data import Split, Splits
from course_lib.grid import NestedUNet
from course_lib.losses import bce_dice, deep_supervision
from course_lib.metrics import iou
from course_lib.predict import standardise
from course_lib.predict.recorded import PerShape
from course_lib.predict.setting import Setting, torch_device
from course_lib.results.race import POPULAR
from course_lib.train import Row, augment, one_cycle, validate

LOSS = deep_supervision(bce_dice)


@dataclass(frozen=True)
class Entrant:
    """One way to the mark; the defaults are those of the popular recipe.

    Attributes:
        changed: what is new, for the table.
        epochs: how many it trains.
        batch: images a step.
        adamw: AdamW with one cycle up to 3e-3, or `rate`; else SGD at 1e-3 with momentum 0.9 and a cosine to 1e-5.
        rate: the highest learning rate of AdamW.
        one_by_one: each image is changed by itself in one of four loader processes; else the whole epoch on the device.
        fast: computed in `Setting.fast()` in place of plain fp32.
        record: the step is recorded as a CUDA graph; on a CPU it is not.
        colours: brightness and contrast are changed at random, channel by channel.
        sizes: shares of the side that images are shrunk to, each for an equal part of the epochs.
        heads: all heads are trained, not the last alone.
    """

    changed: str
    epochs: int = 100
    batch: int = 16
    adamw: bool = False
    rate: float = 3e-3
    one_by_one: bool = False
    fast: bool = False
    record: bool = False
    colours: bool = True
    sizes: tuple[float, ...] = (1,)
    heads: bool = False

    def setting(self) -> Setting:
        return Setting.fast() if self.fast else Setting()

    def net(self, widths: tuple[int, ...], seed: int) -> NestedUNet:
        torch.manual_seed(seed)
        return NestedUNet(widths=widths, deep_supervision=self.heads)


def train(entrant: Entrant, net: NestedUNet, splits: Splits, seed: int, *, workers: int | None = None) -> Iterator[Row]:
    """After each epoch its "val_iou" and its "seconds", in which the validation does not count.

    `workers` are the loader processes of one who changes images one by one; they change the seconds alone.
    """
    setting, device = entrant.setting(), torch_device("auto")
    torch.backends.cudnn.benchmark = True
    part, val = (one._replace(images=one.images.to(device), masks=one.masks.to(device)) for one in splits[:2])
    part = splits.train if entrant.one_by_one else part
    batch, generator = min(entrant.batch, len(part.ids)), Generator().manual_seed(seed)
    step, set_rate = step_of(entrant, setting.place(net), setting)
    steps, done, side = entrant.epochs * (len(part.ids) // batch), 0, part.images.shape[-1]
    for epoch in range(entrant.epochs):
        share = entrant.sizes[epoch * len(entrant.sizes) // entrant.epochs]
        begin = clock()
        net.train()
        for images, masks in (
            one_by_one(part, batch, seed + 1000 * epoch)
            if entrant.one_by_one
            else whole_epoch(part, batch, generator, colours=entrant.colours)
        ):
            set_rate(epoch / entrant.epochs, done / steps)
            images, masks = (shrunk(tensor.to(device), round(share * side)) for tensor in (images, masks))
            loss, done = step(images, masks), done + 1
            if entrant.one_by_one:
                loss.item()  # as it is usually done: the device waits here
        seconds = clock() - begin
        yield {"val_iou": iou(validate(net, val, setting)).item(), "seconds": seconds}


def step_of(entrant: Entrant, net: NestedUNet, setting: Setting) -> tuple[Callable, Callable[[float, float], None]]:
    """A training step, and what sets its learning rate from the shares of the epochs and of the steps that are done."""
    graph = entrant.record and torch.cuda.is_available()
    scale = 2.0**10 if setting.precision == "fp16" else 1.0  # its small gradients would be 0
    rate = torch.tensor(0.0, device="cuda") if graph else 0.0
    if entrant.adamw:
        options = {"fused": torch.cuda.is_available() or None, "capturable": graph}
        optimiser = torch.optim.AdamW(net.parameters(), rate, eps=1e-5, weight_decay=1e-2, **options)
    else:
        options = {"fused": True} if graph else {}
        optimiser = torch.optim.SGD(net.parameters(), rate, momentum=0.9, weight_decay=1e-4, **options)

    def step(images: Tensor, masks: Tensor) -> Tensor:
        loss = LOSS(setting.forward(net, images), masks)
        optimiser.zero_grad()
        (scale * loss).backward()
        if scale != 1:
            torch._foreach_div_([p.grad for p in net.parameters()], scale)
        optimiser.step()
        return loss.detach()

    def set_rate(epochs: float, steps: float) -> None:
        value = entrant.rate * one_cycle(steps) if entrant.adamw else 1e-5 + (1e-3 - 1e-5) * (1 + cos(pi * epochs)) / 2
        for group in optimiser.param_groups:
            if graph:
                group["lr"].fill_(value)
            else:
                group["lr"] = value

    return PerShape(step) if graph else step, set_rate


def shrunk(images: Tensor, side: int) -> Tensor:
    """Images or masks (N, C, S, S) -> (N, C, side, side): every pixel is the mean of those it covers."""
    return images if images.shape[-1] == side else interpolate(images, (side, side), mode="area")


def clock() -> float:
    """Seconds, once the device has done all it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class OneByOne(Dataset):
    """The training images, each changed by itself on the CPU, as most training code does it."""

    def __init__(self, split: Split, seed: int):
        self.split, self.seed = split, seed

    def __len__(self) -> int:
        return len(self.split.ids)

    def __getitem__(self, n: int) -> tuple[Tensor, Tensor]:
        image, mask = self.split.images[n : n + 1].float() / 255, self.split.masks[n : n + 1].float()
        generator = Generator().manual_seed(100_000 * self.seed + n)  # the same changes in whichever process
        image, mask = augment.apply(image, mask, augment.draw(1, generator, channels=image.shape[1]))
        return standardise(image)[0], mask[0]


def one_by_one(
    split: Split, batch_size: int, seed: int, *, workers: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass in random order from a data loader over single images; an incomplete last batch is left out.

    Four processes load, as many as there are cores where these are fewer. They are forked where the system can: else
    each would import PyTorch anew in every epoch.
    """
    workers = min(4, os.cpu_count() or 1) if workers is None else workers
    forked = "fork" if workers and "fork" in get_all_start_methods() else None
    images, generator = OneByOne(split, seed), Generator().manual_seed(seed)
    options = {"num_workers": workers, "multiprocessing_context": forked}
    yield from DataLoader(images, batch_size, shuffle=True, drop_last=True, generator=generator, **options)


def whole_epoch(
    split: Split, batch_size: int, generator: Generator, *, colours: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """The same pass with all images changed at once on their device, so that no step waits for what was drawn."""
    device, count = split.images.device, len(split.ids) // batch_size * batch_size
    chosen = torch.randperm(len(split.ids), generator=generator)[:count].to(device)
    drawn = augment.draw(count, generator, channels=split.images.shape[1]).to(device)
    if not colours:
        drawn = drawn._replace(gain=torch.ones_like(drawn.gain), offset=torch.zeros_like(drawn.offset))
    images, masks = augment.apply(split.images[chosen].float() / 255, split.masks[chosen].float(), drawn)
    yield from zip(standardise(images).split(batch_size), masks.split(batch_size), strict=True)


def ladder(*rungs: tuple[str, str, dict[str, Any]]) -> dict[str, Entrant]:
    """The popular recipe, then an entrant a rung: its name, what is new, and the attributes that differ from the rung
    before (from the popular recipe with its images changed by the batch, for the first).
    """
    found = {POPULAR: Entrant("SGD, 100 epochs of batches of 16, fp32, images changed one by one", one_by_one=True)}
    entrant = Entrant("")
    for name, changed, differs in rungs:
        found[name] = entrant = replace(entrant, changed=changed, **differs)
    return found


SMALL_FIRST = {"sizes": (1 / 2, 3 / 4, 1)}
RACE = ladder(  # on a CPU, at widths 8 to 128 and 64x64
    ("AdamW", "whole batches; AdamW and one cycle, 15 epochs", {"adamw": True, "epochs": 15}),
    ("fast setting", "channels last, half precision", {"fast": True}),
    (
        "colours kept",
        "no random brightness and contrast, a higher rate, 6 epochs",
        {"colours": False, "rate": 1e-2, "epochs": 6},
    ),
    ("small first", "images at 1/2 of their side, then 3/4, then whole", SMALL_FIRST),
    ("small batches", "batches of 8, 4 epochs", {"batch": 8, "epochs": 4}),
    ("smaller still", "at 1/2 for three epochs, at 3/4 for the last", {"sizes": (1 / 2, 1 / 2, 1 / 2, 3 / 4)}),
    ("all heads", "deep supervision", {"heads": True}),
)
RACE_GPU = ladder(  # at widths 32 to 512 and 96x96; epochs are guesses from the race above, no GPU has seen them
    ("whole batches", "images changed on the device, all of an epoch at once", {}),
    ("recorded", "channels last, half precision, the step recorded", {"fast": True, "record": True}),
    ("AdamW", "AdamW and one cycle, 20 epochs", {"adamw": True, "epochs": 20}),
    ("colours kept", "no random brightness and contrast, 10 epochs", {"colours": False, "epochs": 10}),
    ("small first", "images at 1/2 of their side, then 3/4, then whole", SMALL_FIRST),
    ("small batches", "batches of 8, 8 epochs", {"batch": 8, "epochs": 8}),
    ("smaller still", "at 1/2 for three quarters, at 3/4 for the rest", {"sizes": (1 / 2, 1 / 2, 1 / 2, 3 / 4)}),
)
