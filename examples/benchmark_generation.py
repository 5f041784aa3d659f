"""Compare the methods of the paper's Table 1: train them on the same photographs, draw, measure, and write a table.

    accelerate launch examples/benchmark_generation.py --data_dir mvtec_ad --categories hazelnut \\
        --pretrained_backbone 'runs/{category}' --kimg 400 --output_dir benchmarks/table1

Says first how long it will take. Stopped and started again it goes on; `--cells 2/8` does the second of eight parts,
for the jobs of an array that share the output folder. Table (table.md, table.csv) and figure (table.png) are written
anew after each cell.

Where several photographs show the same part, --groups parts.csv trains on some parts and measures against the others.
One model that has learnt several kinds of defect jointly is given with --trained without {defect} in its path, beside
others as --trained 'runs/{defect}/{method}' defect_gan=runs/joint.
"""

from __future__ import annotations

import sys

import tyro
from accelerate import Accelerator

from dfmgan_hf.benchmarks.generation import GenerationBenchmark, GenerationConfig
from dfmgan_hf.benchmarks.generation_tables import write_tables
from dfmgan_hf.data import DataError
from dfmgan_hf.metrics import BadWeightsError, MissingWeightsError, load_networks


def main(config: GenerationConfig) -> None:
    accelerator = Accelerator()
    try:
        networks = load_networks(
            config.evaluation,
            features=config.kid_features,
            inception_weights=config.inception_weights,
            lpips_weights=config.lpips_weights,
            device=accelerator.device,
            progress=accelerator.is_main_process,
        )
        benchmark = GenerationBenchmark(config, networks, accelerator)
    except (BadWeightsError, DataError, ImportError, MissingWeightsError, OSError, ValueError) as error:
        sys.exit(f"Not started: {error}")
    if config.estimate and benchmark.pending:
        benchmark.say(benchmark.describe(benchmark.estimate()))
    failures = benchmark.run()
    if accelerator.is_main_process:
        print(write_tables(config.output_dir, benchmark.all_cells))
    accelerator.end_training()
    if failures:
        sys.exit("\n".join(["These cells are missing:", *failures]))


if __name__ == "__main__":
    main(tyro.cli(GenerationConfig))
