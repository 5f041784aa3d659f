"""Train one of the methods that DFMGAN is compared with, on the photographs of one kind of defect.

    accelerate launch examples/train_baseline.py --method cdc --pretrained_backbone runs/hazelnut \\
        --data_dir mvtec_ad --category hazelnut --defect crack --output_dir runs/hazelnut_crack_cdc

Options that the method does not have are errors: `--method cdc --help` lists those that it has, with its published
values as defaults. Images are drawn from the output folder by examples/evaluate.py and the benchmarks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tyro

from dfmgan_hf.methods.augmentations import AugmentationConfig
from dfmgan_hf.methods.method import Method
from dfmgan_hf.methods.registry import METHODS, get_method
from dfmgan_hf.methods.train_method import TrainingConfig, train_method
from dfmgan_hf.training.refusals import end_in_words
from dfmgan_hf.training.run import RunConfig

TRAINED = Literal[tuple(name for name, method in METHODS.items() if method.is_trained)]


@dataclass(frozen=True)
class Choice:
    method: TRAINED


def parse(arguments: Sequence[str]) -> tuple[Method, TrainingConfig]:
    """The method, and its options: they depend on it, so the command line is read twice."""
    choice, rest = tyro.cli(Choice, args=arguments, return_unknown_args=True, add_help=False)
    method = get_method(choice.method)
    defaults = TrainingConfig(
        run=RunConfig(output_dir=tyro.MISSING),
        options=method.options(),
        augmentation=AugmentationConfig(augmentation=method.defaults.augmentation),
    )
    config = tyro.cli(
        TrainingConfig[method.options],
        args=rest,
        default=defaults,
        description=f"Train {method.title} ({method.citation})",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    return method, config


def main(arguments: Sequence[str]) -> None:
    train_method(*parse(arguments)).end_training()


if __name__ == "__main__":
    with end_in_words():
        main(sys.argv[1:])
