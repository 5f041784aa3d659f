from collections import Counter

import pytest
import torch

from dfmgan_hf.data import ImageMaskDataset
from dfmgan_hf.training import Batch, BatchStream
from tests.training import tiny


def numbered(n: int, masks: bool = False) -> ImageMaskDataset:
    """Image i is filled with the value i; its left column is 0."""
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 2, 2)
    return ImageMaskDataset(images, (images % 2) * 255 if masks else None, [str(i) for i in range(n)])


def numbers(batch: Batch) -> list[int]:
    return ((batch.images[:, 0, 0, 0] + 1) * 127.5).round().to(torch.int).tolist()


def stream(n: int = 7, **options) -> BatchStream:
    return BatchStream(numbered(n), **{"batch_size": 4, "seed": 1, **options})


def test_every_pass_shows_every_image_once_in_another_order():
    shown = [number for step in range(7) for number in numbers(stream().at(4 * step))]
    passes = [shown[i : i + 7] for i in range(0, 28, 7)]
    assert all(sorted(p) == list(range(7)) for p in passes)
    assert len({tuple(p) for p in passes}) == 4


def test_order_depends_on_seed_and_position_alone():
    whole, resumed, other = stream(), stream(), stream(seed=2)
    expected = [numbers(whole.at(4 * step)) for step in range(6)]
    assert [numbers(resumed.at(4 * step)) for step in range(3, 6)] == expected[3:]
    assert [numbers(other.at(4 * step)) for step in range(6)] != expected


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_batch_of_one(world_size):
    for seen in (0, 4, 24):
        parts = [numbers(stream(rank=rank, world_size=world_size).at(seen)) for rank in range(world_size)]
        assert [number for part in parts for number in part] == numbers(stream().at(seen))


def test_batches_larger_than_the_data():
    shown = Counter(number for number in numbers(stream(n=3, batch_size=32).at(0)))
    assert sum(shown.values()) == 32
    assert max(shown.values()) - min(shown.values()) <= 1


def test_values_and_masks():
    data = tiny.drawn_set(3)
    batch = BatchStream(data, batch_size=2, seed=0).at(0)
    assert batch.images.dtype == torch.float32
    assert batch.images.min() >= -1
    assert batch.images.max() <= 1
    assert set(batch.masks.unique().tolist()) == {-1.0, 1.0}
    # What is bright in the drawn images is the disc, and the disc is the mask.
    assert torch.equal(batch.masks[:, 0] > 0, batch.images[:, 0] > 0.8)
    assert BatchStream(numbered(3), batch_size=2, seed=0).at(0).masks is None


def test_mirror_shows_every_other_pass_flipped_with_its_masks():
    data = tiny.drawn_set(3)
    plain, mirrored = (BatchStream(data, batch_size=3, seed=0, mirror=mirror) for mirror in (False, True))
    assert torch.equal(plain.at(0).images, mirrored.at(0).images)
    assert torch.equal(plain.at(3).images.flip(3), mirrored.at(3).images)
    assert torch.equal(plain.at(3).masks.flip(3), mirrored.at(3).masks)
    assert not torch.equal(plain.at(3).images, mirrored.at(3).images)


def test_split_into_micro_batches():
    batch = BatchStream(tiny.drawn_set(4), batch_size=4, seed=0).at(0)
    parts = batch.split(2)
    assert [len(part) for part in parts] == [2, 2]
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
    assert torch.equal(torch.cat([part.masks for part in parts]), batch.masks)


def test_batch_must_be_shared_evenly():
    with pytest.raises(ValueError, match="cannot be shared among 3 processes"):
        stream(world_size=3)


def test_labels_stay_with_their_images():
    data = numbered(7)
    data.labels = torch.arange(7) * 10
    batch = BatchStream(data, batch_size=4, seed=0).at(4)
    assert batch.labels.tolist() == [10 * number for number in numbers(batch)]
    for part in batch.split(2):
        assert part.labels.tolist() == [10 * number for number in numbers(part)]
    assert stream().at(0).labels is None
