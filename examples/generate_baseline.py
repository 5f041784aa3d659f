"""Draw many images from any method that train_baseline.py trained, or from one that is not trained.

    accelerate launch --quiet examples/generate_baseline.py --model runs/hazelnut_crack_cdc --output_dir generated/cdc
    python examples/generate_baseline.py --method crop_paste --data_dir mvtec_ad --category hazelnut --defect crack \\
        --output_dir generated/crop_paste

Image i is i.png, with i_mask.png where the method has masks; examples/evaluate.py --generated measures the folder.
SDGAN and Defect-GAN draw defects on photographs and need --data_dir too. For DFMGAN, generate.py also writes twins.

Options of drawing that a method has are listed with the others: --method crop_paste --help, or --model FOLDER --help.
"""

from dfmgan_hf.cli import run
from dfmgan_hf.methods.write_samples import write_samples_from_arguments

if __name__ == "__main__":
    run(write_samples_from_arguments)
