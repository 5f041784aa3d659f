"""Is this folder fit for training? Reports everything that is wrong with it at once.

    python examples/check_dataset.py mvtec_ad --category hazelnut
    python examples/check_dataset.py --good_dir ok --defect_dir scratched --mask_dir masks

Prints a table, and writes report.json and contact_sheet.png (photographs of each kind, defects outlined).
Exit status: 0 if all is well, 1 for warnings, 2 if training cannot run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dfmgan_hf.data import DataSource, find_listing
from dfmgan_hf.data.contact_sheet import draw_contact_sheet, save_contact_sheet
from dfmgan_hf.data.doctor import Inspection, Report, examine
from dfmgan_hf.data.preparation import Fit


@dataclass(frozen=True)
class Config(DataSource):
    """Check photographs and masks before training on them.

    Args:
        resolution: Resolution that is planned for training, in pixels.
        fit: How photographs will become square.
        bit_depth: Significant bits of 16-bit photographs.
        skip_bad_files: Training will leave out files with problems: call them warnings, not errors.
        output_dir: Folder for report.json and contact_sheet.png.
        columns: Photographs of each kind on the contact sheet.
    """

    data_dir: Annotated[Path | None, tyro.conf.Positional] = None
    resolution: int = 256
    fit: Fit = "resize"
    bit_depth: int = 16
    skip_bad_files: bool = False
    output_dir: Path = Path("outputs/check_dataset")
    columns: int = 8


def main(config: Config) -> int:
    if config.columns < 1:
        print(f"ERROR    --columns must be at least 1, but is {config.columns}.", file=sys.stderr)
        return 2
    try:
        listing = find_listing(config)
        report, inspections = examine(
            listing,
            resolution=config.resolution,
            fit=config.fit,
            bit_depth=config.bit_depth,
            skip_bad_files=config.skip_bad_files,
        )
    except (ValueError, OSError) as error:  # a DataError too, or a folder that may not be read
        print(f"ERROR    {error}", file=sys.stderr)
        return 2
    print(report.to_text())
    try:
        written = save(config, report, inspections, f"{listing.category}: {len(inspections)} photographs")
    except OSError as error:
        print(
            f"ERROR    {config.output_dir}: not writable ({error}). Expected a folder, and room in it. "
            "Give another --output_dir.",
            file=sys.stderr,
        )
        return 2
    print("", *written, sep="\n")
    return report.exit_status


def save(config: Config, report: Report, inspections: Sequence[Inspection], title: str) -> tuple[Path, Path]:
    json_path = report.save_json(config.output_dir / "report.json")
    sheet = draw_contact_sheet(
        inspections,
        title,
        duplicate_groups=report.duplicate_groups,
        columns=config.columns,
        bit_depth=config.bit_depth,
    )
    return json_path, save_contact_sheet(sheet, config.output_dir / "contact_sheet.png")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
