"""Drawing with Defect-GAN: defects of a chosen kind on random good photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..metrics.sampler import Samples
from ..models import DefectGANGenerator, control_map
from ..models.defect_gan import DefectGANGeneratorOutput
from ..training.sheets import to_pixels
from .good_images import Photographs
from .method import SamplerRequest

NORMAL, DEFECT = 0, 1
"""Classes of the control map; with several kinds of defect, 1 is the first of them."""

MASK_THRESHOLD = 0.5


@dataclass(frozen=True)
class DefectGANDrawing:
    """What Defect-GAN draws beside the images.

    Args:
        pseudo_mask: Give the places with a spatial distribution above 1/2 as masks. They are not what the paper calls
            masks, and nothing keeps them to the defect.
    """

    pseudo_mask: bool = False


class DefectGANSampler:
    """Defects on random good photographs.

    Args:
        generator: trained.
        good: defect-free photographs.
        pseudo_mask: give the places with a spatial distribution above 1/2 as masks.
        classes: what is drawn; with several, each image is of one that its seed picks. A class that occurs twice
            comes twice as often.
        defect: name of the kind that is drawn, for results; None where it has none.
    """

    def __init__(
        self,
        generator: DefectGANGenerator,
        good: Photographs,
        *,
        pseudo_mask: bool = False,
        classes: Sequence[int] = (DEFECT,),
        defect: str | None = None,
    ) -> None:
        self.generator = generator
        self.good = good
        self.pseudo_mask = pseudo_mask
        self.classes = tuple(classes)
        self.defect = defect

    @property
    def settings(self) -> dict[str, Any]:
        """For results."""
        named = {} if self.defect is None else {"defect": self.defect}
        return {"pseudo_mask": self.pseudo_mask, "num_good": len(self.good), **named}

    def sample(self, n: int, generator: torch.Generator) -> Samples:
        """Draws n images with seeds drawn from `generator`."""
        seeds = torch.randint(2**31, (n,), generator=generator, device=generator.device)
        return self._draw(seeds.tolist())

    def sample_at(self, indices: Sequence[int], seed: int) -> Samples:
        """Draws the images with seeds `seed + i`: each picks the photograph, the class, then the noise."""
        return self._draw([seed + i for i in indices])

    def _draw(self, seeds: list[int]) -> Samples:
        good, output = self.translate(seeds)
        masks = (output.distribution > MASK_THRESHOLD).to("cpu", torch.uint8) * 255 if self.pseudo_mask else None
        return to_pixels(output.images)[:, : good.shape[1]], masks

    @torch.no_grad()
    def translate(self, seeds: Sequence[int]) -> tuple[Tensor, DefectGANGeneratorOutput]:
        """Good photographs (n, C, R, R) and what is drawn on them, all of it following from each seed alone."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        good = self.good.at([_pick(len(self.good), g) for g in generators])
        # A single class takes no random number, so that images of such models stay what they are.
        picks = [_pick(len(self.classes), g) if len(self.classes) > 1 else 0 for g in generators]
        wanted = torch.tensor([self.classes[pick] for pick in picks], device=good.device, dtype=torch.int64)
        # One at a time on the CPU, where batches of different sizes round differently.
        step = 1 if good.device.type == "cpu" else max(len(good), 1)
        outputs = []
        for start in range(0, len(good), step):
            part = slice(start, start + step)
            control = control_map(wanted[part], self.generator.config["num_classes"])
            outputs.append(self.generator(good[part], control, generators[part]))
        return good, DefectGANGeneratorOutput(
            **{key: torch.cat([output[key] for output in outputs]) for key in outputs[0]}
        )


def _pick(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def open_sampler(request: SamplerRequest) -> DefectGANSampler:
    """Draws with a trained folder on photographs; a model of several kinds draws the request's.

    Raises:
        ValueError: the model knows several kinds, and the request names none or another one.
    """
    generator = DefectGANGenerator.from_pretrained(
        str(request.source), subfolder="generator", revision=request.revision
    ).to(request.device)
    names, defect = generator.config["defect_names"], request.defect
    if names is not None and defect not in names:
        raise ValueError(
            f"{request.source} draws the defects {', '.join(names)}"
            + (": choose one with --defect." if defect is None else f", but not {defect!r}; choose one of them.")
        )
    resolution, channels = generator.config["resolution"], generator.config["image_channels"]
    return DefectGANSampler(
        generator,
        Photographs(request.load_good(resolution, channels).images, request.device),
        pseudo_mask=request.options.pseudo_mask,
        classes=(DEFECT if names is None else DEFECT + list(names).index(defect),),
        defect=None if names is None else defect,
    )
