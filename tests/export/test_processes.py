"""Several processes write the same files as one."""

import subprocess
import sys
from pathlib import Path

import pytest

from dfmgan_hf.export import ExportConfig, TripletSampler, make_writer

SCRIPT = Path(__file__).parents[2] / "examples" / "generate.py"
OPTIONS = ["--num_images", "11", "--max_mask_area", "0.2", "--images_per_shard", "3", "--seed", "5"]
LAUNCHERS = {
    "one": [sys.executable],
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"],
    "accelerate": [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"),
        *("--dynamo_backend", "no"),
    ],
}


@pytest.fixture
def run(pipe, tmp_path, environment):
    """Runs the script with a launcher; returns the finished process."""
    pipe.save_pretrained(tmp_path / "model")

    def start(launcher: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = [*LAUNCHERS[launcher], str(SCRIPT), "--model", str(tmp_path / "model"), *options]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)

    return start


@pytest.mark.parametrize("num_processes", [1, 2, 4, 7])
@pytest.mark.parametrize("block_size", [1, 4])
@pytest.mark.parametrize("format", ["mvtec", "imagefolder", "parquet"])
def test_every_image_is_of_one_process(tmp_path, format, block_size, num_processes):
    writer = make_writer(ExportConfig(tmp_path, num_images=23, format=format, images_per_shard=3))
    shares = [list(writer.missing(index, num_processes, block_size)) for index in range(num_processes)]
    assert sorted(number for share in shares for number in share) == list(range(23))
    assert all(share == sorted(share) for share in shares)
    # What is drawn in one pass, or written to one file, is of one process.
    whole = 3 if format == "parquet" else block_size
    owners = [{number // whole for number in share} for share in shares]
    assert sum(map(len, owners)) == len(set.union(*owners))


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "format"), [("torchrun", "mvtec"), ("accelerate", "parquet")])
def test_two_processes_write_what_one_writes(run, contents, tmp_path, launcher, format):
    finished = {
        name: run(name, "--output_dir", str(tmp_path / name), "--format", format, *OPTIONS, "--batch_size", batch_size)
        for name, batch_size in (("one", "4"), (launcher, "1"))
    }
    for process in finished.values():
        assert process.returncode == 0, process.stderr[-3000:]
    assert "drew    11 in" in finished["one"].stdout
    assert "with 1 process," in finished["one"].stdout
    assert "drew    11 in" in finished[launcher].stdout
    assert "with 2 processes," in finished[launcher].stdout
    assert finished[launcher].stdout.count("triplets in") == 1, "one process reports"
    assert contents(tmp_path / launcher) == contents(tmp_path / "one")
    assert len(contents(tmp_path / "one")) == (11 * 3 + 4 if format == "mvtec" else 4 + 4)


@pytest.mark.slow
def test_two_processes_go_on_where_one_was_and_refuse_other_settings(run, contents, tmp_path):
    out = tmp_path / "out"
    options = ["--output_dir", str(out), *OPTIONS]
    assert run("one", *options).returncode == 0
    expected = contents(out)
    for index in (0, 3, 4, 10):
        (out / f"object/test/defect/{index:06d}.png").unlink()
    (out / "seeds.csv").unlink()
    process = run("torchrun", *options)
    assert process.returncode == 0, process.stderr[-3000:]
    assert "drew    4 in" in process.stdout
    assert "7 were there before" in process.stdout
    assert contents(out) == expected

    process = run("torchrun", *options, "--seed", "6")
    assert process.returncode != 0
    assert process.stderr.count("Not finished: ") == 1
    assert "seed was 5 and is 6 now" in process.stderr
    assert contents(out) == expected


@pytest.mark.slow
def test_an_error_of_another_process_is_said(run, pipe, tmp_path):
    def attempts(seed: int) -> list[int]:
        config = ExportConfig(tmp_path, seed=seed, max_mask_area=0.1)
        with TripletSampler(pipe, config) as sampler:
            return [sample.record.dropped for sample in sampler.draw(range(4))]

    # A seed with which only the second process, which draws the images 1 and 3, needs more attempts than it has.
    seed, (first, second, third, fourth) = next(
        (seed, n) for seed in range(100) if max((n := attempts(seed))[1], n[3]) > max(n[0], n[2])
    )
    assert max(second, fourth) > max(first, third)
    options = ["--num_images", "4", "--max_mask_area", "0.1", "--seed", str(seed)]
    options += ["--max_attempts", str(max(second, fourth)), "--output_dir", str(tmp_path / "out")]
    process = run("torchrun", *options)
    assert process.returncode != 0
    assert process.stderr.count("Not finished: ") == 1
    assert "draws passed the filter" in process.stderr
