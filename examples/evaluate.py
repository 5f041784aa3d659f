"""Measure a model, or any folder of generated images, against real photographs.

    accelerate launch --quiet examples/evaluate.py --model MODEL --data_dir DATA --category hazelnut --defect hole
    accelerate launch --quiet examples/evaluate.py --generated FOLDER --data_dir DATA --category hazelnut --defect hole
    accelerate launch --quiet examples/evaluate.py --method crop_paste --data_dir DATA --category nut --defect hole

Draws 5,000 images (1,000 of them for LPIPS), prints a table, and writes results.json and nearest.png, a page of
generated images beside their nearest real ones. --kid_features alexnet measures KID without Inception's weights.
--references crack good copies also measures what the numbers are to be judged by, --push_to_hub publishes them with
the model.
"""

from dfmgan_hf.cli import run
from dfmgan_hf.evaluation import measure

if __name__ == "__main__":
    run(measure)
