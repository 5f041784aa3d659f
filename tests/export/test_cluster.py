"""examples/draw_on_cluster.py: a worker that is killed costs nothing, and what comes out is what one process draws."""

import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfmgan_hf import DFMGANPipeline, painting
from dfmgan_hf.export import ExportConfig, GenerateConfig, generate
from dfmgan_hf.export.paint import PaintSetConfig, paint_dataset
from dfmgan_hf.gate import QualityGate
from dfmgan_hf.painting import PaintConfig

SCRIPT = str(Path(__file__).parents[2] / "examples" / "draw_on_cluster.py")

# Two workers that say what they draw; one of them is killed amid a part, as if the memory had run out or a plug was
# pulled. Then, on the same cluster, options that no draw can satisfy.
DRIVER = """
import os, runpy, signal, sys
from pathlib import Path
from dfmgan_hf.export import ExportConfig, GenerateConfig

script = runpy.run_path({script!r})
folder = Path({folder!r})


class Mortal(script["Drawer"]):
    def __init__(self, job):
        super().__init__(job)
        self.unwatched, self.draw = self.draw, self.watched

    def watched(self, numbers):
        for sample in self.unwatched(numbers):
            with (folder / "drawn").open("a") as file:
                file.write(f"{{os.getpid()}} {{sample.record.index}}\\n")
            if sample.record.index == 10 and not (folder / "killed").exists():
                (folder / "killed").write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            yield sample


def draw(name, **options):
    job = GenerateConfig(str(folder / "model"), ExportConfig(folder / name, **options))
    script["draw_on_cluster"](script["ClusterConfig"](job, workers=2), Mortal)


draw("out", num_images=24, format="parquet", images_per_shard=4, batch_size=1)
try:
    draw("impossible", num_images=2, max_mask_area=1e-6, max_attempts=2)
except Exception as error:
    print("said:", error)
"""


def test_a_worker_paints_what_paint_does(pipe, contents, tmp_path, monkeypatch):
    monkeypatch.setattr(painting.constants, "HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(painting, "NUM_TWINS", 4)
    pipe.save_pretrained(tmp_path / "model")
    noise = np.random.default_rng(0).integers(80, 170, (60, 70, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "photograph.png")
    jobs = [
        PaintSetConfig(
            output_dir=tmp_path / name,
            num_images=3,
            model=str(tmp_path / "model"),
            photographs=tmp_path / "photograph.png",
            device="cpu",
            how=PaintConfig(window=40, any_product=True),
        )
        for name in ("one", "out")
    ]
    paint_dataset(jobs[0])
    script = runpy.run_path(SCRIPT)
    batch = script["Drawer"](jobs[1])({"number": np.arange(3)})
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    paint_dataset(jobs[1], draw=lambda missing: map(script["sample_of"], [rows[number] for number in missing]))
    assert contents(tmp_path / "out") == contents(tmp_path / "one")


@pytest.mark.parametrize("paints", [False, True])
def test_a_worker_measures_the_gate_of_its_job(pipe, gate, tmp_path, monkeypatch, paints):
    pipe.save_pretrained(tmp_path / "model")
    Image.new("L", (64, 64)).save(tmp_path / "photograph.png")
    model, options = str(tmp_path / "model"), {"category": "nut", "defect": "dent"}
    asked = {"gate": tmp_path / "data", "gate_groups": tmp_path / "groups.csv"}
    if paints:
        how, photograph = PaintConfig(bit_depth=12), tmp_path / "photograph.png"
        job = PaintSetConfig(
            output_dir=tmp_path / "out", model=model, photographs=photograph, device="cpu", how=how, **asked, **options
        )
    else:
        job = GenerateConfig(model, ExportConfig(tmp_path / "out", **options), **asked, gate_bit_depth=12)
    measured = []
    monkeypatch.setattr(QualityGate, "from_data", lambda *given, **named: measured.append((given, named)) or gate)
    assert runpy.run_path(SCRIPT)["Drawer"](job).draw.keywords["gate"] is gate
    (((data_dir, defect, *_), named),) = measured
    assert (data_dir, defect) == (tmp_path / "data", "dent")
    assert (named["category"], named["groups"], named["bit_depth"]) == ("nut", tmp_path / "groups.csv", 12)


def test_a_worker_paints_on_the_device_that_was_asked_for(pipe, tmp_path, monkeypatch):
    pipe.save_pretrained(tmp_path / "model")
    Image.new("L", (64, 64)).save(tmp_path / "photograph.png")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    devices = []
    monkeypatch.setattr(DFMGANPipeline, "to", lambda self, device: devices.append(device) or self)
    for device in ("cpu", "cuda:1"):
        job = PaintSetConfig(
            output_dir=tmp_path / "out",
            model=str(tmp_path / "model"),
            photographs=tmp_path / "photograph.png",
            device=device,
        )
        runpy.run_path(SCRIPT)["Drawer"](job)
    assert devices == ["cpu", "cuda"]  # a worker sees one GPU, which Ray chose


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(pipe, contents, environment, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: pip install -e '.[cluster]'")
    pipe.save_pretrained(tmp_path / "model")
    code = DRIVER.format(script=SCRIPT, folder=str(tmp_path))
    # Ray's own settings: nothing is written to the home folder, and workers are as nice as the test is.
    ray_settings = {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **ray_settings},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    generate(
        GenerateConfig(
            str(tmp_path / "model"),
            ExportConfig(tmp_path / "one", num_images=24, format="parquet", images_per_shard=4, batch_size=1),
        )
    )
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    drawn = [line.split() for line in (tmp_path / "drawn").read_text().splitlines()]
    assert len({pid for pid, _ in drawn}) >= 2
    assert {pid for pid, number in drawn if number == "10"} > {(tmp_path / "killed").read_text()}, "drawn again"
    assert Counter(number for _, number in drawn)["9"] == 2
    assert "said: None of the first 2 draws of image 0 has a mask of the wanted area" in process.stdout
