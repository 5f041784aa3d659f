"""What classifiers and segmentation networks are trained on: photographs, generated images, or both."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import DataConfig, ImageMaskDataset
from ..methods.method import SamplerRequest
from ..methods.registry import METHODS, get_method, open_sampler
from ..metrics import FolderSampler, Sampler
from ..metrics.sampler import draw
from .cells import check_held_out, check_learnt, trained_template

_BATCH_SIZE = 32


@dataclass(frozen=True)
class LabelledImages:
    """Images of several kinds of defect.

    Args:
        images: uint8 (n, 3, R, R).
        labels: int64 (n,), the number of the kind.
        masks: uint8 (n, 1, R, R) with 0 and 255, or None.
        origin: what is known of how generated images were drawn, for results.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor | None = None
    origin: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Place:
    """Where photographs and generated images of one kind of defect come from.

    Args:
        data: the photographs of the category.
        category, defect, split: names, for folders that are named after them.
        base_list: file list of the photographs that a generator may have seen.
        test_list: file list of those that are tested on.
        resolution: of the images.
        device: where networks draw.
    """

    data: DataConfig
    category: str
    defect: str
    split: str
    base_list: Path
    test_list: Path
    resolution: int
    device: torch.device

    def fill(self, template: str, method: str) -> str:
        """A path in which {category}, {defect}, {split} and {method} stand for the names."""
        return template.format(category=self.category, defect=self.defect, split=self.split, method=method)


@dataclass(frozen=True)
class Source:
    """A method as a benchmark knows it: by a folder of images, a trained model, or the photographs alone.

    Args:
        name: in tables.
        images: template of a folder of generated images; None to draw.
        model: template of a folder that training wrote; None for a method that is not trained.
    """

    name: str
    images: str | None = None
    model: str | None = None

    @property
    def title(self) -> str:
        return METHODS[self.name].title if self.name in METHODS else self.name

    def check(self, place: Place) -> None:
        """See that the model is one for this place, as far as its record says.

        Raises:
            ValueError: it has not learnt this kind of defect, or has seen photographs that are tested on.
        """
        if self.model is not None:
            folder = Path(place.fill(self.model, self.name))
            check_learnt(folder, place.defect, self.model)
            check_held_out(folder, place.test_list)

    def open(self, place: Place) -> Sampler:
        """The sampler of one kind of defect.

        Raises:
            DataError: the folder of images cannot be used.
            OSError: the folder of the model holds none.
            ValueError: the model draws at another resolution.
        """
        if self.images is not None:
            folder = Path(place.fill(self.images, self.name))
            # A folder of its own for each defect may call it anything.
            defect = None if "{defect}" in self.images else place.defect
            return FolderSampler(folder, defect=defect, resolution=place.resolution)
        data = replace(place.data, file_list=place.base_list, shots=None)
        model = None if self.model is None else place.fill(self.model, self.name)
        request = SamplerRequest(model, data, place.defect, place.resolution, device=place.device)
        return open_sampler(request, None if model is not None else self.name)


def make_sources(methods: Sequence[str], trained: Sequence[str], generated: Sequence[str]) -> list[Source]:
    """What command lines say as sources.

    Args:
        methods: names of the registry.
        trained: templates of the folders of trained models, see `trained_template`.
        generated: "NAME=FOLDER" each; a NAME of the registry gets its title.

    Raises:
        ValueError: an unknown method, one without its folder, text without "=", or a name that occurs twice.
    """
    sources = []
    for entry in generated:
        name, separator, folder = entry.partition("=")
        if not (name and separator and folder):
            raise ValueError(f"`generated` must be NAME=FOLDER, such as dfmgan=outputs/frays, but is {entry!r}.")
        sources.append(Source(name, images=folder))
    for name in methods:
        method = get_method(name)
        template = trained_template(trained, name) if method.is_trained else None
        if method.is_trained and template is None:
            raise ValueError(
                f"{method.title} is trained: name the folders with --trained, such as 'runs/{{split}}/{{defect}}/"
                f"{{method}}', or its images with --generated {name}=FOLDER. examples/train_baseline.py trains it, on "
                "a split's photographs with --file_list."
            )
        sources.append(Source(name, model=template))
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"Each source needs a name of its own, but they are {', '.join(names)}.")
    return sources


def draw_images(sampler: Sampler, count: int, seed: int, resolution: int) -> tuple[Tensor, Tensor | None]:
    """Images uint8 (count, 3, R, R) and masks uint8 (count, 1, R, R) or None.

    Raises:
        ValueError: the sampler has fewer images, or draws at another resolution.
    """
    if isinstance(sampler, Sized) and len(sampler) < count:
        raise ValueError(
            f"There are {len(sampler)} images, but {count} are asked for: generate more, or give "
            f"--images_per_defect {len(sampler)} for all methods."
        )
    parts = [draw(sampler, range(i, min(i + _BATCH_SIZE, count)), seed) for i in range(0, count, _BATCH_SIZE)]
    images = torch.cat([part[0] for part in parts])
    if images.shape[-1] != resolution:
        raise ValueError(
            f"The model draws images of {images.shape[-1]}x{images.shape[-1]} pixels, but those of "
            f"{resolution}x{resolution} are compared: give --resolution {images.shape[-1]}."
        )
    masks = [part[1] for part in parts if part[1] is not None]
    return images.expand(-1, 3, -1, -1), torch.cat(masks) if masks else None


def join(parts: Sequence[tuple[Tensor, Tensor | None]]) -> LabelledImages:
    """One set of the images and masks of several kinds, which get the numbers 0, 1, ..."""
    masks = [part_masks for _, part_masks in parts if part_masks is not None]
    return LabelledImages(
        torch.cat([images for images, _ in parts]),
        torch.cat([torch.full((len(images),), number) for number, (images, _) in enumerate(parts)]),
        torch.cat(masks) if len(masks) == len(parts) else None,
    )


def merge(first: LabelledImages, second: LabelledImages) -> LabelledImages:
    """One set of two; without masks if one of them has none."""
    masks = None if first.masks is None or second.masks is None else torch.cat([first.masks, second.masks])
    images, labels = torch.cat([first.images, second.images]), torch.cat([first.labels, second.labels])
    return LabelledImages(images, labels, masks, first.origin | second.origin)


def load_listed(data: DataConfig, defects: Sequence[str], file_list: Path, resolution: int) -> LabelledImages:
    """The photographs that a list names, with their masks.

    Raises:
        DataError: a photograph cannot be used, or the list names none of a kind.
    """
    listed: dict[str, Any] = {"file_list": file_list, "shots": None}
    sets: list[ImageMaskDataset] = [
        replace(data, **listed).load_defects(defect, resolution=resolution) for defect in defects
    ]
    return join([(dataset.images, dataset.masks) for dataset in sets])
