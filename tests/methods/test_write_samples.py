"""Samples of any method as files: by number, resumable, with the options of drawing that the method has."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.methods.crop_paste import CropPasteOptions
from dfmgan_hf.methods.defect_gan import METHOD
from dfmgan_hf.methods.write_samples import parse, write_samples
from dfmgan_hf.methods.write_samples import write_samples_from_arguments as sample
from dfmgan_hf.metrics import FolderSampler
from dfmgan_hf.metrics.sampler import TensorSampler, draw
from dfmgan_hf.processes import ProcessGroup
from tests.methods.translation import make_task
from tests.metrics.drawn import Fresh


class OneOfTwo(ProcessGroup):
    """The second of two processes that nobody waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.rank = 2, 1


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_what_is_written_is_what_is_drawn(tmp_path):
    write_samples(Fresh(), tmp_path, 5, settings={"model": "x"}, seed=3, batch_size=2)
    images, masks = draw(FolderSampler(tmp_path), range(5), 0)
    expected_images, expected_masks = draw(Fresh(), range(5), 3)
    assert torch.equal(images, expected_images)
    assert torch.equal(masks, expected_masks)
    assert sorted(pictures(tmp_path))[:2] == ["000000.png", "000000_mask.png"]


def test_stopped_shared_and_in_other_batches_it_is_the_same(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    write_samples(Fresh(), whole, 7, settings={}, batch_size=7)
    assert write_samples(Fresh(), parts, 3, settings={}, batch_size=2) == 3
    assert write_samples(Fresh(), parts, 7, settings={}, batch_size=2, processes=OneOfTwo()) == 2
    (parts / "000001.png").unlink()
    assert write_samples(Fresh(), parts, 7, settings={}, batch_size=3) == 3
    assert pictures(parts) == pictures(whole)


def test_other_settings_and_other_images_are_refused(tmp_path):
    write_samples(Fresh(), tmp_path, 1, settings={"model": "x"})
    with pytest.raises(ValueError, match="was begun with"):
        write_samples(Fresh(), tmp_path, 1, settings={"model": "y"})
    with pytest.raises(ValueError, match="was begun with"):
        write_samples(Fresh(), tmp_path, 1, settings={"model": "x"}, seed=1)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"settings\.json is empty or damaged"):
        write_samples(Fresh(), tmp_path, 1, settings={"model": "x"})
    (tmp_path / "settings.json").unlink()
    with pytest.raises(ValueError, match="holds images that were not begun here"):
        write_samples(Fresh(), tmp_path, 1, settings={"model": "x"})


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be an integer of at least 1, but is 0"),
        ({"num_images": -3}, "`num_images` must be an integer of at least 1, but is -3"),
        ({"num_images": 7}, "`num_images` is 7, but no more than 6 can be made"),
    ],
)
def test_numbers_that_are_not_possible_are_refused_before_anything_is_written(tmp_path, numbers, message):
    six = TensorSampler(torch.zeros(6, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=message):
        write_samples(six, tmp_path / "drawn", **{"num_images": 6, "settings": {}, **numbers})
    assert not (tmp_path / "drawn").exists()


def test_other_photographs_are_refused(tmp_path):
    """They would be paired, or chosen, in another order, and some images would come twice."""
    six, eight = (TensorSampler(torch.zeros(n, 3, 8, 8, dtype=torch.uint8)) for n in (6, 8))
    write_samples(six, tmp_path, 4, settings={})
    with pytest.raises(ValueError, match="num_available was 6 and is 8 now"):
        write_samples(eight, tmp_path, 8, settings={})


@pytest.fixture(scope="module")
def defect_gan(category, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("defect_gan")
    make_task(METHOD, category).export(folder)
    return folder


def test_method_without_training(category, tmp_path):
    where = ["--method", "crop_paste", "--data_dir", str(category), "--defect", "dot", "--resolution", "32"]
    sample([*where, "--output_dir", str(tmp_path / "pasted"), "--num_images", "5"])
    images, masks = draw(FolderSampler(tmp_path / "pasted"), range(5), 0)
    assert images.shape == (5, 3, 32, 32)
    assert masks.any()

    sample([*where, "--output_dir", str(tmp_path / "grey"), "--num_images", "2", "--image_channels", "1"])
    assert Image.open(tmp_path / "grey" / "000000.png").mode == "L"
    assert json.loads((tmp_path / "grey" / "settings.json").read_text())["options"]["image_channels"] == 1
    with pytest.raises((ValueError, OSError), match="was begun with"):
        sample([*where, "--output_dir", str(tmp_path / "grey"), "--num_images", "3"])
    # Where no size is named, the one that was drawn is recorded: to name it is no other setting.
    for size, count in ([], "1"), (["--resolution", "256"], "2"):
        sample([*where[:-2], *size, "--output_dir", str(tmp_path / "large"), "--num_images", count])
    assert Image.open(tmp_path / "large" / "000001.png").size == (256, 256)


def test_model_without_masks(category, defect_gan, tmp_path):
    where = ["--model", str(defect_gan), "--data_dir", str(category)]
    sample([*where, "--output_dir", str(tmp_path / "drawn"), "--num_images", "3"])
    images, masks = draw(FolderSampler(tmp_path / "drawn"), range(3), 0)
    assert images.shape == (3, 3, 32, 32)
    assert masks is None


def test_a_size_that_the_model_does_not_draw_is_refused(category, defect_gan, make_generator, tmp_path):
    DFMGANPipeline(make_generator()).save_pretrained(tmp_path / "pipeline")
    for kind, model in {"pipeline": tmp_path / "pipeline", "network": defect_gan}.items():
        command = ["--model", str(model), "--data_dir", str(category), "--output_dir", str(tmp_path / f"{kind}_drawn")]
        for asked in (["--resolution", "512"], ["--aspect", "1", "2"]):
            with pytest.raises(
                ValueError, match=r"--resolution and --aspect ask for \d+x\d+ images, but the model draws"
            ):
                sample([*command, *asked])
        assert not (tmp_path / f"{kind}_drawn").exists()
        sample([*command, "--num_images", "1"])
        side = str(Image.open(tmp_path / f"{kind}_drawn" / "000000.png").width)
        sample([*command, "--num_images", "2", "--resolution", side])


def test_other_weights_in_the_same_folder_are_refused(category, defect_gan, make_generator, tmp_path):
    drawn = {"pipeline": [], "network": ["--data_dir", str(category)]}
    DFMGANPipeline(make_generator()).save_pretrained(tmp_path / "pipeline")
    shutil.copytree(defect_gan, tmp_path / "network")
    for kind, options in drawn.items():
        command = ["--model", str(tmp_path / kind), *options, "--output_dir", str(tmp_path / f"{kind}_drawn")]
        sample([*command, "--num_images", "2"])
        sample([*command, "--num_images", "3"])
        [weights] = (tmp_path / kind / "generator").glob("*.safetensors")
        save_file({name: tensor * 0.5 for name, tensor in load_file(weights).items()}, weights)
        before = pictures(tmp_path / f"{kind}_drawn")
        with pytest.raises(ValueError, match=r"settings: weights_sha256 was [0-9a-f]{64} and is [0-9a-f]{64} now"):
            sample([*command, "--num_images", "4"])
        assert pictures(tmp_path / f"{kind}_drawn") == before


def test_help_lists_what_the_method_has(defect_gan, capsys):
    assert parse(["--method=crop_paste", "--output_dir=x", "--blend=poisson"]).options == CropPasteOptions(
        blend="poisson"
    )
    for choice, has_it in (("--method=crop_paste", True), (f"--model={defect_gan}", False)):
        with pytest.raises(SystemExit):
            sample([choice, "--help"])
        text = capsys.readouterr().out
        assert ("--blend" in text) == has_it
        assert "usage: dfmgan sample" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method=nonesuch"], r"`method` must be one of finetune, .*'nonesuch'"),
        (["--model={tmp}/nothing"], "There is no folder .*nothing"),
        ([], "Give either what was trained"),
        (["--method=cdc"], "CDC is trained: give the folder that training wrote"),
        (["--method=crop_paste"], "draws on photographs: give --data_dir"),
    ],
)
def test_mistakes_are_named(tmp_path, arguments, message):
    output = tmp_path / "drawn"
    filled = [argument.format(tmp=tmp_path) for argument in arguments]
    with pytest.raises((ValueError, OSError), match=message):
        sample([*filled, f"--output_dir={output}"])
    assert not output.exists()
