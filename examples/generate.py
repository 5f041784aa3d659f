"""Draw a data set of triplets: defect images, masks and defect-free twins, with the seed of each.

    python examples/generate.py --model MODEL --num_images 1000 --output_dir generated --defect scratch
    accelerate launch examples/generate.py --model MODEL --output_dir shards --format parquet --push_to_hub user/name

Image i depends on --seed and i alone. Give the same command again after an interruption, and it goes on.
"""

from __future__ import annotations

import tyro
from accelerate import Accelerator

from dfmgan_hf.export import GenerateConfig, generate
from dfmgan_hf.processes import ProcessGroup
from dfmgan_hf.training.run import end_in_words

if __name__ == "__main__":
    with end_in_words():
        config = tyro.cli(GenerateConfig, config=(tyro.conf.OmitArgPrefixes,))
        generate(config, ProcessGroup(Accelerator()))
