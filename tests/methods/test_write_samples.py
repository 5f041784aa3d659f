"""Samples as files: by number, resumable, and as the samplers of folders read them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dfmgan_hf.methods.write_samples import write_samples
from dfmgan_hf.metrics import FolderSampler, ProcessGroup
from dfmgan_hf.metrics.sampler import draw
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
