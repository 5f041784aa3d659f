"""Samples of any method as files: by number, resumable, with the options of drawing that the method has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from dfmgan_hf.methods.defect_gan import METHOD, DefectGANDrawing
from dfmgan_hf.methods.write_samples import parse, write_samples
from dfmgan_hf.methods.write_samples import write_samples_from_arguments as sample
from dfmgan_hf.metrics import FolderSampler
from dfmgan_hf.metrics.sampler import draw
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
    (tmp_path / "settings.json").unlink()
    with pytest.raises(ValueError, match="holds images that were not begun here"):
        write_samples(Fresh(), tmp_path, 1, settings={"model": "x"})


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


def test_model_with_an_option_of_drawing(category, defect_gan, tmp_path):
    where = ["--model", str(defect_gan), "--data_dir", str(category)]
    assert parse([*where, "--output_dir=x", "--pseudo_mask"]).options == DefectGANDrawing(pseudo_mask=True)
    sample([*where, "--output_dir", str(tmp_path / "plain"), "--num_images", "3"])
    sample([*where, "--output_dir", str(tmp_path / "masked"), "--num_images", "3", "--pseudo_mask"])
    (plain, none), (masked, masks) = (draw(FolderSampler(tmp_path / n), range(3), 0) for n in ("plain", "masked"))
    assert none is None
    assert masks.shape == (3, 1, 32, 32)
    assert torch.equal(plain, masked)


def test_help_lists_what_the_method_has(defect_gan, capsys):
    for choice, option in ((["--method=crop_paste"], "--feather"), ([f"--model={defect_gan}"], "--pseudo-mask")):
        with pytest.raises(SystemExit):
            sample([*choice, "--help"])
        text = capsys.readouterr().out
        assert option in text
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
