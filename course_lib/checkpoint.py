"""Files of weights that are whole or absent, and that run no code when they are read."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from course_lib.errors import UserError
from course_lib.files import write
from course_lib.grid import NestedUNet


def save(content: Any, path: str | Path) -> None:
    """`torch.save`, whole or not at all.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    packed = io.BytesIO()
    torch.save(content, packed)
    write(path, packed.getvalue())


def load(path: str | Path) -> Any:
    """Read what `save` wrote, onto the CPU; tensors and plain values only (`weights_only=True`).

    Raises:
        UserError: no such file, or not a file of weights.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not there: give the path of a file that `train` wrote")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # foreign bytes make the unpickler stumble in many ways, IndexError and TypeError among them
        raise UserError(f"{path} is damaged or no file of weights: train again or fetch it again") from None


def save_model(net: NestedUNet, path: str | Path, **facts: Any) -> None:
    """Write config, weights and plain facts about the training (data set, image size ...)."""
    weights = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    save({"config": {**net.config, "widths": list(net.config["widths"])}, "weights": weights, **facts}, path)


def load_model(path: str | Path) -> tuple[NestedUNet, dict[str, Any]]:
    """The net in evaluation mode, and the facts saved beside it.

    Raises:
        UserError: not a model of this course, or weights that do not fit its own config.
    """
    facts = load(path)
    if not isinstance(facts, dict) or not {"config", "weights"} <= set(facts):
        raise UserError(f"{path} holds no model of this course: give a model.pt that `train` wrote")
    config, weights = facts.pop("config"), facts.pop("weights")
    try:
        net = NestedUNet(**config)
        net.load_state_dict(weights)
    except (TypeError, ValueError, AttributeError, RuntimeError):
        raise UserError(f"{path} holds weights that do not fit their own config: train again") from None
    return net.eval(), facts


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether two nets hold the same weights, bit for bit."""
    a_weights, b_weights = a.state_dict(), b.state_dict()
    return list(a_weights) == list(b_weights) and all(
        torch.equal(value, b_weights[name]) for name, value in a_weights.items()
    )
