"""What every check is made of: the frame that speaks to the learner, and `expect`."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from course_lib.lesson import progress


def expect(name: str, value: float, reference: float, tol: float) -> None:
    """Assert `abs(value - reference) <= tol` and print a line that is the same on every machine.

    Raises:
        AssertionError: it is not, or value is not a number.
    """
    assert abs(value - reference) <= tol, f"{name} is {value:.4g}, expected {reference:g} ± {tol:g}"
    print(f"{name}: ok ({reference:g} ± {tol:g})")


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
