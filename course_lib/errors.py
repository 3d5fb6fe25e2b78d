"""The one exception a user is meant to read."""


class UserError(ValueError):
    """A mistake the user can mend: one sentence that says what is wrong, where, and what to do.

    The command line prints it without a traceback and ends with status 2.
    """
