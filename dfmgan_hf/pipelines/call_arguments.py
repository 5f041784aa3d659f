"""What the pipeline's call accepts: every check, and from the arguments to one latent pair per image."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..models.generator import LatentSpace

OutputType = Literal["pil", "np", "pt"]
OUTPUT_TYPES: tuple[OutputType, ...] = get_args(OutputType)
LATENT_SPACES: tuple[LatentSpace, ...] = get_args(LatentSpace)

# The CPU generator (a Mersenne Twister) takes 32 bits of its seed: larger ones would repeat the pictures of smaller.
MAX_SEED = 2**32 - 1
MAX_TRUNCATION_PSI = 2.0


@dataclass(frozen=True)
class Draws:
    """What is random about each image.

    Args:
        object_latents: z, (N, z_dim), float32 on the CPU.
        defect_latents: z, (N, z_dim), float32 on the CPU.
        noise_seeds: N seeds of the noise that `noise_mode="random"` adds.
    """

    object_latents: Tensor
    defect_latents: Tensor
    noise_seeds: list[int]


def draw(generators: Sequence[torch.Generator | None], z_dim: int) -> Draws:
    """Draw object z, defect z and a noise seed for each image, in this order and image after image.

    All three are always drawn: the defect code of a seed is then the same whether its object is given or drawn, and
    image i of a generator that serves many images does not depend on how many follow.

    Args:
        generators: one for each image; the same one may serve several; None draws from torch's global generator.
        z_dim: width of both latents.
    """
    objects, defects, noise_seeds = [], [], []
    for generator in generators:
        device = "cpu" if generator is None else generator.device
        objects.append(torch.randn(z_dim, generator=generator, device=device, dtype=torch.float32).cpu())
        defects.append(torch.randn(z_dim, generator=generator, device=device, dtype=torch.float32).cpu())
        noise_seeds.append(int(torch.randint(MAX_SEED + 1, (), generator=generator, device=device)))
    return Draws(torch.stack(objects), torch.stack(defects), noise_seeds)


def generators_from_seeds(seeds: list[int]) -> list[torch.Generator]:
    """One CPU generator for each seed."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def check_seeds(seeds: Iterable[int]) -> list[int]:
    """`seeds` as a list of integers from 0 to 2^32 - 1; ValueError otherwise."""
    allowed = f"a sequence of integers from 0 to {MAX_SEED}, one for each image"
    if isinstance(seeds, (str, bytes)):
        raise ValueError(f"`seeds` must be {allowed}, but is {seeds!r}.")
    try:
        checked = [_as_integer(seed) for seed in seeds]
    except TypeError:
        raise ValueError(f"`seeds` must be {allowed}, but is {_shown(seeds)}.") from None
    if not checked:
        raise ValueError(f"`seeds` must be {allowed}, but is empty.")
    for i, seed in enumerate(checked):
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"`seeds` must be {allowed}, but seeds[{i}] is {seed}.")
    return checked


def check_positive_integer(value: Any, name: str) -> int:
    """`value` as an integer of at least 1; ValueError that names the argument otherwise."""
    try:
        checked = _as_integer(value)
    except TypeError:
        raise ValueError(f"`{name}` must be an integer of at least 1, but is {_shown(value)}.") from None
    if checked < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1, but is {checked}.")
    return checked


def check_number(value: Any, name: str, lowest: float, highest: float) -> float:
    """`value` as a finite float within bounds; ValueError that names the argument otherwise."""
    allowed = f"a number from {lowest:g} to {highest:g}" if math.isfinite(highest) else "a finite number"
    if isinstance(value, (bool, str, bytes)):
        raise ValueError(f"`{name}` must be {allowed}, but is {_shown(value)}.")
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"`{name}` must be {allowed}, but is {_shown(value)}.") from None
    if not math.isfinite(number) or not lowest <= number <= highest:
        raise ValueError(f"`{name}` must be {allowed}, but is {number}.")
    return number


def check_choice(value: Any, name: str, choices: tuple[str, ...]) -> None:
    """ValueError that names the argument unless `value` is one of `choices`."""
    if value not in choices:
        allowed = ", ".join(map(repr, choices))
        raise ValueError(f"`{name}` must be one of {allowed}, but is {_shown(value)}.")


def check_latents(latents: Any, name: str, space: str, expected: tuple[int, ...]) -> None:
    """ValueError unless `latents` is a finite floating-point tensor (N, *expected) with N of at least 1."""
    allowed = f'a tensor of shape (N, {", ".join(map(str, expected))}) in space "{space}"'
    if not isinstance(latents, Tensor):
        raise ValueError(f"`{name}` must be {allowed}, but is {_shown(latents)}.")
    if tuple(latents.shape[1:]) != expected or latents.ndim != len(expected) + 1 or len(latents) == 0:
        raise ValueError(f"`{name}` must be {allowed}, but its shape is {tuple(latents.shape)}.")
    if not latents.is_floating_point():
        raise ValueError(f"`{name}` must be {allowed} and floating point, but its dtype is {latents.dtype}.")
    if not torch.isfinite(latents).all():
        raise ValueError(f"`{name}` must be {allowed} and finite, but it holds NaN or infinity.")


def check_generator(generator: Any) -> None:
    """ValueError unless `generator` is None, a torch.Generator or a list of some."""
    allowed = "None, a torch.Generator or a list of them, one for each image"
    entries = generator if isinstance(generator, list) else [] if generator is None else [generator]
    for entry in entries:
        if not isinstance(entry, torch.Generator):
            raise ValueError(f"`generator` must be {allowed}, but is or holds {_shown(entry)}.")
    if isinstance(generator, list) and not generator:
        raise ValueError(f"`generator` must be {allowed}, but is an empty list.")


def resolve_num_images(num_images: int, given: dict[str, Sized | None], shareable: tuple[str, ...]) -> int:
    """The number of images that `num_images` and the lengths of the other arguments agree on.

    `num_images=1`, the default, goes with any length; so does one entry of an argument that all images can share.

    Args:
        num_images: as given to the call.
        given: the arguments that have a length; None for those that were not given.
        shareable: names of those that may hold one entry for all images.

    Raises:
        ValueError: two lengths that disagree.
    """
    agreed, said_by = num_images, "num_images"
    for name, value in given.items():
        if value is not None and agreed == 1 and len(value) > 1:
            agreed, said_by = len(value), name
    for name, value in given.items():
        length = agreed if value is None else len(value)
        if length != agreed and not (length == 1 and name in shareable):
            allowed = f"1 or {agreed}" if name in shareable else f"{agreed}"
            raise ValueError(f"`{name}` must hold {allowed} to go with `{said_by}`, but holds {length}.")
    return agreed


def _as_integer(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def _shown(value: Any) -> str:
    """A value in an error message: type and a shortened text."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
