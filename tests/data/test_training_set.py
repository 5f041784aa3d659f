"""Training sets: contract, errors, subsets, cache."""

from __future__ import annotations

import os
import resource
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from torch.utils.data import DataLoader

from dfmgan_hf.data import (
    DataConfig,
    DataError,
    DataWarning,
    ImageMaskDataset,
    load_training_set,
    save_file_list,
    training_set,
)
from dfmgan_hf.data.doctor import CheckConfig, examine
from dfmgan_hf.data.reading import read_mask
from dfmgan_hf.training.task import BatchStream
from tests.data.conftest import draw_mask, draw_photograph, save


def test_defect_images_come_with_binary_masks(load_defects: Callable) -> None:
    dataset = load_defects()
    assert dataset.images.shape == (5, 3, 32, 32)
    assert dataset.masks.shape == (5, 1, 32, 32)
    assert dataset.images.dtype == dataset.masks.dtype == torch.uint8
    assert set(dataset.masks.unique().tolist()) == {0, 255}
    assert dataset.file_names == [f"test/scratch/{index:03d}.png" for index in range(5)]
    item = dataset[3]
    assert torch.equal(item["image"], dataset.images[3])
    assert torch.equal(item["mask"], dataset.masks[3])
    batch = next(iter(DataLoader(dataset, batch_size=4)))
    assert batch["image"].shape == (4, 3, 32, 32)


def test_defect_free_images_have_no_masks(category_folder: Path) -> None:
    dataset = load_training_set(DataConfig(category_folder), resolution=32)
    assert len(dataset) == 6
    assert dataset.masks is None
    assert set(dataset[0]) == {"image"}
    assert len(load_training_set(DataConfig(category_folder), resolution=32, split="test")) == 2


def test_grey_photographs_fill_three_channels_or_stay_one(load_defects: Callable) -> None:
    three, one = load_defects().images, load_defects(image_channels=1).images
    assert one.shape == (5, 1, 32, 32)
    assert torch.equal(three, one.expand(-1, 3, -1, -1))


def _break_files(folder: Path) -> None:
    """One problem of each kind among the five scratches; 002 stays whole."""
    masks = folder / "ground_truth" / "scratch"
    (masks / "000_mask.png").unlink()
    save(np.zeros((40, 48), dtype=np.uint8), masks / "001_mask.png")
    save(np.ones((48, 40), dtype=np.uint8), masks / "003_mask.png")
    image = folder / "test" / "scratch" / "004.png"
    image.write_bytes(image.read_bytes()[:500])


def test_errors_say_file_found_expected_and_what_to_do(category_folder: Path) -> None:
    folder = category_folder
    _break_files(folder)
    messages = {
        "000": r"scratch/000\.png: an image without a mask; .*Expected .*000_mask\.png.*Add the mask",
        "001": r"001_mask\.png: a mask without any defect pixel. Expected non-zero pixels.*Draw the defect",
        "003": r"003_mask\.png: a mask of 40x48 pixels. Expected 48x40, the size of .*003\.png. Export the mask",
        "004": r"004\.png: 500 bytes that do not decode.*Expected a whole image.*Copy or export",
    }
    for stem, message in messages.items():
        names = save_file_list(folder / "one.txt", [f"test/scratch/{stem}.png"])
        with pytest.raises(DataError, match=message):
            load_training_set(DataConfig(folder, file_list=names), "scratch", resolution=32)
    with pytest.raises(DataError, match=messages["000"]):
        load_training_set(DataConfig(folder), "scratch", resolution=32)


def test_skip_bad_files_goes_on_and_lists_them(category_folder: Path) -> None:
    _break_files(category_folder)
    with pytest.warns(DataWarning, match=r"4 of 5 files were left out:\n.*000\.png: an image(.|\n)*004\.png: 500"):
        dataset = load_training_set(DataConfig(category_folder, skip_bad_files=True), "scratch", resolution=32)
    assert dataset.file_names == ["test/scratch/002.png"]
    (category_folder / "ground_truth" / "scratch" / "002_mask.png").unlink()
    with pytest.warns(DataWarning), pytest.raises(DataError, match=r"0 usable .*'scratch'. Expected at least 1. Add"):
        load_training_set(DataConfig(category_folder, skip_bad_files=True), "scratch", resolution=32)


def test_no_images_and_unknown_defects_list_what_there_is(category_folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"no photographs with the defect 'crack'.*Defects in this folder: 'dent', 'scr"
    ):
        load_training_set(DataConfig(category_folder), "crack")
    for path in (category_folder / "train" / "good").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"plate: no defect-free photographs in train. Expected train/good/\*\.png"):
        load_training_set(DataConfig(category_folder))


def test_center_crop_that_loses_the_defect_is_an_error(tmp_path: Path) -> None:
    mask = np.zeros((40, 120), dtype=np.uint8)
    mask[10:20, 2:12] = 1
    save(draw_photograph(0, 120, 40), tmp_path / "images" / "a.png")
    save(mask, tmp_path / "masks" / "a.png")
    folders = {"defect_dir": tmp_path / "images", "mask_dir": tmp_path / "masks"}
    with pytest.raises(DataError, match=r"wholly outside the middle.*--fit pad or --fit resize"):
        load_training_set(DataConfig(**folders, fit="center_crop"), "dent", resolution=32)
    report, _ = examine(CheckConfig(**folders, fit="center_crop", resolution=32))
    assert [(f.severity, f.files) for f in report.findings if f.code == "cropped_mask"] == [
        ("error", ("test/images/a.png",))
    ]
    assert load_training_set(DataConfig(**folders, fit="pad"), "dent", resolution=60).masks.sum() == 25 * 255


def test_soft_masks_say_so_once(category_folder: Path) -> None:
    for stem in ("000", "003"):
        soft = np.full((40, 48), 0, dtype=np.uint8)
        soft[5:20, 5:20], soft[20, 5:20] = 255, 90
        save(soft, category_folder / "ground_truth" / "scratch" / f"{stem}_mask.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = load_training_set(DataConfig(category_folder, fit="pad"), "scratch", resolution=48)
    said = [str(warning.message) for warning in caught if warning.category is DataWarning]
    messages = [text for text in said if "advised" not in text]  # which is said of five photographs
    assert len(messages) == 1
    assert messages[0].startswith("2 masks with several grey values or colours; every non-zero pixel counts as defect")
    assert "test/scratch/000" in messages[0]
    assert (dataset.masks[0] > 0).sum() == 16 * 15


def test_full_masks_say_so(category_folder: Path) -> None:
    save(np.full((40, 48), 3, dtype=np.uint8), category_folder / "ground_truth" / "scratch" / "002_mask.png")
    with pytest.warns(DataWarning, match=r"1 mask over \(almost\) all .* test/scratch/002\.png.* inverted"):
        load_training_set(DataConfig(category_folder), "scratch", resolution=32)


def test_shots_are_a_reproducible_subset(load_defects: Callable) -> None:
    everything = load_defects()
    subset = load_defects(shots=3, shots_seed=0)
    again = load_defects(shots=3, shots_seed=0)
    assert subset.file_names == again.file_names == sorted(subset.file_names)
    assert len(subset) == 3
    assert len({tuple(load_defects(shots=3, shots_seed=seed).file_names) for seed in range(8)}) > 1
    for name, image in zip(subset.file_names, subset.images, strict=True):
        assert torch.equal(image, everything.images[everything.file_names.index(name)])
    assert set(load_defects(shots=2).file_names) < set(subset.file_names), "fewer shots are a subset of more"
    assert len(load_defects(shots=1)) == 1
    with pytest.raises(
        DataError, match=r"5 usable photographs of 'scratch'. Expected 6, the shots asked for. Ask for fewer"
    ):
        load_defects(shots=6)
    with pytest.raises(ValueError, match="`shots` must be at least 1"):
        load_defects(shots=0)


def test_shots_are_drawn_from_the_good_files_when_bad_ones_are_skipped(category_folder: Path) -> None:
    (category_folder / "ground_truth" / "scratch" / "000_mask.png").unlink()
    for seed in range(5):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            dataset = load_training_set(
                DataConfig(category_folder, shots=4, shots_seed=seed, skip_bad_files=True), "scratch", resolution=32
            )
        assert dataset.file_names == [f"test/scratch/{index:03d}.png" for index in (1, 2, 3, 4)]


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the photographs that were decoded so far."""
    names: list[str] = []
    prepare = training_set.prepare_example

    def counted(record, *arguments):
        names.append(record.name)
        return prepare(record, *arguments)

    monkeypatch.setattr(training_set, "prepare_example", counted)
    return names


def test_of_several_that_need_a_set_one_prepares_it(category_folder: Path, tmp_path: Path, decoded) -> None:
    data = DataConfig(category_folder, cache_dir=tmp_path / "cache")
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda _: load_training_set(data, "scratch", resolution=32), range(4))
    assert len(decoded) == 5
    assert all(torch.equal(first.masks, other.masks) for other in others)


def test_cache_saves_decoding_and_notices_changes(category_folder: Path, tmp_path: Path, decoded) -> None:
    def load(defect="scratch", resolution=32, image_channels=3, **options):
        decoded.clear()
        data = DataConfig(category_folder, cache_dir=tmp_path / "cache", **options)
        return load_training_set(data, defect, resolution=resolution, image_channels=image_channels)

    first = load()
    assert len(decoded) == 5
    second = load()
    assert decoded == []
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.masks, second.masks)
    assert first.file_names == second.file_names
    for options in ({"resolution": 16}, {"fit": "pad"}, {"image_channels": 1}, {"shots": 2}, {"defect": "dent"}):
        load(**options)
        assert decoded, f"{options} was served from the cache of other settings"

    mask = category_folder / "ground_truth" / "scratch" / "002_mask.png"
    save(draw_mask(77).astype(np.uint8), mask)
    changed = load()
    assert len(decoded) == 5
    assert not torch.equal(changed.masks[2], first.masks[2])
    later = time.time() + 10
    os.utime(mask, (later, later))
    load()
    assert len(decoded) == 5
    (category_folder / "test" / "scratch" / "000.png").unlink()
    assert len(load()) == 4


def test_a_damaged_cache_is_made_again_and_nothing_half_written_stays(category_folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = load_training_set(DataConfig(category_folder, cache_dir=cache), resolution=32)
    (file,) = cache.glob("[!.]*")
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:20]):
        file.write_bytes(damaged)
        again = load_training_set(DataConfig(category_folder, cache_dir=cache), resolution=32)
        assert torch.equal(first.images, again.images)
        assert file.read_bytes() == whole
    assert {path.suffix for path in cache.iterdir()} - {".lock"} == {".safetensors"}


def test_a_flipped_byte_in_the_cache_is_noticed(category_folder: Path, tmp_path: Path) -> None:
    """Also where the file can still be read: in a photograph, and in the name of one."""
    data = DataConfig(category_folder, cache_dir=tmp_path / "cache")
    first = load_training_set(data, resolution=32)
    (file,) = data.cache_dir.glob("[!.]*")
    whole = file.read_bytes()
    for place in (len(whole) - 100, whole.index(b"000.png")):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.warns(DataWarning, match="is damaged, .*it is not what was written.* prepared anew"):
            again = load_training_set(data, resolution=32)
        assert torch.equal(again.images, first.images)
        assert again.file_names == first.file_names
        assert file.read_bytes() == whole


def test_without_room_for_the_cache_the_set_is_loaded_all_the_same(category_folder: Path, tmp_path: Path) -> None:
    """No file of this process can grow past a kilobyte; a write that would fails, as on a full disk."""
    data = DataConfig(category_folder, cache_dir=tmp_path / "cache")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.warns(DataWarning, match="could not be kept: .*Make room in .*cache for them"):
            dataset = load_training_set(data, resolution=32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(dataset) == 6
    assert {path.suffix for path in data.cache_dir.iterdir()} == {".lock"}


def test_the_cache_repeats_its_warnings(category_folder: Path, tmp_path: Path) -> None:
    _break_files(category_folder)
    for _ in range(2):
        with pytest.warns(DataWarning, match="4 of 5 files were left out"):
            dataset = load_training_set(
                DataConfig(category_folder, skip_bad_files=True, cache_dir=tmp_path / "cache"),
                "scratch",
                resolution=32,
            )
        assert len(dataset) == 1


def test_items_cost_no_decoding(category_folder: Path, monkeypatch) -> None:
    dataset = load_training_set(DataConfig(category_folder), "scratch", resolution=32)

    def forbidden(*arguments, **options):
        raise AssertionError("decoded again")

    monkeypatch.setattr("PIL.Image.open", forbidden)
    for _ in range(3):
        assert len(list(DataLoader(dataset, batch_size=2))) == 3


def test_batches_come_faster_than_training_can_eat_them() -> None:
    """What the trainer draws its batches from, at 256x256 with masks.

    StyleGAN2 eats a few such images a second on two cores and some hundred on a fast GPU; measured, one thread of an
    AMD EPYC serves 650 to 2,000.
    """
    count = 64
    images = torch.randint(0, 256, (count, 3, 256, 256), dtype=torch.uint8)
    masks = torch.where(images[:, :1] > 200, 255, 0).to(torch.uint8)
    dataset = ImageMaskDataset(images, masks, [str(index) for index in range(count)])
    stream = BatchStream(dataset, batch_size=32, seed=0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rates = []
        for _ in range(5):
            start = time.process_time()  # other programs may run beside
            served = sum(len(stream.at(32 * step)) for step in range(8))
            rates.append(served / (time.process_time() - start))
    finally:
        torch.set_num_threads(threads)
    assert max(rates) > 150


def test_config_is_parsed_from_the_command_line_and_loads(category_folder: Path, tmp_path: Path) -> None:
    line = ["--data-dir", str(category_folder.parent), "--category", "plate", "--shots", "3"]
    config = tyro.cli(DataConfig, args=line)
    assert config == DataConfig(data_dir=category_folder.parent, category="plate", shots=3)
    assert len(config.load_good(resolution=32)) == 6
    assert len(config.load_defects("scratch", resolution=32)) == 3
    assert config.load_defects("dent", resolution=32, image_channels=1).images.shape == (3, 1, 32, 32)
    with pytest.raises(DataError, match=r"2 kinds of defect and none was chosen. Expected one of dent, scratch"):
        config.load_defects()

    own = tyro.cli(
        DataConfig,
        args=[
            "--good_dir", str(category_folder / "train" / "good"),
            "--defect_dir", str(category_folder / "test" / "dent"),
            "--mask_dir", str(category_folder / "ground_truth" / "dent"),
        ],
    )  # fmt: skip
    assert len(own.load_good(resolution=32)) == 6
    assert own.load_defects(resolution=32).file_names == [f"test/dent/{index:03d}.png" for index in range(3)]


def test_real_photographs_load(magnetic_tile_root: Path) -> None:
    good = load_training_set(DataConfig(magnetic_tile_root, "magnetic_tile"), resolution=64, image_channels=1)
    assert good.images.shape[1:] == (1, 64, 64)
    assert len(good) > 400
    blowholes = load_training_set(
        DataConfig(magnetic_tile_root, "magnetic_tile", shots=20), "blowhole", resolution=256
    )
    for name, mask in zip(blowholes.file_names, blowholes.masks, strict=True):
        (path,) = (magnetic_tile_root / "magnetic_tile" / "ground_truth" / "blowhole").glob(
            f"{Path(name).stem}_mask.*"
        )
        original = read_mask(path).defect
        assert float(mask.float().mean()) / 255 == pytest.approx(original.mean(), rel=0.05, abs=1 / 65536)


def test_training_says_that_photographs_are_few_or_the_same(category_folder: Path) -> None:
    good = category_folder / "train" / "good"
    (good / "copy.png").write_bytes((good / "003.png").read_bytes())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_training_set(DataConfig(category_folder), resolution=32)
        load_training_set(DataConfig(category_folder), "scratch", resolution=32)
        load_training_set(DataConfig(category_folder, shots=2), "dent", resolution=32)  # as few as were asked for
    said = " ".join(str(warning.message) for warning in caught)
    report = examine(CheckConfig(category_folder, resolution=32))[0]
    lines = {f.code: [f.to_line()] for f in report.findings if f.code in ("few_good", "exact_duplicates")}
    assert len(lines) == 2
    assert all(line in said for (line,) in lines.values())
    assert "'scratch' has 5 usable photographs" in said
    assert "dent" not in said


def test_one_process_of_several_says_what_is_odd(category_folder: Path, tmp_path: Path, monkeypatch) -> None:
    (category_folder / "train/good/000.png").write_bytes(b"cut short")
    data = DataConfig(category_folder, skip_bad_files=True)
    with pytest.warns(DataWarning, match="1 of 6 files were left out"):
        load_training_set(data, resolution=32)
    monkeypatch.setenv("RANK", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_training_set(data, resolution=32)) == 5


def test_training_tells_the_doctor_s_duplicates_word_for_word(
    category_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    """A copy that was saved anew, in train and in test: found by looking at the pixels of both."""
    with Image.open(category_folder / "train" / "good" / "002.png") as photograph:
        photograph.convert("L").save(category_folder / "test" / "good" / "again.jpg", quality=90)
    report = examine(CheckConfig(category_folder, resolution=32))[0]
    lines = {f.code: f.to_line() for f in report.findings if f.code in ("near_duplicates", "train_test_leak")}
    assert "train/good/002.png" in lines["near_duplicates"]
    assert "test/good/again.jpg" in lines["train_test_leak"]
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        with pytest.warns(DataWarning) as caught:
            load_training_set(DataConfig(category_folder, cache_dir=cache), resolution=32)
        assert lines["train_test_leak"] in [str(warning.message) for warning in caught]
        assert lines["near_duplicates"] in capsys.readouterr().err
    monkeypatch.setattr(training_set, "_MOST_COMPARED", 5)
    load_training_set(DataConfig(category_folder), resolution=32)
    assert "only equal files are told; `dfmgan check` compares all" in capsys.readouterr().err
