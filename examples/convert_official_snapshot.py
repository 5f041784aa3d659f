"""Convert an official DFMGAN or StyleGAN2-ADA snapshot to a folder that `from_pretrained` loads.

    python examples/convert_official_snapshot.py --snapshot network-snapshot-000400.pkl --output_dir hazelnut-hole

Nothing inside the snapshot is executed. Snapshots of both DFMGAN stages and unconditional ones of StyleGAN2-ADA for
PyTorch are read; the discriminators are written beside the generator, so that training can start from the folder.
"""

from dfmgan_hf.cli import run
from dfmgan_hf.conversion.official import convert

if __name__ == "__main__":
    run(convert)
