"""The page about a run."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys

import pytest
from PIL import Image

from dfmgan_hf.methods.cdc import CDCTask
from dfmgan_hf.methods.defect_gan import DefectGANTask
from dfmgan_hf.methods.dfmgan import Stage2Task
from dfmgan_hf.methods.sdgan import SDGANTask
from dfmgan_hf.methods.stylegan2 import Stage1Task
from dfmgan_hf.training import MetricsLog
from dfmgan_hf.training.checkpointing import CheckpointError
from dfmgan_hf.training.report import RUN_PANELS, write_report
from tests.training import tiny


def test_page_of_a_run(tmp_path):
    tiny.run("stage2", tmp_path, steps=3, log_steps=1, checkpoint_steps=0)
    record = {"method": "dfmgan", "defect": "<b>", "images": 6, "panels": Stage2Task.panels}
    (tmp_path / "training_config.json").write_text(json.dumps(record))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"images_seen": 16, "loss/gen')  # the run still goes on
    page = write_report(tmp_path).read_text()
    (encoded,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).format == "JPEG"
    assert "<h2>Samples after 0.012 kimg</h2>" in page
    assert "<h1>dfmgan · &lt;b&gt; · " in page
    assert "not finished, 0.01 kimg in 3 steps, 6 photographs" in page
    rows = MetricsLog(tmp_path / "metrics.jsonl").rows()
    assert f">mask_area/fake {rows[-1]['mask_area/fake']:.4g}<" in page
    for title in Stage2Task.panels:
        assert title in page, "a panel names statistics that are not logged"
    assert "No warnings." in page
    assert not re.search(r'(src|href)="(?!data:)', page), "the page must stand by itself"


def test_warnings_and_their_spans_are_listed(tmp_path):
    rows = [
        {
            "images_seen": 1000 * i,
            "step": i,
            "loss/r1": 0.1,
            "warnings": {"<ada>_at_cap": "at <its> limit"} if i > 2 else {"masks_empty": "nothing"},
        }
        for i in range(1, 6)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    page = write_report(tmp_path).read_text()
    assert 'class="now"><b>&lt;ada&gt; at cap</b> (3.0 to 5.0 kimg): at &lt;its&gt; limit' in page
    assert 'class="past"><b>masks empty</b> (1.0 to 2.0 kimg, no longer): nothing' in page


def test_curves_are_drawn_from_the_numbers(tmp_path):
    rows = [{"images_seen": 1000 * i, "score/kid": i * i, "score/clustered_lpips": None} for i in range(3)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    page = write_report(tmp_path).read_text()
    assert re.findall(r'points="([^"]+)"', page) == ["0.0,100.0 150.0,75.0 300.0,0.0"]
    (tmp_path / "metrics.jsonl").write_text("")
    assert "<svg" not in write_report(tmp_path).read_text()


@pytest.mark.parametrize("task", [Stage2Task, Stage1Task, SDGANTask, DefectGANTask, CDCTask])
def test_every_curve_has_a_colour_of_its_own(tmp_path, task):
    panels = task.panels
    names = {name for shown in (panels, RUN_PANELS) for panel in shown.values() for name in panel}
    rows = [{"images_seen": 1000 * i, "step": i, **dict.fromkeys(names, float(i))} for i in range(2)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "training_config.json").write_text(json.dumps({"panels": panels}))
    figures = re.findall(r"<figure>.*?</figure>", write_report(tmp_path).read_text(), re.DOTALL)
    shown = [*panels.values(), *RUN_PANELS.values()]
    for figure, panel in zip(figures, shown, strict=True):
        assert len(set(re.findall(r'stroke="([^"]+)"', figure))) == len(panel)


def test_no_log(tmp_path):
    with pytest.raises(FileNotFoundError, match="not the --output_dir of a run"):
        write_report(tmp_path)
    command = [sys.executable, "-m", "dfmgan_hf.training.report", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert "not the --output_dir of a run" in run.stderr


@pytest.mark.parametrize(("text", "message"), [("{", "is damaged"), ("[]", "is not what a training wrote")])
def test_a_record_that_is_none_is_told(tmp_path, text, message):
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "training_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=f"training_config.json {message}"):
        write_report(tmp_path)


def test_a_run_that_was_stopped_is_not_finished_and_other_pictures_do_not_matter(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "samples").mkdir()
    for name in ("my favourite", "0000012000 copy"):
        (tmp_path / "samples" / f"{name}.png").write_bytes(b"")
    record = {"recipe": {"total_kimg": 4}, "result": {"images_seen": 3999, "training_seconds": 7200}}
    (tmp_path / "training_config.json").write_text(json.dumps(record))
    assert "<p>not finished, 0.00 of 4 kimg in 0 steps, 2.00 h of training" in write_report(tmp_path).read_text()
    record["result"]["images_seen"] = 4000
    (tmp_path / "training_config.json").write_text(json.dumps(record))
    assert "<p>finished, " in write_report(tmp_path).read_text()
