"""The page at the end of a run."""

from __future__ import annotations

import base64
import io
import json
import re
import sys

import pytest
from PIL import Image

from dfmgan_hf.training.report import AREA_EDGES, plot_areas, plot_curves, read_rows, write_report

from . import tiny

pytest.importorskip("matplotlib")


def pictures(page: str) -> list[Image.Image]:
    encoded = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in encoded]


def test_page_of_a_run(tmp_path):
    tiny.run("stage2", tmp_path, steps=3, log_steps=1, checkpoint_steps=0)
    (tmp_path / "training_config.json").write_text(json.dumps({"method": "stage2", "images": 6}))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"images_seen": 16, "loss/gen')  # the run still goes on
    page = write_report(tmp_path).read_text()
    shown = pictures(page)
    assert [picture.format for picture in shown] == ["JPEG", "PNG", "PNG", "JPEG", "JPEG"]
    assert page.index("<h2>Samples after 0.012 kimg</h2>") < page.index("<h2>Curves</h2>")
    assert re.findall(r"<figcaption>([\d.]+) kimg", page) == ["0", "0.012"]
    assert "<h1>Stage 2: the defect" in page
    assert "not finished, 0.01 kimg in 3 steps, 6 photographs" in page
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert f"<b>{rows[-1]['mask_area/real']:.1%} / {rows[-1]['mask_area/fake']:.1%}</b>" in page
    assert "No warnings." in page
    assert not re.search(r'(src|href)="(?!data:)', page), "the page must stand by itself"


def test_warnings_and_their_spans_are_listed(tmp_path):
    rows = [
        {
            "images_seen": 1000 * i,
            "step": i,
            "loss/r1": 0.1,
            "warnings": {"ada_at_cap": "at <its> limit"} if i > 2 else {"masks_empty": "nothing"},
        }
        for i in range(1, 6)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    page = write_report(tmp_path).read_text()
    assert "class='now'><b>ada at cap</b> (3.0 to 5.0 kimg): at &lt;its&gt; limit" in page
    assert "class='past'><b>masks empty</b> (1.0 to 2.0 kimg, no longer): nothing" in page


def test_rows_of_earlier_versions_and_empty_logs(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"images_seen": 1000, "step": 62, "loss/generator": null}\n')
    assert len(pictures(write_report(tmp_path).read_text())) == 1
    (tmp_path / "metrics.jsonl").write_text("")
    assert write_report(tmp_path).is_file()


def test_plots_are_drawn_from_the_numbers():
    shares = [1.0] + [0.0] * len(AREA_EDGES)
    rows = [
        {
            "images_seen": 1000 * i,
            "loss/generator": i,
            "histograms": {"mask_area/real": shares, "mask_area/fake": shares},
        }
        for i in range(1, 4)
    ]
    more = [{**row, "loss/generator": row["loss/generator"] * -2} for row in rows]
    assert plot_curves(rows) != plot_curves(more)
    assert plot_areas(rows) == plot_areas(more)


def test_no_log(tmp_path):
    with pytest.raises(FileNotFoundError, match="not the --output_dir of a run"):
        write_report(tmp_path)


def test_without_matplotlib(tmp_path, monkeypatch):
    (tmp_path / "metrics.jsonl").write_text('{"images_seen": 1000, "step": 62}\n')
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install dfmgan-hf\[train\]"):
        write_report(tmp_path)


def test_rows_are_read_while_one_is_written(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"images_seen": 1}\n{"images_se')
    assert read_rows(log) == [{"images_seen": 1}]
