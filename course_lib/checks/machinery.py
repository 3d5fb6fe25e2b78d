"""What every check is made of: the frame that speaks to the learner, and `expect`."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.lesson import progress


def expect(name: str, value: float, reference: float, tol: float) -> None:
    """Assert `abs(value - reference) <= tol` and print a line that is the same on every machine.

    Raises:
        AssertionError: it is not, or value is not a number.
    """
    assert abs(value - reference) <= tol, f"{name} is {value:.4g}, expected {reference:g} ± {tol:g}"
    print(f"{name}: ok ({reference:g} ± {tol:g})")


def ask(
    fn: Callable[..., Any],
    *given: Any,
    returns: type | tuple[type, ...] = Tensor,
    shape: tuple[int, ...] | None = None,
    what: str = "the answer",
) -> Any:
    """What `fn(*given)` returns: something, of a type in `returns`, of this `shape`, and `given` as it was before.

    `what` names what is wanted, "the loss" or "a mask".

    Raises:
        AssertionError: in words for the learner, where one of these does not hold.
    """
    kept = copy.deepcopy(given)
    answer = fn(*given)
    assert is_same(given, kept), "what came in was changed: make something new, with no in-place step on it"
    assert answer is not None, f"nothing comes back: return {what}"
    wanted = " or ".join(kind.__name__ for kind in (returns if isinstance(returns, tuple) else (returns,)))
    assert isinstance(answer, returns), f"{what} is of type {type(answer).__name__}: return a {wanted}"
    assert shape is None or tuple(answer.shape) == shape, f"{what} has shape {tuple(answer.shape)}, expected {shape}"
    return answer


def told(found: Any, right: Any, mistakes: dict[str, Any], otherwise: str, *, tol: float = 1e-5) -> None:
    """Accept what equals `right`; else say the sentence of the mistake that gives what was found, or `otherwise`.

    Args:
        found, right: numbers, tensors, or lists and tuples of them.
        mistakes: a sentence for the learner -> what that mistake gives, like `right`; the first that fits is said.
        tol: how far two numbers may be apart and count as the same.

    Raises:
        AssertionError: the sentence.
    """
    for sentence, wrong in mistakes.items():
        assert not is_same(found, wrong, tol=tol), sentence
    assert is_same(found, right, tol=tol), otherwise


def is_same(a: Any, b: Any, *, tol: float = 0.0) -> bool:
    """Whether two answers say the same: equal shapes, and values at most `tol` apart (relative and absolute)."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(is_same(x, y, tol=tol) for x, y in zip(a, b, strict=True))
    if isinstance(a, Tensor | float | int) and isinstance(b, Tensor | float | int):
        a, b = (torch.as_tensor(value).detach().to(torch.float64) for value in (a, b))
        return a.shape == b.shape and torch.allclose(a, b, rtol=tol, atol=tol, equal_nan=True)
    return bool(a == b)


class _Hole(AssertionError):
    """The exercise has not been begun."""


def as_check(function: Callable[[Any], None]) -> Callable[[Any], None]:
    """Turn a function that asserts into a check: crashes explained, random state left alone, progress noted."""

    @functools.wraps(function)
    def check(answer: Any) -> None:
        name = getattr(answer, "__name__", "your answer")
        exercise = function.__name__.removeprefix("check_")
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                _ask(function, answer, name)
        except _Hole:
            raise  # no answer yet
        except AssertionError as problem:
            progress.note(exercise, str(problem))
            raise
        progress.note(exercise, None)
        print(f"{name}: correct")

    return check


def _ask(function: Callable[[Any], None], answer: Any, name: str) -> None:
    """Run the check. Whatever goes wrong becomes an AssertionError in words for the learner."""
    try:
        function(answer)
    except NotImplementedError as problem:
        if "forward" in str(problem):  # torch's own words for a module without one
            raise AssertionError(f"{name} has no method forward: is its name spelled so, and indented?") from None
        hint = "replace the line `raise NotImplementedError` by your code, run that cell, then this one"
        raise _Hole(f"{name} is not written yet: {hint}") from None
    except AssertionError:
        raise
    except Exception as problem:
        raise AssertionError(f"{name} stops with {type(problem).__name__}: {problem}") from problem
