"""From the number of an image to the seed that it is drawn from."""

from __future__ import annotations

import hashlib

_INDEX_BITS = 20
_ATTEMPT_BITS = 12
_MASK = 2**32 - 1

MAX_IMAGES = 2**_INDEX_BITS
MAX_ATTEMPTS = 2**_ATTEMPT_BITS - 64
"""Draws for one image. The few that are left over fill the last batches of a device that draws several at once."""


def candidate_seed(base_seed: int, index: int, attempt: int) -> int:
    """Seed of draw number `attempt` for image number `index`.

    For one base seed all candidates of all images have different seeds, so no image can occur twice: (attempt, index)
    is a 32-bit number, and each step from it to the seed is a bijection. Different base seeds shuffle the numbers
    differently, so that sets drawn with the base seeds 0 and 1 do not overlap but for rare coincidence, as they would
    if image i had the seed `base_seed + i`.

    Args:
        base_seed: any integer.
        index: 0 to 2^20 - 1.
        attempt: 0 to 2^12 - 1.

    Returns:
        0 to 2^32 - 1.

    Raises:
        ValueError: index or attempt are out of range.
    """
    if not 0 <= index < 2**_INDEX_BITS or not 0 <= attempt < 2**_ATTEMPT_BITS:
        raise ValueError(
            f"`index` must be from 0 to {2**_INDEX_BITS - 1} and `attempt` from 0 to {2**_ATTEMPT_BITS - 1}, but they "
            f"are {index} and {attempt}."
        )
    digest = hashlib.sha256(f"dfmgan-hf export {base_seed}".encode()).digest()
    first, second = int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")
    return _shuffle((_shuffle((attempt << _INDEX_BITS | index) ^ first) + second) & _MASK)


def _shuffle(x: int) -> int:
    """The finaliser of MurmurHash3 (A. Appleby, public domain), a bijection of 32-bit numbers."""
    x = (x ^ x >> 16) * 0x85EBCA6B & _MASK
    x = (x ^ x >> 13) * 0xC2B2AE35 & _MASK
    return x ^ x >> 16
