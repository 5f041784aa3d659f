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
from filelock import FileLock

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.export import ExportConfig, ExportError, OneProcessError, generate_dataset
from dfmgan_hf.export.lock import LOCK_FILE

FORMATS = ["mvtec", "imagefolder", "parquet"]


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
    options = {"num_images": 3, "format": format, "images_per_shard": 2, "max_mask_area": 0.1}
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
            summary = export(name, batch_size=1 + number % 3, **options)
        assert contents(tmp_path / name) == expected
        assert summary.dropped == whole.dropped
        again = {path for path in before if path in after and Path(path).stem.startswith(("00000", "train-"))}
        assert len(again) <= (2 if format != "parquet" else 0), "of the triplet under way, never a finished one"


@pytest.mark.parametrize("format", FORMATS)
def test_what_a_killed_process_leaves_aside_is_written_over(export, contents, tmp_path, format):
    options = {"num_images": 4, "format": format, "images_per_shard": 4}
    export("whole", **options)
    expected = contents(tmp_path / "whole")
    killed = tmp_path / "killed"
    (killed / "generation").mkdir(parents=True)
    (killed / "generation/.settings.json.partial").write_bytes(b"half a fi")
    with stop_at_file(1), pytest.raises(Stopped):
        export("killed", **options)
    for name in expected.keys() - {"generation/settings.json"}:
        (killed / name).with_name(f".{Path(name).name}.partial").write_bytes(b"half a fi")
    export("killed", **options)
    assert contents(killed) == expected


RUNNER = """
import sys
from pathlib import Path
from accelerate import Accelerator
from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.export import ExportConfig, generate_dataset

model, out, format, batch_size = sys.argv[1:]
config = ExportConfig(Path(out), num_images=90, format=format, batch_size=int(batch_size), images_per_shard=12)
generate_dataset(DFMGANPipeline.from_pretrained(model), config, Accelerator(cpu=True), model_name="tiny")
"""


@pytest.mark.slow
@pytest.mark.parametrize("format", ["mvtec", "parquet"])
def test_killed(pipe, accelerator, contents, tmp_path, environment, format):
    pipe.save_pretrained(tmp_path / "model")
    pipe = DFMGANPipeline.from_pretrained(tmp_path / "model")

    def export(name, **options):
        config = ExportConfig(tmp_path / name, num_images=90, format=format, images_per_shard=12, **options)
        return generate_dataset(pipe, config, accelerator, model_name="tiny")

    export("whole")
    expected = contents(tmp_path / "whole")
    killed = tmp_path / "killed"
    for files_before_kill, batch_size in ((20, "5"), (110, "1")) if format == "mvtec" else ((3, "7"),):
        arguments = [str(tmp_path / "model"), str(killed), format, batch_size]
        process = subprocess.Popen([sys.executable, "-c", RUNNER, *arguments], env=environment)
        while process.poll() is None and len(list(killed.rglob("[!.]*.*"))) < files_before_kill:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was killed before it was done"
        # What is hidden is the lock, which nobody holds any more, and a file that was being written.
        left = {name: digest for name, digest in contents(killed).items() if not Path(name).name.startswith(".")}
        assert expected.items() > left.items()
        assert len(left) >= files_before_kill
    summary = export("killed", batch_size=3)
    assert contents(killed) == expected
    assert 0 < summary.num_drawn < 90


def test_a_finished_export_stays_as_it_is(export, contents, tmp_path):
    export()
    before = contents(tmp_path / "out")
    times = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before if "/test/" in name}
    summary = export()
    assert summary.num_drawn == 0
    assert contents(tmp_path / "out") == before
    assert times == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in times}
    assert "drew    0 in" in str(summary)
    assert "12 were there before" in str(summary)


def test_a_deleted_file_is_drawn_again(export, contents, tmp_path):
    export()
    before = contents(tmp_path / "out")
    (tmp_path / "out/object/ground_truth/defect/000004_mask.png").unlink()
    assert export().num_drawn == 1
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"seed": 1}, "seed was 0 and is 1 now"),
        ({"truncation_psi": 0.7}, "truncation_psi was 1.0 and is 0.7 now"),
        ({"format": "parquet"}, "format was mvtec and is parquet now"),
        ({"num_images": 5}, "num_images was 2 and is 5 now"),
        ({"min_mask_area": 0.01}, "min_mask_area was None and is 0.01 now"),
        ({"max_mask_area": 0.5, "noise_mode": "random"}, "noise_mode was const and is random now; max_mask_area was"),
    ],
)
def test_other_settings_are_refused_by_name(export, contents, tmp_path, options, difference):
    export(num_images=2)
    before = contents(tmp_path / "out")
    with pytest.raises(ExportError) as caught:
        export(**{"num_images": 2, **options})
    assert difference in str(caught.value)
    assert str(tmp_path / "out") in str(caught.value)
    assert "Repeat them to go on, or give another --output_dir." in str(caught.value)
    assert contents(tmp_path / "out") == before


def test_options_that_change_no_image_may_change(export):
    export(num_images=2, batch_size=1)
    assert export(num_images=2, batch_size=8, max_attempts=500).num_drawn == 0


def test_another_model_or_version_is_refused(export, pipe, tmp_path):
    export(num_images=2)
    path = tmp_path / "out/generation/settings.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "torch version": "1.0"}))
    with pytest.raises(ExportError, match=r"torch version was 1\.0 and is"):
        export(num_images=2)
    path.write_text(json.dumps(settings))
    pipe.generator.to_mask.bias.data.add_(0.5)
    with pytest.raises(ExportError, match=r"model_sha256 was [0-9a-f]{64} and is [0-9a-f]{64} now"):
        export(num_images=2)


def test_a_folder_with_other_things_is_left_alone(export, contents, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("two years of work")
    with pytest.raises(ExportError, match=r"other things in it \(thesis\.txt\).*Expected a new or empty folder"):
        export()
    assert list(contents(tmp_path / "out")) == ["thesis.txt"]


def test_damaged_files_are_named(export, tmp_path):
    export(num_images=2)
    image = tmp_path / "out/object/test/defect/000001.png"
    twin = tmp_path / "out/object/train/good/000001.png"
    image.write_bytes(twin.read_bytes())
    with pytest.raises(ExportError, match=r"000001\.png: a PNG file without the text.*Delete it"):
        export(num_images=2)
    (tmp_path / "out/generation/settings.json").write_text("{")
    with pytest.raises(ExportError, match=r"settings\.json: text that does not parse"):
        export(num_images=2)
    export("shards", num_images=2, format="parquet")
    shard = tmp_path / "shards/data/train-00000-of-00001.parquet"
    shard.write_bytes(b"PAR1 and no more")
    with pytest.raises(ExportError, match=r"train-00000-of-00001\.parquet: a file that does not open.*Delete it"):
        export("shards", num_images=2, format="parquet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_images": 0}, "--num_images: 0. Expected a number from 1 to 1048576"),
        ({"seed": -1}, "--seed: -1. Expected a number from 0 to 4294967295"),
        ({"batch_size": 0}, "--batch_size: 0. Expected 1 or more"),
        ({"truncation_psi": 2.5}, "--truncation_psi: 2.5. Expected a number from 0 to 2"),
        ({"max_mask_area": 20}, "--max_mask_area: 20. Expected a number from 0 to 1"),
        ({"min_mask_area": 0.5, "max_mask_area": 0.2}, "--min_mask_area: 0.5. Expected at most --max_mask_area, 0.2"),
        ({"format": "coco"}, "--format: 'coco'. Expected one of mvtec, imagefolder, parquet"),
        ({"twins": "aside"}, "--twins: 'aside'. Expected one of train, test"),
        ({"noise_mode": "loud"}, "--noise_mode: 'loud'. Expected one of random, const, none"),
        ({"defect": "../up"}, "--defect: '../up'. Expected letters"),
        ({"category": ".."}, "--category: '..'. Expected letters"),
        ({"defect": "good"}, "--defect: 'good'. Expected another name"),
        ({"category": "generation"}, "--category: 'generation'. Expected another name"),
        ({"max_attempts": 5000}, "--max_attempts: 5000. Expected a number from 1 to 4032"),
        ({"images_per_shard": 0}, "--images_per_shard: 0. Expected 1 or more"),
    ],
)
def test_options_out_of_range(export, tmp_path, options, message):
    with pytest.raises(ExportError) as caught:
        export(**options)
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "out").exists()


def test_a_second_run_is_kept_out(export, contents, tmp_path):
    export()
    before = contents(tmp_path / "out")
    with FileLock(tmp_path / "out" / LOCK_FILE), pytest.raises(ExportError, match=r"another run.*goes on where it"):
        export()
    export()  # a lock that nobody holds is none
    assert contents(tmp_path / "out") == before
    assert not (tmp_path / "out" / LOCK_FILE).exists()


def test_a_full_disk(export, contents, tmp_path, monkeypatch):
    export("whole", num_images=3)
    write, written = Path.write_bytes, []

    def fail_at_sixth(path, content):
        written.append(path)
        if len(written) == 6:
            write(path, content[:10])
            raise OSError(28, "No space left on device", str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fail_at_sixth)
    with pytest.raises(OneProcessError, match=r"No space left on device.*give the same command again"):
        export(num_images=3)
    whole = contents(tmp_path / "whole")
    assert whole.items() > contents(tmp_path / "out").items()
    export(num_images=3)
    assert contents(tmp_path / "out") == whole


def test_too_strict_a_filter_leaves_an_export_that_can_go_on(export, contents, tmp_path):
    options = {"num_images": 12, "max_mask_area": 0.1}
    export("whole", **options)
    with pytest.raises(ExportError, match=r"Image \d+: none of its first 3 draws passed"):
        export(max_attempts=3, **options)
    export(**options)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
