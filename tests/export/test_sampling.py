"""What a triplet depends on: the settings and its number, and nothing else."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.export import ExportConfig, ExportError, MaskFilter, TripletSampler, candidate_seed


def draw(pipe, indices=range(10), block_size=None, **options):
    with TripletSampler(pipe, ExportConfig("out", **options), block_size=block_size) as sampler:
        return list(sampler.draw(indices))


@pytest.mark.parametrize("block_size", [None, 1, 4, 16])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_same_bytes_for_any_batch_and_block(pipe, block_size, batch_size):
    options = {"max_mask_area": 0.2, "noise_mode": "random", "batch_size": batch_size}
    expected = draw(pipe, max_mask_area=0.2, noise_mode="random")
    assert sum(sample.record.dropped for sample in expected) > 2
    assert draw(pipe, block_size=block_size, **options) == expected
    # Any part of the numbers, as a stopped export or another process draws it.
    part = [1, 2, 7, 9]
    assert draw(pipe, part, block_size=block_size, **options) == [expected[index] for index in part]


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_the_same_bytes_for_any_number_of_threads(make_pipe, num_threads):
    """Of this network, unlike of the smallest, two threads would give other images."""
    pipe = make_pipe(resolution=64, channel_base=4096, channel_max=64, z_dim=64, w_dim=64)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = [pipe(seeds=[candidate_seed(0, index, 0)], output_type="pil").images[0] for index in range(4)]
        torch.set_num_threads(num_threads)
        samples = draw(pipe, range(4), min_mask_area=0)
        assert torch.get_num_threads() == num_threads, "the caller's setting is restored"
    finally:
        torch.set_num_threads(before)
    for sample, image in zip(samples, expected, strict=True):
        assert np.array_equal(Image.open(io.BytesIO(sample.image)), image)


def test_a_block_is_filled_with_the_same_candidates_wherever_an_export_goes_on(pipe, monkeypatch):
    """On devices whose results depend on the neighbours in a batch, this is what makes images repeatable."""
    batches = []
    call = TripletSampler._call

    def watch(self, seeds):
        batches.append(tuple(seeds))
        return call(self, seeds)

    monkeypatch.setattr(TripletSampler, "_call", watch)

    def batches_for(indices):
        batches.clear()
        draw(pipe, indices, block_size=8, max_mask_area=0.1)
        return list(batches)

    first, second = batches_for(range(8)), batches_for(range(8, 16))
    assert {len(batch) for batch in first + second} == {8}
    assert len(first) > 1, "some were dropped"
    assert first[0] == tuple(candidate_seed(0, index, 0) for index in range(8))
    assert batches_for(range(16)) == first + second
    # Once the wanted images are there, a block may end early, but never take another course.
    for part in ([3], [0, 7], range(5)):
        assert batches_for(part) == first[: len(batches)]
    assert second[0] in batches_for([6, 7, 8])


def test_records_tell_how_to_draw_it_again(pipe):
    for sample in draw(pipe, max_mask_area=0.2):
        output = pipe(seeds=[sample.record.seed])
        assert np.array_equal(Image.open(io.BytesIO(sample.image)), output.images[0])
        mask = np.asarray(Image.open(io.BytesIO(sample.mask)))
        assert np.array_equal(mask, output.masks[0])
        assert np.array_equal(Image.open(io.BytesIO(sample.defect_free)), output.defect_free_images[0])
        assert sample.record.mask_area == (mask == 255).mean()
        assert 0 < sample.record.mask_area <= 0.2


def test_settings_reach_the_pipeline(pipe):
    options = {"truncation_psi": 0.5, "noise_mode": "none", "mask_threshold": -1.0, "min_mask_area": 0}
    (sample,) = draw(pipe, [3], seed=9, **options)
    del options["min_mask_area"]
    output = pipe(seeds=[candidate_seed(9, 3, 0)], **options)
    assert np.array_equal(Image.open(io.BytesIO(sample.image)), output.images[0])
    assert np.array_equal(Image.open(io.BytesIO(sample.mask)), output.masks[0])


def test_dropped_draws_are_counted_by_reason(pipe):
    bounds = {"min_mask_area": 0.05, "max_mask_area": 0.2}
    for sample in draw(pipe, range(20), **bounds):
        candidates = [candidate_seed(0, sample.record.index, attempt) for attempt in range(sample.record.dropped + 1)]
        areas = [(np.asarray(mask) != 0).mean() for mask in pipe(seeds=candidates).masks]
        assert candidates[-1] == sample.record.seed
        assert 0.05 <= areas[-1] <= 0.2
        assert sample.record.dropped_empty == sum(area == 0 for area in areas)
        assert sample.record.dropped_too_small == sum(0 < area < 0.05 for area in areas)
        assert sample.record.dropped_too_large == sum(area > 0.2 for area in areas)


@pytest.mark.parametrize(
    ("bounds", "area", "reason"),
    [
        ((None, 1.0), 0.0, "empty"),
        ((None, 1.0), 1e-6, None),
        ((None, 1.0), 1.0, None),
        ((0.0, 1.0), 0.0, None),
        ((0.1, 0.3), 0.0, "empty"),
        ((0.1, 0.3), 0.09, "too_small"),
        ((0.1, 0.3), 0.1, None),
        ((0.1, 0.3), 0.3, None),
        ((0.1, 0.3), 0.31, "too_large"),
        ((0.0, 0.0), 0.5, "too_large"),
    ],
)
def test_filter(bounds, area, reason):
    assert MaskFilter(*bounds).why_dropped(area) == reason


def test_a_filter_that_nothing_passes(pipe):
    with torch.no_grad():
        pipe.generator.to_mask.bias.fill_(-100.0)
    with pytest.raises(ExportError, match=r"Image 0: none of its first 7 draws .*\(7 empty\).*raise --max_attempts"):
        draw(pipe, max_attempts=7)
    assert torch.get_num_threads() == 1


def test_a_backbone_is_refused(make_backbone):
    with pytest.raises(ExportError, match="a backbone of stage 1"):
        TripletSampler(DFMGANPipeline(make_backbone()), ExportConfig("out"))
