"""Memory does not grow with the number of images; benchmarks/README.md has it for 100,000."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfmgan_hf.export import TripletSampler

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")

MIB = 2**20


class PeakMemory:
    """Peak of this process's resident memory since `reset`, in bytes."""

    def reset(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")

    @property
    def bytes(self) -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return 2**10 * int(line.split()[1])


@pytest.fixture
def quick_drawing(monkeypatch):
    """Noise in the place of the network: encoding, writing and recording are what could keep something."""

    def draw(self, seeds):
        rng = np.random.default_rng(seeds)
        noise = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in seeds]
        mask = Image.fromarray(np.full((64, 64), 255, dtype=np.uint8))
        return [(image, mask, image) for image in noise]

    monkeypatch.setattr(TripletSampler, "_call", draw)


@pytest.mark.parametrize("format", ["mvtec", "parquet"])
def test_memory_stays_flat(export, quick_drawing, tmp_path, format):
    """Six times as many images: their files take 10 MiB more, the process does not."""
    options = {"format": format, "images_per_shard": 50, "batch_size": 8}
    memory, peaks, sizes = PeakMemory(), [], []
    # The first one loads libraries and fills the allocator's pools.
    for name, num_images in (("first", 100), ("few", 100), ("many", 600)):
        memory.reset()
        export(name, num_images=num_images, **options)
        peaks.append(memory.bytes)
        sizes.append(sum(path.stat().st_size for path in (tmp_path / name).rglob("*") if path.is_file()))
    assert sizes[2] - sizes[1] > 10 * MIB
    assert peaks[2] - peaks[1] < 4 * MIB
