"""What stops an export, said so that the reader can mend it."""

from __future__ import annotations


class ExportError(ValueError):
    """An option, a folder or a model with which an export cannot go on.

    The message says where, what was found, what was expected and what to do, in this order.
    """

    def __init__(self, where: object, *, found: str, expected: str, advice: str) -> None:
        super().__init__(f"{where}: {found}. Expected {expected}. {advice}")


class OneProcessError(ExportError):
    """An error that the other processes do not meet, so that the one that met it has to say it."""
