"""From what a visitor asked for to triplets: a recipe says everything that a picture depends on."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from catalog import Catalog
from device import gpu_is_borrowed, where_it_computes
from limits import refusal, seeds_from
from photographs import open_safely
from PIL import Image
from torch import Tensor

from dfmgan_hf.export import ExportConfig, ExportError, Sample, draw_samples
from dfmgan_hf.painting import NUM_TWINS, PaintConfig, Placement, TwinIndex
from dfmgan_hf.photograph import PaintError, Photograph

Varied = Literal["defect", "part"]
MAX_ROUNDS = 4
OPENING_CANDIDATES = 48
# What errors call by the name of an argument is a widget here.
NAMES_ON_THE_PAGE = (
    ("the right `window`", "the right scale"),
    ("`window`", "the scale"),
    ("smaller `size`", "smaller scale"),
    ("give a `mask`", "brush over the place"),
    ("with `any_product`", "with the box under “Scale and product” ticked"),
)


@dataclass(frozen=True)
class Recipe:
    """What is drawn: entry i is the part of `part_seeds[i]` with the defect of `defect_seeds[i]`.

    Args:
        model: name in the catalog.
        part_seeds, defect_seeds: as many of both.
        truncation_psi, mask_threshold: as in `DFMGANPipeline`.
        strength: factor on what the defect changes, 1 as it was learnt; see `at_strength`.
    """

    model: str
    part_seeds: tuple[int, ...]
    defect_seeds: tuple[int, ...]
    truncation_psi: float = 1.0
    mask_threshold: float = 0.0
    strength: float = 1.0

    def of(self, part_seeds: tuple[int, ...], defect_seeds: tuple[int, ...]) -> Recipe:
        """The recipe of other pictures, drawn in the same way."""
        return replace(self, part_seeds=part_seeds, defect_seeds=defect_seeds)


@dataclass(frozen=True)
class Triplet:
    """One drawn part.

    Args:
        part_seed, defect_seed: what it was drawn from.
        image: the part with the defect, mode L or RGB.
        mask: mode L, 255 where the defect is and 0 elsewhere.
        defect_free: the same part without it.
    """

    part_seed: int
    defect_seed: int
    image: Image.Image
    mask: Image.Image
    defect_free: Image.Image

    @property
    def defect_pixels(self) -> int:
        """Number of pixels of the mask that are on."""
        return int(np.count_nonzero(np.asarray(self.mask)))

    @property
    def defect_percent(self) -> float:
        """Area of the defect in percent of the picture."""
        return 100 * self.defect_pixels / (self.mask.width * self.mask.height)

    @property
    def visibility(self) -> float:
        """How easily an eye finds the defect: how much it changes the part, times the share that it leaves alone.

        Halved where the part is as good as black.
        """
        part = np.asarray(self.defect_free, np.float32)
        change = float(np.abs(np.asarray(self.image, np.float32) - part).mean())
        seen = change * (1 - self.defect_percent / 100) if self.defect_pixels else 0.0
        return seen if part.mean() > 64 else seen / 2


@dataclass(frozen=True)
class Drawn:
    """Parts that were drawn one after the other.

    Args:
        recipe, triplets: what was drawn.
        next_seed: from which others are drawn next.
    """

    recipe: Recipe
    triplets: list[Triplet]
    next_seed: int


@dataclass(frozen=True)
class Painting:
    """A photograph with a painted defect.

    Args:
        before: the photograph as it came.
        image: the painted one, a PIL image or (colour with 16 bits) an array.
        label: mode L, 255 where a pixel has visibly changed and 0 elsewhere.
        places: where it is; several, if no window of the model holds all that was brushed.
    """

    before: Photograph
    image: Any
    label: Image.Image
    places: tuple[Placement, ...]


class Drawer:
    """Draws with the catalog's models.

    Args:
        catalog: the models that the operator configured.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._run = where_it_computes(self._run_pipeline)
        self._run_sampler = where_it_computes(self._sample)
        self._run_painter = where_it_computes(self._paint)
        self._run_preparer = where_it_computes(self._prepare)
        self._painting = threading.Lock()
        self._kept: dict[Recipe, Drawn] = {}
        self._keeping = threading.Lock()

    def draw(self, recipe: Recipe) -> list[Triplet]:
        """All triplets of a recipe."""
        parts, defects = self._latents(recipe)
        return self._triplets(recipe, parts, defects)

    def draw_with_defects(self, recipe: Recipe) -> Drawn:
        """As many triplets as the recipe has, but only such with a defect: seeds that draw none are passed over.

        Where hardly any seed draws one there may be fewer, and where none does, they are those of the recipe.
        """
        count, first = len(recipe.part_seeds), recipe.part_seeds[0]
        kept: list[Triplet] = []
        for attempt in range(MAX_ROUNDS):
            seeds = seeds_from(first + attempt * count, count)
            drawn = self.draw(recipe.of(seeds, seeds))
            kept += [triplet for triplet in drawn if triplet.defect_pixels]
            if len(kept) >= count:
                break
        kept = kept[:count] or self.draw(recipe)
        parts = tuple(triplet.part_seed for triplet in kept)
        return Drawn(recipe.of(parts, parts), kept, seeds_from(parts[-1] + 1, 1)[0])

    def opening(self, recipe: Recipe) -> Drawn:
        """What is seen first of a model: neighbours among its first parts on which defects are seen best.

        Drawn at the first call and kept for ever: it waits for no other visitor.
        """
        with self._keeping:
            if recipe not in self._kept:
                count = len(recipe.part_seeds)
                seeds = seeds_from(recipe.part_seeds[0], OPENING_CANDIDATES)
                triplets = [triplet for triplet in self.draw(recipe.of(seeds, seeds)) if triplet.defect_pixels]
                blocks = [triplets[i : i + count] for i in range(max(len(triplets) - count, 0) + 1)]
                best = max(blocks, key=lambda block: sum(triplet.visibility**0.5 for triplet in block))
                parts = tuple(triplet.part_seed for triplet in best)
                if parts:
                    self._kept[recipe] = Drawn(recipe.of(parts, parts), best, parts[-1] + 1)
                else:
                    self._kept[recipe] = self.draw_with_defects(recipe)
            return self._kept[recipe]

    def samples(self, model: str, config: ExportConfig) -> Generator[Sample, None, None]:
        """The triplets of an export, encoded, one by one; `gr.Error` if the model draws no defect at its threshold."""
        return self._run_sampler(model, config)

    def prepare_to_paint(self) -> None:
        """Begin to draw the twins of every model, which takes up to half a minute once.

        A borrowed GPU is not there yet: then the first painting waits.
        """

        def prepare() -> None:
            for name in self.catalog.names:
                with self._painting:
                    self._run_preparer(name)

        if not gpu_is_borrowed():
            threading.Thread(target=prepare, name="twins", daemon=True).start()

    def paint(self, model: str, photograph: Path, mask: np.ndarray | None, seed: int, config: PaintConfig) -> Painting:
        """Paint one defect; `gr.Error` if the photograph or the place does not serve. See `DFMGANPipeline.paint`."""
        with self._painting:
            return self._run_painter(model, photograph, mask, seed, config)

    def walk(self, recipe: Recipe, varied: Varied, num_frames: int) -> list[Triplet]:
        """Frames from a recipe's first entry to its second: one latent moves, the first entry's other one stays.

        Latents are Gaussian, so the way between two of them is an arc (slerp): every point on it is as likely as its
        ends, which the points of a straight line are not.
        """
        parts, defects = self._latents(recipe)
        if varied == "defect":
            parts, defects = parts[:1], _arc(defects[0], defects[1], num_frames)
        else:
            parts, defects = _arc(parts[0], parts[1], num_frames), defects[:1]
        frames = recipe.of(recipe.part_seeds[:1] * num_frames, recipe.defect_seeds[:1] * num_frames)
        return self._triplets(frames, parts, defects)

    def _latents(self, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """Part latents and defect latents, each (N, z_dim)."""
        pipe = self.catalog[recipe.model].pipe
        return pipe.latents_from_seeds(recipe.part_seeds)[0], pipe.latents_from_seeds(recipe.defect_seeds)[1]

    def _triplets(self, recipe: Recipe, parts: Tensor, defects: Tensor) -> list[Triplet]:
        images, masks, twins = self._run(
            recipe.model, len(recipe.part_seeds), parts, defects, recipe.truncation_psi, recipe.mask_threshold
        )
        images = [at_strength(twin, image, recipe.strength) for twin, image in zip(twins, images, strict=True)]
        return [
            Triplet(*entry) for entry in zip(recipe.part_seeds, recipe.defect_seeds, images, masks, twins, strict=True)
        ]

    def _run_pipeline(
        self, model: str, num_images: int, parts: Tensor, defects: Tensor, truncation_psi: float, threshold: float
    ) -> tuple[list[Image.Image], list[Image.Image], list[Image.Image]]:
        return self.catalog[model].pipe(
            defect=self.catalog[model].defect,
            num_images=num_images,
            object_latents=parts,
            defect_latents=defects,
            truncation_psi=truncation_psi,
            mask_threshold=threshold,
            return_dict=False,
        )

    def _prepare(self, model: str) -> None:
        pipe = self.catalog[model].pipe
        TwinIndex.of(pipe.unwrapped_generator, pipe.latents_from_seeds(range(NUM_TWINS))[0])

    def _paint(
        self, model: str, photograph: Path, mask: np.ndarray | None, seed: int, config: PaintConfig
    ) -> Painting:
        before = open_safely(photograph)
        try:
            chosen = self.catalog[model]
            output = chosen.pipe.paint(before, mask=mask, seeds=[seed], config=config, defect=chosen.defect)
        except PaintError as error:
            words = str(error)
            for name, on_the_page in NAMES_ON_THE_PAGE:
                words = words.replace(name, on_the_page)
            raise refusal(words) from error
        return Painting(before, output.images[0], output.labels[0], output.placements[0])

    def _sample(self, model: str, config: ExportConfig) -> Generator[Sample, None, None]:
        try:
            yield from draw_samples(self.catalog[model].pipe, config, range(config.num_images))
        except ExportError as error:
            # Said here, not by the caller: from ZeroGPU's process only gradio's own errors come back as they are.
            raise refusal(
                f"{config.max_attempts} seeds in a row drew no defect at this threshold: lower the mask threshold."
            ) from error


def at_strength(defect_free: Image.Image, image: Image.Image, strength: float) -> Image.Image:
    """A part with what its defect changes, times `strength`: what painting does to a photograph. The mask stays."""
    return image if strength == 1 else Image.blend(defect_free, image, strength)


def _arc(start: Tensor, end: Tensor, num_points: int) -> Tensor:
    """`num_points` latents (num_points, z_dim) on the arc from `start` to `end`, both (z_dim,), ends included."""
    cosine = torch.dot(start, end) / (start.norm() * end.norm())
    angle = torch.acos(cosine.clamp(-1, 1))
    t = torch.linspace(0, 1, num_points).unsqueeze(1)
    if angle < 1e-3:
        return torch.lerp(start, end, t)
    return (torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end) / torch.sin(angle)
