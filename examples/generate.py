"""Draw a data set of triplets: defect images, masks and defect-free twins, with the seed of each.

    python examples/generate.py --model MODEL --num_images 1000 --output_dir generated --defect scratch
    accelerate launch --quiet examples/generate.py --model MODEL --output_dir out --format parquet --push_to_hub me/it

Image i depends on --seed and i alone. Give the same command again after an interruption, and it resumes.
"""

from dfmgan_hf.cli import run
from dfmgan_hf.export import generate

if __name__ == "__main__":
    run(generate)
