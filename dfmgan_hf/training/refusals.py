"""How a training script ends on what its user can mend: with the message, and without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .checkpointing import CheckpointError
from .monitoring import NonFiniteLossError

# Those of data, metrics and the Hub are kinds of OSError and ValueError.
EXPECTED_ERRORS = (CheckpointError, NonFiniteLossError, torch.OutOfMemoryError, ImportError, OSError, ValueError)


@contextmanager
def end_in_words() -> Iterator[None]:
    """Inside, errors that the user can mend end the program with status 1 and their message alone.

    Anything else is a fault of the program and keeps its traceback.

    Raises:
        SystemExit: with the message.
    """
    try:
        yield
    except EXPECTED_ERRORS as error:
        raise SystemExit(f"Stopped: {error}") from error
