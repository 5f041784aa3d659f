"""What is wrong with a file or folder, said so that the reader can mend it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


class DataError(ValueError):
    """A problem with the user's files.

    The message names the file, what was found, what was expected and what to do, in this order.

    Args:
        code: Short stable name of the kind of problem (`"unreadable"`, `"no_mask"`, ...), for reports and tests.
        path: The file or folder that is at fault.
        found: What is there.
        expected: What should be there.
        advice: What to do about it.
    """

    def __init__(self, code: str, path: Path | str, *, found: str, expected: str, advice: str) -> None:
        self.code = code
        self.path = str(path)
        self.found = found
        self.expected = expected
        self.advice = advice
        super().__init__(f"{path}: {found}. Expected {expected}. {advice}")

    def __reduce__(self) -> tuple[Callable[..., DataError], tuple[str, ...]]:
        # Worker processes send exceptions home by their positional arguments, which are the message alone.
        return _rebuild, (self.code, self.path, self.found, self.expected, self.advice)


def _rebuild(code: str, path: str, found: str, expected: str, advice: str) -> DataError:
    return DataError(code, path, found=found, expected=expected, advice=advice)


class DataWarning(UserWarning):
    """Something that works but is probably not what the user meant, such as a mask with grey values."""
