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

from dfmgan_hf.data import DataSource, find_listing
from dfmgan_hf.data.patches import TABLE_FILE, PatchConfig, cut_patches


@dataclass(frozen=True)
class Config(DataSource):
    """Cut photographs and their masks into patches.

    Args:
        output_dir: Folder for the patches; made if missing, otherwise it must be empty.
    """

    data_dir: Annotated[Path | None, tyro.conf.Positional] = None
    output_dir: Path = field(kw_only=True)
    patches: PatchConfig = field(default_factory=PatchConfig)


def main(config: Config) -> int:
    try:
        listing = find_listing(config)
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
