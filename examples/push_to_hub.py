"""Publish a trained model, a copy of it that needs no installation, what was measured, or a Space on the Hugging Face
Hub.

    hf auth login
    python examples/push_to_hub.py --folder runs/hazelnut_crack --hub_model_id org/dfmgan-hazelnut-crack --push_to_hub
    python examples/push_to_hub.py --folder runs/hazelnut_crack --kind standalone --output_dir standalone
    python examples/push_to_hub.py --folder spaces/dfmgan_demo --kind space --hub_model_id org/demo --push_to_hub

Checkpoints, logs and photographs stay where they are. Make the card first: examples/make_model_card.py.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from dfmgan_hf.publishing import (
    CardError,
    HubConfig,
    copy_published,
    export_standalone,
    push_model_folder,
    push_results,
    push_space_folder,
    push_standalone_folder,
)


@dataclass(frozen=True)
class Config:
    """Publish a folder on the Hub.

    Args:
        folder: The model's folder, or the Space's; with results, a model on the Hub can be named as well.
        kind: model; standalone, a copy with its code that loads with trust_remote_code where dfmgan-hf is not
            installed; or space.
        output_dir: New folder for the files that are published: to look at before a push, to commit, or to copy. With
            kind standalone the copy is made there; without it, `folder` is such a copy.
        results: Folder of an evaluation: publish its numbers with the model, rather than the model alone.
    """

    folder: Path
    kind: Literal["model", "standalone", "space"] = "model"
    output_dir: Path | None = None
    results: Path | None = None
    hub: HubConfig = field(default_factory=HubConfig)


def publish(config: Config) -> str:
    """Writes and pushes what was asked for; returns what to tell."""
    done = []
    if config.output_dir is not None and config.kind == "standalone":
        name = config.hub.hub_model_id or config.output_dir.name
        done.append(f"Wrote {export_standalone(config.folder, config.output_dir, name)}")
    elif config.output_dir is not None:
        done.append(f"Wrote {copy_published(config.folder, config.output_dir)}")
    if config.hub.push_to_hub and config.kind == "standalone":
        done.append(push_standalone_folder(config.output_dir or config.folder, config.hub))
    elif config.hub.push_to_hub and config.kind == "space":
        done.append(push_space_folder(config.folder, config.hub))
    elif config.hub.push_to_hub and config.results is not None:
        done.append(push_results(str(config.folder), config.results, config.hub))
    elif config.hub.push_to_hub:
        done.append(push_model_folder(config.folder, config.hub))
    return "\n".join(done)


def main(config: Config) -> None:
    if config.output_dir is None and not config.hub.push_to_hub:
        sys.exit("Nothing to do: give --push_to_hub, or --output_dir to write the files that would be published.")
    if config.output_dir is not None and config.kind == "space":
        sys.exit("--output_dir has no effect on a Space: its folder is published as it is.")
    if config.results is not None and (config.kind != "model" or config.output_dir is not None):
        sys.exit("--results goes with --push_to_hub and --kind model alone.")
    try:
        print(publish(config))
    except (CardError, OSError) as error:
        sys.exit(f"Not done: {error}")


if __name__ == "__main__":
    main(tyro.cli(Config, config=(tyro.conf.OmitArgPrefixes,)))
