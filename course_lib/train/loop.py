"""Training: `fit` yields one row an epoch, so that the caller prints, plots or stops as it likes."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from course_lib.data import Split, Splits
from course_lib.errors import UserError
from course_lib.losses import Loss, bce_dice, deep_supervision
from course_lib.metrics import Counts, count, dice, iou, scores
from course_lib.predict import Head, as_input, probabilities, probability, standardise
from course_lib.predict.setting import Setting, torch_device
from course_lib.train import augment, distributed
from course_lib.train.checkpoint import load, save
from course_lib.train.runs import FEW, file_of

Row = dict[str, float]
WARM_UP = 0.2  # share of the steps in which the learning rate rises
PAUSE = 20  # seconds between two files in a folder of runs, which may be a slow disk on a network


@dataclass(frozen=True)
class Recipe:
    """What decides the score. (How fast it is computed is a `Setting`.)

    Attributes:
        batch_size: images a step, over all processes together.
        lr: highest learning rate of AdamW; `one_cycle` leads up to it and down to zero.
        weight_decay: of AdamW.
        eps: of AdamW. A bias in front of batch norm changes nothing, so its gradient is rounding noise. The usual
            1e-8 would blow this noise up to full steps, and the running means would lag behind them.
        loss: of one head's logits and the mask; its mean over the heads is minimised.
        augment: whether each batch is changed at random (see `augment`).
    """

    batch_size: int = 8
    lr: float = 3e-3
    weight_decay: float = 1e-2
    eps: float = 1e-5
    loss: Loss = bce_dice
    augment: bool = True


def fit(
    net: nn.Module,
    splits: Splits,
    *,
    epochs: int = 20,
    seed: int = 0,
    recipe: Recipe | None = None,
    setting: Setting | None = None,
    checkpoint: str | Path | None = None,
    runs: str | Path | None = None,
) -> Iterator[Row]:
    """Train `net` on `splits.train`; after each epoch score `splits.val` and yield a row.

    A row is {"epoch", "loss", "val_iou", "val_dice", "lr", "seconds"}: the mean training loss, the pooled
    scores at threshold 0.5 of the mean of heads, the learning rate of the last step, and the epoch's wall
    time. `net` is in evaluation mode whenever a row is yielded. On a CPU the same net, seed, recipe and setting
    give the same rows, all but the seconds.

    Args:
        net: standardised images (N, C, H, W) -> a list of logits, or one tensor of logits.
        epochs: passes over the training part, in all.
        seed: of the order of the images and of their changes. (Weights are drawn when a net is made.)
        checkpoint: a file written after every epoch. Where it is there already, its rows are yielded first
            and training goes on behind them; on a CPU bit for bit as if it had never stopped.
        runs: a folder that keeps such a file for each different training (`colab.run_folder`): another net, code of a
            net, seed, data set, recipe or setting makes a file of its own.

    Raises:
        UserError: a checkpoint of another run, a loss that is not finite, too little GPU memory, or a batch
            that cannot be dealt evenly to the processes.
    """
    recipe, setting = recipe or Recipe(), setting or Setting()
    device = torch_device(setting.device)
    train, val = (part._replace(images=part.images.to(device), masks=part.masks.to(device)) for part in splits[:2])
    batch_size = min(recipe.batch_size, len(train.ids))
    if batch_size % distributed.size():
        raise UserError(
            f"a batch of {batch_size} (of {len(train.ids)} training images) cannot be dealt to {distributed.size()} "
            "processes: use a multiple"
        )

    run = _describe(net, splits, epochs, seed, recipe, setting)
    kept: dict[str, Any] = {"run": run}
    if runs is not None and checkpoint is None:
        first = as_input(splits.train.images[:FEW]), splits.train.masks[:FEW].float()
        checkpoint, kept["seen"] = file_of(runs, net, *first, loss=recipe.loss, run=run | {"code": _code()})
    distributed.share(setting.place(net))
    model = setting.compiled(net)
    loss_of = deep_supervision(recipe.loss)
    optimiser = make_optimiser(net, recipe)
    steps = epochs * (len(train.ids) // batch_size)
    schedule = LambdaLR(optimiser, lambda step: one_cycle(step / steps))
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**10, enabled=setting.precision == "fp16")
    generator = Generator().manual_seed(seed)

    rows: list[Row] = []
    parts = {"net": net, "optimiser": optimiser, "schedule": schedule, "scaler": scaler}
    if checkpoint is not None and Path(checkpoint).exists():
        rows = _resume(checkpoint, run, parts, generator)
        net.eval()
        yield from list(rows)

    if distributed.total(torch.tensor(len(rows), device=device)) != len(rows) * distributed.size():
        raise UserError("the processes see different checkpoints: write to a disk that they share")

    written = time.monotonic()
    for epoch in range(len(rows) + 1, epochs + 1):
        started, losses = time.perf_counter(), []
        model.train()
        try:
            for images, masks in batches(train, batch_size, generator, augmented=recipe.augment):
                loss = loss_of(setting.forward(model, images), masks)
                optimiser.zero_grad()
                scaler.scale(loss).backward()
                distributed.average_gradients(net)
                scaler.step(optimiser)
                scaler.update()
                lr = schedule.get_last_lr()[0]
                schedule.step()
                losses.append(loss.detach())
            found = validate(model, val, setting)
        except torch.OutOfMemoryError as problem:
            raise UserError(f"the GPU's memory is full: use a batch_size below {batch_size}") from problem
        except ValueError as problem:
            if "more than 1 value per channel" not in str(problem):
                raise
            text = f"batch norm needs more than one value, and a batch of {batch_size} leaves one in the lowest row"
            raise UserError(f"{text}: use a larger batch_size, larger images or fewer widths") from problem
        row = {"epoch": epoch, "loss": _mean_if_finite(losses, epoch, recipe.lr)}
        row |= {"val_iou": iou(found).item(), "val_dice": dice(found).item(), "lr": lr}
        rows.append(row | {"seconds": time.perf_counter() - started})
        due = runs is None or epoch == epochs or time.monotonic() - written > PAUSE
        if checkpoint is not None and due and distributed.rank() == 0:
            state = {name: part.state_dict() for name, part in parts.items()}
            save(state | {"generator": generator.get_state(), "rows": rows} | kept, checkpoint)
            written = time.monotonic()
        yield rows[-1]


def make_optimiser(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW as the recipe says; on a GPU fused into one call, the fastest step measured (benchmarks/README.md)."""
    fused = True if next(net.parameters()).is_cuda else None
    options = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "eps": recipe.eps}
    return torch.optim.AdamW(net.parameters(), **options, fused=fused)


def one_cycle(progress: float) -> float:
    """Learning rate as a share of the highest: up in a line, down in a half cosine. `progress` is 0..1."""
    if progress < WARM_UP:
        return 0.05 + 0.95 * progress / WARM_UP
    return (1 + cos(pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


def batches(
    split: Split, batch_size: int, generator: Generator, *, augmented: bool = True
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass in random order: images (B, 3, S, S), standardised, and masks (B, 1, S, S), float32.

    Order and changes come from `generator` (CPU). An incomplete last batch is left out. Where several
    processes train together, each gets its part of the same global batch.
    """
    mine = distributed.my_part()
    order = torch.randperm(len(split.images), generator=generator).to(split.images.device)
    for chosen in order.split(batch_size)[: len(order) // batch_size]:
        images, masks = split.images[chosen[mine]].float() / 255, split.masks[chosen[mine]].float()
        if augmented:
            drawn = augment.draw(batch_size, generator, channels=images.shape[1])
            images, masks = augment.apply(images, masks, drawn.part(mine))
        yield standardise(images), masks


@torch.no_grad()
def validate(model: nn.Module, split: Split, setting: Setting) -> Counts:
    """Pooled pixel counts (1,) of the mean of heads at threshold 0.5; leaves the model in evaluation mode.

    Every process counts its part of the images; counts add up exactly, means of means would not.
    """
    model.eval()
    mine = distributed.my_part()
    found = torch.zeros(3, dtype=torch.int64, device=split.images.device)
    for images, masks in zip(split.images[mine].split(32), split.masks[mine].split(32), strict=True):
        predicted = probability(setting.forward(model, as_input(images))) > 0.5
        found += torch.cat(count(predicted, masks).pooled())
    return Counts(*distributed.total(found)[:, None])


def evaluate(net: nn.Module, split: Split, *, head: Head = "mean", setting: Setting | None = None) -> dict[str, float]:
    """Every score of `metrics.scores` at threshold 0.5, for the mean of heads or one of them."""
    predicted = probabilities(net, split.images, head=head, setting=setting) > 0.5
    return scores(predicted, split.masks)


def _mean_if_finite(losses: list[Tensor], epoch: int, lr: float) -> float:
    """Looked at once an epoch: to look at every step would make the GPU wait for the CPU."""
    values = distributed.total(torch.stack(losses)) / distributed.size()
    if not values.isfinite().all():
        batch = int((~values.isfinite()).nonzero()[0]) + 1
        raise UserError(
            f"the loss stopped being a number in epoch {epoch} at batch {batch}: use a learning rate below {lr:g} "
            "and look for broken images; the checkpoint of the epoch before, if any, is kept"
        )
    return values.mean().item()


def _describe(
    net: nn.Module, splits: Splits, epochs: int, seed: int, recipe: Recipe, setting: Setting
) -> dict[str, Any]:
    """What two runs must share for one to go on where the other stopped, as plain values."""
    seen = hashlib.sha256("\n".join(splits.train.ids).encode(errors="surrogateescape"))
    for part in splits[:2]:  # masks that were corrected under their old names make another run
        seen.update(part.images.cpu().numpy().tobytes())
        seen.update(part.masks.cpu().numpy().tobytes())
    return {
        "net": str(getattr(net, "config", type(net).__name__)),
        "data": f"{tuple(splits.train.images.shape)} {seen.hexdigest()[:12]}",
        "epochs": epochs,
        "seed": seed,
        **asdict(recipe),
        **asdict(setting),
        "loss": recipe.loss.__name__,
    }


def _code() -> str:
    """A training whose loop or augmentation was edited is another one."""
    text = "".join(Path(file).read_text(encoding="utf-8") for file in (__file__, augment.__file__))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _resume(path: str | Path, run: dict[str, Any], parts: dict[str, Any], generator: Generator) -> list[Row]:
    """Put every part into the state of the checkpoint; the rows so far."""
    state = load(path)
    if not isinstance(state, dict) or "run" not in state:
        raise UserError(f"{path} is no checkpoint of a training: choose another path")
    for name, value in run.items():
        if state["run"].get(name) != value:
            before = state["run"].get(name)
            raise UserError(
                f"{path} is of another run ({name} was {before}, is {value}): repeat that run, or choose another path"
            )
    for name, part in parts.items():
        part.load_state_dict(state[name])
    generator.set_state(state["generator"])
    return state["rows"]
