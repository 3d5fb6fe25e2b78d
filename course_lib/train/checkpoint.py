"""Files of weights, of models and of trainings that go on: whole or absent, and they run no code when they are read."""

import io
import pickletools
import re
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from course_lib.errors import UserError
from course_lib.files import write
from course_lib.grid import NestedUNet
from course_lib.predict import PREPARATIONS, inputs_of, unwrapped
from course_lib.predict.facts import checked, empty, fill, plain
from course_lib.relatives import RELATIVES
from course_lib.train import distributed

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")  # what others keep weights under
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
    Raises UserError: no such file, not a file of weights, or one of whole objects.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} is not there: give the path of a file that `train` wrote")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # foreign bytes make the unpickler stumble in many ways, IndexError and TypeError among them
        if objects := _objects_in(path):
            text = f"holds whole Python objects ({objects[0]}), and to read them could run any code"
            raise UserError(f"{path} {text}: write torch.save(net.state_dict(), path) where it was made") from None
        advice = "fetch it again, or train again"
        raise UserError(f"{path} is damaged or no file of weights: {advice}") from None


def _objects_in(path: str | Path) -> list[str]:
    """Names of the classes and functions that the file would have to import, for a net that was saved whole."""
    with suppress(Exception):  # a file of today's torch, which is a zip file
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    names, texts = [], []
    with suppress(Exception), Path(path).open("rb") as file:  # an older one: pickles, then bytes that are none
        while True:
            for code, value, _ in pickletools.genops(file):
                texts += [value] if "UNICODE" in code.name else []
                if code.name in ("GLOBAL", "STACK_GLOBAL"):
                    names.append(value.replace(" ", ".") if value else ".".join(texts[-2:]))
    return [name for name in names if not name.startswith(("torch.", "collections."))]


def like(value: Any, reference: Any) -> bool:
    """Whether two states have the same structure: names, lengths, shapes, types, and finite numbers."""
    if isinstance(reference, Tensor):
        same = isinstance(value, Tensor) and (value.shape, value.dtype) == (reference.shape, reference.dtype)
        stored = same and value.layout == torch.strided and not (value.is_meta or value.is_nested)
        return stored and value.untyped_storage().nbytes() >= value.nbytes  # else one number stands for many
    if isinstance(reference, dict):
        return (
            isinstance(value, dict)
            and value.keys() == reference.keys()
            and all(like(value[key], one) for key, one in reference.items())
        )
    if isinstance(reference, list | tuple):
        return type(value) is type(reference) and len(value) == len(reference) and all(map(like, value, reference))
    if type(reference) in (int, float):
        return type(value) in (int, float) and isfinite(value)
    return type(value) is type(reference)


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
            before = state["run"].get(name)
            if type(before) is not type(now) or before != now:
                difference = f"{name} was {str(before)[:200]}, is {now}"
                raise UserError(f"{path} is of another run ({difference}): repeat that run, or choose another path")
        odd = self._odd(state) if _is_rows(state.get("rows")) else "rows"
        if odd and state.get("rows") != []:
            raise UserError(f"{path} is damaged: its {odd} cannot be of this training: delete it to begin anew")
        done = torch.tensor(len(state["rows"]), device=next(self.net.parameters()).device)
        if distributed.total(done) != len(state["rows"]) * distributed.size():
            raise UserError("the processes see different checkpoints: write to a disk that they share")
        if state["rows"]:
            for name in ("net", "optimiser", "schedule", "scaler"):
                getattr(self, name).load_state_dict(state[name])
            for group in self.optimiser.param_groups:  # a recorded step reads the rate where the weights lie
                if isinstance(group["lr"], Tensor):
                    group["lr"] = group["lr"].to(group["params"][0].device)
            self.generator.set_state(state["generator"])
            self.net.eval()
        return state["rows"]

    def _odd(self, state: dict[str, Any]) -> str | None:
        """The part of a checkpoint that cannot be of this training, before any of it is used."""
        expected = {name: part.state_dict() for name, part in self._asdict().items() if name != "generator"}
        moments = {}
        for n, weight in enumerate(weight for group in self.optimiser.param_groups for weight in group["params"]):
            moments[n] = {"step": torch.tensor(0.0), "exp_avg": weight, "exp_avg_sq": weight}
        held = state.get("optimiser", {}).get("state", {}) if isinstance(state.get("optimiser"), dict) else None
        used = isinstance(held, dict) and set() < held.keys() <= moments.keys()  # a weight without gradients has none
        expected["optimiser"] = {**expected["optimiser"], "state": {n: moments[n] for n in held} if used else moments}
        for name, reference in expected.items():
            if not like(state.get(name), reference):
                return name
        try:
            Generator().set_state(state.get("generator"))
        except (RuntimeError, TypeError):
            return "generator"
        return None


def _is_rows(rows: Any) -> bool:
    """Rows of numbers, epochs 1, 2, 3 ..."""
    names = {"epoch", "loss", "val_iou", "val_dice", "lr", "seconds"}
    return isinstance(rows, list) and all(
        isinstance(row, dict)
        and row.keys() == names
        and all(type(value) in (int, float) and isfinite(value) for value in row.values())
        and row["epoch"] == n
        for n, row in enumerate(rows, start=1)
    )


def save_model(net: nn.Module, path: str | Path, **facts: Any) -> None:
    """Write the kind of net, its config, preparation and weights, and plain facts about the training (data set, image
    size ...). What torch.compile or DataParallel made of a net is saved as the net.
    Raises UserError: a net without `config`, or facts that are not plain.
    """
    net = unwrapped(net)
    if taken := facts.keys() & {"net", "config", "weights", "inputs"}:
        raise UserError(f"{path}: facts are called {', '.join(sorted(taken))}, as what is saved anyway: rename them")
    if type(net).__name__ not in NETS:
        raise UserError(f"a {type(net).__name__} cannot be saved as a model: choose one of {', '.join(NETS)}")
    weights = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    content = {"net": type(net).__name__, "config": plain(net.config, "the config"), "weights": weights}
    save(content | {"inputs": inputs_of(net)} | checked(facts, str(path)), path)


def load_model(path: str | Path, inputs: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """The net in evaluation mode, and the facts saved beside it.

    Bare weights with the names of the widely used PyTorch code for U-Net and UNet++ are read too, without facts. How
    images are prepared for those only you know: `inputs`, a key of `predict.PREPARATIONS`.
    Raises UserError: neither of the two, weights that do not fit their config, or `inputs` that is missing or another.
    """
    content = load(path)
    facts = _bare(content) or content
    if not isinstance(facts, dict) or not {"config", "weights"} <= set(facts):
        raise UserError(
            f"{path} holds no model of this course: give a model.pt that `train` wrote, or weights "
            "with the names of the published code (conv0_0.conv1.weight ...)"
        )
    known = {} if facts is not content else {"inputs": "standardised"}  # as it was before files said it
    facts = known | facts
    name, config, weights = facts.pop("net", "NestedUNet"), facts.pop("config"), facts.pop("weights")
    facts = checked(facts, str(path))
    try:
        net = fill(empty(NETS[name], config), weights)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as problem:
        reason = f" ({problem})" if isinstance(problem, UserError) else ""
        raise UserError(f"{path} holds weights that do not fit their own config{reason}: train again") from None
    if len(facts.get("classes") or [0] * net.config["classes"]) != net.config["classes"]:
        raise UserError(f"{path} names {len(facts['classes'])} class(es) of {net.config['classes']}: save it anew")
    net.inputs = _agreed(facts.pop("inputs", None), inputs, str(path))
    return net.eval(), facts


def _agreed(said: str | None, asked: str | None, path: str) -> str:
    """How images are prepared, as a file says or the caller."""
    choices = ", ".join(PREPARATIONS)
    if asked not in (None, *PREPARATIONS):
        raise UserError(f"inputs {asked!r} are unknown: choose one of {choices}")
    if not (said or asked):
        text = "does not say how images were prepared for these weights"
        raise UserError(f"{path} {text}: say it with inputs (--inputs), one of {choices}")
    if said and asked and said != asked:
        raise UserError(f"{path} says that images are {said} for its net, not {asked}: leave inputs out")
    return said or asked


def _bare(content: Any) -> dict[str, Any] | None:
    """Bare weights of a U-Net or UNet++ beside the config that their names and shapes tell; None for anything else.
    Without "state_dict" or the like around them and "module." and the like before names. U-Net^e and UNet+ look alike,
    and are not guessed.
    """
    if isinstance(content, dict) and not {"config", "weights"} <= content.keys():
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), content)
    tensors = content.values() if isinstance(content, dict) else [None]
    if not all(isinstance(value, Tensor) and not value.is_nested for value in tensors):
        return None
    weights = {re.sub(r"^((module|_orig_mod|model|net)\.)+", "", str(name)): value for name, value in content.items()}
    shapes = {name: value.shape for name, value in weights.items()}
    first = shapes.get("conv0_0.conv1.weight", ())
    head = shapes.get("final1.weight") or shapes.get("final.weight")
    widths = [shape[0] for i in range(12) if (shape := shapes.get(f"conv{i}_0.conv1.weight"))]
    if len(first) != 4 or len(widths) < 2 or not head:
        return None
    config = {"in_channels": first[1], "classes": head[0], "widths": widths}
    for wiring, supervised in (("unet", False), ("unet++", False), ("unet++", True)):
        try:
            net = empty(NestedUNet, config | {"wiring": wiring, "deep_supervision": supervised})
        except UserError:
            return None
        counted = {name: torch.tensor(0) for name in net.state_dict() if name.endswith("num_batches_tracked")}
        whole = counted | weights  # some files leave these out, and they change nothing
        if {name: value.shape for name, value in net.state_dict().items()} == {k: v.shape for k, v in whole.items()}:
            return {"config": net.config, "weights": whole}
    return None
