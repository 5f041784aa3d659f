"""Checkpoints: a run that goes on is the same run; the best model stays beside the last one."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.training import CheckpointError, MetricsLog
from dfmgan_hf.training.checkpointing import BestModel, ScoreConfig, list_checkpoints, read_checkpoint, state_sha256
from dfmgan_hf.training.task import TrainingWarning
from tests.training import launch, tiny


def assert_same_end(left: Path, right: Path) -> None:
    """Every tensor of the last checkpoints, and every counter."""
    (groups, state), (expected, expected_state) = (
        read_checkpoint(list_checkpoints(folder / "checkpoints")[-1]) for folder in (left, right)
    )
    assert groups.keys() == expected.keys()
    for name, tensors in expected.items():
        tiny.assert_same_tensors(groups[name], tensors, f"{name}: ")
    for name in ("images_seen", "step", "num_processes", "sha256"):
        assert state[name] == expected_state[name]


@pytest.fixture(scope="module")
def stage1_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stage1")
    tiny.run("stage1", folder, checkpoint_steps=1)
    return folder


@pytest.fixture(scope="module")
def stage2_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stage2")
    tiny.run("stage2", folder, checkpoint_steps=1)
    return folder


@pytest.fixture(params=["stage1", "stage2"])
def uninterrupted(request) -> tuple[str, Path]:
    return request.param, request.getfixturevalue(f"{request.param}_run")


def test_uninterrupted_run_trains_and_augments(uninterrupted):
    """The comparisons below would be hollow if nothing moved."""
    stage, folder = uninterrupted
    groups, state = read_checkpoint(list_checkpoints(folder / "checkpoints")[-1])
    start = tiny.MAKE[stage]().networks["generator"].state_dict()
    moved = [name for name, value in groups["network_generator"].items() if not torch.equal(value, start[name])]
    assert len(moved) > 10
    assert 0 < groups["task"]["ada.p"] < 0.8
    assert groups["task"]["path_length_mean"] > 0
    assert state["step"] == tiny.STEPS


@pytest.mark.parametrize("stop", [1, 4])
def test_resume_is_bit_for_bit(uninterrupted, tmp_path, stop):
    stage, expected = uninterrupted
    tiny.run(stage, tmp_path, steps=stop)
    torch.manual_seed(999)  # another process's random state
    tiny.run(stage, tmp_path, resume="latest")
    assert_same_end(tmp_path, expected)


def test_resume_from_a_named_checkpoint(uninterrupted, tmp_path):
    stage, expected = uninterrupted
    tiny.run(stage, tmp_path / "part", steps=3, checkpoint_steps=0)
    (path,) = list_checkpoints(tmp_path / "part" / "checkpoints")[-1:]
    tiny.run(stage, tmp_path / "whole", resume=str(path))
    assert_same_end(tmp_path / "whole", expected)


def test_what_came_after_an_earlier_checkpoint_that_a_run_went_on_from_is_gone(tmp_path):
    """Else "latest" would take the branch that was left for the run's own."""
    tiny.run("stage1", tmp_path, steps=6, checkpoint_steps=2)
    earlier, later = list_checkpoints(tmp_path / "checkpoints")
    tiny.run("stage1", tmp_path, steps=5, checkpoint_steps=0, resume=str(earlier))
    assert [int(path.name[-2:]) for path in list_checkpoints(tmp_path / "checkpoints")] == [16, 20]
    assert int(later.name[-2:]) == 24
    assert max(int(sheet.stem) for sheet in (tmp_path / "samples").glob("*.png")) == 20


def _train_in_child(stage: str, folder: Path, kill_at: str | None) -> None:
    if kill_at is not None:
        _kill_at(kill_at)
    tiny.run(stage, folder, resume="latest", checkpoint_steps=1)


def _kill_at(moment: str) -> None:
    """Die at a call of a function that saving uses, the second time it comes."""
    from dfmgan_hf import files
    from dfmgan_hf.training import checkpointing

    owner, name, calls = {
        "tensors": (checkpointing, "save_file", 9),
        "digest": (checkpointing, "file_sha256", 11),
        "sync": (files.os, "fsync", 12),
        "rename": (files.os, "replace", 2),
        "prune": (files.shutil, "rmtree", 8),
    }[moment]
    original = getattr(owner, name)
    left = [calls]

    def wrapped(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def finish(stage: str, folder: Path) -> None:
    assert launch.join([launch.start(_train_in_child, stage, folder, None)]) == [0]


@pytest.mark.parametrize("moment", ["tensors", "digest", "sync", "rename", "prune"])
def test_killed_while_saving(tmp_path, moment, stage1_run):
    assert launch.join([launch.start(_train_in_child, "stage1", tmp_path, moment)]) == [-signal.SIGKILL]
    finish("stage1", tmp_path)
    assert_same_end(tmp_path, stage1_run)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2, "something partial is left"


def _train_on_a_full_disk(folder: Path, limit: int) -> None:
    """No file of this process can grow past `limit` bytes; the write that would fails, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with pytest.raises(CheckpointError, match=r"could not be written.*make room.*--resume_from_checkpoint latest"):
        tiny.run("stage1", folder, resume="latest", checkpoint_steps=1)


def test_disk_full_while_saving(tmp_path, stage1_run):
    """The second checkpoint breaks off in the middle of its largest file; the first stays, and nothing partial."""
    tiny.run("stage1", tmp_path, steps=1)
    checkpoints = tmp_path / "checkpoints"
    largest = max(path.stat().st_size for path in next(checkpoints.iterdir()).iterdir())
    assert launch.join([launch.start(_train_on_a_full_disk, tmp_path, largest // 2)]) == [0]
    assert [path.name for path in checkpoints.iterdir()] == ["checkpoint-0000000004"]
    finish("stage1", tmp_path)
    assert_same_end(tmp_path, stage1_run)


def test_disk_full_for_what_only_watches(tmp_path, stage1_run, monkeypatch):
    """No room for sheets, rows of the log and the best model: the run goes on, says so, and leaves nothing partial."""
    trainer = tiny.make_trainer(
        tiny.make_stage1(), tmp_path, scorer=lambda: {"kid": 0.1}, eval_steps=2, log_steps=1, checkpoint_steps=0
    )
    write = trainer.log.write

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    monkeypatch.setattr(trainer.task, "export", full)
    monkeypatch.setattr(trainer.log, "write", lambda row: full() if row["step"] == 3 else write(row))
    with pytest.warns(TrainingWarning, match=r"could not be written: .*No space left.*Training continues; make room"):
        trainer.train()
    monkeypatch.undo()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sorted({row["step"] for row in rows}) == [1, 2, 4, 5, 6]
    assert not list((tmp_path / "samples").iterdir())
    assert not (tmp_path / "best").exists()
    assert_same_end(tmp_path, stage1_run)


def test_a_row_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write({"images_seen": 4})
    before = log.path.read_text()

    def short(path, *mode, **options):
        with original(path, *mode, **options) as file:
            file.write('{"im')
        raise OSError(errno.ENOSPC, "No space left on device")

    original = Path.open
    monkeypatch.setattr(Path, "open", short)
    with pytest.raises(OSError, match="No space left"):
        log.write({"images_seen": 8})
    monkeypatch.undo()
    assert log.path.read_text() == before


def test_killed_at_random_moments(tmp_path, uninterrupted):
    """Killed again and again, each time a little after the next step at the earliest, it still ends as it should."""
    stage, expected = uninterrupted
    delays = random.Random(7)
    kills = 0
    # Each start gets a step further, so that this ends on a busy machine, too.
    for _ in range(tiny.STEPS + 1):
        before = _newest(tmp_path)
        process = launch.start(_train_in_child, stage, tmp_path, None)
        while process.is_alive() and _newest(tmp_path) == before:
            time.sleep(0.002)
        process.join(delays.uniform(0, 0.12))
        if not process.is_alive():
            process.join()
            break
        process.kill()
        process.join()
        kills += 1
    assert process.exitcode == 0
    assert kills >= 2
    assert_same_end(tmp_path, expected)


def _newest(folder: Path) -> str:
    present = list_checkpoints(folder / "checkpoints")
    return present[-1].name if present else ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_leave(tmp_path, stage1_run, monkeypatch, capsys, number, code):
    trainer = tiny.make_trainer(tiny.make_stage1(), tmp_path, checkpoint_steps=0)
    step = trainer._train_step

    def interrupted(batch):
        step(batch)
        if trainer.progress.step == 3:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(trainer, "_train_step", interrupted)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as left:
        trainer.train()
    assert left.value.code == code
    assert signal.getsignal(number) is before
    assert "--resume_from_checkpoint latest" in capsys.readouterr().out
    assert [path.name for path in list_checkpoints(trainer.checkpoints_dir)] == ["checkpoint-0000000012"]
    tiny.run("stage1", tmp_path, resume="latest", checkpoint_steps=0)
    assert_same_end(tmp_path, stage1_run)


def test_progress_bar_counts_kimg_to_the_end(tmp_path, capsys, recwarn):
    tiny.run("stage1", tmp_path, steps=4)
    trainer = tiny.make_trainer(tiny.make_stage1(), tmp_path, steps=5)
    trainer.show_progress = True
    trainer.train("latest")
    assert re.search(r"100%.* 0\.02/0\.02 kimg \[", capsys.readouterr().err)
    assert not [w for w in recwarn if "clamping" in str(w.message)]


@pytest.fixture
def interruptible():
    """Python's own handler, which programs that a shell starts in the background do not get."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("seconds", [0.1, 6.0])
def test_a_later_signal_acts_at_once_and_the_same_one_twice_does_not(tmp_path, monkeypatch, seconds):
    """A launcher passes on what a scheduler has sent to the whole group already: that must not cost the checkpoint."""
    trainer = tiny.make_trainer(tiny.make_stage1(), tmp_path)
    train_step = trainer._train_step

    def interrupted(batch):
        train_step(batch)
        os.kill(os.getpid(), signal.SIGINT)
        then = time.monotonic() + seconds
        monkeypatch.setattr("dfmgan_hf.training.trainer.time.monotonic", lambda: then)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trainer, "_train_step", interrupted)
    with pytest.raises(KeyboardInterrupt if seconds > 5 else SystemExit):
        trainer.train()
    assert len(list_checkpoints(tmp_path / "checkpoints")) == (seconds < 5)


def test_latest_without_checkpoints_starts_afresh(tmp_path, capsys):
    trainer = tiny.run("stage1", tmp_path, steps=1, resume="latest")
    assert "starting afresh" in capsys.readouterr().out
    assert trainer.images_seen == tiny.BATCH


def test_fresh_start_does_not_mix_with_an_old_run(tmp_path):
    tiny.run("stage1", tmp_path, steps=1)
    with pytest.raises(CheckpointError, match=r"already holds checkpoint-0000000004.*--resume_from_checkpoint latest"):
        tiny.run("stage1", tmp_path, steps=1)


def test_a_run_does_not_go_on_from_another_one_in_a_folder_that_holds_a_run(stage1_run, tmp_path):
    tiny.run("stage1", tmp_path, steps=2)
    before = sorted(tmp_path.rglob("*"))
    other = list_checkpoints(stage1_run / "checkpoints")[0]
    with pytest.raises(CheckpointError, match=r"already holds checkpoint-0000000008.*choose another --output_dir"):
        tiny.run("stage1", tmp_path, steps=3, resume=str(other))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_checkpoint_that_was_about_to_be_replaced_is_resumed_from(tmp_path, capsys):
    """Killed between the two renames, with no other checkpoint beside it."""
    tiny.run("stage1", tmp_path, steps=2, checkpoint_steps=0)
    (path,) = list_checkpoints(tmp_path / "checkpoints")

    def kill() -> None:
        path.rename(path.with_name(f".{path.name}.replaced"))
        path.with_name(f".{path.name}.partial").mkdir()

    kill()
    with pytest.raises(CheckpointError, match="already holds checkpoint-0000000008"):
        tiny.run("stage1", tmp_path, steps=3)
    kill()
    tiny.run("stage1", tmp_path, steps=3, checkpoint_steps=0, resume="latest")
    assert f"Resuming from {path}" in capsys.readouterr().out
    assert {entry.name for entry in path.parent.iterdir()} == {path.name, "checkpoint-0000000012"}


def test_a_checkpoint_whose_removal_was_cut_short_does_not_come_back(tmp_path, capsys):
    """As the latest, it would take the run back to the branch that was left."""
    tiny.run("stage1", tmp_path, steps=3, checkpoint_steps=1)
    earlier, later = list_checkpoints(tmp_path / "checkpoints")
    later.rename(later.with_name(f".{later.name}.replaced"))
    tiny.run("stage1", tmp_path, steps=2, resume="latest")
    assert f"Resuming from {earlier}" in capsys.readouterr().out
    assert [entry.name for entry in earlier.parent.iterdir()] == [earlier.name]


@pytest.mark.parametrize("resume", [None, "latest"])
@pytest.mark.parametrize("place", ["best", ".best.replaced"])
def test_a_fresh_start_keeps_no_best_model_of_an_old_run(tmp_path, resume, place):
    best = BestModel(tmp_path / "best", ScoreConfig())
    best.offer(40, {"kid": 0.01}, Export("old"))
    best.folder.rename(tmp_path / place)
    tiny.run("stage1", tmp_path, steps=1, resume=resume)
    assert not list(tmp_path.glob("*best*"))


def test_a_fresh_start_leaves_a_folder_that_no_run_kept(tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "photograph.png").touch()
    tiny.run("stage1", tmp_path, steps=1)
    assert (tmp_path / "best" / "photograph.png").exists()


def test_damaged_checkpoint_is_named_and_skipped(stage1_run, tmp_path):
    tiny.run("stage1", tmp_path, steps=4)
    newest = list_checkpoints(tmp_path / "checkpoints")[-1]
    file = newest / "network_generator.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[-100] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"network_generator\.safetensors is not what was written"):
        tiny.run("stage1", tmp_path, resume=str(newest))
    with pytest.warns(UserWarning, match=rf"{newest.name} is damaged: .* It is skipped"):
        tiny.run("stage1", tmp_path, resume="latest")
    assert_same_end(tmp_path, stage1_run)


@pytest.mark.parametrize("harm", ["seconds", "images_seen", "step", "best", "name", "path", "state_sha256", "list"])
def test_state_that_is_not_what_was_written_is_refused(stage1_run, tmp_path, harm):
    newest = tmp_path / "checkpoints" / "checkpoint-0000000024"
    shutil.copytree(list_checkpoints(stage1_run / "checkpoints")[-1], newest)
    file = newest / "state.json"
    state = json.loads(file.read_text())
    if harm == "name":
        state["sha256"]["../../score.safetensors"] = state["sha256"].pop("task.safetensors")
    elif harm == "path":  # and the hash that goes with it
        (tmp_path / "task.safetensors").write_bytes((newest / "task.safetensors").read_bytes())
        state["sha256"]["../../task.safetensors"] = state["sha256"].pop("task.safetensors")
        state["state_sha256"] = state_sha256(state)
    elif harm != "list":
        state[harm] = 10**15
    file.write_text(json.dumps([1] if harm == "list" else state))
    with pytest.raises(
        CheckpointError, match=r"checkpoint-0000000024 is damaged: state\.json is not what was written"
    ):
        tiny.run("stage1", tmp_path, resume=str(newest))


def test_checkpoints_are_as_readable_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        tiny.run("stage1", tmp_path, steps=1)
    finally:
        os.umask(before)
    (checkpoint,) = list_checkpoints(tmp_path / "checkpoints")
    assert {path.stat().st_mode & 0o777 for path in checkpoint.iterdir()} == {0o640}


def test_a_run_without_anything_left_to_train_says_so(stage1_run, tmp_path, capsys):
    newest = list_checkpoints(stage1_run / "checkpoints")[-1]
    tiny.run("stage1", tmp_path, steps=3, resume=str(newest))
    assert "Nothing to train: 0.02 kimg are shown, and total_kimg is 0.012." in capsys.readouterr().out


def test_no_whole_checkpoint(tmp_path):
    tiny.run("stage1", tmp_path, steps=1)
    (tmp_path / "checkpoints" / "checkpoint-0000000004" / "state.json").write_text("{")
    with (
        pytest.warns(UserWarning, match="damaged or incomplete"),
        pytest.raises(CheckpointError, match=r"No whole checkpoint found in .*checkpoints\. Remove that folder and"),
    ):
        tiny.run("stage1", tmp_path, steps=2, resume="latest")
    for folder in (tmp_path, tmp_path / "checkpoints"):
        with pytest.raises(CheckpointError, match="no checkpoint folder"):
            tiny.run("stage1", tmp_path, steps=2, resume=str(folder / "nowhere"))


def test_other_networks_are_refused_with_the_settings_that_differ(tmp_path):
    trainer = tiny.make_trainer(tiny.make_stage1(), tmp_path, steps=1, settings={"recipe": {"channel_max": 16}})
    trainer.train()
    with pytest.raises(CheckpointError, match=r"It holds .*match_discriminator|It holds .*this run trains"):
        tiny.run("stage2", tmp_path, steps=2, resume="latest")
    larger = tiny.make_stage1()
    larger.networks["discriminator"] = torch.nn.Linear(2, 2)
    other = tiny.make_trainer(larger, tmp_path, steps=2, settings={"recipe": {"channel_max": 8}})
    other.on_start = lambda: pytest.fail("the run's record is replaced")
    with pytest.raises(CheckpointError, match=r"does not fit this run.*recipe.channel_max: 16 -> 8"):
        other.train("latest")


def test_changed_settings_are_named_in_a_warning(tmp_path):
    tiny.make_trainer(tiny.make_stage1(), tmp_path, steps=1, settings={"recipe": {"lr": 0.002}}).train()
    trainer = tiny.make_trainer(tiny.make_stage1(), tmp_path, steps=2, settings={"recipe": {"lr": 0.001}})
    with pytest.warns(UserWarning, match=r"other settings.*recipe.lr: 0.002 -> 0.001"):
        trainer.train("latest")


def test_log_tells_one_story(tmp_path):
    tiny.run("stage1", tmp_path, steps=4, checkpoint_steps=2, log_steps=1)
    log = tmp_path / "metrics.jsonl"
    with log.open("a") as file:
        file.write('{"images_seen": 2')  # cut short by a kill
    (last,) = list_checkpoints(tmp_path / "checkpoints")[-1:]
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    tiny.run("stage1", tmp_path, steps=4, checkpoint_steps=2, log_steps=1, resume="latest")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["images_seen"] for row in rows] == [4, 8, 12, 16]


def better(best: BestModel, first: dict, second: dict) -> bool:
    return best.rank(first) > best.rank(second)


def test_rule_by_kid(tmp_path):
    best = BestModel(tmp_path, ScoreConfig(eval_every_kimg=2.5))
    assert better(best, {"kid": 0.01}, {"kid": 0.02})
    assert better(best, {"kid": 0.02}, {"kid": None})
    assert better(best, {"kid": 0.5, "mask_empty_rate": 0.5}, {"kid": 0.01, "mask_empty_rate": 0.6})
    assert better(best, {"kid": 0.5, "mask_large_rate": 0.1}, {"kid": 0.01, "mask_large_rate": 0.9})
    assert not better(best, {"kid": 0.01, "mask_empty_rate": None}, {"kid": 0.01})
    assert better(best, {"kid": 0.01, "clustered_lpips": 0.1}, {"kid": 0.02, "clustered_lpips": 0.2})
    assert "lowest KID" in best.rule()
    assert "every 2.5 kimg" in best.rule()


class Export:
    def __init__(self, text: str, fail: bool = False) -> None:
        self.text, self.fail = text, fail

    def __call__(self, folder) -> None:
        (folder / "model").write_text(self.text)
        if self.fail:
            raise OSError("No space left on device")


def test_only_better_models_replace_the_best(tmp_path):
    best = BestModel(tmp_path / "best", ScoreConfig())
    assert best.offer(10, {"kid": 0.3}, Export("a"))
    assert not best.offer(20, {"kid": 0.4}, Export("b"))
    assert best.offer(30, {"kid": 0.2}, Export("c"))
    assert (tmp_path / "best" / "model").read_text() == "c"
    assert json.loads((tmp_path / "best" / "score.json").read_text()) == {"images_seen": 30, "kid": 0.2}
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    other = BestModel(tmp_path / "best", ScoreConfig())
    other.load_state_dict(json.loads(json.dumps(best.state_dict())))
    assert not other.offer(40, {"kid": 0.25}, Export("d"))
    assert "after 0.03 kimg, kid 0.2000" in other.summary()


def test_failing_export_keeps_the_best(tmp_path):
    best = BestModel(tmp_path / "best", ScoreConfig())
    best.offer(10, {"kid": 0.3}, Export("a"))
    with pytest.raises(OSError, match="No space left"):
        best.offer(20, {"kid": 0.1}, Export("b", fail=True))
    assert (tmp_path / "best" / "model").read_text() == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert best.score == {"kid": 0.3}


def scored_run(folder, steps: int = 5, resume: str | None = None, signal_in_score: int = 0, signal_in_step: int = 0):
    """KID is lowest after the second of the scores, and each score draws random numbers."""
    task = tiny.make_stage1()
    kids = {4: 0.5, 8: 0.1, 12: 0.3, 16: 0.2, 20: 0.4}
    calls = []

    def scorer():
        torch.randn(3)
        if trainer.progress.step == signal_in_score:
            os.kill(os.getpid(), signal.SIGTERM)
        calls.append(trainer.images_seen)
        return {"kid": kids[trainer.images_seen], "num_images": 2, "kid_features": "none"}

    trainer = tiny.make_trainer(task, folder, steps=steps, scorer=scorer, eval_steps=1, checkpoint_steps=1)
    train_step = trainer._train_step

    def step(batch):
        train_step(batch)
        if trainer.progress.step == signal_in_step:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer._train_step = step
    trainer.train(resume)
    return trainer, calls


def test_best_of_a_run_is_kept_and_loads(tmp_path):
    trainer, calls = scored_run(tmp_path)
    assert calls == [4, 8, 12, 16, 20]
    assert (trainer.best.images_seen, trainer.best.score["kid"]) == (8, 0.1)
    assert not DFMGANPipeline.from_pretrained(str(tmp_path / "best")).has_defects
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["score/kid"] for row in rows if "score/kid" in row] == [0.5, 0.1, 0.3, 0.2, 0.4]
    assert all("score/kid_features" not in row for row in rows)


@pytest.mark.parametrize("when", ["signal_in_step", "signal_in_score"])
@pytest.mark.parametrize("step", [2, 5], ids=["amid", "last"])
def test_a_score_that_a_stop_signal_prevents_is_measured_on_resume(tmp_path, capsys, when, step):
    """Nothing is lost: neither in the middle nor at the end, also if the next start is stopped there once more."""
    scored_run(tmp_path / "whole")
    parts = tmp_path / "parts"
    with pytest.raises(SystemExit) as left:
        scored_run(parts, **{when: step})
    assert left.value.code == 143
    assert "not yet scored" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        scored_run(parts, resume="latest", signal_in_score=step)
    assert [path.name for path in list_checkpoints(parts / "checkpoints")][-1] == f"checkpoint-{4 * step:010d}"
    trainer, calls = scored_run(parts, resume="latest")
    assert calls == [4 * number for number in range(step, 6)]
    assert trainer.best.images_seen == 8
    scores, expected = (
        [
            (row["images_seen"], row["score/kid"])
            for row in MetricsLog(folder / "metrics.jsonl").rows()
            if "score/kid" in row
        ]
        for folder in (parts, tmp_path / "whole")
    )
    assert len(scores) == 5
    assert scores == expected
    assert_same_end(parts, tmp_path / "whole")
    assert scored_run(parts, resume="latest")[1] == [], "it is measured once"


def test_scores_survive_a_resume_and_change_nothing(tmp_path):
    scored_run(tmp_path / "parts", steps=3)
    trainer, calls = scored_run(tmp_path / "parts", resume="latest")
    assert calls == [16, 20]
    assert trainer.best.images_seen == 8
    tiny.run("stage1", tmp_path / "unscored", steps=5)
    ends = [list_checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("parts", "unscored")]
    (scored, _), (unscored, _) = (read_checkpoint(path) for path in ends)
    for name, tensors in unscored.items():
        tiny.assert_same_tensors(scored[name], tensors, f"{name}: ")


def test_a_best_model_that_is_gone_is_not_to_be_beaten(tmp_path):
    best = BestModel(tmp_path / "best", ScoreConfig())
    best.load_state_dict({"images_seen": 10, "score": {"kid": 0.1}})
    assert best.offer(20, {"kid": 0.2}, Export("a"))


def test_the_score_to_beat_is_that_of_the_model_in_the_folder(tmp_path):
    """A run that went on from an earlier checkpoint, which knew a worse one."""
    best = BestModel(tmp_path / "best", ScoreConfig())
    best.offer(8, {"kid": 0.5}, Export("a"))
    state = best.state_dict()
    best.offer(18, {"kid": 0.2}, Export("b"))
    best.load_state_dict(state)
    assert "after 0.02 kimg, kid 0.2000" in best.summary()
    assert not best.offer(20, {"kid": 0.4}, Export("c"))
    (tmp_path / "best" / "score.json").write_text("")
    best.load_state_dict(state)
    assert best.score == {"kid": 0.5}, "without it, what the checkpoint says"
