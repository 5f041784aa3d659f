"""Does the memory of an export grow with its images? Peaks of exports of 1,000, 10,000 and 100,000 triplets.

    python benchmarks/export_memory.py --output_dir benchmarks/results

Each export runs in a process of its own, whose peak of resident memory Linux keeps. The floor is the process just
before it begins, with the model loaded; the ceiling is what it would take to hold all files. What could grow is what
is kept of each image, not the network: a tiny one draws 256 triplets, which are then encoded, written and recorded
over and over.

Writes export_memory.json, after each export, and export_memory.png. What the JSON holds already is not measured again.
The exports themselves are deleted.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import tyro

from dfmgan_hf.export.config import ExportFormat

TINY = {"resolution": 32, "z_dim": 16, "w_dim": 16, "channel_base": 256, "channel_max": 8, "residual_resolution": 16}
NUM_DRAWN = 256
# First argument of the processes that this script starts.
EXPORT = "export"


@dataclass(frozen=True)
class Config:
    """Measure the peak of memory of exports of different sizes.

    Args:
        output_dir: Folder for export_memory.json and export_memory.png.
        counts: Triplets of the exports.
        formats: Formats of the exports.
    """

    output_dir: Path
    counts: tuple[int, ...] = (1_000, 10_000, 100_000)
    formats: tuple[ExportFormat, ...] = get_args(ExportFormat)


def resident_mib(line: str) -> float:
    """Memory of this process in MiB: `VmRSS`, or its peak, `VmHWM`."""
    for entry in Path("/proc/self/status").read_text().splitlines():
        if entry.startswith(f"{line}:"):
            return int(entry.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {line}: this measures on Linux only.")


def export(output_dir: Path, format: ExportFormat, num_images: int) -> dict[str, Any]:
    """Runs one export in this process, which has done nothing else, and measures it."""
    import torch

    from dfmgan_hf import DFMGANGenerator, DFMGANPipeline
    from dfmgan_hf.export import ExportConfig, Record, generate_dataset, sampling

    torch.manual_seed(0)
    pipe = DFMGANPipeline(DFMGANGenerator(**TINY).eval())
    draws = pipe(seeds=range(NUM_DRAWN))
    triplets = list(zip(draws.images, draws.masks, draws.defect_free_images, strict=True))
    sampling._draw_batch = lambda pipe, config, batch: [(Record(i, i, 0.5), *triplets[i % NUM_DRAWN]) for i in batch]
    # An untrained network draws many empty masks.
    config = ExportConfig(output_dir, num_images=num_images, format=format, min_mask_area=0)
    floor_mib = resident_mib("VmRSS")
    start = time.perf_counter()
    generate_dataset(pipe, config, model_name="tiny")
    seconds = time.perf_counter() - start
    # Before the files are counted, which takes memory of its own.
    peak_mib = resident_mib("VmHWM")
    file_bytes = sum(path.stat().st_size for path in output_dir.rglob("*") if path.is_file())
    return {
        "format": format,
        "num_images": num_images,
        "floor_mib": round(floor_mib, 1),
        "peak_mib": round(peak_mib, 1),
        "files_mib": round(file_bytes / 2**20, 1),
        "seconds": round(seconds, 1),
    }


def measure(config: Config) -> list[dict[str, Any]]:
    """Runs what export_memory.json does not hold yet, each in a new process."""
    path = config.output_dir / "export_memory.json"
    stored = json.loads(path.read_text()) if path.is_file() else {"machine": machine(), "exports": []}
    results: list[dict[str, Any]] = stored["exports"]
    for num_images in config.counts:
        for format in config.formats:
            if any(result["format"] == format and result["num_images"] == num_images for result in results):
                continue
            folder = Path(tempfile.mkdtemp())
            try:
                command = [sys.executable, __file__, EXPORT, str(folder), format, str(num_images)]
                run = subprocess.run(command, capture_output=True, text=True)
                if run.returncode != 0:
                    sys.exit(run.stderr)
                results.append(json.loads(run.stdout.splitlines()[-1]))
            finally:
                shutil.rmtree(folder)
            path.write_text(json.dumps(stored, indent=2) + "\n")
            print(results[-1])
    return results


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import torch

    return {"cpu_threads": torch.get_num_threads(), "python": platform.python_version(), "torch": torch.__version__}


def draw_figure(results: list[dict[str, Any]], path: Path) -> None:
    """Peak, floor and ceiling against the number of images, a panel for each format."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    formats = list(dict.fromkeys(result["format"] for result in results))
    figure, panels = plt.subplots(1, len(formats), figsize=(3.6 * len(formats), 3.2), sharey=True, squeeze=False)
    for panel, format in zip(panels[0], formats, strict=True):
        rows = sorted((r for r in results if r["format"] == format), key=lambda row: row["num_images"])
        counts = [row["num_images"] for row in rows]
        held = [row["floor_mib"] + row["files_mib"] for row in rows]
        panel.plot(counts, held, ":", color="0.5", label="if all files were held")
        panel.plot(counts, [row["peak_mib"] for row in rows], "o-", label="peak")
        panel.plot(counts, [row["floor_mib"] for row in rows], "--", color="0.5", label="before drawing")
        panel.set(title=format, xlabel="triplets", xscale="log", ylim=(0, None))
    panels[0][0].set_ylabel("resident memory in MiB")
    panels[0][-1].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(config: Config) -> None:
    config.output_dir.mkdir(parents=True, exist_ok=True)
    draw_figure(measure(config), config.output_dir / "export_memory.png")


if __name__ == "__main__":
    if EXPORT in sys.argv:
        folder, format, num_images = sys.argv[2:]
        print(json.dumps(export(Path(folder), format, int(num_images))))  # type: ignore[arg-type]
    else:
        main(tyro.cli(Config))
