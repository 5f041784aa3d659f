"""Which augmentation a method gets, which values are refused, and what a model knows of its photographs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from dfmgan_hf.augmentation import AugmentPipe, DiffAugment
from dfmgan_hf.data import DataConfig
from dfmgan_hf.methods import get_method
from dfmgan_hf.methods.method import AugmentationConfig, RecipeConfig, Target, TaskRequest, build_augmentation
from dfmgan_hf.models.dfmgan import DFMGANGenerator
from dfmgan_hf.models.discriminator import StyleGAN2Discriminator
from dfmgan_hf.models.stylegan2 import StyleGAN2Generator

CPU = torch.device("cpu")


def build(**options):
    return build_augmentation(AugmentationConfig(**{"augmentation": "bgc", **options}), 16, 500.0, CPU)


def test_adaptive_set_with_the_published_target_and_a_cap():
    augment, ada = build()
    assert isinstance(augment, AugmentPipe)
    assert ada is not None
    assert (ada.target, ada.p_max) == (0.6, 0.8)
    assert ada.p_step == pytest.approx(16 * 4 / 500_000)
    _, ada = build(ada_kimg=20.0, ada_max=0.5)
    assert (ada.p_step, ada.p_max) == (pytest.approx(16 * 4 / 20_000), 0.5)


def test_others_have_no_probability():
    assert build(augmentation="none") == (None, None)
    augment, ada = build(augmentation="diffaugment")
    assert isinstance(augment, DiffAugment)
    assert ada is None


@pytest.mark.parametrize("options", [{"ada_kimg": 0.0}, {"ada_kimg": -1.0}, {"ada_max": 1.5}, {"ada_target": 2.0}])
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match=r"`(ramp_kimg|p_max|target)`"):
        build(**options)


def test_an_unknown_augmentation_is_refused_before_anything_is_loaded():
    with pytest.raises(
        ValueError, match=r"`augmentation` must be one of .*bgc, .*diffaugment, shift_cutout, none, but is 'bcg'"
    ):
        AugmentationConfig(augmentation="bcg")


@pytest.mark.parametrize(
    "values",
    [{"batch_size": 0}, {"batch_size": -4}, {"lr": -1.0}, {"z_dim": 0}, {"total_kimg": math.inf}, {"r1_gamma": -1.0}],
    ids=str,
)
def test_a_recipe_of_numbers_that_make_no_sense_is_refused(values):
    ((name, value),) = values.items()
    with pytest.raises(ValueError, match=f"`{name}` must be a positive, finite number, but is {value}"):
        RecipeConfig(**values)
    assert RecipeConfig(r1_gamma=0.0, ema_kimg=0.0).given() == {"r1_gamma": 0.0, "ema_kimg": 0.0}


def test_models_of_patches_know_their_scale(monkeypatch):
    monkeypatch.setattr(DataConfig, "patch_size", lambda self: 80)
    method = get_method("stage1")
    recipe = method.resolve("small", RecipeConfig(resolution=32, channel_base=128, channel_max=8), None, 1)
    request = TaskRequest(recipe, None, AugmentationConfig(), Target(torch.device("meta")), data=DataConfig(Path("x")))
    assert request.networks()[0].config["window"] == 80
    small = StyleGAN2Generator(32, 3, 8, 8, channel_base=128, channel_max=8, window=80)
    assert DFMGANGenerator.from_backbone(small).config["window"] == 80


@pytest.mark.parametrize("name", ["stage1", "dfmgan", "cdc", "diffaug"])
def test_a_recipe_of_strips_counts_all_of_their_pixels(name):
    method = get_method(name)
    square, strip = (method.resolve("small", RecipeConfig(aspect=aspect), None, 1) for aspect in (None, (1, 4)))
    assert (square.aspect, square.image_size) == ((1, 1), (64, 64))
    assert (strip.aspect, strip.image_size) == ((1, 4), (64, 256))
    assert strip.r1_gamma == pytest.approx(4 * square.r1_gamma)
    assert strip.discriminator_config()["aspect"] == strip.network_config()["aspect"] == (1, 4)


def test_the_shape_is_the_backbone_s():
    backbone = StyleGAN2Generator(32, 3, 8, 8, channel_base=128, channel_max=8, aspect=(2, 1))
    judge = StyleGAN2Discriminator(32, 3, channel_base=128, channel_max=8, aspect=(2, 1))
    assert get_method("dfmgan").resolve("small", RecipeConfig(), (backbone, judge), 1).aspect == (2, 1)
    with pytest.raises(ValueError, match=r"`aspect` is \(2, 1\) in the pretrained backbone and cannot be \(1, 2\)"):
        get_method("dfmgan").resolve("small", RecipeConfig(aspect=(1, 2)), (backbone, judge), 1)


def test_methods_of_squares_refuse_other_shapes():
    for name in ("sdgan", "defect_gan"):
        with pytest.raises(ValueError, match="`aspect` has no meaning for"):
            get_method(name).resolve("small", RecipeConfig(aspect=(1, 2)), None, 1)
    with pytest.raises(ValueError, match="`aspect` must be height and width as multiples of the shorter side"):
        RecipeConfig(aspect=(1, 3))
