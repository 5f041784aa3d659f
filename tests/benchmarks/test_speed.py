"""The speed benchmarks at tiny sizes: that they run, and that the naive way computes what the package does."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.speed import __main__ as report
from benchmarks.speed import gpu, naive, throughput, training, triplet
from benchmarks.speed.ceiling import Conv, flop, record
from benchmarks.speed.naive import naive_phases
from benchmarks.speed.timing import Timing, write_json
from dfmgan_hf.augmentation import DiffAugment
from dfmgan_hf.methods.method import RecipeConfig, Target
from dfmgan_hf.models.discriminator import StyleGAN2Discriminator
from tests import replay

SIZES = RecipeConfig(resolution=32, channel_base=256, z_dim=16, w_dim=16, batch_size=4)


def test_naive_triplet_is_the_generators():
    generator = triplet.make_generator(64, 256).double()
    latents = torch.randn(2, 2, 512, dtype=torch.float64)
    with torch.no_grad():
        output = generator(*latents, noise_mode="const", return_defect_free=True)
        expected = naive.triplet(generator, *latents)
    assert triplet.largest_difference(output, expected) < 1e-10
    assert 0 < (output.mask_logits > 0).double().mean() < 1


def test_naive_discriminator_is_ours():
    torch.manual_seed(0)
    model = StyleGAN2Discriminator(resolution=32, channel_base=256).double()
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(naive.discriminate(model, images), model(images).logits)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_naive_gradients_are_the_tasks(stage):
    """Every phase, in float64: not one of the savings changes a gradient."""
    torch.set_default_dtype(torch.float64)
    try:
        task, twin = (training.make_task(stage, SIZES, "small", Target(torch.device("cpu"))) for _ in range(2))
        batch = training.make_batch(task, 4, torch.device("cpu"))
        for phase, theirs in zip(task.phases, naive_phases(twin), strict=True):
            assert training.difference(phase, theirs, batch) < 1e-10, phase.name
    finally:
        torch.set_default_dtype(torch.float32)


def test_ceiling_counts_the_convolutions_and_nothing_else():
    def call() -> None:
        x = torch.randn(2, 4, 8, 8)
        y = torch.nn.functional.conv2d(x, torch.randn(6, 4, 3, 3, requires_grad=True), padding=1)
        torch.nn.functional.conv2d(y, torch.ones(6, 1, 4, 4), groups=6)
        y.sum().backward()

    convs = record(call)
    forward = Conv("forward", 2, 4, 6, 3, 1, 1, 8, 8, torch.float32)
    backward = Conv("weight_gradient", 2, 4, 6, 3, 1, 1, 8, 8, torch.float32)
    assert convs == {forward: 1, backward: 1}
    assert flop(convs) == 2 * 2 * (2 * 6 * 8 * 8) * (4 * 9)


def test_a_transposed_convolution_counts_as_the_plain_one():
    convs = record(
        lambda: torch.nn.functional.conv_transpose2d(torch.randn(1, 4, 8, 8), torch.randn(4, 6, 3, 3), stride=2)
    )
    assert convs == {Conv("forward", 1, 4, 6, 3, 1, 1, 8, 8, torch.float32): 1}


def test_medians_and_quartiles():
    assert Timing.of([5.0, 1.0, 2.0, 3.0, 4.0]) == Timing(3.0, 2.0, 4.0, 5)
    assert Timing.of([2.0]) == Timing(2.0, 2.0, 2.0, 1)


@pytest.mark.slow
def test_every_benchmark_runs_and_has_a_table(tmp_path, make_generator, monkeypatch):
    from dfmgan_hf import DFMGANPipeline

    DFMGANPipeline(make_generator(resolution=32)).save_pretrained(str(tmp_path / "model"))
    small = {"resolution": 64, "channel_base": 256}
    results = {
        "triplet": triplet.main(triplet.Arguments(**small, batch_sizes=(2,), repeats=2)),
        "throughput": throughput.main(throughput.Arguments(tmp_path / "model", marks=(2, 5), batch=2)),
        "training": [training.measure("stage2", "small", SIZES, Target(torch.device("cpu")), repeats=1)],
        "gpu": [
            {"part": "triplets", "what": "triplet", "how": "eager", "ms": 1.5},
            {"part": "loop", "what": "stage1"},
        ],
    }
    text = "".join(f"<!-- {name} -->\nold\n<!-- end -->\n" for name in results)
    for name, rows in results.items():
        path = write_json(name, rows, tmp_path / "results")
        assert json.loads(path.read_text())["machine"]["torch"] == torch.__version__
    updated = report.update(text, tmp_path / "results")
    assert "old" not in updated
    assert updated.count("<!-- end -->") == len(results)
    assert updated.count("| --- |") >= len(results)


def test_an_unknown_benchmark_is_an_error():
    with pytest.raises(ValueError, match="no benchmark training_512; there are triplet"):
        report.main(("training_512",))


def test_a_naive_way_that_differs_is_an_error(monkeypatch):
    monkeypatch.setattr(naive, "upsample", lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    arguments = triplet.Arguments(resolution=32, channel_base=128, repeats=1)
    with pytest.raises(RuntimeError, match="The naive way draws something else"):
        triplet.measure(arguments, 1)


GPU = gpu.Arguments(
    device="cpu", resolution=32, channel_base=128, draw_batch=2, batch_sizes=(2,), dtypes=("bfloat16",), seconds=0.01
)


@pytest.mark.parametrize("part", [part for part in gpu.PARTS if part != "loop"])
def test_every_part_of_the_gpu_benchmark_runs_and_says_what_it_cannot_do(tmp_path, part):
    arguments = replace(GPU, output_dir=tmp_path)
    gpu.PARTS[part][0](gpu.Bench(part, arguments))
    rows = gpu.write_tables(arguments)
    reasons = {row.get("failed") for row in rows}
    assert reasons <= {None, "needs a CUDA device"}
    assert (None in reasons) == (part not in ("agree", "compile"))
    assert all(row["part"] == part for row in rows)
    assert "| what |" in (tmp_path / "gpu.md").read_text()


@pytest.mark.parametrize("part", ["agree", "stage1", "stage2"])
def test_the_gpu_benchmark_runs_captured_phases(tmp_path, monkeypatch, part):
    """Captures are emulated, without ADA's transforms, for which the host decides on a CPU."""

    def make_task(*arguments):
        task = training.make_task(*arguments)
        task.augment = DiffAugment()
        return task

    replay.install(monkeypatch, "dfmgan_hf.training.graphs")
    monkeypatch.setattr(gpu, "make_task", make_task)
    monkeypatch.setattr(gpu.Bench, "needs_gpu", lambda *_, **__: False)
    arguments = replace(GPU, output_dir=tmp_path)
    gpu.PARTS[part][0](gpu.Bench(part, arguments))
    rows = gpu.write_tables(arguments)
    assert [row["failed"] for row in rows if "failed" in row] == []
    if part == "agree":
        assert [row["weights_graph"] for row in rows[:2]] == [0.0, 0.0]
        assert ["cannot be captured" in said for said in rows[2]["warnings"]] == [True]
    else:
        assert {row["how"] for row in rows} == {"eager", "graph"}


FOUR_PARTS = """
import subprocess
from pathlib import Path
from benchmarks.speed import gpu

gpu.PARTS = {
    "slow": (lambda bench: subprocess.run(["sleep", "600"]), 0.5),
    "broken": (lambda bench: 1 / 0, 20.0),
    "elsewhere": (lambda bench: gpu.os._exit(gpu.NO_GPU_HERE), 60.0),
    "good": (lambda bench: bench.add("triplet", ms=1.5), 20.0),
}
gpu.main(gpu.Arguments(device="cpu", output_dir=Path(OUT), parts=(*gpu.PARTS, "good"), budget=BUDGET))
"""


def test_parts_that_fail_or_take_too_long_do_not_lose_the_others(tmp_path):
    """In a process of its own, since this one must not be forked. `elsewhere` is not there in another one either."""
    for budget, expected in {
        60.0: ["not finished in 0 s", "the process ended with 1", "the process ended with 1", None, None],
        5.0: ["no time was left"] * 5,
    }.items():
        code = FOUR_PARTS.replace("OUT", repr(str(tmp_path))).replace("BUDGET", str(budget))
        # What holds the pipe of its output is waited for.
        run = [sys.executable, "-c", code]
        subprocess.run(run, check=True, cwd=Path(__file__).parents[2], timeout=120, capture_output=True)
        rows = json.loads((tmp_path / "gpu.json").read_text())["results"]
        assert [row.get("failed") for row in rows] == expected
        assert [row["part"] for row in rows] == ["slow", "broken", "elsewhere", "good", "good"]
        assert [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()] == rows
    assert json.loads((tmp_path / "gpu.json").read_text())["machine"] == {}


def test_an_unknown_part_is_an_error():
    with pytest.raises(ValueError, match="no part stage3; there are triplets"):
        gpu.main(replace(GPU, parts=("stage3",)))
