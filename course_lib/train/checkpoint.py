"""Files of weights, of models and of trainings that go on: whole or absent, and they run no code when they are read."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from course_lib.errors import UserError
from course_lib.files import write
from course_lib.grid import NestedUNet
from course_lib.relatives import RELATIVES
from course_lib.train import distributed

NETS = {"NestedUNet": NestedUNet} | {net.__name__: net for net in RELATIVES.values()}


def save(content: Any, path: str | Path) -> None:
    """`torch.save`, whole or not at all.
    Raises UserError: the disk is full or the folder cannot be written.
    """
    packed = io.BytesIO()
    torch.save(content, packed)
    write(path, packed.getvalue())


def load(path: str | Path) -> Any:
    """Read what `save` wrote, onto the CPU; tensors and plain values only (`weights_only=True`).
    Raises UserError: no such file, or not a file of weights.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} is not there: give the path of a file that `train` wrote")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # foreign bytes make the unpickler stumble in many ways, IndexError and TypeError among them
        advice = "delete it and train again, or fetch it again"
        raise UserError(f"{path} is damaged or no file of weights: {advice}") from None


class Training(NamedTuple):
    """All that a training changes, and so all that its checkpoint keeps."""

    net: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler
    generator: Generator  # of the order of the images and of their changes

    def save(self, path: str | Path, run: dict[str, Any], rows: list[dict[str, float]]) -> None:
        """Write everything's state, what tells the run apart, and its rows so far."""
        state = {name: part.state_dict() for name, part in self._asdict().items() if name != "generator"}
        save(state | {"generator": self.generator.get_state(), "rows": rows, "run": run}, path)

    def resume(self, path: str | Path, run: dict[str, Any]) -> list[dict[str, float]]:
        """Everything as it was saved, the net in evaluation mode. The rows so far: none where there is no file yet.
        Raises UserError: a damaged file, one of another run, with what differs, or processes that see different files.
        """
        state = load(path) if Path(path).exists() else {"run": run, "rows": []}
        if not isinstance(state, dict) or not isinstance(state.get("run"), dict):
            raise UserError(f"{path} is no checkpoint of a training: choose another path")
        for name, now in run.items():
            if (before := state["run"].get(name)) != now:
                difference = f"{name} was {before}, is {now}"
                raise UserError(f"{path} is of another run ({difference}): repeat that run, or choose another path")
        done = torch.tensor(len(state["rows"]), device=next(self.net.parameters()).device)
        if distributed.total(done) != len(state["rows"]) * distributed.size():
            raise UserError("the processes see different checkpoints: write to a disk that they share")
        if state["rows"]:
            for name in ("net", "optimiser", "schedule", "scaler"):
                getattr(self, name).load_state_dict(state[name])
            self.generator.set_state(state["generator"])
            self.net.eval()
        return state["rows"]


def save_model(net: nn.Module, path: str | Path, **facts: Any) -> None:
    """Write the kind of net, its config and weights, and plain facts about the training (data set, image size ...)."""
    weights = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    config = {**net.config, "widths": list(net.config["widths"])}
    save({"net": type(net).__name__, "config": config, "weights": weights, **facts}, path)


def load_model(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The net in evaluation mode, and the facts saved beside it.
    Bare weights with the names of the widely used PyTorch code for U-Net and UNet++ are read too, without facts.
    Raises UserError: neither of the two, or weights that do not fit their own config.
    """
    content = load(path)
    facts = _bare(content) or content
    if not isinstance(facts, dict) or not {"config", "weights"} <= set(facts):
        raise UserError(f"{path} holds no model of this course: give a model.pt that `train` wrote")
    name, config, weights = facts.pop("net", "NestedUNet"), facts.pop("config"), facts.pop("weights")
    try:
        net = NETS[name](**config)
        net.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        raise UserError(f"{path} holds weights that do not fit their own config: train again") from None
    return net.eval(), facts


def _bare(content: Any) -> dict[str, Any] | None:
    """Bare weights of a U-Net or UNet++ beside the config that their names and shapes tell; None for anything else.
    Without "state_dict" around them and "module." before names. U-Net^e and UNet+ look the same and are not guessed.
    """
    content = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        return None
    weights = {str(name).removeprefix("module."): value for name, value in content.items()}
    shapes = {name: value.shape for name, value in weights.items()}
    first = shapes.get("conv0_0.conv1.weight", ())
    head = shapes.get("final1.weight") or shapes.get("final.weight")
    widths = [shape[0] for i in range(len(shapes)) if (shape := shapes.get(f"conv{i}_0.conv1.weight"))]
    if len(first) != 4 or len(widths) < 2 or not head:
        return None
    sizes = {"in_channels": first[1], "classes": head[0], "widths": widths}
    for wiring, supervised in (("unet", False), ("unet++", False), ("unet++", True)):
        with torch.device("meta"):
            net = NestedUNet(**sizes, wiring=wiring, deep_supervision=supervised)
        if {name: value.shape for name, value in net.state_dict().items()} == shapes:
            return {"config": net.config, "weights": weights}
    return None
