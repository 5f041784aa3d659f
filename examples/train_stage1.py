"""Stage 1: train the StyleGAN2 backbone on photographs of the defect-free product.

    python examples/train_stage1.py --data_dir mvtec_ad --category hazelnut --output_dir runs/hazelnut

The output folder loads with `DFMGANPipeline.from_pretrained` and is what stage 2 starts from. docs/training.md says
what to look at while it trains. --push_to_hub --hub_model_id org/name publishes the model at the end; whether that is
possible is found out at the start.
"""

import sys

from dfmgan_hf.cli import main

if __name__ == "__main__":
    main(["train", "stage1", *sys.argv[1:]])
