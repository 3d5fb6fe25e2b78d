"""What every check is made of: `ask` gets an answer, `told` says what is wrong with it, `as_check` frames both."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.lesson import progress

NUMBERS = Tensor | np.ndarray | np.generic | float | int
CHANGED = "what came in was changed: make something new, with no in-place step on it"


def expect(name: str, value: float, reference: float, tol: float) -> None:
    """Assert `abs(value - reference) <= tol` (or AssertionError) and print a line that every machine prints alike."""
    assert abs(value - reference) <= tol, f"{name} is {value:.4g}, expected {reference:g} ± {tol:g}"
    print(f"{name}: ok ({reference:g} ± {tol:g})")


def ask(
    fn: Callable[..., Any], *given: Any, returns: Any = Tensor, what: str = "a tensor", changed: str = CHANGED
) -> Any:
    """What `fn(*given)` returns: something, of a type in `returns`, and `given` as it was before.

    `what` names what is wanted, "a mask" or "the loss"; `changed` is said where numbers, text, tensors, arrays, the
    state of nets, or lists and dicts of them are others than before. Anything else in `given` may change.
    Raises AssertionError: in words for the learner, where one of these does not hold.
    """
    before, answer = _state(given), fn(*given)
    assert is_same(_state(given), before), changed
    assert answer is not None, f"{'forward' if isinstance(fn, nn.Module) else 'it'} returns nothing: return {what}"
    assert isinstance(answer, returns), f"{what} is wanted, this is {type(answer).__name__}"
    return answer


def told(answer: Any, right: Any, mistakes: dict[str, Any], otherwise: str, *, tol: float = 1e-5) -> None:
    """Accept what equals `right`; else the sentence of the mistake that gives this answer is said, or `otherwise`.

    `mistakes`: a sentence for the learner -> what that mistake gives. AssertionError says the first that `is_same`.
    """
    if not is_same(answer, right, tol=tol):
        for sentence, wrong in mistakes.items():
            assert not is_same(answer, wrong, tol=tol), sentence
        raise AssertionError(otherwise)


class AnyOf(tuple):
    """Several results of one mistake: `AnyOf([2, -2])`, the `b` of `is_same`, stands for any one of them."""


def is_same(a: Any, b: Any, *, tol: float = 0.0) -> bool:
    """Whether numbers, tensors, arrays, or lists and dicts of them are equal up to `tol`, relative and absolute."""
    if isinstance(b, AnyOf):
        return any(is_same(a, option, tol=tol) for option in b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(is_same(a[key], b[key], tol=tol) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(is_same(x, y, tol=tol) for x, y in zip(a, b, strict=True))
    if isinstance(a, NUMBERS) and isinstance(b, NUMBERS):
        a, b = (torch.as_tensor(value, dtype=torch.float64).detach() for value in (a, b))
        return a.shape == b.shape and torch.allclose(a, b, rtol=tol, atol=tol, equal_nan=True)
    return type(a) is type(b) and bool(a == b)


def as_number(value: Any, otherwise: str = "one number is wanted, this is something else") -> float:
    """The plain number that `value` is, or holds as its only element; else `otherwise` is said."""
    assert isinstance(value, NUMBERS) and torch.as_tensor(value).numel() == 1, otherwise
    return torch.as_tensor(value, dtype=torch.float64).item()


def _state(given: Any) -> Any:
    """A copy of what a call could change, made of what `is_same` compares; other things stand for themselves."""
    given = given.state_dict() if isinstance(given, nn.Module) else given
    if isinstance(given, dict):
        return {key: _state(value) for key, value in given.items()}
    if isinstance(given, list | tuple):
        return [_state(value) for value in given]
    return torch.as_tensor(given).detach().clone() if isinstance(given, NUMBERS) else given


def as_check(function: Callable[[Any], None]) -> Callable[[Any], None]:
    """Turn a function that asserts into a check: crashes explained, random state left alone, progress noted."""

    @functools.wraps(function)
    def check(answer: Any) -> None:
        if not __debug__:  # else every wrong answer would be correct
            raise RuntimeError("python -O leaves out what checks assert: start Python without it")
        name = getattr(answer, "__name__", "your answer")
        refusal = cause = None
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                function(answer)
        except AssertionError as problem:
            refusal, cause = problem, problem.__cause__
        except NotImplementedError as problem:
            if "forward" not in str(problem):  # torch's own words for a module without one
                hint = "replace the line `raise NotImplementedError` by your code, run that cell, then this one"
                raise AssertionError(f"{name} is not written yet: {hint}") from None  # no answer yet: nothing to note
            refusal = AssertionError(f"{name} has no method forward: is its name spelled so, and indented?")
        except Exception as problem:
            refusal, cause = AssertionError(f"{name} stops with {type(problem).__name__}: {problem}"), problem
        progress.note(function.__name__.removeprefix("check_"), refusal and str(refusal))
        if refusal:
            raise refusal from cause
        print(f"{name}: correct")

    return check
