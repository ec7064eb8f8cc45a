"""The one exception that users see."""

from __future__ import annotations


class ReplicationError(Exception):
    """Bad input or a broken precondition, told in one sentence that names what and where.

    The command line prints the message on one line and exits with status 2; nothing in the package
    catches it silently.
    """
