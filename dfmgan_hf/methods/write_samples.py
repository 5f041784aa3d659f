"""Many samples of any method as a folder of PNG files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import tyro
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ..arguments import check_positive_integer
from ..data import DataConfig
from ..files import keep_settings, to_json
from ..metrics.sampler import Sampler, batches, draw
from ..models.base import sides
from ..processes import ProcessGroup
from ..sheets import save_sheet
from . import get_method, method_of, open_sampler
from .method import NoOptions, SamplerRequest

SETTINGS_FILE = "settings.json"


def write_samples(
    sampler: Sampler,
    output_dir: Path,
    num_images: int,
    *,
    settings: dict[str, Any],
    seed: int = 0,
    batch_size: int = 16,
    processes: ProcessGroup | None = None,
) -> int:
    """Write image i as `<i>.png` and its mask, if there is one, as `<i>_mask.png`: what `FolderSampler` reads.

    Image i depends on `seed` and i alone. What is there already stays, so a stopped run resumes.

    Args:
        sampler: draws.
        output_dir: filled; begun by an earlier run of the same settings, or without images.
        num_images: how many.
        settings: what the images depend on besides the seed and the sampler's own settings, as JSON can hold it; kept
            in settings.json.
        seed: of the samples.
        batch_size: images drawn at once.
        processes: of a launch, which share the work; every one calls this.

    Returns:
        Images that this process has drawn.

    Raises:
        ValueError: the folder was begun with other settings or weights, or holds images without any; a number
            below 1, or more images than the sampler has.

    Example:
        >>> sampler = open_sampler(SamplerRequest("runs/hazelnut_crack_cdc"))
        >>> write_samples(sampler, Path("generated/cdc"), 1000, settings={"model": "runs/hazelnut_crack_cdc"})
    """
    check_positive_integer(num_images, "num_images")
    check_positive_integer(batch_size, "batch_size")
    if isinstance(sampler, Sized) and num_images > len(sampler):
        raise ValueError(f"`num_images` is {num_images}, but no more than {len(sampler)} can be made: ask for fewer.")
    processes = processes or ProcessGroup()
    if processes.is_main:
        # In the folder of a network, and among photographs, others may lie tomorrow.
        _begin(output_dir, {**settings, **getattr(sampler, "settings", {}), "seed": seed})
    processes.wait()
    drawn = 0
    work = processes.mine(batches(num_images, batch_size))
    for batch in tqdm(work, desc="Drawing", unit="batch", disable=not processes.is_main):
        missing = [i for i in batch if not (output_dir / f"{i:06d}.png").is_file()]
        if not missing:
            continue
        images, masks = draw(sampler, missing, seed)
        for k, index in enumerate(missing):
            # The image comes last and says that both are there.
            if masks is not None:
                _save(masks[k], output_dir / f"{index:06d}_mask.png")
            _save(images[k], output_dir / f"{index:06d}.png")
        drawn += len(missing)
    processes.wait()
    return drawn


def _begin(output_dir: Path, settings: dict[str, Any]) -> None:
    """Keep the settings, or compare them with those that the folder was begun with."""
    path = output_dir / SETTINGS_FILE
    if not path.is_file() and any(output_dir.glob("*.png")):
        raise ValueError(f"{output_dir} holds images that were not begun here; choose another folder.")
    begun, different = keep_settings(path, settings)
    if different:
        listed = "; ".join(f"{name} was {begun.get(name)} and is {settings.get(name)} now" for name in different)
        raise ValueError(
            f"{output_dir} was begun with other settings: {listed}. Repeat them to resume, or give another folder."
        )


def _save(image: Tensor, path: Path) -> None:
    """Write uint8 (1 or 3, H, W) as PNG, whole or not at all."""
    save_sheet(Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).squeeze(2).numpy())), path)


Drawing = TypeVar("Drawing")


@dataclass(frozen=True)
class WriteSamplesConfig(Generic[Drawing]):
    """Draw many images from any method into a folder.

    Args:
        output_dir: Folder to fill; given again, the same command resumes where it stopped.
        options: Of the method.
        model: Trained model: a folder, or the name of a Hub repository.
        revision: Revision of the Hub repository.
        method: Instead of a model: a method that is not trained, such as crop_paste.
        defect: Kind of defect; may be left out if the data has only one, and the model has not learnt several jointly.
        resolution: Shorter side of the images of a method that is not trained; None for 256. Models know theirs.
        aspect: Their height and width as multiples of it; None for squares.
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
    resolution: int | None = None
    aspect: tuple[int, int] | None = None
    num_images: int = 1000
    seed: int = 0
    batch_size: int = 16
    data: DataConfig = field(default_factory=DataConfig)


def write_samples_from_arguments(arguments: Sequence[str], processes: ProcessGroup | None = None) -> None:
    """Draw many images from any method as a command line says: the fields of `WriteSamplesConfig`.

    Raises:
        SystemExit: after --help, or an option that is not known.
        OSError, ValueError: no such model or method, a model that draws another size than is asked for, or a folder
            that was begun with other settings.
    """
    config, processes = parse(arguments), processes or ProcessGroup()
    # Without photographs, whoever needs some says so.
    has_data = config.data.data_dir is not None or config.data.good_dir is not None
    request = SamplerRequest(
        source=config.model,
        data=config.data if has_data else None,
        defect=config.defect,
        resolution=sides(256 if config.resolution is None else config.resolution, config.aspect),
        options=config.options,
        device=processes.device,
        revision=config.revision,
    )
    sampler = open_sampler(request, config.method)
    if config.model is not None:
        _check_size(sampler, config)
        config = replace(config, resolution=None, aspect=None)
    elif config.resolution is None:
        config = replace(config, resolution=256)
    chosen = to_json(config)
    names = ("model", "revision", "method", "defect", "resolution", "aspect", "options", "data")
    drawn = write_samples(
        sampler,
        config.output_dir,
        config.num_images,
        settings={name: chosen[name] for name in names},
        seed=config.seed,
        batch_size=config.batch_size,
        processes=processes,
    )
    if processes.is_main:
        print(f"{config.num_images} images in {config.output_dir}; this process drew {drawn} of them.")


def _check_size(sampler: Sampler, config: WriteSamplesConfig) -> None:
    """Raise ValueError if the options ask for a size that a model does not draw."""
    if config.resolution is None and config.aspect is None:
        return
    height, width = draw(sampler, [0], config.seed)[0].shape[-2:]
    shorter = min(height, width)
    resolution = shorter if config.resolution is None else config.resolution
    asked = sides(resolution, config.aspect or (height // shorter, width // shorter))
    if asked != (height, width):
        raise ValueError(
            f"--resolution and --aspect ask for {asked[1]}x{asked[0]} images, but the model draws {width}x{height}. "
            "Leave them out."
        )


def parse(arguments: Sequence[str]) -> WriteSamplesConfig:
    """Read a command line twice, since the options of drawing depend on the method.

    Raises:
        OSError, ValueError: no such method, or a folder that none draws with.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--model", "--revision", "--method"):
        first.add_argument(name)
    chosen, _ = first.parse_known_args(arguments)
    drawing: type = NoOptions
    if chosen.method is not None:
        drawing = get_method(chosen.method).drawing
    elif chosen.model is not None:
        drawing = method_of(chosen.model, chosen.revision).drawing
    return tyro.cli(
        WriteSamplesConfig[drawing],  # type: ignore[valid-type]
        prog="dfmgan sample",
        args=arguments,
        default=WriteSamplesConfig(output_dir=tyro.MISSING, options=drawing()),
        config=(tyro.conf.OmitArgPrefixes,),
    )
