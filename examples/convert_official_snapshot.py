"""Convert an official DFMGAN or StyleGAN2-ADA snapshot to a folder that `from_pretrained` loads.

    python examples/convert_official_snapshot.py --snapshot network-snapshot-000400.pkl --output_dir hazelnut-hole

Nothing inside the snapshot is executed. Snapshots of both DFMGAN stages and unconditional ones of StyleGAN2-ADA for
PyTorch are read; the discriminators are written beside the generator, so that training can start from the folder.
"""

from __future__ import annotations

import tyro

from dfmgan_hf.conversion import convert_official_snapshot
from dfmgan_hf.training.run import end_in_words

if __name__ == "__main__":
    with end_in_words():
        print(tyro.cli(convert_official_snapshot))
