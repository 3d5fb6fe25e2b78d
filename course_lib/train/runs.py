"""Which file in a folder of trainings is this very training's: told by what the net says before its first step."""

import copy
import hashlib
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.train.checkpoint import load

FEW = 4  # images
NEAR = {"rtol": 1e-3, "atol": 1e-4}  # two processors differ by less, two wirings by more


def file_of(
    folder: str | Path, net: nn.Module, images: Tensor, masks: Tensor, *, loss: Callable, run: dict[str, Any]
) -> tuple[Path, Tensor]:
    """The file of a training, there already or still to be written, and what to keep in it under "seen".

    Its name comes from `run` and from the kinds and shapes of the layers. Of files with that name it is the one whose
    training began with the same answers and the same loss: the code of a forward, a hook or a loss shows there.

    Args:
        net: at its first weights; it stays as it is.
        images: prepared (N, C, H, W), some of the first; masks: (N, classes, H, W), float32.

    Raises:
        UserError: a file of that name is damaged.
    """
    layers = [type(module).__name__ for module in net.modules()]
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    key = hashlib.sha256(repr([run, layers, shapes]).encode()).hexdigest()[:16]
    now = seen(net, images[:FEW], masks[:FEW], loss)
    for number in count():
        path = Path(folder) / f"{key}-{number}.pt"
        if not path.is_file():
            return path, now
        state = load(path)
        before = state.get("seen") if isinstance(state, dict) else None
        if isinstance(before, Tensor) and before.shape == now.shape and torch.allclose(before, now, **NEAR):
            return path, now


def seen(net: nn.Module, images: Tensor, masks: Tensor, loss: Callable) -> Tensor:
    """What a copy of the net says of images, in training and in evaluation, and what the loss says of that: (K,)."""
    found = []
    place = next(net.parameters()).device
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for training in (True, False) if len(images) > 1 else (False,):  # a norm may refuse one image
            torch.manual_seed(0)  # of dropout
            outputs = copy.deepcopy(net).train(training)(images.to(place))
            for logits in [outputs] if isinstance(outputs, Tensor) else outputs:
                logits = logits.float().cpu()
                found += [logits.flatten()[::97], loss(logits, masks.cpu()).reshape(1)]
    return torch.cat(found)
