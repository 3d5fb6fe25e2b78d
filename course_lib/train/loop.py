"""Training: `fit` yields one row an epoch, so that the caller prints, plots or stops as it likes."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from math import cos, pi
from operator import index
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from course_lib.data import Split, Splits
from course_lib.errors import UserError
from course_lib.losses import Loss, bce_dice, deep_supervision
from course_lib.measure import parameters
from course_lib.metrics import Counts, count, dice, iou, scores
from course_lib.predict import PREPARATIONS, Head, as_input, inputs_of, probabilities, probability, unwrapped
from course_lib.predict.facts import plain
from course_lib.predict.recorded import Recorded
from course_lib.predict.setting import Setting, torch_device
from course_lib.train import augment, distributed
from course_lib.train.checkpoint import Training
from course_lib.train.identity import kind_of, name_of

Row = dict[str, float]
VALIDATED = {"cuda": 256 * 96 * 96}  # pixels that are scored at once; on a CPU those of 32 images
AT_ONCE = {"cuda": 1024}  # images that are changed at random together; on a CPU those of one batch
KINDS = {  # of the numbers of a recipe: types, and the least
    "batch_size": ((int,), 1), "lr": ((float, int), 0), "weight_decay": ((float, int), 0), "eps": ((float, int), 0),
    "augment": ((bool,), 0), "seed": ((int,), 0),
}  # fmt: skip
WARM_UP = 0.2  # share of the steps in which the learning rate rises


@dataclass(frozen=True)
class Recipe:
    """What decides the score, for AdamW. (How fast it is computed is a `Setting`.)

    `eps`: a bias in front of batch norm changes nothing, so its gradient is rounding noise. The usual 1e-8 would blow
    this noise up to full steps, and the running means would lag behind them.
    """

    batch_size: int = 8  # images a step, over all processes together
    lr: float = 3e-3  # the highest: `one_cycle` leads up to it and down to zero
    weight_decay: float = 1e-2
    eps: float = 1e-5
    loss: Loss = bce_dice  # of one head's logits and the mask; its mean over the heads is minimised
    augment: bool = True  # whether each batch is changed at random
    seed: int = 0  # of the order of the images and of their changes; weights are drawn when a net is made

    def __post_init__(self):
        for name, (kinds, least) in KINDS.items():  # numpy's numbers as Python's
            value = plain(getattr(self, name), name)
            if type(value) not in kinds or not least <= value < 1e38:
                kind = f"{kinds[0].__name__}, from {least} on"
                raise UserError(f"{name} is {str(value)[:80]}: give a number of type {kind}")
            object.__setattr__(self, name, value)


def fit(
    net: nn.Module,
    splits: Splits,
    *,
    epochs: int = 20,
    recipe: Recipe | None = None,
    setting: Setting | None = None,
    checkpoint: str | Path | None = None,
) -> Iterator[Row]:
    """Train `net` on `splits.train`; after each epoch score `splits.val` and yield a row.

    A row is {"epoch", "loss", "val_iou", "val_dice", "lr", "seconds"}: the mean training loss, the pooled scores at
    threshold 0.5 of the mean of heads (of several classes their mean), the learning rate of the last step, the epoch's
    wall time. `net` is in evaluation mode whenever one comes. On a CPU equal arguments give equal rows, seconds aside.

    `net` maps images (N, C, H, W), prepared as its `inputs` say, to a list of logits, or one tensor of them; what
    torch.compile or DataParallel put around it is taken off. `checkpoint` is a file written after every epoch. Where it
    is there already, its rows come first and training goes on behind them, on a CPU bit for bit as if it never stopped.
    Raises UserError: a checkpoint of another run, a loss that is not finite, too little GPU memory, or a batch that is
    too small for batch norm or cannot be dealt evenly to the processes.
    """
    net, recipe, setting = unwrapped(net), recipe or Recipe(), setting or Setting()
    epochs = _checked(net, splits.train, epochs)
    run = _describe(net, splits, epochs, recipe, setting)
    device = torch_device(setting.device)
    train, val = (part._replace(images=part.images.to(device), masks=part.masks.to(device)) for part in splits[:2])
    recipe = replace(recipe, batch_size=_batch_size(net, train.images.shape, recipe.batch_size))
    model = setting.compiled(setting.place(net))
    learner = distributed.parallel(model)
    optimiser = make_optimiser(net, recipe, record=setting.record)
    steps = epochs * (len(train.ids) // recipe.batch_size)
    schedule = LambdaLR(optimiser, lambda step: one_cycle(step / steps))
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**10, enabled=setting.precision == "fp16")
    training = Training(net, optimiser, schedule, scaler, Generator().manual_seed(recipe.seed))
    rows = training.resume(checkpoint, run) if checkpoint is not None else []
    yield from rows
    step = _step_of(learner, training, recipe, setting)
    for epoch in range(len(rows) + 1, epochs + 1):
        started = time.perf_counter()
        try:
            learner.train()
            losses, lr = _epoch(step, train, training, recipe)
            counts = validate(net, val, setting)  # not compiled: each new number of images would be compiled anew
        except torch.OutOfMemoryError as problem:
            raise UserError(f"the GPU's memory is full: use a batch_size below {recipe.batch_size}") from problem
        row = {"epoch": epoch, "loss": _mean_if_finite(losses, epoch, recipe.lr), "val_iou": _mean(iou(counts), counts)}
        rows.append(row | {"val_dice": _mean(dice(counts), counts), "lr": lr, "seconds": time.perf_counter() - started})
        if checkpoint is not None and distributed.rank() == 0:
            training.save(checkpoint, run, rows)
        yield rows[-1]


def _step_of(model: nn.Module, training: Training, recipe: Recipe, setting: Setting) -> Callable[..., Tensor]:
    """A step of training: images and masks of a batch -> the loss. Where it is recorded the next one overwrites it."""
    _, optimiser, _, scaler, _ = training
    loss_of = deep_supervision(recipe.loss)

    def step(images: Tensor, masks: Tensor) -> Tensor:
        loss = loss_of(setting.forward(model, images), masks)
        optimiser.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        return loss.detach()

    if setting.record and distributed.size() > 1:
        raise UserError("a step of several processes cannot be recorded: leave record out")
    return Recorded(step) if setting.record else step


def _epoch(step: Callable[..., Tensor], part: Split, training: Training, recipe: Recipe) -> tuple[Tensor, float]:
    """One pass of training: the loss of every step, and the learning rate of the last."""
    net, _, schedule, _, generator = training
    losses, lr = [], 0.0
    for images, masks in batches(part, recipe.batch_size, generator, augmented=recipe.augment, inputs=inputs_of(net)):
        losses.append(step(images, masks).clone())
        lr = schedule.get_last_lr()[0]
        schedule.step()
    distributed.share_statistics(net)
    return torch.stack(losses), float(lr)


def make_optimiser(net: nn.Module, recipe: Recipe, *, record: bool = False) -> torch.optim.Optimizer:
    """AdamW as the recipe says; on a GPU fused into one call, the fastest step measured (benchmarks/README.md).
    For a recorded step the learning rate is a tensor there, because a recording knows places and no numbers.
    """
    device = next(net.parameters()).device
    lr = torch.tensor(recipe.lr, device=device) if record else recipe.lr
    options = {"fused": True if device.type == "cuda" else None, "capturable": record}
    return torch.optim.AdamW(net.parameters(), lr, eps=recipe.eps, weight_decay=recipe.weight_decay, **options)


def one_cycle(progress: float) -> float:
    """Learning rate as a share of the highest: up in a line, down in a half cosine. `progress` is 0..1."""
    if progress < WARM_UP:
        return 0.05 + 0.95 * progress / WARM_UP
    return (1 + cos(pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


def batches(
    split: Split, batch_size: int, generator: Generator, *, augmented: bool = True, inputs: str = "standardised"
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass in random order: images (B, C, S, S), prepared as `inputs` says, and masks (B, K, S, S), float32.

    Order and changes come from `generator` (CPU). An incomplete last batch is left out. B is this process's part. On a
    GPU many batches are made at once (AT_ONCE), so that none of them waits for what was drawn; they are the same ones.
    """
    mine, device, channels = distributed.my_part(), split.images.device, split.images.shape[1]
    order = torch.randperm(len(split.images), generator=generator)
    chosen = [batch[mine] for batch in order.split(batch_size)[: len(order) // batch_size]]
    drawn = [augment.draw(batch_size, generator, channels=channels).part(mine) for _ in chosen if augmented]
    many = max(1, AT_ONCE.get(device.type, 1) // batch_size)
    for first in range(0, len(chosen), many):
        which = torch.cat(chosen[first : first + many]).to(device)
        images, masks = split.images[which].float() / 255, split.masks[which].float()
        if augmented:
            images, masks = augment.apply(images, masks, augment.join(drawn[first : first + many]).to(device))
        yield from zip(*(part.split(len(chosen[0])) for part in (PREPARATIONS[inputs](images), masks)), strict=True)


@torch.no_grad()
def validate(net: nn.Module, split: Split, setting: Setting) -> Counts:
    """Pooled pixel counts (K,), of each class, of the mean of heads at threshold 0.5; leaves the net evaluating."""
    net.eval()
    mine, inputs = distributed.my_part(), inputs_of(net)  # counts add up exactly over processes
    pixels, device = split.masks[0, 0].numel(), split.images.device
    many = max(1, VALIDATED.get(device.type, 32 * pixels) // pixels)
    counts = torch.zeros(3, split.masks.shape[1], dtype=torch.int64, device=device)
    for images, masks in zip(split.images[mine].split(many), split.masks[mine].split(many), strict=True):
        predicted = probability(setting.forward(net, as_input(images, inputs))) > 0.5
        counts += torch.stack(count(predicted.transpose(0, 1), masks.transpose(0, 1)))
    return Counts(*distributed.total(counts))


def evaluate(net: nn.Module, split: Split, *, head: Head = "mean", setting: Setting | None = None) -> dict[str, Any]:
    """Every score of `metrics.scores` at threshold 0.5, for the mean of heads or one of them."""
    maps = probabilities(net, split.images, head=head, setting=setting)
    return scores(maps > 0.5, split.masks, classes=split.classes)


def _checked(net: nn.Module, part: Split, epochs: int) -> int:
    """The number of epochs, where the net tells as many classes apart, from as many channels, as the images have."""
    if not hasattr(epochs, "__index__") or isinstance(epochs, bool) or index(epochs) < 0:
        raise UserError(f"epochs is {epochs!r}: give a whole number")
    config, (_, channels, *_), classes = getattr(net, "config", {}), part.images.shape, part.masks.shape[1]
    wanted = config.get("in_channels", channels), config.get("classes", classes)
    if wanted != (channels, classes):
        there = f"images of {channels} channel(s) and {classes} class(es)"
        raise UserError(
            f"the data are {there}, and the net takes {wanted[0]} and {wanted[1]}: make a net of their numbers"
        )
    return index(epochs)


def _batch_size(net: nn.Module, shape: Sequence[int], wanted: int) -> int:
    """`wanted`, or all of the training images (N, C, H, W) where they are fewer."""
    count, _, height, width = shape
    batch_size, processes = min(wanted, count), distributed.size()
    part, rest = divmod(batch_size, processes)
    if rest:
        batch = f"a batch of {batch_size} (of {count} training images)"
        raise UserError(f"{batch} cannot be dealt to {processes} processes: use a multiple")
    norms = any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    depth = getattr(net, "depth", None)
    if norms and depth is not None and part * (height >> depth) * (width >> depth) == 1:
        text = f"batch norm needs more than one value, and a batch of {part} leaves one in the lowest row"
        raise UserError(f"{text}: use a larger batch_size, larger images or fewer widths")
    return batch_size


def _mean(values: Tensor, counts: Counts) -> float:
    """The mean over the classes that the images show: to find nothing of the others is no merit."""
    shown = counts.tp + counts.fn > 0
    return values[shown if len(values) > 1 and shown.any() else slice(None)].mean().item()


def _mean_if_finite(losses: Tensor, epoch: int, lr: float) -> float:
    """Looked at once an epoch: to look at every step would make the GPU wait for the CPU."""
    values = distributed.total(losses) / distributed.size()
    if len(broken := (~values.isfinite()).nonzero()):
        raise UserError(
            f"the loss stopped being a number in epoch {epoch} at batch {int(broken[0]) + 1}: use a learning rate "
            f"below {lr:g} and look for broken images; the checkpoint of the epoch before, if any, is kept"
        )
    return values.mean().item()


def _describe(net: nn.Module, splits: Splits, epochs: int, recipe: Recipe, setting: Setting) -> dict[str, Any]:
    """What two runs must share for one to go on where the other stopped, as plain values."""
    seen = hashlib.sha256("\n".join(splits.train.ids).encode(errors="surrogateescape"))
    for part in splits[:2]:  # masks that were corrected under their old names make another run
        seen.update(part.images.cpu().numpy().tobytes())
        seen.update(part.masks.cpu().numpy().tobytes())
    data = f"{tuple(splits.train.images.shape)} {seen.hexdigest()[:12]}"
    kind = f"{kind_of(net)} of {parameters(net)} parameters, {getattr(net, 'config', {})}, {inputs_of(net)}"
    recipe_of = {name: value for name, value in vars(recipe).items() if name != "loss"}
    run = {"net": kind, "data": data, "epochs": epochs} | recipe_of | asdict(setting) | {"loss": name_of(recipe.loss)}
    return plain(run, "the run")
