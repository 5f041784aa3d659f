"""Convert an official DFMGAN or StyleGAN2-ADA snapshot to a folder that `from_pretrained` loads.

    python examples/convert_official_snapshot.py --snapshot network-snapshot-000400.pkl --output_dir hazelnut-hole

Nothing inside the snapshot is executed. Snapshots of both DFMGAN stages and unconditional ones of StyleGAN2-ADA for
PyTorch are read; the discriminators are written beside the generator, so that training can start from the folder.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from dfmgan_hf.conversion import ConvertedSnapshot, SnapshotError, convert_official_snapshot


@dataclass
class Config:
    """What to convert, and where to."""

    snapshot: Path
    """The official snapshot, network-snapshot-*.pkl."""
    output_dir: Path
    """Folder to write; it appears complete or not at all."""
    overwrite: bool = False
    """Replace the pipeline that output_dir already holds."""


def describe(result: ConvertedSnapshot) -> str:
    generator = result.configs["generator"]
    kind = "2 (defects and masks)" if result.stage == 2 else "1 (defect-free images only)"
    lines = [
        f"Found a snapshot of stage {kind}, {generator['resolution']}x{generator['resolution']}, "
        f"{generator['image_channels']} channel(s); ignored {result.ignored_source_chars} characters of source text."
    ]
    if result.augmentation_probability is not None:
        lines.append(f"Its augmentation probability (ADA) was {result.augmentation_probability:.3f}.")
    lines.append(f"Wrote {result.output_dir}:")
    for folder, config in result.configs.items():
        sizes = ", ".join(f"{name}={value}" for name, value in config.items())
        lines.append(f"  {folder}: {result.parameters[folder]:,} parameters ({sizes})")
    lines.append(f'Load it with DFMGANPipeline.from_pretrained("{result.output_dir}").')
    return "\n".join(lines)


def main(config: Config) -> None:
    try:
        result = convert_official_snapshot(config.snapshot, config.output_dir, overwrite=config.overwrite)
    except (SnapshotError, OSError) as error:
        sys.exit(f"Not converted: {error}")
    print(describe(result))


if __name__ == "__main__":
    main(tyro.cli(Config))
