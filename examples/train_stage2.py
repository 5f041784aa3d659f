"""Stage 2: learn defects from a few photographs with masks, on the frozen backbone of stage 1.

    python examples/train_stage2.py --pretrained_backbone runs/hazelnut --data_dir mvtec_ad \\
        --category hazelnut --defect crack --output_dir runs/hazelnut_crack

The output folder loads with `DFMGANPipeline.from_pretrained` and draws defects. With several kinds, `--defect crack
cut hole`, each is trained by itself and gets a folder in the output folder, or one model learns all (--joint). One
that diverges does not keep the others from being trained. docs/training.md says what to look at while it trains.
--push_to_hub --hub_model_id org/name publishes the model at the end, several ones as org/name-crack, org/name-cut,
...; whether that is possible is found out at the start.
"""

import sys

from dfmgan_hf.cli import main

if __name__ == "__main__":
    main(["train", "stage2", *sys.argv[1:]])
