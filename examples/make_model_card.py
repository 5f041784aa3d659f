"""Write a model's card: README.md of its folder, with a picture of what it draws and the numbers measured of it.

    python examples/make_model_card.py --model runs/hazelnut_crack --model_name org/dfmgan-hazelnut-crack \\
        --product hazelnuts --defect "cracks in the shell" --results evaluation/results.json \\
        --reference "real images of holes=evaluation_holes/results.json"

Facts that nobody gives are left out. They can come from a JSON file as well: --card facts.json. The folder keeps them
as card_facts.json; edit that file, or give an option again, to change them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from PIL import Image

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.pipelines import contact_sheet
from dfmgan_hf.publishing import CardError, CardFacts, read_facts, write_model_card


@dataclass(frozen=True)
class Config:
    """Write the model card of a trained model into its folder.

    Args:
        model: Folder that a training or save_pretrained wrote.
        card: JSON file with facts, the keys being the options from model_name on; options come first, and what
            neither says is as in the last card.
        results: results.json of the model's evaluation. None: the one in the model's folder.
        reference: "name=results.json" of what the numbers are to be compared with, for example real images of
            another defect; may be repeated. None: those given the last time.
        backbone: Folder of stage 1, for its training record.
        num_samples: Samples in the picture; 0 keeps the picture that there is.
        first_seed: Sample i is drawn from seed first_seed + i.
    """

    facts: CardFacts
    model: Path
    card: Path | None = None
    results: Path | None = None
    reference: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    backbone: Path | None = None
    num_samples: int = 8
    first_seed: int = 0


def draw_samples(config: Config) -> tuple[Image.Image, str]:
    """The picture and its caption."""
    pipe = DFMGANPipeline.from_pretrained(config.model)
    seeds = range(config.first_seed, config.first_seed + config.num_samples)
    output = pipe(seeds=seeds)
    columns = {"defect-free": output.defect_free_images}
    if pipe.has_defects:
        columns |= {"mask": output.masks, "defect": output.images}
    caption = (
        config.facts.picture_caption or f"Not selected: seeds {seeds[0]} to {seeds[-1]}. Nothing here is a photograph."
    )
    return contact_sheet(columns, picture_size=128), caption


def main(config: Config) -> None:
    facts, references = config.facts, {}
    for entry in config.reference:
        name, found, path = entry.partition("=")
        if not found:
            sys.exit(f"--reference must be name=results.json, but is {entry!r}.")
        references[name] = Path(path)
    try:
        if config.card is not None:
            facts = facts.filled_from(read_facts(config.card))
        picture, caption = draw_samples(config) if config.num_samples else (None, "")
        path = write_model_card(
            config.model,
            facts,
            results=config.results,
            references=references or None,
            backbone_dir=config.backbone,
            picture=picture,
            caption=caption,
        )
    except (CardError, OSError) as error:
        sys.exit(f"No card was written: {error}")
    print(f"Wrote {path}")


if __name__ == "__main__":
    main(tyro.cli(Config, config=(tyro.conf.OmitArgPrefixes,)))
