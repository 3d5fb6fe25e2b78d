"""What tells a loss or a net from another, in every process that makes it: the names of what is installed, and of
everything else what it computes.
"""

import hashlib
import inspect
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
from torch import Tensor, nn

PLAIN = bool | int | float | str | bytes | None


def name_of(thing: Any, *parts: Any) -> str:
    """The name of a function, class or object; with a hash of what it and its parts compute, as far as that is neither
    the course's own nor torch's.
    """
    named = thing if isinstance(thing, FunctionType | type) else type(thing)
    texts = [text for one in (thing, *parts) if (text := _told(one, ())) != getattr(one, "__qualname__", "")]
    return named.__qualname__ + (f" {hashlib.sha256(repr(texts).encode()).hexdigest()[:12]}" if texts else "")


def kind_of(net: nn.Module) -> str:
    """`name_of` a net and the classes of its parts, whatever its weights."""
    own = {part.__dict__.get("forward"): None for part in net.modules()}  # where somebody put another one
    return name_of(type(net), *{type(part): None for part in net.modules()}, *filter(None, own))


def _told(thing: Any, above: tuple[Any, ...]) -> str:
    """The same text for things that compute the same: their code, constants and the plain values they read."""
    if any(thing is one for one in above):
        return "itself"
    told = partial(_told, above=(*above, thing))
    match thing:
        case Tensor() | np.ndarray():
            array = thing.detach().cpu().double().numpy() if isinstance(thing, Tensor) else thing
            return f"{array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
        case list() | tuple() | set() | frozenset():
            parts = [told(part) for part in thing]
            return f"[{', '.join(parts if isinstance(thing, list | tuple) else sorted(parts))}]"
        case dict():
            return told([part for pair in thing.items() for part in pair])
        case partial():
            return told(["partial", thing.func, thing.args, thing.keywords])
        case MethodType():
            return told([thing.__func__, thing.__self__])
        case CodeType():  # without its file and lines, which move
            return f"{thing.co_code.hex()} {told(thing.co_consts)} {thing.co_names}"
        case FunctionType() | type() if thing.__module__.split(".")[0] in ("course_lib", "torch", "builtins"):
            return thing.__qualname__
        case FunctionType():
            read = inspect.getclosurevars(thing)
            usual = (thing.__defaults__, thing.__kwdefaults__)
            return told([thing.__qualname__, thing.__code__, usual, read.nonlocals, read.globals])
        case type():
            code = {name: part for name, part in vars(thing).items() if isinstance(part, FunctionType | PLAIN)}
            return told([thing.__qualname__, thing.__bases__, code])
    if isinstance(thing, PLAIN):
        return repr(thing)
    return told([type(thing), thing.__dict__ if callable(thing) and hasattr(thing, "__dict__") else None])
