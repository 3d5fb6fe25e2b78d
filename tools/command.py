"""How a tool ends as a command."""

import functools
import sys
from collections.abc import Callable

from course_lib.errors import UserError


def command(main: Callable[..., int]) -> Callable[..., int]:
    """`main`, which returns an exit status; a user's mistake is one sentence on stderr and status 2."""

    @functools.wraps(main)
    def finished(*arguments, **options) -> int:
        try:
            return main(*arguments, **options)
        except UserError as mistake:
            print(f"error: {mistake}", file=sys.stderr)
            return 2

    return finished
