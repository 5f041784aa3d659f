"""Train one of the methods that DFMGAN is compared with, on the photographs of one or more kinds of defect.

    accelerate launch examples/train_baseline.py --method cdc --pretrained_backbone runs/hazelnut \\
        --data_dir mvtec_ad --category hazelnut --defect crack --output_dir runs/hazelnut_crack_cdc

With several kinds, `--defect crack cut hole`, each is trained by itself and gets a folder in the output folder; one
that diverges does not keep the others from being trained. Defect-GAN can also learn them in one model (--joint), which
then draws the one that --defect names.

Options that the method does not have are errors: `--method cdc --help` lists those that it has, with its published
values as defaults. Images are drawn from the output folder by examples/evaluate.py and the benchmarks.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tyro

from dfmgan_hf.methods.registry import METHODS
from dfmgan_hf.methods.train import train_from_arguments
from dfmgan_hf.training.run import end_in_words

TRAINED = Literal[tuple(name for name, method in METHODS.items() if method.is_trained)]


@dataclass(frozen=True)
class Choice:
    method: TRAINED


def main(arguments: Sequence[str]) -> None:
    # The options depend on the method, so the command line is read twice.
    choice, rest = tyro.cli(Choice, args=arguments, return_unknown_args=True, add_help=False)
    train_from_arguments(choice.method, rest)


if __name__ == "__main__":
    with end_in_words():
        main(sys.argv[1:])
