"""An export that is stopped, whenever and however, and goes on, comes out as one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dfmgan_hf.export import ExportConfig, ExportError
from dfmgan_hf.export.writers import WRITERS
from dfmgan_hf.files import lock_folder

FORMATS = list(WRITERS)
SCRIPT = Path(__file__).parents[2] / "examples" / "generate.py"


class Stopped(BaseException):
    """As a key press or a signal would, this passes every `except Exception`."""


@contextmanager
def stop_at_file(number: int | None) -> Iterator[list[str]]:
    """Stops the export as it puts its file `number` into place; yields those that it put there before."""
    replace, done = os.replace, []

    def count(source, target):
        if len(done) == number:
            raise Stopped
        replace(source, target)
        done.append(str(target))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", count)
        yield done


@pytest.mark.parametrize("format", FORMATS)
def test_stopped_at_every_file(export, contents, tmp_path, format):
    # One image at a time, so that what goes on rounds as the whole one did.
    options = {"num_images": 3, "format": format, "images_per_shard": 2, "max_mask_area": 0.1, "batch_size": 1}
    with stop_at_file(None) as files:
        whole = export("whole", **options)
    expected = contents(tmp_path / "whole")
    assert len(files) == len(expected)
    assert whole.dropped["too_large"] > 0
    for number in range(len(files)):
        name = f"stopped at {number}"
        with stop_at_file(number) as before, pytest.raises(Stopped):
            export(name, **options)
        assert expected.items() >= contents(tmp_path / name).items(), "nothing is half-written or left aside"
        with stop_at_file(None) as after:
            summary = export(name, **options)
        assert contents(tmp_path / name) == expected
        assert summary.dropped == whole.dropped
        again = {path for path in before if path in after and Path(path).stem.startswith(("00000", "train-"))}
        most = {"parquet": 0, "yolo": 3}.get(format, 2)
        assert len(again) <= most, "of the triplet under way, never a finished one"


@pytest.mark.slow
def test_killed(pipe, contents, tmp_path, environment):
    """A process that is killed, not stopped, leaves nothing that the next one does not write over."""
    pipe.save_pretrained(tmp_path / "model")

    def command(name: str) -> list[str]:
        options = ["--output_dir", str(tmp_path / name), "--num_images", "90", "--batch_size", "1"]
        return [sys.executable, str(SCRIPT), "--model", str(tmp_path / "model"), *options]

    killed = tmp_path / "killed"
    process = subprocess.Popen(command("killed"), env=environment)
    while process.poll() is None and len(list(killed.rglob("[!.]*.png"))) < 20:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was killed before it was done"
    for name in ("killed", "whole"):
        subprocess.run(command(name), env=environment, check=True)
    assert contents(killed) == contents(tmp_path / "whole")


def test_a_finished_export_stays_as_it_is(export, contents, tmp_path):
    export()
    before = contents(tmp_path / "out")
    summary = export(batch_size=8, max_attempts=500)  # options that change no image
    assert summary.num_drawn == 0
    assert contents(tmp_path / "out") == before
    assert "drew    0 of 12 triplets" in str(summary)
    assert "12 were there before" in str(summary)
    (tmp_path / "out/object/ground_truth/defect/000004_mask.png").unlink()
    assert export().num_drawn == 1


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"seed": 1}, "seed was 0 and is 1 now"),
        ({"format": "parquet"}, "format was mvtec and is parquet now"),
        ({"min_mask_area": 0.01}, "min_mask_area was None and is 0.01 now"),
        (
            {"max_mask_area": 0.5, "noise_mode": "random"},
            "max_mask_area was 1.0 and is 0.5 now; noise_mode was const and is random now",
        ),
    ],
)
def test_other_settings_are_refused_by_name(export, contents, tmp_path, options, difference):
    export(num_images=2)
    before = contents(tmp_path / "out")
    with pytest.raises(ExportError) as caught:
        export(num_images=2, **options)
    assert difference in str(caught.value)
    assert str(tmp_path / "out") in str(caught.value)
    assert contents(tmp_path / "out") == before


def test_another_model_is_refused(export, pipe):
    export(num_images=2)
    pipe.generator.to_mask.bias.data.add_(0.5)
    with pytest.raises(ExportError, match=r"model_sha256 was [0-9a-f]{64} and is [0-9a-f]{64} now"):
        export(num_images=2)


def test_a_folder_with_other_things_is_left_alone(export, contents, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("two years of work")
    with pytest.raises(ExportError, match=r"out holds other things .* Give a new or empty folder"):
        export()
    assert list(contents(tmp_path / "out")) == ["thesis.txt"]


def test_damaged_files_are_named(export, tmp_path):
    export(num_images=2)
    image = tmp_path / "out/object/test/defect/000001.png"
    image.write_bytes((tmp_path / "out/object/test/good/000001.png").read_bytes())
    with pytest.raises(ExportError, match=r"000001\.png cannot be read, or lacks the text.*Delete it"):
        export(num_images=2)
    image.write_bytes(b"")
    with pytest.raises(ExportError, match=r"000001\.png cannot be read.*Delete it"):
        export(num_images=2)
    export("coco", num_images=2, format="coco")
    (tmp_path / "coco/masks/000001.png").write_bytes(b"")
    with pytest.raises(ExportError, match=r"masks/000001\.png cannot be read.*Delete it"):
        export("coco", num_images=2, format="coco")
    export("shards", num_images=2, format="parquet")
    (tmp_path / "shards/data/train-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ExportError, match=r"train-00000-of-00001\.parquet is no shard.*Delete it"):
        export("shards", num_images=2, format="parquet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_images": 0}, "`num_images` must be an integer of at least 1"),
        ({"seed": -1}, "`seed` must be a number from 0"),
        ({"seed": 1.5}, "`seed` must be an integer, but is 1.5"),
        ({"truncation_psi": 2.5}, "`truncation_psi` must be a number from 0 to 2"),
        ({"max_mask_area": 20}, "`max_mask_area` must be a number from 0 to 1"),
        ({"min_mask_area": 0.5, "max_mask_area": 0.2}, "`min_mask_area` must be a number from 0 to 0.2"),
        ({"format": "voc"}, "`format` must be one of 'mvtec', 'anomalib', 'imagefolder', 'coco', 'yolo', 'parquet'"),
        ({"defect": "../up"}, "`defect` must be the name of a folder"),
        ({"category": ".."}, "`category` must be the name of a folder"),
        ({"defect": "good"}, "and not 'good'"),
        ({"category": "generation"}, "and not 'generation'"),
        ({"format": "anomalib", "defect": "normal_test"}, "and not 'good' or 'mask' or 'normal_test'"),
        ({"format": "anomalib", "defect": "mask"}, "and not 'good' or 'mask' or 'normal_test'"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        ExportConfig("out", **options)


@pytest.mark.parametrize("defect", ["划痕", "Kratzer_groß", "éraflure"])
def test_defects_are_named_in_any_script(export, tmp_path, defect):
    export(format="mvtec", defect=defect)
    assert {path.parent.name for path in (tmp_path / "out").rglob("test/*/*.png")} == {defect, "good"}


def test_a_second_run_is_kept_out(export, tmp_path):
    export()
    with lock_folder(tmp_path / "out/generation"), pytest.raises(BlockingIOError, match=r"Another run .* to .*out\."):
        export(seed=1)  # the lock comes first, then the comparison of settings
    export()  # a lock that nobody holds is none


@pytest.mark.parametrize("format", ["mvtec", "parquet"])
def test_a_gated_export_that_is_stopped_refuses_the_same(export, gate, contents, tmp_path, format):
    options = {"gate": gate, "num_images": 4, "format": format, "images_per_shard": 2, "batch_size": 1}
    with stop_at_file(None) as files:
        whole = export("whole", **options)
    assert whole.refused
    expected = contents(tmp_path / "whole")
    assert "generation/refused.png" in expected
    for number in range(len(files)):
        name = f"stopped at {number}"
        with stop_at_file(number), pytest.raises(Stopped):
            export(name, **options)
        assert export(name, **options).refused == whole.refused
        assert contents(tmp_path / name) == expected


def test_a_gated_export_does_not_go_on_without_its_gate(export, gate, tmp_path):
    export(gate=gate, num_images=2)
    (tmp_path / "out/object/test/defect/000001.png").unlink()
    with pytest.raises(ExportError, match=r"gate_sha256 was 0{64} and is None now"):
        export(num_images=2)


def test_too_strict_bounds_leave_an_export_that_can_go_on(export, contents, tmp_path):
    options = {"max_mask_area": 0.1, "batch_size": 1}
    export("whole", **options)
    with pytest.raises(ExportError, match=r"None of the first 3 draws"):
        export(max_attempts=3, **options)
    export(**options)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_the_summary_is_of_all_images(export, tmp_path):
    export(num_images=3, max_mask_area=0.1)
    summary = json.loads((tmp_path / "out/generation/summary.json").read_text())
    assert summary["num_images"] == 3
    assert summary["dropped"]["too_large"] > 0
    assert 0 < summary["mask_area"]["min"] <= summary["mask_area"]["mean"] <= summary["mask_area"]["max"] <= 0.1
