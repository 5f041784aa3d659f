"""Is this folder fit for training? Reports everything that is wrong with it at once.

    python examples/check_dataset.py mvtec_ad --category hazelnut
    python examples/check_dataset.py --good_dir ok --defect_dir scratched --mask_dir masks

Prints a table, and writes report.json and contact_sheet.png (photographs of each kind, defects outlined).
Exit status: 0 if training can run, 2 if it cannot; with --strict, 1 for warnings.
"""

from dfmgan_hf.cli import run
from dfmgan_hf.data.doctor import check_dataset

if __name__ == "__main__":
    run(check_dataset)
