"""The one error that is the user's to mend."""


class UserError(Exception):
    """A mistake in input, options or files.

    The message is one line: what is wrong, where, and what to do about it. Commands print it without
    a traceback and exit with code 2.
    """
