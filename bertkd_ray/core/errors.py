"""The one exception that means: the user can fix this."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in the user's input or configuration.

    The message is one line that names the file and line, or the configuration key, and the fix. The command line prints
    it without a traceback and exits with code 2.
    """
