"""Which augmentation a method gets, which values are refused, and what a model knows of its photographs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dfmgan_hf.augmentation import AugmentPipe, DiffAugment
from dfmgan_hf.data import DataConfig
from dfmgan_hf.methods import get_method
from dfmgan_hf.methods.method import (
    AugmentationConfig,
    RecipeConfig,
    Target,
    TaskRequest,
    build_augmentation,
    default_batch_size,
)
from dfmgan_hf.methods.train import TrainingConfig, each_model
from dfmgan_hf.models.dfmgan import DFMGANGenerator
from dfmgan_hf.models.discriminator import StyleGAN2Discriminator
from dfmgan_hf.models.stylegan2 import StyleGAN2Generator
from dfmgan_hf.training.trainer import RunConfig, check_batch

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


@pytest.mark.parametrize(
    "options",
    [
        *({"ada_kimg": 0.0}, {"ada_kimg": -1.0}, {"ada_max": 1.5}, {"ada_max": 0.0}),
        *({"ada_target": 2.0}, {"ada_target": 1.0}, {"ada_target": -1.0}, {"ada_target": float("nan")}),
    ],
)
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match=r"`ada_(kimg|max|target)`"):
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


def test_a_preset_decides_how_many_channels_there_are_and_how_long_is_imitated():
    for name in ("stage1", "diffaug"):
        assert get_method(name).resolve("quick", RecipeConfig(), None, 1).channel_base == 16 * 64
    for resolution, kimg in ((64, 8.0), (256, 32.0), (512, 32.0), (1024, 32.0)):
        recipe = get_method("stage1").resolve("quick", RecipeConfig(resolution=resolution), None, 1)
        assert recipe.imitation_kimg == kimg < recipe.total_kimg


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


@pytest.mark.parametrize(
    ("name", "options"), [("sdgan", {}), ("defect_gan", {}), ("dfmgan", {"match_discriminator": "joint"})]
)
def test_where_nothing_is_augmented_an_augmentation_is_refused(name, options):
    method = get_method(name)
    recipe, chosen = method.resolve("small", RecipeConfig(), None, 1), method.options(**options)
    assert method.settle_augmentation(AugmentationConfig(), recipe, chosen).augmentation == "none"
    with pytest.raises(ValueError, match=r"`augmentation` has no meaning for .* Leave it out"):
        method.settle_augmentation(AugmentationConfig("bgc"), recipe, chosen)


@pytest.mark.parametrize("augmentation", ["none", "diffaugment"])
def test_ada_is_not_set_for_what_does_not_adapt(augmentation):
    method = get_method("stage1")
    recipe = method.resolve("small", RecipeConfig(), None, 1)
    with pytest.raises(ValueError, match="`ada_max` has no effect without an adaptive `augmentation`"):
        method.settle_augmentation(AugmentationConfig(augmentation, ada_max=0.5), recipe, method.options())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("defect_gan", {"discriminator_steps": 0}, "`discriminator_steps` must be finite and at least 1, but is 0"),
        ("defect_gan", {"gradient_penalty_weight": -1.0}, "`gradient_penalty_weight` must be finite and at least 0"),
        ("sdgan", {"cycle_weight": float("inf")}, "`cycle_weight` must be finite and at least 0, but is inf"),
        ("sdgan", {"constant_part": 1.0}, "`constant_part` must be at least 0 and below 1, but is 1.0"),
        ("cdc", {"anchor_interval": 0}, "`anchor_interval` must be finite and at least 1, but is 0"),
        ("dfmgan", {"match_weight": -1.0}, "`match_weight` must be finite and at least 0"),
        ("dfmgan", {"given_masks": 1.5}, "`given_masks` must be a number from 0 to 1, but is 1.5"),
        ("dfmgan", {"inside_weight": 2.0}, "`inside_weight` has no effect without `given_masks`"),
        ("dfmgan", {"conditioning_kimg": 2.0}, "`conditioning_kimg` has no effect without `joint`"),
        ("dfmgan", {"match_discriminator": "none", "match_weight": 2.0}, "`match_weight` has no effect without"),
        ("dfmgan", {"mode_seeking_weight": 0.0, "mode_seeking_on": "image"}, "`mode_seeking_on` has no effect"),
    ],
)
def test_options_that_are_not_possible_or_do_nothing_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        get_method(name).options(**options)


@pytest.mark.parametrize("num_processes", [1, 2, 3, 5, 6, 7, 8, 64, 100])
@pytest.mark.parametrize("resolution", [64, 256, 1024])
def test_default_batches_can_be_shared(resolution, num_processes):
    size = default_batch_size(resolution, num_processes)
    check_batch(size, num_processes, 1)
    assert size <= max(64, num_processes)
    each = size // num_processes
    assert each % 4 == 0 or each < 4


def test_one_checkpoint_is_not_resumed_by_several_models(tmp_path):
    run = RunConfig(output_dir=tmp_path, resume_from_checkpoint=str(tmp_path / "a" / "checkpoints" / "checkpoint-16"))
    config = TrainingConfig(run, get_method("dfmgan").options(), AugmentationConfig(), defect=("dent", "scratch"))
    with pytest.raises(ValueError, match=r"`resume_from_checkpoint` .* is of one model, but 2 are trained"):
        each_model(get_method("dfmgan"), config)
    assert list(each_model(get_method("dfmgan"), replace(config, defect=("dent",)))) == ["dent"]


@pytest.mark.parametrize("joint", [False, True])
def test_several_kinds_are_not_taken_from_the_folder_of_one(tmp_path, joint):
    data = DataConfig(good_dir=tmp_path / "good", defect_dir=tmp_path / "dents", mask_dir=tmp_path / "masks")
    options = get_method("dfmgan").options(joint=joint)
    config = TrainingConfig(RunConfig(output_dir=tmp_path), options, AugmentationConfig(), data=data)
    with pytest.raises(ValueError, match="`defect_dir` holds photographs of one kind of defect, but 2 are named"):
        each_model(get_method("dfmgan"), replace(config, defect=("dent", "scratch")))
    each_model(get_method("dfmgan"), replace(config, defect=("dent",)))
