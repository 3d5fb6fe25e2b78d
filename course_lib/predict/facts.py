"""What files of models and scores say of themselves: all of it passes here before anything is built from it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.data.layout import are_class_names
from course_lib.errors import UserError
from course_lib.predict.maps import PREPARATIONS

MAX_WEIGHTS = 2**28  # of a net: 1 GiB in float32
MAX_DEPTH = 4  # of lists and dictionaries in one another


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _names(value: Any) -> bool:
    known = type(value) is list and 0 < len(value) <= 64 and all(type(name) is str for name in value)
    return known and are_class_names(value)


KNOWN: dict[str, tuple[Callable[[Any], bool], str]] = {  # facts of a model file
    "data": (lambda value: type(value) is str and "\0" not in value, "a name or a folder"),
    "size": (_whole(16, 1024), "a number of pixels from 16 to 1024"),
    "tiles": (lambda value: type(value) is bool, "true or false"),
    "seed": (_whole(0, 2**64), "a whole number"),
    "shrink": (_whole(1, 64), "a whole number from 1 to 64"),
    "classes": (_names, "a list of names"),
    "inputs": (lambda value: type(value) is str and value in PREPARATIONS, f"one of {', '.join(PREPARATIONS)}"),
}


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """Text, numbers, truth values, None, and lists and dictionaries of them, as plain Python: numpy's numbers and paths
    are converted. Raises UserError for anything else, which calls it `where`.
    """
    if isinstance(value, np.generic | Tensor) and np.ndim(value) == 0:
        value = value.item()
    if isinstance(value, Path):
        return str(value)
    if type(value) is int and abs(value) >= 2**64:
        raise UserError(f"{where} is a whole number of more than 64 bits: leave it out")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple) and depth < MAX_DEPTH:
        return [plain(one, where, depth + 1) for one in value]
    if isinstance(value, Mapping) and depth < MAX_DEPTH and all(type(key) is str for key in value):
        return {key: plain(one, where, depth + 1) for key, one in value.items()}
    raise UserError(f"{where} is of type {type(value).__name__}: give text, numbers, or lists and dictionaries of them")


def checked(facts: Any, where: str) -> dict[str, Any]:
    """Facts as plain values, those of KNOWN with values that can be. Raises UserError, which names the file `where`."""
    facts = plain(facts, f"{where}, what it says of its training,")
    for name, value in facts.items() if isinstance(facts, dict) else ():
        fits, what = KNOWN.get(name, (lambda value: True, ""))
        if value is not None and not fits(value):
            raise UserError(f"{where} says that {name} is {str(value)[:80]!r}, and that is not {what}: save it anew")
    if not isinstance(facts, dict):
        raise UserError(f"{where} holds no facts by name: save the model anew")
    return facts


def metrics(content: Any, where: str) -> dict[str, dict[str, Any]]:
    """What metrics.json holds: scores by part. Raises UserError where they are none."""

    def scores(value: Any) -> bool:
        return isinstance(value, dict) and all(
            (type(one) in (int, float) and abs(one) < 1e300) or (name == "classes" and each(one))
            for name, one in value.items()
        )

    def each(value: Any) -> bool:
        return isinstance(value, dict) and all(
            one is None or (scores(one) and "classes" not in one) for one in value.values()
        )

    if isinstance(content, dict) and all(scores(content.get(part, {})) for part in ("val", "test")):
        return content
    raise UserError(f"{where} is damaged: delete it, or train again")


def empty(kind: Callable[..., nn.Module], config: dict[str, Any]) -> nn.Module:
    """The net without memory for its weights (on the device "meta"), so that it can be looked at before it is built.
    Raises UserError: it cannot be, or has more than MAX_WEIGHTS weights.
    """
    widths = config.get("widths", ())
    if isinstance(widths, list | tuple) and len(widths) > 12:  # of which depth 11 halves 2,048 pixels
        raise UserError(f"{len(widths)} widths make a net too deep for any image: give 2 to 12")
    with torch.device("meta"):
        net = kind(**config)
    if (count := sum(weight.numel() for weight in net.state_dict().values())) > MAX_WEIGHTS:
        raise UserError(f"widths {list(widths)} make {count:.1e} weights, more than {MAX_WEIGHTS:,}: use smaller ones")
    return net


def fill(net: nn.Module, weights: Any) -> nn.Module:
    """The `empty` net with these weights. Raises UserError where names, shapes or types are others."""
    expected = net.state_dict()
    if not isinstance(weights, dict) or weights.keys() != expected.keys():
        raise UserError("its weights have other names")
    for name, value in weights.items():
        one = expected[name]
        ordinary = (
            isinstance(value, Tensor) and value.layout == torch.strided and not (value.is_meta or value.is_complex())
        )
        if not ordinary or value.shape != one.shape or value.is_floating_point() != one.is_floating_point():
            raise UserError(f"its weights {name} have another shape or type")
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"its weights {name} are not finite numbers")
    net.load_state_dict({name: weights[name].to(one.dtype).contiguous() for name, one in expected.items()}, assign=True)
    return net
