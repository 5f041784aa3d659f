"""Draw a data set of triplets: defect images, masks and defect-free twins, with the seed of each.

    accelerate launch examples/generate.py --model MODEL --num_images 1000 --output_dir generated --defect scratch
    accelerate launch examples/generate.py --model MODEL --output_dir shards --format parquet --push_to_hub user/name

Image i depends on --seed and i alone: the files are the same for any number of processes and any batch size. Give the
same command again after an interruption, and it goes on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import tyro
from accelerate import Accelerator, InitProcessGroupKwargs

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.export import ExportConfig, ExportError, OneProcessError, check_push, generate_dataset, push_to_hub


@dataclass(frozen=True)
class Config:
    """Draw triplets in bulk, in the layout of MVTec AD, as an imagefolder or as parquet."""

    model: str
    """Model to draw from: a folder, or the name of a repository on the Hub."""
    export: tyro.conf.OmitArgPrefixes[ExportConfig]
    revision: str | None = None
    """Revision of the Hub repository."""
    push_to_hub: str | None = None
    """Data set repository user/name to upload to; needs --format parquet."""
    private: bool = False
    """Make a new repository private."""


def load(config: Config) -> DFMGANPipeline:
    try:
        return DFMGANPipeline.from_pretrained(config.model, revision=config.revision)
    except (OSError, ValueError) as error:
        raise ExportError(
            f"--model {config.model}",
            found=f"no model ({error})",
            expected="a folder with model_index.json, or the name of a repository on the Hub",
            advice="Check the spelling; private repositories need a token (hf auth login).",
        ) from error


def main(config: Config) -> None:
    # ProcessGroup finish at different times, and the main one's table can take long: nobody waits in vain.
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=7))])
    try:
        config.export.check()
        if config.push_to_hub is not None and accelerator.is_main_process:
            check_push(config.export, config.push_to_hub, private=config.private)
        pipe = load(config).to(accelerator.device)
        # A path says nothing to others; a folder's name may.
        name = Path(config.model).resolve().name if Path(config.model).is_dir() else config.model
        summary = generate_dataset(pipe, config.export, accelerator, model_name=name)
        if accelerator.is_main_process:
            print(summary)
            if config.push_to_hub is not None:
                print(f"  pushed  {push_to_hub(config.export.output_dir, config.push_to_hub, private=config.private)}")
    except (ExportError, OSError) as error:
        is_said_here = accelerator.is_main_process or isinstance(error, OneProcessError)
        sys.exit(f"Not finished: {error}" if is_said_here else 1)
    finally:
        accelerator.end_training()


if __name__ == "__main__":
    main(tyro.cli(Config))
