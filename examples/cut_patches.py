"""Cut large photographs into square patches at their own scale, for defects that would vanish at training resolution.

    python examples/cut_patches.py mvtec_ad --category leather --patch_size 256 --output_dir patches/leather

A defect that is 10 pixels wide in a photograph of 1000 is less than one pixel wide at 64x64; in a patch of 128 pixels
it is five. The patches are a data set in the layout of MVTec AD, which every other script reads: `--data_dir
patches/leather`. A photograph's patches stay in its split; patches.csv says where each was.
"""

from dfmgan_hf.cli import run
from dfmgan_hf.data.patches import cut_dataset

if __name__ == "__main__":
    run(cut_dataset)
