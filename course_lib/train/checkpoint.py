"""Files of weights that are whole or absent, and that run no code when they are read."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.errors import UserError
from course_lib.files import write
from course_lib.grid import NestedUNet
from course_lib.relatives import RELATIVES

NETS = {"NestedUNet": NestedUNet} | {net.__name__: net for net in RELATIVES.values()}


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
        raise UserError(
            f"{path} is damaged or no file of weights: delete it and train again, or fetch it again"
        ) from None


def save_model(net: nn.Module, path: str | Path, **facts: Any) -> None:
    """Write the kind of net, its config and weights, and plain facts about the training (data set, image size ...)."""
    weights = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    config = {**net.config, "widths": list(net.config["widths"])}
    save({"net": type(net).__name__, "config": config, "weights": weights, **facts}, path)


def load_model(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The net in evaluation mode, and the facts saved beside it.

    Bare weights with the names of the widely used PyTorch code for U-Net and UNet++ are read too, without facts.

    Raises:
        UserError: neither of the two, or weights that do not fit their own config.
    """
    facts = load(path)
    weights = _bare(facts)
    if config := config_of(weights):
        facts = {"net": "NestedUNet", "config": config, "weights": weights}
    if not isinstance(facts, dict) or not {"config", "weights"} <= set(facts):
        raise UserError(f"{path} holds no model of this course: give a model.pt that `train` wrote")
    name, config, weights = facts.pop("net", "NestedUNet"), facts.pop("config"), facts.pop("weights")
    try:
        net = NETS[name](**config)
        net.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        raise UserError(f"{path} holds weights that do not fit their own config: train again") from None
    return net.eval(), facts


def config_of(weights: Any) -> dict[str, Any] | None:
    """The arguments of the U-Net or UNet++ whose weights have these names and shapes; None where neither has.

    (U-Net^e and UNet+ have equal names and shapes, so bare weights do not tell them apart.)
    """
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        return None
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    first = [shapes.get(f"conv{i}_0.conv1.weight") for i in range(len(shapes))]
    widths = [shape[0] for shape in first if shape]
    head = shapes.get("final1.weight") or shapes.get("final.weight")
    if len(widths) < 2 or not head or not first[0] or len(first[0]) < 2:
        return None
    config = {"in_channels": first[0][1], "classes": head[0], "widths": widths}
    for wiring, supervised in (("unet", False), ("unet++", False), ("unet++", True)):
        found = config | {"wiring": wiring, "deep_supervision": supervised}
        with torch.device("meta"):
            expected = NestedUNet(**found).state_dict()
        if {name: tuple(value.shape) for name, value in expected.items()} == shapes:
            return found
    return None


def _bare(content: Any) -> Any:
    """The weights of a file of nothing but weights: out of {"state_dict": ...}, and without "module." before names."""
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    return (
        {str(name).removeprefix("module."): value for name, value in content.items()}
        if isinstance(content, dict)
        else None
    )


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether two nets hold the same weights, bit for bit."""
    a_weights, b_weights = a.state_dict(), b.state_dict()
    return list(a_weights) == list(b_weights) and all(
        torch.equal(value, b_weights[name]) for name, value in a_weights.items()
    )
