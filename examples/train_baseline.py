"""Train one of the methods that DFMGAN is compared with, on the photographs of one or more kinds of defect.

    python examples/train_baseline.py cdc --pretrained_backbone runs/hazelnut \\
        --data_dir mvtec_ad --category hazelnut --defect crack --output_dir runs/hazelnut_crack_cdc

With several kinds, `--defect crack cut hole`, each is trained by itself and gets a folder in the output folder; one
that diverges does not keep the others from being trained. Defect-GAN can also learn them in one model (--joint), which
then draws the one that --defect names.

Options that the method does not have are errors: `cdc --help` lists those that it has, with its published
values as defaults. Images are drawn from the output folder by examples/evaluate.py and the benchmarks.
"""

import sys

from dfmgan_hf.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
