"""Memory does not grow with the number of images."""

import json
import subprocess
import sys

import pytest

MEASURE = """
import json, resource, sys
from pathlib import Path
from accelerate import Accelerator
from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.export import ExportConfig, generate_dataset

pipe, peaks = DFMGANPipeline.from_pretrained(sys.argv[1]), []
options = {"format": sys.argv[3], "images_per_shard": 50, "min_mask_area": 0}
for num_images in (200, 2000):
    config = ExportConfig(Path(sys.argv[2]) / str(num_images), num_images=num_images, **options)
    generate_dataset(pipe, config, Accelerator(cpu=True), model_name="tiny")
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(json.dumps(peaks))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is KiB on Linux only")
@pytest.mark.parametrize("format", ["mvtec", "parquet"])
def test_memory_stays_flat(make_pipe, tmp_path, environment, format):
    """Ten times as many images: their files take 25 MB more, the process does not."""
    make_pipe(resolution=64).save_pretrained(tmp_path / "model")
    arguments = [str(tmp_path / "model"), str(tmp_path), format]
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments], env=environment, capture_output=True, text=True, timeout=590
    )
    assert run.returncode == 0, run.stderr[-3000:]
    sizes = [
        sum(path.stat().st_size for path in (tmp_path / name).rglob("*") if path.is_file()) for name in ("200", "2000")
    ]
    assert sizes[1] - sizes[0] > 20 * 2**20
    few, many = json.loads(run.stdout.splitlines()[-1])
    assert many - few < 12 * 2**10, f"peak memory rose from {few} to {many} KiB"
