"""Measure a model of any method, or any folder of generated images, against real photographs."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .arguments import check_effect
from .data import DataConfig, ImageMaskDataset
from .files import write_json
from .hub import REFERENCES_FILE, CardError, HubConfig, prepare_push, push_results
from .hub.cards import RESULTS_FILE, read_record, same_photographs
from .methods import open_sampler
from .methods.method import SamplerRequest
from .metrics import (
    EvaluationConfig,
    FolderSampler,
    Networks,
    PipelineSampler,
    Sampler,
    TensorSampler,
    draw,
    evaluate,
    format_table,
    load_networks,
    save_evaluation,
    to_dict,
)
from .models.base import ASPECTS, sides
from .processes import ProcessGroup
from .training.run import check_finished


@dataclass(frozen=True)
class MeasureConfig:
    """Measure a model or a folder of images against real photographs.

    Args:
        model: Model to draw from, of any method: a folder, or the name of a Hub repository.
        revision: Revision of the Hub repository.
        method: Instead of a model: a method that is not trained, such as crop_paste.
        generated: Instead of a model: folder of generated images; of what `dfmgan draw` wrote, those with defects.
        generated_masks: Their masks, named like them; found without this in the layouts mvtec, imagefolder, coco and
            yolo of `dfmgan generate`.
        defect: Kind of defect to compare with, and to draw if the model has learnt several jointly; may be left out if
            the data has only one. Of several, each is measured by itself: in its own folder of output_dir, and all
            together in results.json.
        defect_free: Compare defect-free images (of a DFMGAN model: its twins) with the defect-free photographs. A
            folder of generated images then holds such images.
        references: Trivial answers to measure in the same way, for reference_results.json: kinds of defect, whose
            photographs then stand in for generated images; good ones; copies, the compared photographs themselves.
            With one kind of defect only.
        resolution: Shorter side of the compared images in pixels. None: the model's; 256 for a folder or a method
            without one.
        aspect: Their height and width as multiples of it. None: the model's, or what the images of a folder have if
            it is one that a model can have; else square.
        output_dir: Where results.json and nearest.png go.
        truncation_psi: Truncation of the latents, in models on StyleGAN2.
        noise_mode: Stored noise, or new noise for each image.

    Raises:
        ValueError: an option that has no effect on what is measured.
    """

    model: str | None = None
    revision: str | None = None
    method: str | None = None
    generated: Path | None = None
    generated_masks: Path | None = None
    defect: tuple[str, ...] = ()
    defect_free: bool = False
    references: tuple[str, ...] = ()
    resolution: int | None = None
    aspect: tuple[int, int] | None = None
    output_dir: Path = Path("evaluation")
    truncation_psi: float = 1.0
    noise_mode: Literal["const", "random"] = "const"
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    data: DataConfig = field(default_factory=DataConfig)
    hub: HubConfig = field(default_factory=HubConfig)

    def __post_init__(self) -> None:
        if self.generated is None:
            check_effect(self, ["generated_masks"], "`generated`")
        if self.model is None:
            check_effect(self, ["revision", *OF_PIPELINES], "`model`")


OF_PIPELINES = ("truncation_psi", "noise_mode")
"""Options of how models on StyleGAN2 draw."""


def _size(config: MeasureConfig, shorter: int, aspect: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """Return the height and width that the options ask for; `shorter` and `aspect` stand for what they do not say."""
    return sides(config.resolution or shorter, config.aspect or aspect)


def _shape(images: Tensor) -> tuple[int, int]:
    """Return the aspect of images (N, C, H, W) if a model's can have it, else that of squares."""
    height, width = images.shape[-2:]
    shorter = min(height, width)
    aspect = height // shorter, width // shorter
    return aspect if aspect in ASPECTS and sides(shorter, aspect) == (height, width) else (1, 1)


def make_sampler(
    config: MeasureConfig, device: torch.device, defect: str | None = None
) -> tuple[Sampler, tuple[int, int]]:
    """Open what is measured, and say how high and wide the images are that it draws.

    Raises:
        ValueError: it draws images of another size than the options ask for, none without defects, or one kind of
            defect only, where several were named; or options have no effect on it.
    """
    if config.generated is not None:
        folder: dict[str, Any] = {
            "mask_dir": config.generated_masks,
            "defect": defect,
            "bit_depth": config.data.bit_depth,
            "defect_free": config.defect_free,
        }
        size = _size(config, 256, _shape(draw(FolderSampler(config.generated, **folder), [0], 0)[0]))
        return FolderSampler(config.generated, **folder, resolution=size), size
    request = SamplerRequest(
        source=config.model,
        revision=config.revision,
        data=config.data,
        defect=defect,
        resolution=_size(config, 256),
        device=device,
    )
    sampler = open_sampler(request, config.method)
    if config.defect_free and not isinstance(sampler, PipelineSampler):
        raise ValueError(
            f"--defect_free: {config.method or config.model} draws no defect-free images, and its images of defects "
            "would be compared with good photographs. Leave it out."
        )
    if not isinstance(sampler, PipelineSampler):
        check_effect(config, OF_PIPELINES, "a model on StyleGAN2")
    elif len(config.defect) > 1 and sampler.defect is None:
        raise ValueError(
            f"--defect names {', '.join(config.defect)}, but {config.model} draws one kind of defect: its images "
            "would be measured as all of these. Name the one that it has learnt."
        )
    image = draw(sampler, [0], 0)[0]
    height, width = image.shape[-2:]
    asked = _size(config, min(height, width), _shape(image))
    if (config.resolution or config.aspect) and asked != (height, width):
        raise ValueError(
            f"--resolution and --aspect ask for {asked[1]}x{asked[0]} images, but the model draws {width}x{height}. "
            "Leave them out."
        )
    if isinstance(sampler, PipelineSampler):
        sampler = PipelineSampler(
            sampler.pipe,
            truncation_psi=config.truncation_psi,
            noise_mode=config.noise_mode,
            defect_free=config.defect_free,
            defect=sampler.defect,
        )
    return sampler, (height, width)


def load_references(config: MeasureConfig, real: ImageMaskDataset) -> dict[str, ImageMaskDataset]:
    """Load the photographs of each reference, by what the tables call it."""
    data, (height, width) = replace(config.data, shots=None, file_list=None), real.images.shape[-2:]
    loaded = {}
    for name in config.references:
        if name == "copies":
            loaded["real images copied"] = real
        elif name == "good":
            loaded["real good"] = data.load_good(resolution=(height, width))
        else:
            loaded[f"real {name}"] = data.load_defects(name, resolution=(height, width))
    return loaded


def check_output_dir(folder: Path) -> None:
    """Find out before minutes of measuring, rather than after them, that the results can be written."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"--output_dir {folder}: {existing} is no folder that can be written to. Name another one.")


def publish(config: MeasureConfig, hub: HubConfig) -> None:
    """Publish what was measured with its model, or say how to do it later."""
    try:
        print(f"Published: {push_results(str(config.model), config.output_dir, hub, revision=config.revision)}")
    except (CardError, OSError) as error:
        again = hub.advice(str(config.model), "--results", str(config.output_dir))
        raise CardError(f"Not published: {error}\n{again}") from error


class _Measurement(NamedTuple):
    """What is drawn, what it is compared with, and baselines to measure in the same way."""

    sampler: Sampler
    real: ImageMaskDataset
    references: dict[str, ImageMaskDataset]


def _open(config: MeasureConfig, defect: str | None, device: torch.device) -> _Measurement:
    sampler, resolution = make_sampler(config, device, defect)
    if config.defect_free:
        real = config.data.load_good(resolution=resolution)
    else:
        real = config.data.load_defects(defect, resolution=resolution)
    return _Measurement(sampler, real, load_references(config, real))


def _measure(
    config: MeasureConfig, measurement: _Measurement, networks: Networks, folder: Path, processes: ProcessGroup
) -> list[Path]:
    """Measure one kind of defect, print a table, write its files to `folder` and return them (the first process)."""
    sampler, real, references = measurement
    result = evaluate(sampler, real, networks, config.evaluation, processes=processes)
    compared = {
        name: evaluate(TensorSampler(r.images, r.masks), real, networks, config.evaluation, processes=processes)
        for name, r in references.items()
    }
    if not processes.is_main:
        return []
    print(format_table(result))
    for name, reference in compared.items():
        print(f"\n{name}:\n{format_table(reference)}")
    written = save_evaluation(
        folder,
        result,
        real,
        options=asdict(config),
        device=str(processes.device),
        num_processes=processes.count,
        cpu_threads=torch.get_num_threads(),
    )
    references_file = folder / REFERENCES_FILE
    if compared:
        written.append(references_file)
        write_json(references_file, {name: to_dict(r) for name, r in compared.items()})
    elif not all(
        same_photographs({"settings": result.settings}, r) for r in (read_record(references_file) or {}).values()
    ):
        references_file.unlink()  # of an earlier model, which a card would put beside these numbers
    return written


def measure(config: MeasureConfig, processes: ProcessGroup | None = None) -> None:
    """Measure what `config` names, print a table, and write results.json, nearest.png and reference_results.json.

    Raises:
        DataError, CardError, CheckpointError, MissingWeightsError, BadWeightsError: (kinds of `OSError` and
            `ValueError`) something is missing, not finished or wrong; found out before minutes of measuring where
            that is possible.
        ImportError: a metric needs a library that is not installed; nothing has been loaded or drawn.
    """
    if [config.model, config.method, config.generated].count(None) != 2:
        raise ValueError("Give one of --model, --generated and --method.")
    kinds = tuple(dict.fromkeys(config.defect))
    if len(kinds) > 1 and (config.references or config.defect_free):
        raise ValueError("--references and --defect_free go with one kind of --defect at a time.")
    if config.hub.push_to_hub and config.model is None:
        raise ValueError("--push_to_hub publishes numbers with their model: give --model.")
    config.evaluation.check_libraries()
    check_output_dir(config.output_dir)
    processes = processes or ProcessGroup()
    hub = config.hub if config.model is None else config.hub.for_model(config.model)
    if config.model is not None:
        check_finished(config.model)
    measurements = {kind: _open(config, kind, processes.device) for kind in kinds or (None,)}
    if config.model is not None and processes.is_main:
        prepare_push({Path(config.model): hub})
    networks = load_networks(config.evaluation, device=processes.device, progress=processes.is_main)
    written = []
    for kind, measurement in measurements.items():
        folder = config.output_dir / str(kind) if len(kinds) > 1 else config.output_dir
        if len(kinds) > 1 and processes.is_main:
            print(f"\n{kind}:")
        written += _measure(config, measurement, networks, folder, processes)
    if not processes.is_main:
        return
    if len(kinds) > 1:
        for name in (REFERENCES_FILE, "nearest.png"):  # of an earlier measurement, of one kind
            (config.output_dir / name).unlink(missing_ok=True)
        by_kind = {kind: read_record(config.output_dir / kind / RESULTS_FILE) for kind in kinds}
        written.append(config.output_dir / RESULTS_FILE)
        write_json(written[-1], {"kinds": by_kind})
    for path in written:
        print(f"Wrote {path}")
    if hub.push_to_hub:
        publish(config, hub)
