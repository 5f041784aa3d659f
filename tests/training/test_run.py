"""Fitting a run to little memory, and the advice when it does not fit."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from dfmgan_hf.data import ImageMaskDataset
from dfmgan_hf.training import RunConfig
from dfmgan_hf.training import run as run_module
from dfmgan_hf.training.checkpointing import ScoreConfig, read_training_record
from dfmgan_hf.training.run import (
    PreparedRun,
    advice_on_memory,
    check_length,
    fit,
    fit_run,
    ignored_settings,
    write_model,
)
from dfmgan_hf.training.trainer import check_batch
from tests.training import tiny


def advice(images: int, precision: str) -> str:
    with pytest.raises(torch.OutOfMemoryError) as caught, advice_on_memory(images, precision):
        raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB.")
    return str(caught.value)


def test_out_of_memory_says_what_helps_and_is_not_chosen_already():
    text = advice(16, "float32")
    assert text.startswith("Tried to allocate 2.00 GiB.")
    assert text.index("--low_vram") < text.index("--precision float16") < text.index("--resolution")
    assert "--low_vram" not in advice(4, "float16")
    assert "--precision" not in advice(4, "float16")


@pytest.mark.parametrize(("batch_size", "steps"), [(4, 1), (8, 2), (12, 3), (6, 3), (32, 8), (10, 5), (2, 1)])
def test_low_vram_shows_at_most_a_group_of_the_minibatch_statistics_at_a_time(tmp_path, batch_size, steps):
    run = fit_run(RunConfig(output_dir=tmp_path, low_vram=True), batch_size, Accelerator(cpu=True))
    assert run.accumulation_steps == steps
    assert batch_size // run.accumulation_steps <= 4
    assert run.precision == "float32"  # float16 is for accelerators


@pytest.mark.parametrize(
    ("batch_size", "images", "warned"), [(16, 8, False), (16, 2, True), (12, 6, True), (10, 2, False)]
)
def test_split_groups_of_the_minibatch_statistics_are_warned_of(batch_size, images, warned):
    message = tiny.make_stage2(batch_size=batch_size).check_split(images)
    assert (message is not None) == warned
    if message is not None:
        assert f"a multiple of {4 * batch_size // images}," in message


def test_a_part_that_cannot_be_paired_is_refused_before_anything_is_written():
    with pytest.raises(ValueError, match="3 images at a time cannot be paired for the mode-seeking loss"):
        tiny.make_stage2(batch_size=6).check_split(3)
    with pytest.raises(ValueError, match="batch"):
        fit_run(RunConfig(output_dir=Path("unused"), low_vram=True), 0, Accelerator(cpu=True))


def test_running_out_of_memory_while_networks_are_built_is_answered_too(tmp_path):
    def build(device: torch.device):
        raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB.")

    dataset = ImageMaskDataset(torch.zeros(4, 3, 64, 64, dtype=torch.uint8), None, list("abcd"))
    run = RunConfig(output_dir=tmp_path / "run", report_to="none")
    with pytest.raises(torch.OutOfMemoryError, match=r"2\.00 GiB\.\nWhat helps, in this order: --low_vram"):
        fit(PreparedRun(build, dataset, run, Accelerator(cpu=True), 1.0, 8, {}))
    assert not (tmp_path / "run").exists()


def test_batches_that_cannot_be_shared(tmp_path):
    with pytest.raises(ValueError, match="choose a multiple of their product"):
        fit_run(RunConfig(output_dir=tmp_path, accumulation_steps=3), 16, Accelerator(cpu=True))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accumulation_steps", 0),
        ("log_every_kimg", math.inf),
        ("log_every_kimg", math.nan),
        ("sample_every_kimg", math.nan),
        ("checkpoint_every_kimg", -1),
        ("seed", 2**64),
        ("seed", -1),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_done(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .*but is {value}"):
        RunConfig(output_dir=tmp_path, **{name: value})


@pytest.mark.parametrize(("name", "value"), [("eval_images", 1), ("eval_every_kimg", math.inf)])
def test_scores_out_of_range_are_refused_before_anything_is_done(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .*but is {value}"):
        ScoreConfig(**{name: value})


def test_scores_of_a_single_photograph_are_refused_before_anything_is_done(tmp_path):
    """They have no KID, and the first model that is scored, which has learnt the least, would stay the best."""
    run = RunConfig(output_dir=tmp_path / "run", report_to="none")
    prepared = PreparedRun(
        lambda device: pytest.fail("built"), tiny.drawn_set(1), run, Accelerator(cpu=True), 1, 4, {}
    )
    with pytest.raises(ValueError, match=r"`eval_every_kimg` needs at least 2 photographs .*but there is 1"):
        fit(prepared, ScoreConfig(eval_every_kimg=1.0), lambda task: dict)
    assert not (tmp_path / "run").exists()


def versions_of(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.rglob("*.txt")}


class Export:
    """Writes two networks, and does something between them."""

    def __init__(self, version: str, between=lambda: None) -> None:
        self.version, self.between = version, between

    def export(self, folder: Path) -> None:
        for name in ("generator", "discriminator"):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / f"{name}.txt").write_text(self.version)
            self.between()
        (folder / "index.txt").write_text(self.version)


def test_a_model_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    def killed():
        raise KeyboardInterrupt

    (tmp_path / "metrics.txt").write_text("the run's")
    written = {"metrics.txt": "the run's"}
    for version in ("old", "new"):
        with pytest.raises(KeyboardInterrupt):
            write_model(Export(version, killed), tmp_path)
        assert versions_of(tmp_path) == written
        write_model(Export(version), tmp_path)
        written |= dict.fromkeys(("generator.txt", "discriminator.txt", "index.txt"), version)
        assert versions_of(tmp_path) == written
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.txt", "generator", "discriminator", "index.txt"}


@pytest.mark.parametrize("stopped", [False, True], ids=["at the end", "amid"])
def test_ctrl_c_waits_until_the_model_is_written(tmp_path, monkeypatch, stopped):
    """And the next of several models is not begun."""
    task = tiny.make_stage1()
    between = lambda: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    monkeypatch.setattr(task, "export", Export("new", between).export)
    if stopped:
        after_step = task.after_step

        def interrupted(step, statistics):
            after_step(step, statistics)
            between()

        monkeypatch.setattr(task, "after_step", interrupted)
    monkeypatch.setattr(run_module, "try_report", lambda folder: None)
    run = RunConfig(output_dir=tmp_path, report_to="none", sample_every_kimg=0)
    prepared = PreparedRun(
        lambda device: task, tiny.drawn_set(), run, Accelerator(cpu=True), 2 * tiny.BATCH / 1000, tiny.BATCH, {}
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as left:
            fit(prepared)
    finally:
        signal.signal(signal.SIGINT, before)
    assert left.value.code == 130
    model = versions_of(tmp_path)
    assert [model[f"{name}.txt"] for name in ("generator", "discriminator", "index")] == ["new"] * 3
    assert read_training_record(tmp_path)["result"]["images_seen"] == tiny.BATCH * (1 if stopped else 2)


def test_a_run_without_an_end_or_batches_is_refused(tmp_path):
    for length in (math.inf, math.nan, 0):
        with pytest.raises(ValueError, match="`total_kimg` must be a positive, finite number"):
            tiny.make_trainer(tiny.make_stage1(), tmp_path, steps=length)
    with pytest.raises(ValueError, match="`batch_size` 0 cannot be shared"):
        tiny.make_trainer(tiny.make_stage1(), tmp_path, batch_size=0)
    with pytest.raises(ValueError, match="`batch_size` 4 cannot be shared among 1 processes with 0 accumulation"):
        check_batch(4, 1, 0)


def test_nothing_of_a_plain_launch_is_ignored():
    assert ignored_settings(Accelerator(cpu=True)) == []


def test_a_run_that_ends_before_the_game_begins_says_so():
    task = tiny.make_stage1()
    for phase in task.phases:
        phase.begins = 5  # of batches of 4: as if it imitated first
    message = check_length(task, batch_size=4, total_kimg=0.02)
    assert message.startswith(
        "The run ends at 0.02 kimg, and generator, path_length, discriminator, r1 would begin at 0.02 only: "
    )
    assert check_length(task, batch_size=4, total_kimg=0.024) is None
    assert check_length(tiny.make_stage1(), batch_size=4, total_kimg=0.001) is None
