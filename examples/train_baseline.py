"""Train one of the methods that DFMGAN is compared with, on the photographs of one or more kinds of defect.

    accelerate launch examples/train_baseline.py --method cdc --pretrained_backbone runs/hazelnut \\
        --data_dir mvtec_ad --category hazelnut --defect crack --output_dir runs/hazelnut_crack_cdc

With several kinds, `--defect crack cut hole`, each is trained by itself and gets a folder in the output folder; one
that diverges does not keep the others from being trained. Defect-GAN can also learn them in one model (--joint), which
then draws the one that --defect names.

Options that the method does not have are errors: `--method cdc --help` lists those that it has, with its published
values as defaults. Images are drawn from the output folder by examples/evaluate.py and the benchmarks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tyro
from accelerate import PartialState

from dfmgan_hf.methods.augmentations import AugmentationConfig
from dfmgan_hf.methods.method import Method
from dfmgan_hf.methods.registry import METHODS, get_method
from dfmgan_hf.methods.train_method import TrainingConfig, each_model, train_method
from dfmgan_hf.training import NonFiniteLossError
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
    method, config = parse(arguments)
    models = each_model(method, config)
    diverged: dict[str, NonFiniteLossError] = {}
    for defect, training in models.items():
        try:
            train_method(method, training)
        except NonFiniteLossError as error:
            if len(models) == 1:
                raise
            # Nobody may be there to start the others.
            diverged[defect] = error
            print(f"{defect} was given up. {error}", flush=True)
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()
    if diverged:
        raise SystemExit("\n".join(f"{defect}: {error}" for defect, error in diverged.items()))


if __name__ == "__main__":
    with end_in_words():
        main(sys.argv[1:])
