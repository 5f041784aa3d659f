"""Do generated pairs teach where a defect is? Segmentation networks trained on them, tested on photographs.

    python examples/benchmark_localization.py --data_dir mvtec_ad --category hazelnut --output_dir runs/localization \\
        --methods crop_paste --generated 'dfmgan=generated/{split}/{defect}'

The protocol of AnomalyDiffusion and its successors: generators may see the first third of each kind of defect, the
rest and the good test photographs are tested on. The first start writes the lists to OUTPUT_DIR/CATEGORY/splits; train
a generator of each defect with --file_list partition_first_third_base.txt (train_stage2.py, train_baseline.py) and
draw from it with generate.py or generate_baseline.py.

Says first how long it will take. Stopped and started again it goes on; `--cells 2/8` does the second of eight parts.
Tables (table.md, table.csv, table.json) and figure (table.png) are written anew after each network.
"""

from __future__ import annotations

import sys

import tyro
from accelerate import Accelerator

from dfmgan_hf.benchmarks.localization import LocalizationBenchmark, LocalizationConfig
from dfmgan_hf.data import DataError


def main(config: LocalizationConfig) -> None:
    accelerator = Accelerator()
    try:
        benchmark = LocalizationBenchmark(config, accelerator)
        if config.estimate and benchmark.pending and accelerator.is_main_process:
            print(benchmark.describe_estimate(), flush=True)
        benchmark.run()
    except (DataError, ImportError, OSError, ValueError) as error:
        sys.exit(f"Not finished: {error}")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        print(benchmark.write_tables())
    accelerator.end_training()


if __name__ == "__main__":
    main(tyro.cli(LocalizationConfig))
