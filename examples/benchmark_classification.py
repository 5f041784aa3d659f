"""Are generated defects worth training on? Classifiers trained on them, tested on photographs (the paper's Table 2).

    python examples/benchmark_classification.py --data_dir mvtec_ad --category hazelnut --output_dir runs/table2 \\
        --methods crop_paste --generated 'dfmgan=generated/{split}/{defect}'

A split (P1, P2, P3) divides the photographs of each defect: generators may see a third of them, and two thirds are
tested on. The first start writes the lists to OUTPUT_DIR/CATEGORY/splits; train a generator of each split and defect
with --file_list partition_P1_base.txt (train_stage2.py, train_baseline.py) and draw from it with generate.py or
generate_baseline.py.

Says first how long it will take. Stopped and started again it goes on; `--cells 2/8` does the second of eight parts.
Tables (table.md, table.csv, table.json) and figure (table.png) are written anew after each classifier.
"""

from __future__ import annotations

import sys

import tyro
from accelerate import Accelerator

from dfmgan_hf.benchmarks.classification import ClassificationBenchmark, ClassificationConfig
from dfmgan_hf.data import DataError
from dfmgan_hf.metrics import BadWeightsError, MissingWeightsError


def main(config: ClassificationConfig) -> None:
    accelerator = Accelerator()
    try:
        benchmark = ClassificationBenchmark(config, accelerator)
        if config.estimate and benchmark.pending and accelerator.is_main_process:
            print(benchmark.describe_estimate(), flush=True)
        benchmark.run()
    except (BadWeightsError, DataError, ImportError, MissingWeightsError, OSError, ValueError) as error:
        sys.exit(f"Not finished: {error}")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        print(benchmark.write_tables())
    accelerator.end_training()


if __name__ == "__main__":
    main(tyro.cli(ClassificationConfig))
