"""Paint defects into a folder of photographs in bulk, resumable, in the forms that others read."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from PIL import Image

from ..arguments import check_device, check_effect
from ..data.archives import unpacked
from ..data.label_forms import LABEL_EXTENSIONS
from ..data.labels import is_labelled
from ..data.layouts import match_masks, split_images_and_masks
from ..data.partitions import unite_kinds
from ..data.preparation import check_pair, read_masks, resize_mask
from ..data.reading import allow_pixels
from ..data.records import DataError, ImageRecord, is_one_line, list_entries, normalised
from ..data.sources import DataSource, find_listing
from ..files import module_sha256
from ..gate import Judgement, QualityGate, join
from ..models.base import image_size
from ..painting import PaintConfig
from ..photograph import PaintError, Photograph
from ..pipeline import DFMGANPipeline
from ..processes import ProcessGroup
from .generate import (
    Attempts,
    Draw,
    Guard,
    candidate_seed,
    crop_shown,
    describe_model,
    export_dataset,
    kind_of,
    open_gate,
)
from .writers import DatasetConfig, ExportError, Sample


@dataclass(frozen=True, kw_only=True)
class PaintSetConfig(DatasetConfig):
    """Paint defects into photographs, with a label for each that is true to the pixel.

    Image i is painted into photograph i modulo their number. What is written as defect-free is the photograph.

    Attributes:
        model: Model to paint with: a folder, or the name of a repository on the Hub.
        photographs: A photograph, or a folder or archive of some.
        masks: Where the defects go: one mask, a folder or archive of masks that are called like the photographs (also
            that of the photographs, if `x_mask.png` lies beside `x.png`), or what a labelling tool exported of them:
            then those that have labels are painted into, where `defect` is drawn, or anything if no label is called
            so. Without it the model draws masks, and they are moved to where they may be.
        region: Where that may be: a mask of the photographs' size, or `product` for what stands out from a plain
            background.
        box: The region as left, top, right and bottom in pixels, instead of a mask.
        forbidden: Where it may not be: a mask.
        max_megapixels: Largest photograph to decode, in millions of pixels; None for what is safe if nobody knows
            where a file comes from (179).
        revision: Revision of the Hub repository.
        device: Where to compute; CUDA if there is a GPU for it.
        gate: Data set with the real defects, at the scale of the model (of patches, the patches): paint again what is
            not visible, off the product, a copy or unlike these.
        gate_groups: CSV of the parts that its photographs show, where several show the same: see `dfmgan split`.
        how: How defects are painted.
        (others): as in `DatasetConfig`.
    """

    model: str
    photographs: Path
    masks: Path | None = None
    region: str | None = None
    box: tuple[int, int, int, int] | None = None
    forbidden: Path | None = None
    max_megapixels: int | None = None
    revision: str | None = None
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    gate: Path | None = None
    gate_groups: Path | None = None
    how: Annotated[PaintConfig, tyro.conf.arg(name="painting")] = field(default_factory=PaintConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gate is None:
            check_effect(self, ["gate_groups"], "`gate`")
        if self.region is not None and self.box is not None:
            raise ValueError("`region` and `box` both say where a defect may be: give one of them.")
        if self.masks is not None:
            self.how.check_given_mask("masks", region=self.region, box=self.box, forbidden=self.forbidden)


def paint_dataset(config: PaintSetConfig, processes: ProcessGroup | None = None, draw: Draw | None = None) -> None:
    """Load a model and paint a data set with it: what `dfmgan paint` does; arguments as in `generate`.

    Raises:
        ExportError: there are no photographs, masks are missing, or the folder is not usable.
        DataError: a photograph or its mask cannot be used. What was written stays.
        PaintError: a photograph cannot be painted into. What was written stays.
    """
    check_device(config.device)
    allow_pixels(config.max_megapixels)
    photographs = find_photographs(config)
    pipe = DFMGANPipeline.from_pretrained(config.model, revision=config.revision).to(config.device)
    # Among other photographs, image i would be painted into another one.
    names = "\n".join(photograph.name for photograph, _ in photographs)
    model = describe_model(pipe, config.model) | {"photographs_sha256": hashlib.sha256(names.encode()).hexdigest()}
    # A rehearsal: what is wrong with the options is said before the folder is begun, which would bind it to them.
    next(paint_samples(pipe, config, photographs, [0]))
    kinds = ("photograph", "label", "painted")
    # The real defects and the photographs are of one camera.
    gate = open_gate(config.gate, config, pipe, config.gate_groups, config.how.bit_depth)

    def repaint(index: int, seed: int) -> tuple[Image.Image, Image.Image, Image.Image]:
        photograph, place = photographs[index % len(photographs)]
        opened = Photograph.open(photograph, config.how.bit_depth)
        kind, where = kind_of(pipe, config.defect), _where(config, place, opened)
        output = pipe.silent().paint(opened, seeds=[seed], config=config.how, defect=kind, **where)
        pictures = opened.restore(opened.pixels), output.labels[0], output.images[0]
        window = output.placements[0][0].window
        before, label, after = crop_shown(pictures, window)
        return before, label, after

    draw = draw or partial(paint_samples, pipe, config, photographs, gate=gate)
    summary = export_dataset(config, model, draw, processes, repaint, gate, kinds)
    if summary is not None:
        print(f"{config.output_dir}:\n{summary}")


# What says where a defect goes: the record of a photograph with a mask; without one, it goes wherever it may be.
Place = ImageRecord | None


def find_photographs(config: PaintSetConfig) -> list[tuple[Path, Place]]:
    """Return the photographs, each with its mask if there are masks, by name.

    Raises:
        ExportError: there are none, or no masks, or one has no mask, or several that are not numbered.
        DataError: a photograph's name cannot be written down, or a photograph is given as a mask.
    """
    if config.masks is not None and not config.masks.exists():
        raise ExportError(f"--masks {config.masks}: there is no such file or folder. Check the path.")
    place, masks_place = _opened(config.photographs), config.masks and _opened(config.masks)
    if masks_place is not None and (labelled := _labelled(place, masks_place, config.defect)):
        return labelled
    if place != config.photographs:
        place = _unwrapped(place)
    photographs = [place] if place.is_file() else list_entries(place).images
    if masks_place is not None and masks_place != config.masks:
        masks_place = _unwrapped(masks_place, photographs)
    folder, masks = place.parent if place.is_file() else place, None
    if masks_place is not None and masks_place.resolve() == folder.resolve():
        beside, masks = split_images_and_masks(list_entries(folder).images)
        photographs = [place] if place.is_file() else beside
    if not photographs:
        raise ExportError(f"{config.photographs} is no photograph, and no folder that holds any.")
    for photograph in photographs:
        if not is_one_line(photograph.name):
            found = "a name with control characters, or that is no text in UTF-8"
            raise DataError("name", photograph, found, "names that a list can hold", "Rename it.")
    if masks_place is None:
        return [(photograph, None) for photograph in photographs]
    return [(r.image_path, r) for r in _with_masks(photographs, masks_place, masks, config.defect)]


def _with_masks(
    photographs: list[Path], masks_place: Path, masks: list[Path] | None, defect: str
) -> list[ImageRecord]:
    """Return the records of photographs, which have one mask together or, in a folder, each its own.

    Args:
        photographs: all of them.
        masks_place: the mask, or the folder.
        masks: those in the folder; None for all images in it.
        defect: kind of defect.
    """
    found: dict[Path, tuple[Path, ...]] = dict.fromkeys(photographs, (masks_place,))
    if not masks_place.is_file():
        matches = match_masks(photographs, masks_place, masks)[0]
        found = {path: match for path, match in matches.items() if not isinstance(match, DataError)}
    if without := [path for path in photographs if path not in found]:
        same_name = f"{without[0].stem}.png or " if masks is None else ""  # beside it, that is a photograph
        raise ExportError(
            f"{masks_place} holds no mask of {len(without)} of {len(photographs)} photographs, such as "
            f"{without[0].name}: expected {same_name}{without[0].stem}_mask.png, and one of these alone."
        )
    themselves = {path.resolve() for path in photographs}
    for path, of_it in found.items():
        if any(mask.resolve() in themselves for mask in of_it):
            raise DataError(
                "mask_is_photograph",
                path,
                found=f"a mask that is one of the photographs, too ({', '.join(mask.name for mask in of_it)})",
                expected="a mask of its own: 0 on the background, anything else on the defect",
                advice="Give the folder of the masks as --masks, or name those beside photographs like x_mask.png.",
            )
    return [
        ImageRecord(path.name, path, of_it[0], defect, "test", more_masks=of_it[1:]) for path, of_it in found.items()
    ]


def _opened(path: Path) -> Path:
    """Return the folder of an archive's content, and any other path as it is."""
    is_archive = path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))
    return unpacked(path) if is_archive else path


def _unwrapped(folder: Path, photographs: Iterable[Path] = ()) -> Path:
    """Return the folder inside of an unpacked archive that holds the images, if it is but wrapped into others.

    One that is called like a photograph wraps nothing: it holds the masks of this one.
    """
    names = {normalised(name) for path in photographs for name in (path.stem, path.name)}
    while True:
        images, folders, _ = list_entries(folder)
        if images or len(folders) != 1 or normalised(folders[0].name) in names:
            return folder
        folder = folders[0]


def _labelled(photographs: Path, labels: Path, defect: str) -> list[tuple[Path, Place]]:
    """Return the photographs with labels, and their masks; none if `labels` are none of a labelling tool.

    Raises:
        DataError: labels cannot be read, or one of the photographs cannot be used.
    """
    if not (is_labelled(labels) if labels.is_dir() else labels.suffix.lower() in LABEL_EXTENSIONS):
        return []
    folder = photographs.parent if photographs.is_file() else photographs
    only = Path(os.path.abspath(photographs)) if photographs.is_file() else None  # records have absolute paths
    listing = find_listing(DataSource(folder, labels=labels))
    wanted = {defect} if defect in listing.defects else set(listing.defects)
    records = [r for r in listing.records if r.defect in wanted and only in (None, r.image_path)]
    for record in records:
        if record.error is not None:
            raise record.error
    if not records:
        raise ExportError(
            f"{labels} labels no area on the photographs in {photographs}: draw where defects should go."
        )
    return [(record.image_path, record) for record in unite_kinds(records)]


def paint_samples(
    pipe: DFMGANPipeline,
    config: PaintSetConfig,
    photographs: list[tuple[Path, Place]],
    indices: Iterable[int],
    gate: QualityGate | None = None,
) -> Iterator[Sample]:
    """Paint the samples of these numbers, in this order; again with another seed if the label is not wanted.

    A gate judges the window of each defect, at the model's size.

    Raises:
        ExportError: a sample has used up its attempts.
        DataError: a photograph cannot be read, or its mask does not fit it.
        PaintError: a photograph cannot be painted into; the message names it.
    """
    model_sha256 = module_sha256(pipe.unwrapped_generator)
    kind = kind_of(pipe, config.defect)
    pipe = pipe.silent()
    guard = None if gate is None else Guard(gate)
    for index in indices:
        photograph, place = photographs[index % len(photographs)]
        opened = Photograph.open(photograph, config.how.bit_depth)
        where = _where(config, place, opened)
        attempts = Attempts(index, config, guard)
        before, profile = opened.restore(opened.pixels), (opened.info or {}).get("icc_profile")
        for attempt in range(config.max_attempts):
            seed = candidate_seed(config.seed, index, attempt)
            try:
                output = pipe.paint(opened, seeds=[seed], config=config.how, defect=kind, **where)
            except PaintError as error:
                raise PaintError(f"{photograph}: {error}") from error
            judge = partial(judge_painted, before=opened, output=output, pipe=pipe, bit_depth=config.how.bit_depth)
            record = attempts.accept(seed, output.labels[0], judge)
            if record is not None:
                break
        else:
            raise ExportError(
                f"None of {config.max_attempts} defects that were painted into {photograph} has a label of the wanted "
                f"area{'' if gate is None else ' and passes the gate'}. Widen min_mask_area and max_mask_area in a "
                "new folder, or raise strength or max_attempts."
            )
        origin = {"file": photograph.name, "defects": [asdict(placement) for placement in output.placements[0]]}
        record = replace(record, photograph=json.dumps(origin, ensure_ascii=False))
        yield Sample.encode(record, output.images[0], output.labels[0], before, model_sha256, profile)


def _where(config: PaintSetConfig, place: Place, photograph: Photograph) -> dict[str, Any]:
    mask = None
    if place is not None and (drawn := read_masks(place)) is not None:
        check_pair(place, photograph.pixels, drawn)
        mask = drawn.defect
    return {"mask": mask, "region": config.region or config.box, "forbidden": config.forbidden}


def judge_painted(
    gate: QualityGate, before: Photograph, output: Any, pipe: DFMGANPipeline, bit_depth: int = 16
) -> Judgement:
    """Judge a painted photograph, the first of what `pipe.paint` returned: the window of each defect by itself."""
    size = pipe.unwrapped_generator.config
    resolution, channels = image_size(size), size["image_channels"]
    after, label = Photograph.open(output.images[0], bit_depth), np.asarray(output.labels[0]) != 0
    judgements = []
    for placement in output.placements[0]:
        left, top, right, bottom = window = placement.window
        image, twin = (
            (each.view(window, resolution, channels) * 255).round().to(torch.uint8) for each in (after, before)
        )
        mask = torch.from_numpy(resize_mask(label[top:bottom, left:right], resolution))[None].to(torch.uint8)
        judgements.append(gate.judge(image, mask, twin))
    return join(judgements)
