"""Cut large photographs into square patches at their own scale, for defects that would vanish at training resolution.

    python examples/cut_patches.py mvtec_ad --category leather --patch_size 256 --output_dir patches/leather

A defect that is 10 pixels wide in a photograph of 1000 is less than one pixel wide at 64x64; in a patch of 128 pixels
it is five. The patches are a data set in the layout of MVTec AD, which every other script reads: `--data_dir
patches/leather`. A photograph's patches stay in its split; patches.csv says where each was.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from dfmgan_hf.data import find_listing
from dfmgan_hf.data.patches import TABLE_FILE, PatchConfig, cut_patches


@dataclass(frozen=True)
class Config:
    """Cut photographs and their masks into patches.

    Args:
        output_dir: Folder for the patches; made if missing, otherwise it must be empty.
        data_dir: Data set in the layout of MVTec AD (its root, or one category), a tar archive of it, or an
            imagefolder with a mask column.
        category: Category of the data set; needed if there are several.
        good_dir: One's own photographs without that layout: the defect-free ones.
        defect_dir: One's own photographs: those of one kind of defect.
        mask_dir: Their masks, named like them with or without a suffix such as _mask.
    """

    output_dir: Path
    data_dir: Annotated[Path | None, tyro.conf.Positional] = None
    category: str | None = None
    good_dir: Path | None = None
    defect_dir: Path | None = None
    mask_dir: Path | None = None
    patches: PatchConfig = field(default_factory=PatchConfig)


def main(config: Config) -> int:
    try:
        listing = find_listing(
            config.data_dir,
            config.category,
            good_dir=config.good_dir,
            defect_dir=config.defect_dir,
            mask_dir=config.mask_dir,
        )
        bar = partial(tqdm, desc="Cutting", unit="photo")
        counts = cut_patches(listing, config.output_dir, config.patches, progress=bar)
    except (ValueError, OSError) as error:  # a DataError too, or a folder that may not be read or written
        print(f"ERROR    {error}", file=sys.stderr)
        return 2
    for problem in counts.skipped:
        print(f"LEFT OUT {problem}", file=sys.stderr)
    for kind, number in sorted(counts.patches.items()):
        print(f"{number:7d} patches in {kind}")
    print(f"{config.output_dir / TABLE_FILE} says where they were.")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, config=(tyro.conf.OmitArgPrefixes,))))
