"""What a call returns: types, ranges, triplets that belong together, the mask and the defect in the same place."""

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from dfmgan_hf import DFMGANGenerator, DFMGANPipeline
from dfmgan_hf.models.layers import upsample2d


def test_pil_is_the_default(pipe):
    out = pipe(seeds=[1, 2])
    for images, mode in ((out.images, "RGB"), (out.masks, "L"), (out.defect_free_images, "RGB")):
        assert isinstance(images, list)
        assert [(type(i), i.mode, i.size) for i in images] == [(Image.Image, mode, (32, 32))] * 2
    assert set(np.unique(np.stack(out.masks))) == {0, 255}


def test_arrays_and_tensors(pipe):
    arrays, tensors = pipe(seeds=[1, 2], output_type="np"), pipe(seeds=[1, 2], output_type="pt")
    for name in ("images", "defect_free_images"):
        array, tensor = arrays[name], tensors[name]
        assert array.shape == (2, 32, 32, 3)
        assert array.dtype == np.float32
        assert array.min() >= 0
        assert array.max() <= 1
        assert tensor.dtype == torch.float32
        assert np.array_equal(tensor.permute(0, 2, 3, 1).numpy(), array)
    assert arrays.masks.shape == (2, 32, 32, 1)
    assert arrays.masks.dtype == np.uint8
    assert tensors.masks.dtype == torch.uint8
    assert np.array_equal(tensors.masks.permute(0, 2, 3, 1).numpy(), arrays.masks)
    assert set(np.unique(arrays.masks)) == {0, 255}


def test_the_three_output_types_agree(pipe):
    pil, arrays = pipe(seeds=[5]), pipe(seeds=[5], output_type="np")
    assert np.array_equal(np.asarray(pil.images[0]), np.round(arrays.images[0] * 255).astype(np.uint8))
    assert np.array_equal(np.asarray(pil.masks[0]), arrays.masks[0, :, :, 0])


def test_images_are_the_generator_outputs(pipe):
    objects, defects = pipe.latents_from_seeds([3])
    expected = pipe.generator(objects, defects, noise_mode="const", return_defect_free=True)
    out = pipe(seeds=[3], output_type="pt")
    assert torch.equal(out.images, (expected.images / 2 + 0.5).clamp(0, 1))
    assert torch.equal(out.masks == 255, expected.mask_logits >= 0)
    assert torch.equal(out.defect_free_images, (expected.defect_free_images / 2 + 0.5).clamp(0, 1))


def test_grey_generator(make_generator):
    pipe = DFMGANPipeline(make_generator(image_channels=1))
    assert pipe(seeds=[0]).images[0].mode == "L"
    assert pipe(seeds=[0], output_type="np").images.shape == (1, 32, 32, 1)


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_defect_is_where_the_mask_says(make_generator, seed):
    """Outside the reach of the gates, image and twin are equal to the last bit."""
    pipe = DFMGANPipeline(make_generator(resolution=128, channel_base=1024, residual_resolution=32))
    pipe.set_progress_bar_config(disable=True)
    latents = pipe.latents_from_seeds([seed])
    logits = pipe.generator(*latents, noise_mode="const").mask_logits
    threshold = logits.quantile(0.97).item()  # a small defect, so that much of the image is out of its reach

    logits = []
    pipe.generator.to_mask.register_forward_hook(lambda module, inputs, output: logits.append(output))
    out = pipe(seeds=[seed], mask_threshold=threshold, output_type="pt")

    logits += [upsample2d(logits[0]), upsample2d(upsample2d(logits[0]))]
    at_32, at_64, at_128 = (m >= threshold for m in logits)
    assert torch.equal(out.masks == 255, at_128)
    # Upsampling convolution, its FIR filter and a 3x3 convolution reach 3 pixels at the doubled size.
    reach = at_32
    for own in (at_64, at_128):
        doubled = F.interpolate(reach.float(), scale_factor=2)
        reach = (F.max_pool2d(doubled, kernel_size=7, stride=1, padding=3) > 0) | own
    differs = (out.images != out.defect_free_images).any(dim=1, keepdim=True)
    assert (differs & at_128).any()
    assert not (differs & ~reach).any()
    assert (~reach).any(), "the reach covers everything: nothing was tested"


def test_mask_threshold_moves_mask_and_defect_together(pipe):
    clamp = pipe.generator.config.conv_clamp
    nothing = pipe(seeds=[1], mask_threshold=clamp, output_type="pt")
    assert not nothing.masks.any()
    assert torch.equal(nothing.images, nothing.defect_free_images)
    trained, everywhere = pipe(seeds=[1], output_type="pt"), pipe(seeds=[1], mask_threshold=-clamp, output_type="pt")
    assert everywhere.masks.all()
    assert torch.equal(everywhere.defect_free_images, trained.defect_free_images)
    assert not torch.equal(everywhere.images, trained.images)


def test_backbone_draws_defect_free_images_and_says_so_once(backbone_pipe, caplog):
    assert not backbone_pipe.has_defects
    with caplog.at_level(logging.WARNING):
        first = backbone_pipe(seeds=[1, 2])
        backbone_pipe(seeds=[3])
    assert len([r for r in caplog.records if "no defect branch" in r.message]) == 1
    assert first.masks is None
    assert first.images == first.defect_free_images
    assert backbone_pipe(seeds=[1], return_dict=False)[1] is None


def test_backbone_draws_the_twins_of_the_pipeline_built_on_it(make_backbone):
    backbone = make_backbone()
    on_top = DFMGANPipeline(DFMGANGenerator.from_backbone(backbone, residual_resolution=16))
    twins = on_top(seeds=[1, 2], output_type="pt").defect_free_images
    assert torch.equal(twins, DFMGANPipeline(backbone)(seeds=[1, 2], output_type="pt").images)
