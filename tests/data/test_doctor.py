"""The doctor finds each thing that can be wrong with a folder, and all of them at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from dfmgan_hf.cli import run
from dfmgan_hf.data.doctor import (
    RESOLUTIONS,
    CheckConfig,
    Report,
    check_dataset,
    draw_contact_sheet,
    examine,
)
from dfmgan_hf.data.findings import ADVISED_DEFECTS, ADVISED_GOOD
from dfmgan_hf.methods.method import PRESETS
from dfmgan_hf.sheets import OUTLINE
from tests.data.conftest import draw_category, draw_mask, draw_photograph, save

SCRIPT = Path(__file__).parents[2] / "examples" / "check_dataset.py"


def check(folder: Path, **options) -> Report:
    return examine(CheckConfig(folder, **{"resolution": 32, "strict": True, **options}))[0]


def codes(report: Report) -> dict[str, tuple[str, ...]]:
    return {finding.code: finding.files for finding in report.findings}


@pytest.fixture(scope="module")
def healthy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_category(
        tmp_path_factory.mktemp("healthy"), good=ADVISED_GOOD, defects={"dent": ADVISED_DEFECTS, "scratch": 12}
    )


def test_a_healthy_set_has_no_findings_and_status_0(healthy_folder: Path) -> None:
    report = check(healthy_folder, image_channels=1)
    assert report.findings == []
    assert report.exit_status == report.worst == 0
    assert [(stage.stage, stage.kind, stage.usable, stage.verdict) for stage in report.stages] == [
        ("stage 1", "defect-free", 200, "ready"),
        ("stage 2", "dent", 10, "ready"),
        ("stage 2", "scratch", 12, "ready"),
    ]
    assert "Ready to train." in report.to_text()


def test_counts_sizes_modes_and_mask_areas(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, good=3, defects={"dent": 3}, test_good=1)
    save(np.dstack([draw_photograph(77, 60, 50)] * 3), folder / "train" / "good" / "colour.png")
    for index, side in enumerate((4, 8, 16)):
        mask = np.zeros((40, 48), dtype=np.uint8)
        mask[2 : 2 + side, 3 : 3 + side] = 255
        save(mask, folder / "ground_truth" / "dent" / f"{index:03d}_mask.png")
    report = check(folder)
    train, test_good, dents = report.kinds
    assert (train.split, train.kind, train.photographs, train.usable) == ("train", "good", 4, 4)
    assert train.sizes == {"48x40": 3, "60x50": 1}
    assert train.modes == {"L": 3, "RGB": 1}
    assert train.mask_area_percent == {}
    assert (test_good.split, test_good.kind, test_good.photographs) == ("test", "good", 1)
    percent = [100 * side**2 / 1920 for side in (4, 8, 16)]
    assert dents.mask_area_percent == pytest.approx(dict(zip(("min", "median", "max"), percent, strict=True)))
    text = report.to_text()
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "train good 4 4 48..60 x 40..50 L, RGB -" in lines
    assert "test dent 3 3 48 x 40 L 0.833 3.33 13.3" in lines


def test_every_unusable_file_is_reported_at_once(category_folder: Path) -> None:
    masks, images = category_folder / "ground_truth" / "scratch", category_folder / "test" / "scratch"
    (masks / "000_mask.png").unlink()
    save(np.zeros((40, 48), dtype=np.uint8), masks / "001_mask.png")
    save(np.ones((48, 40), dtype=np.uint8), masks / "002_mask.png")
    (images / "003.png").write_bytes((images / "003.png").read_bytes()[:300])
    (images / "004.png").write_bytes(b"GIF? no")
    (category_folder / "ground_truth" / "dent" / "000_mask.png").write_bytes(b"")
    save(draw_mask(1), category_folder / "ground_truth" / "dent" / "001.png")
    Image.fromarray(draw_photograph(3).astype(np.float32)).save(category_folder / "train" / "good" / "float.tif")
    report = check(category_folder)
    found = codes(report)
    assert found["no_mask"] == ("test/scratch/000.png",)
    assert found["empty_mask"] == ("test/scratch/001.png",)
    assert found["size_mismatch"] == ("test/scratch/002.png",)
    assert found["unreadable"] == ("test/dent/000.png", "test/scratch/003.png", "test/scratch/004.png")
    assert found["several_masks"] == ("test/dent/001.png",)
    assert found["pixel_format"] == ("train/good/float.tif",)
    assert found["too_few_defects"] == ()
    assert report.exit_status == 2
    assert {stage.kind: (stage.usable, stage.verdict) for stage in report.stages} == {
        "defect-free": (6, "few"),
        "dent": (1, "few"),
        "scratch": (0, "cannot train"),
    }
    assert "Cannot be trained on as it is." in report.to_text()


def test_skip_bad_files_makes_them_warnings(category_folder: Path) -> None:
    (category_folder / "ground_truth" / "scratch" / "000_mask.png").unlink()
    assert check(category_folder).exit_status == 2
    report = check(category_folder, skip_bad_files=True)
    assert report.exit_status == 1
    assert codes(report)["no_mask"] == ("test/scratch/000.png",)


def test_too_few_images_state_the_number_advised(tmp_path: Path) -> None:
    report = check(draw_category(tmp_path, good=5, defects={"dent": 2}))
    messages = {finding.code: f"{finding.message} {finding.advice}" for finding in report.findings}
    assert "5 usable defect-free photographs; 200 are advised for stage 1" in messages["few_good"]
    assert "'dent' has 2 usable photographs; 10 are advised" in messages["few_defects"]
    assert "Classification needs at least 3" in messages["few_defects"]
    assert report.exit_status == 1
    nothing = check(draw_category(tmp_path / "other", good=1, defects={"dent": 1}))
    assert codes(nothing).keys() >= {"too_few_good"}
    assert nothing.exit_status == 2
    (tmp_path / "good_only" / "train").mkdir(parents=True)
    (folder := draw_category(tmp_path / "third", good=3)).joinpath("test").rename(tmp_path / "moved")
    no_defects = check(folder)
    assert codes(no_defects).keys() >= {"no_defects"}
    assert no_defects.exit_status == 2


def test_orphan_masks_and_other_files(category_folder: Path) -> None:
    save(draw_mask(1), category_folder / "ground_truth" / "dent" / "777_mask.png")
    (category_folder / "test" / "dent" / "notes.txt").write_text("x")
    found = codes(check(category_folder))
    assert found["orphan_masks"] == ("ground_truth/dent/777_mask.png",)
    assert found["ignored_files"] == ("test/dent/notes.txt",)


def test_doubtful_masks(category_folder: Path) -> None:
    masks = category_folder / "ground_truth" / "scratch"
    save(np.full((40, 48), 7, dtype=np.uint8), masks / "000_mask.png")
    save(np.where(draw_mask(1), 0, 255).astype(np.uint8), masks / "001_mask.png")
    (masks / "002_mask.png").unlink()
    Image.fromarray(np.where(draw_mask(2), 255, 0).astype(np.uint8)).save(masks / "002_mask.jpg", quality=60)
    soft = np.where(draw_mask(3), 255, 0).astype(np.uint8)
    soft[0, 0] = 99
    save(soft, masks / "003_mask.png")
    # One pixel of a photograph that is large compared with the grid on which masks are generated.
    save(draw_photograph(900, 400, 300), category_folder / "test" / "scratch" / "004.png")
    tiny = np.zeros((300, 400), dtype=np.uint8)
    tiny[150, 200] = 1
    save(tiny, masks / "004_mask.png")
    report = check(category_folder, resolution=256)
    found = codes(report)
    assert found["full_mask"] == ("test/scratch/000.png",)
    assert found["large_mask"] == ("test/scratch/001.png",)
    assert found["soft_mask"] == ("test/scratch/002.png", "test/scratch/003.png")
    assert found["tiny_defect"] == ("test/scratch/004.png",)
    messages = " ".join(finding.message for finding in report.findings)
    assert "1 of them lossily compressed" in messages
    assert "0.5 pixels at 256x256" in messages


def test_shapes_and_sizes(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, good=3, defects={"dent": 2})
    save(draw_photograph(5, 100, 40), folder / "train" / "good" / "wide.png")
    found = codes(check(folder))
    assert found["distorted"] == ("train/good/wide.png",)
    assert "enlarged" not in found
    assert "distorted" not in codes(check(folder, fit="pad"))
    assert len(codes(check(folder, resolution=64))["enlarged"]) == 8
    (folder / "train" / "good" / "wide.png").unlink()
    for path in (folder / "train" / "good").iterdir():
        save(draw_photograph(5, 56, 40), path)
    (alike,) = (finding for finding in check(folder).findings if finding.code == "distorted")
    assert alike.severity == "note"  # all in much the same way
    assert "3 photographs to be squeezed out of shape: width / height is 1.2 to 1.4" in alike.message
    for path in (folder / "train" / "good").iterdir():
        save(draw_photograph(5, 70, 40), path)
    resized, padded = (codes(check(folder, resolution=64, fit=fit))["enlarged"] for fit in ("resize", "pad"))
    assert len([name for name in resized if "train/good" in name]) == 3
    assert not [name for name in padded if "train/good" in name]


@pytest.mark.parametrize("fit", ["resize", "pad"])
def test_bars_are_offered_images_of_their_shape(tmp_path: Path, fit: str) -> None:
    folder = draw_category(tmp_path, good=3, defects={"dent": 2})
    for path in folder.rglob("*.png"):
        save(draw_photograph(5, 150, 45), path)
    (found,) = (finding for finding in check(folder, fit=fit).findings if finding.code == "elongated")
    assert "3.3 times as wide as high" in found.message
    assert "--aspect 1 4" in found.advice
    planned = check(folder, fit=fit, aspect=(1, 4))
    assert not {"elongated", "distorted"} & codes(planned).keys()
    assert "Judged for training at 128x32 pixels" in planned.to_text()
    assert "a smaller size may lose small defects" in planned.to_text()
    with pytest.raises(ValueError, match="`aspect` must be"):
        check(folder, aspect=(2, 4))


@pytest.mark.parametrize(("is_coloured", "mode"), [(False, "I;16"), (True, "RGBA;16")])
def test_16_bits_of_which_12_are_used(tmp_path: Path, is_coloured: bool, mode: str) -> None:
    folder = draw_category(tmp_path, good=2, defects={"dent": 2})
    for path in (folder / "train" / "good").iterdir():
        samples = np.asarray(Image.open(path)).astype(np.uint16) * 16
        opaque = np.full_like(samples, 65535)
        path.write_bytes(imagecodecs.png_encode(np.dstack([samples] * 3 + [opaque]) if is_coloured else samples))
    report = check(folder)
    assert codes(report)["bit_depth"] == ("train/good/000.png", "train/good/001.png")
    assert any(finding.advice == "Give --bit_depth 12." for finding in report.findings)
    assert report.kinds[0].modes == {mode: 2}
    assert "bit_depth" not in codes(check(folder, bit_depth=12))


def test_colour_only_on_one_side_and_exif(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, good=2, defects={"dent": 2}, test_good=0)
    grey = draw_photograph(4)
    exif = Image.Exif()
    exif[0x0112] = 6
    for index in range(2):
        colour = np.rot90(np.dstack([grey + index, grey // 2, grey // 3]))
        Image.fromarray(colour).save(folder / "train" / "good" / f"{index:03d}.png", exif=exif)
    report = check(folder)
    assert "colour_differs" in codes(report)
    assert codes(report)["exif_rotated"] == ("train/good/000.png", "train/good/001.png")
    assert report.kinds[0].sizes == {"48x40": 2}


def test_the_contact_sheet_has_a_title_and_a_row_for_each_kind(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, good=3, defects={"dent": 12})
    pixels = np.asarray(draw_contact_sheet(*examine(CheckConfig(folder, resolution=32)), columns=4))
    outlines = np.flatnonzero((pixels == OUTLINE).all(axis=2).any(axis=1))
    row = (len(pixels) - 48) // 3  # below the title: train/good, test/good, test/dent
    assert outlines.min() > 48 + 2 * row
    assert (pixels[:48] != 255).any(), "no title"
    assert 4 * 200 < pixels.shape[1] < 4 * 220


def test_a_contact_sheet_takes_names_of_any_script(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, "Schraube_größer", good=2, defects={"划痕": 2})
    assert draw_contact_sheet(*examine(CheckConfig(folder, resolution=32))).height > 400


def test_a_contact_sheet_of_nothing_usable_is_a_title(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, good=0, defects={"dent": 1}, test_good=0)
    (folder / "ground_truth" / "dent" / "000_mask.png").unlink()
    sheet = draw_contact_sheet(*examine(CheckConfig(folder)))
    assert sheet.height < 100 < sheet.width


def test_the_json_holds_all_of_it(category_folder: Path) -> None:
    report = check(category_folder)
    saved = json.loads(json.dumps(report.to_dict()))
    assert saved["exit_status"] == report.exit_status == 1
    assert {kind["kind"]: kind["photographs"] for kind in saved["kinds"] if kind["split"] == "test"} == {
        "good": 2,
        "dent": 3,
        "scratch": 5,
    }
    assert [finding["code"] for finding in saved["findings"]] == [finding.code for finding in report.findings]
    assert saved["stages"][0]["advised"] == ADVISED_GOOD
    assert set(saved) == {
        "root", "category", "account", "resolution", "aspect", "fit", "strict", "kinds", "stages", "findings",
        "photographs", "duplicate_groups", "exit_status",
    }  # fmt: skip


def test_the_command_prints_writes_and_exits(
    healthy_folder: Path, category_folder: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run_check(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            run(check_dataset, [str(argument) for argument in arguments])
        return (ended.value.code, *capsys.readouterr())

    status, output, _ = run_check(healthy_folder.parent, "--category", "plate", "--resolution", 32)
    assert status == 0
    assert "Ready to train." in output
    written = tmp_path / "outputs" / "check_dataset"
    assert json.loads((written / "report.json").read_text())["exit_status"] == 0
    assert Image.open(written / "contact_sheet.png").size[0] > 1000

    (category_folder / "ground_truth" / "dent" / "000_mask.png").unlink()
    options = ("--resolution", 32, "--output_dir", "here")
    status, output, _ = run_check(category_folder, *options)
    assert status == 2
    assert "test/dent/000.png" in output
    assert run_check(category_folder, *options, "--skip_bad_files")[0] == 0
    assert run_check(category_folder, *options, "--skip_bad_files", "--strict")[0] == 1
    status, output, _ = run_check(
        "--good_dir", category_folder / "train" / "good",
        "--defect_dir", category_folder / "test" / "scratch",
        "--mask_dir", category_folder / "ground_truth" / "scratch",
        *options,
    )  # fmt: skip
    assert status == 0
    assert "stage 2 scratch 5 10 few" in " ".join(output.split())
    (tmp_path / "file").touch()
    for arguments, message in (
        ((tmp_path / "nowhere",), "nowhere: there is no such folder"),
        ((category_folder, "--resolution", 0), "`resolution` must be one of 32, 64,"),
        ((category_folder, "--resolution", 100), "`resolution` must be one of 32, 64,"),
        ((category_folder, "--image_channels", 2), "`image_channels` must be one of 1, 3, but is 2"),
        ((category_folder, "--unlabelled", "good"), "`unlabelled` has no effect without labels of a labelling tool"),
        ((category_folder, "--bit_depth", 20), "`bit_depth` must be from 8 to 16, but is 20"),
        ((category_folder, "--output_dir", tmp_path / "file"), "file"),
        ((category_folder, "--output_dir", category_folder / "check"), "in a folder of photographs"),
    ):
        status, _, errors = run_check(*arguments)
        assert status == 2
        assert errors.startswith("Error: ")
        assert message in errors


@pytest.mark.slow
def test_the_script_hands_its_status_to_the_shell(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    command = [sys.executable, str(SCRIPT), str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 2
    assert "no category folder" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_real_photographs_are_examined(magnetic_tile_root: Path) -> None:
    report, inspections = examine(CheckConfig(magnetic_tile_root, "magnetic_tile"))
    assert report.worst == 1
    assert report.exit_status == 0
    assert all(not inspection.errors for inspection in inspections)
    assert all(stage.verdict == "ready" for stage in report.stages)
    # One tile appears under several exposures, and some of these lie on both sides.
    assert codes(report).keys() == {
        "distorted",
        "train_test_leak",
        "enlarged",
        "near_duplicates",
        "maybe_duplicates",
        "patches_advised",
        "grey",
        "ignored_files",
    }


def test_defects_are_judged_at_the_resolution_and_in_the_square_that_are_trained(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, good=2, defects={"dent": 1})
    save(draw_photograph(1, 400, 100), folder / "test" / "dent" / "000.png")
    mask = np.zeros((100, 400), dtype=np.uint8)
    mask[50:54, 100:104] = 255
    save(mask, folder / "ground_truth" / "dent" / "000_mask.png")
    # 16 of 40,000 pixels: 0.1 of a pixel of a 16x16 grid, 1.6 of a 64x64 one; in a square with a border, a quarter.
    assert {name: preset["resolution"] for name, preset in PRESETS.items()} == RESOLUTIONS
    assert "tiny_defect" not in codes(check(folder, resolution=None))
    assert "tiny_defect" in codes(check(folder, resolution=None, preset="small"))
    assert "tiny_defect" in codes(check(folder, resolution=None, fit="pad"))
    assert "tiny_defect" in codes(check(folder, resolution=64))


def test_patches_are_proposed_where_defects_are_short(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, good=2, defects={"dent": 3, "scratch": 2})
    for index in range(3):
        save(draw_photograph(index, 400, 300), folder / "test" / "dent" / f"{index:03d}.png")
        mask = np.zeros((300, 400), dtype=np.uint8)
        mask[150:162, 100 + 50 * index : 120 + 50 * index] = 255
        save(mask, folder / "ground_truth" / "dent" / f"{index:03d}_mask.png")
    (advised,) = (finding for finding in check(folder).findings if finding.code == "patches_advised")
    assert (
        "'dent': half of the defects are at most 20 pixels long, in photographs of 300 on the shorter side."
        in advised.message
    )
    assert "cut-patches --patch_size 80. They lie within --region 0.25 0.5 0.55 0.54 of" in advised.advice


def test_a_terminal_shows_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    folder = draw_category(tmp_path / "plate")
    Image.fromarray(draw_photograph(0)).convert("L").save(folder / "train" / "good" / "copy.jpg", quality=90)
    examine(CheckConfig(folder, resolution=32))
    assert not capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    examine(CheckConfig(folder, resolution=32))
    shown = capsys.readouterr().err
    assert "Reading: 100%" in shown
    assert "Aligning: 100%" in shown
