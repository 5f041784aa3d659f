"""Measure a model, or any folder of generated images, against real photographs.

    accelerate launch examples/evaluate.py --model MODEL --data_dir DATA --category hazelnut --defect hole
    accelerate launch examples/evaluate.py --generated FOLDER --data_dir DATA --category hazelnut --defect hole

Draws 5,000 images (1,000 of them for LPIPS), prints a table, and writes results.json and nearest.png, a page of
generated images beside their nearest real ones. --kid_features alexnet measures KID without Inception's weights.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
from accelerate import Accelerator

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.data import DataConfig, DataError
from dfmgan_hf.metrics import (
    BadWeightsError,
    EvaluationConfig,
    FolderSampler,
    MissingWeightsError,
    PipelineSampler,
    Processes,
    Sampler,
    evaluate,
    format_table,
    load_networks,
    save_evaluation,
)


@dataclass(frozen=True)
class Config:
    """Measure a model or a folder of images against real photographs.

    Args:
        model: Model to draw from: a folder, or the name of a Hub repository.
        revision: Revision of the Hub repository.
        generated: Instead of a model: folder of generated images.
        generated_masks: Their masks, named like them; found without this in the layouts that generate.py writes.
        defect: Kind of defect to compare with; may be left out if the data has only one.
        defect_free: Compare defect-free images (of a DFMGAN model: its twins) with the defect-free photographs.
        resolution: Side of the compared images in pixels. None: the model's; 256 for a folder of images.
        output_dir: Where results.json and nearest.png go.
        truncation_psi: Truncation of the latents.
        noise_mode: Stored noise, or new noise for each image. With compat dfmgan: random for KID, const for LPIPS.
        kid_features: Network for KID, FID, precision and recall; results name it.
        inception_weights: Inception-v3 of 2015-12-05 as torch-fidelity has it. None: the file that
            DFMGAN_INCEPTION_WEIGHTS names, or a download.
        lpips_weights: AlexNet. None: the file that DFMGAN_LPIPS_WEIGHTS names, or torchvision's download.
        lpips_vgg_weights: VGG16, for ic_lpips only. None: DFMGAN_LPIPS_VGG_WEIGHTS, or torchvision's download.
    """

    model: str | None = None
    revision: str | None = None
    generated: Path | None = None
    generated_masks: Path | None = None
    defect: str | None = None
    defect_free: bool = False
    resolution: int | None = None
    output_dir: Path = Path("evaluation")
    truncation_psi: float = 1.0
    noise_mode: Literal["const", "random"] = "const"
    kid_features: Literal["inception", "alexnet"] = "inception"
    inception_weights: Path | None = None
    lpips_weights: Path | None = None
    lpips_vgg_weights: Path | None = None
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    data: DataConfig = field(default_factory=DataConfig)


def make_samplers(config: Config, accelerator: Accelerator) -> tuple[Sampler, Sampler | None, int]:
    """The sampler for all metrics, another one for LPIPS where that is asked for, and their resolution."""
    if config.generated is not None:
        resolution = config.resolution or 256
        images = FolderSampler(config.generated, config.generated_masks, defect=config.defect, resolution=resolution)
        return images, None, resolution
    pipe = DFMGANPipeline.from_pretrained(config.model, revision=config.revision).to(accelerator.device)
    resolution = pipe.generator.config.resolution
    if config.resolution not in (None, resolution):
        sys.exit(f"--resolution {config.resolution}: the model draws {resolution}x{resolution} images. Leave it out.")
    options: dict[str, Any] = {"truncation_psi": config.truncation_psi, "defect_free": config.defect_free}
    if config.evaluation.compat != "dfmgan":
        return PipelineSampler(pipe, noise_mode=config.noise_mode, **options), None, resolution
    for_lpips = PipelineSampler(pipe, noise_mode="const", shared_latents=pipe.has_defects, **options)
    return PipelineSampler(pipe, noise_mode="random", **options), for_lpips, resolution


def main(config: Config) -> None:
    if (config.model is None) == (config.generated is None):
        sys.exit("Give either --model or --generated.")
    accelerator = Accelerator()
    processes = Processes(accelerator)
    try:
        sampler, lpips_sampler, resolution = make_samplers(config, accelerator)
        if config.defect_free:
            real = config.data.load_good(resolution=resolution)
        else:
            real = config.data.load_defects(config.defect, resolution=resolution)
        networks = load_networks(
            config.evaluation,
            features=config.kid_features,
            inception_weights=config.inception_weights,
            lpips_weights=config.lpips_weights,
            lpips_vgg_weights=config.lpips_vgg_weights,
            device=accelerator.device,
            progress=processes.is_main,
        )
        result = evaluate(sampler, real, networks, config.evaluation, lpips_sampler=lpips_sampler, processes=processes)
    except (DataError, MissingWeightsError, BadWeightsError, ImportError, OSError) as error:
        sys.exit(f"Not measured: {error}")
    if not processes.is_main:
        return
    print(format_table(result))
    more = {"options": asdict(config), "device": str(accelerator.device)}
    for path in save_evaluation(config.output_dir, result, real, **more):
        print(f"Wrote {path}")


if __name__ == "__main__":
    main(tyro.cli(Config, config=(tyro.conf.OmitArgPrefixes,)))
