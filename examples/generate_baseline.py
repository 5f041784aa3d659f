"""Draw many images from any method that train_baseline.py trained, or from one that is not trained.

    accelerate launch examples/generate_baseline.py --model runs/hazelnut_crack_cdc --output_dir generated/cdc
    python examples/generate_baseline.py --method crop_paste --data_dir mvtec_ad --category hazelnut --defect crack \\
        --output_dir generated/crop_paste

Image i is i.png, with i_mask.png where the method has masks; examples/evaluate.py --generated measures the folder.
SDGAN and Defect-GAN draw defects on photographs and need --data_dir too. For DFMGAN, generate.py also writes twins.

Options of drawing that a method has are listed with the others: --method crop_paste --help, or --model FOLDER --help.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import tyro
from accelerate import Accelerator

from dfmgan_hf.data import DataConfig, DataError
from dfmgan_hf.methods.method import NoOptions, SamplerRequest
from dfmgan_hf.methods.registry import get_method, method_of, open_sampler
from dfmgan_hf.methods.write_samples import write_samples
from dfmgan_hf.metrics import ProcessGroup
from dfmgan_hf.training.run import to_json

Drawing = TypeVar("Drawing")


@dataclass(frozen=True)
class Choice:
    model: str | None = None
    revision: str | None = None
    method: str | None = None


@dataclass(frozen=True)
class Config(Generic[Drawing]):
    """Draw many images from any method into a folder.

    Args:
        output_dir: Folder to fill; given again, the same command goes on where it stopped.
        options: Of the method.
        model: Trained model: a folder, or the name of a Hub repository.
        revision: Revision of the Hub repository.
        method: Instead of a model: a method that is not trained, such as crop_paste.
        defect: Kind of defect; may be left out if the data has only one, and the model has not learnt several jointly.
        resolution: Side of the images of a method that is not trained.
        num_images: How many.
        seed: Image i depends on this number and i alone.
        batch_size: Images drawn at once.
    """

    output_dir: Path
    options: Drawing
    model: str | None = None
    revision: str | None = None
    method: str | None = None
    defect: str | None = None
    resolution: int = 256
    num_images: int = 1000
    seed: int = 0
    batch_size: int = 16
    data: DataConfig = field(default_factory=DataConfig)


def parse(arguments: Sequence[str]) -> Config:
    """The options of drawing depend on the method, so the command line is read twice.

    Raises:
        OSError, ValueError: no such method, or a folder that none draws with.
    """
    choice, _ = tyro.cli(Choice, args=arguments, return_unknown_args=True, add_help=False)
    if choice.method is not None:
        drawing = get_method(choice.method).drawing
    else:
        drawing = NoOptions if choice.model is None else method_of(choice.model, choice.revision).drawing
    return tyro.cli(
        Config[drawing],
        args=arguments,
        default=Config(output_dir=tyro.MISSING, options=drawing()),
        config=(tyro.conf.OmitArgPrefixes,),
    )


def main(arguments: Sequence[str]) -> None:
    try:
        config = parse(arguments)
    except (OSError, ValueError) as error:
        sys.exit(f"Not started: {error}")
    accelerator = Accelerator()
    # Without photographs, whoever needs some says so.
    has_data = config.data.data_dir is not None or config.data.good_dir is not None
    request = SamplerRequest(
        source=config.model,
        data=config.data if has_data else None,
        defect=config.defect,
        resolution=config.resolution,
        options=config.options,
        device=accelerator.device,
        revision=config.revision,
    )
    chosen = to_json(config)
    names = ("model", "revision", "method", "defect", "resolution", "options", "data")
    try:
        drawn = write_samples(
            open_sampler(request, config.method),
            config.output_dir,
            config.num_images,
            settings={name: chosen[name] for name in names},
            seed=config.seed,
            batch_size=config.batch_size,
            processes=ProcessGroup(accelerator),
        )
    except (DataError, ImportError, OSError, ValueError) as error:
        sys.exit(f"Not finished: {error}")
    if accelerator.is_main_process:
        print(f"{config.num_images} images in {config.output_dir}; this process drew {drawn} of them.")
    accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1:])
