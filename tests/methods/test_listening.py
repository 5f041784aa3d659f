"""A stage 2 that listens: several kinds of defect in one model, and masks that are given."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dfmgan_hf import DFMGANGenerator, DFMGANPipeline, StyleGAN2Discriminator
from dfmgan_hf.data import DataConfig, ImageMaskDataset
from dfmgan_hf.export.generate import ExportConfig, draw_samples
from dfmgan_hf.export.writers import ExportError
from dfmgan_hf.hub.cards import CardFacts, build_model_card, facts_from_folder
from dfmgan_hf.losses import VISIBLE_CHANGE, unchanged_inside
from dfmgan_hf.methods import open_sampler
from dfmgan_hf.methods.dfmgan import (
    METHOD,
    MOVES,
    Given,
    Stage2Options,
    Stage2Task,
    build_match_discriminator,
    move_masks,
    plan_drawing,
    render,
    with_kinds,
)
from dfmgan_hf.methods.method import SamplerRequest
from dfmgan_hf.methods.train import train as run_training
from dfmgan_hf.models.discriminator import KindCodes
from dfmgan_hf.models.stylegan2 import MappingNetwork
from dfmgan_hf.training import Batch, BatchStream, RunningStatistics
from tests.methods.test_joint_defects import KINDS, RUN, SIZES
from tests.parameters import defect_parameters, set_noise_strength
from tests.training import tiny

pytestmark = pytest.mark.usefixtures("no_report")


def joint_task(**settings) -> Stage2Task:
    """A task of two kinds on tiny networks."""
    torch.manual_seed(0)
    backbone, discriminator = tiny.make_networks()
    generator = DFMGANGenerator.from_backbone(backbone, defect_names=KINDS)
    config = tiny.make_stage2(joint=True, **settings).settings
    return Stage2Task(generator, with_kinds(discriminator, 2), build_match_discriminator(backbone, "small", 2), config)


def labelled_batch() -> Batch:
    data = tiny.drawn_set(4)
    return Batch(data.images / 127.5 - 1, data.masks / 127.5 - 1, torch.tensor([0, 1, 1, 1]))


# --- kinds in the networks ---


def test_kinds_enter_the_defect_mapping_and_nothing_else():
    torch.manual_seed(0)
    backbone, _ = tiny.make_networks()
    plain = DFMGANGenerator.from_backbone(backbone)
    joint = DFMGANGenerator.from_backbone(backbone, defect_names=KINDS)
    assert plain.state_dict().keys() - joint.state_dict().keys() == set()
    assert joint.state_dict().keys() - plain.state_dict().keys() == {
        "defect_mapping.kinds.weight",
        "defect_mapping.conditioning",
    }
    objects, defects = torch.randn(2, 3, tiny.Z_DIM).unbind()
    first, second = (
        joint(objects, defects, torch.full((3,), k), noise_mode="const", return_defect_free=True) for k in range(2)
    )
    assert torch.equal(first.defect_free_images, second.defect_free_images)
    assert not torch.equal(first.mask_logits, second.mask_logits)


def test_conditioning_at_zero_tells_no_kinds_apart():
    mapping = MappingNetwork(8, 8, 2, num_kinds=3)
    z = torch.randn(5, 8)
    kinds = [torch.full((5,), k) for k in range(3)]
    assert not torch.equal(mapping(z, kinds=kinds[0]), mapping(z, kinds=kinds[2]))
    mapping.conditioning.zero_()
    assert torch.equal(mapping(z, kinds=kinds[0]), mapping(z, kinds=kinds[2]))


def test_truncation_goes_to_the_average_of_the_kind():
    mapping = MappingNetwork(8, 8, 2, num_kinds=2)
    mapping.w_avg[1] += 3
    z, kinds = torch.randn(2, 8), torch.tensor([0, 1])
    assert torch.equal(mapping(z, 0.0, kinds), mapping.w_avg)


def test_kinds_must_be_given_where_there_are_some_and_only_there():
    z = torch.randn(1, 8)
    with pytest.raises(ValueError, match="numbers from 0 to 1, one for each latent, but is None"):
        MappingNetwork(8, 8, 2, num_kinds=2)(z)
    with pytest.raises(ValueError, match="`kinds` must be None"):
        MappingNetwork(8, 8, 2)(z, kinds=torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="numbers from 0 to 1, one for each image"):
        KindCodes(2, 4)(None)


@pytest.mark.parametrize("names", [("dot",), ("dot", "dot"), ("dot", "")])
def test_names_are_different_and_at_least_two(names):
    backbone, _ = tiny.make_networks()
    with pytest.raises(ValueError, match="different names of at least two kinds"):
        DFMGANGenerator.from_backbone(backbone, defect_names=names)


def test_discriminators_start_as_they_were_and_learn_to_tell_kinds_apart():
    _, discriminator = tiny.make_networks()
    model = with_kinds(discriminator, 2)
    assert isinstance(model, StyleGAN2Discriminator)
    images = torch.randn(4, 3, 32, 32)
    kinds = torch.tensor([0, 0, 1, 1])
    torch.testing.assert_close(model(images, kinds=kinds).logits, discriminator(images).logits)
    model(images, kinds=kinds).logits.sum().backward()
    assert (model.kinds.codes.grad.abs().sum(dim=1) > 0).all(), "codes that are zero can still learn"
    with torch.no_grad():
        model.kinds.codes[1] += 1
    same = torch.isclose(model(images, kinds=kinds).logits, discriminator(images).logits, atol=1e-5).flatten()
    assert same.tolist() == [True, True, False, False]


# --- training ---


def test_fakes_are_of_the_kinds_of_the_batch_and_pairs_of_one_kind():
    task = joint_task()
    kinds = task._plan(labelled_batch()).given.kinds
    assert kinds.tolist() == [0, 1, 0, 1], "the mode-seeking loss pairs halves"
    with pytest.raises(ValueError, match="photographs of several kinds, with their labels"):
        task._plan(Batch(torch.zeros(4, 3, 32, 32), torch.zeros(4, 1, 32, 32)))


def test_masks_that_are_given_are_of_the_kinds_that_are_asked_for(monkeypatch):
    monkeypatch.setattr("dfmgan_hf.methods.dfmgan.move_masks", lambda masks: masks)
    task = joint_task(given_masks=1.0)
    # Each kind's masks have a row of their own.
    labels, masks = torch.tensor([0, 1, 1, 0]), torch.full((4, 1, 32, 32), -1.0)
    masks[torch.arange(4), 0, labels] = 1
    given = task._plan(Batch(torch.zeros(4, 3, 32, 32), masks, labels)).given
    assert given.masks[:, 0, :2, 0].to(torch.int64).argmax(dim=1).tolist() == given.kinds.tolist()


@pytest.mark.parametrize("settings", [{}, {"given_masks": 0.5}])
def test_every_phase_has_finite_gradients_of_all_that_it_trains(settings):
    task = joint_task(conditioning_kimg=0.0, **settings)
    statistics = RunningStatistics()
    for phase in task.phases:
        for parameter in phase.parameters:
            parameter.requires_grad_(True).grad = None
        if phase.prepare is not None:
            phase.prepare([labelled_batch()])
        phase.loss(labelled_batch(), statistics).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in phase.parameters), phase.name
        if phase.finish is not None:
            phase.finish()
        for parameter in phase.parameters:
            parameter.requires_grad_(False)
    assert (task.generator.defect_mapping.w_avg.abs().sum(dim=1) > 0).all(), "the average of each kind moves"
    assert ("loss/inside" in statistics.collect()) == bool(settings)


def test_kinds_count_more_and_more():
    task = joint_task(conditioning_kimg=0.016)
    found = []
    for step in range(6):
        found.append(task.generator.defect_mapping.conditioning.item())
        assert task.discriminator.kinds.conditioning.item() == task.match_discriminator.kinds.conditioning.item()
        task.after_step(step + 1, RunningStatistics())
    assert found == [0, 0.25, 0.5, 0.75, 1, 1]


@pytest.mark.parametrize(("kinds", "at_a_time"), [(2, 2), (4, 4), (8, 4), (3, 6)])
def test_every_kind_is_generated_however_the_batch_is_split(kinds, at_a_time):
    data, labels = tiny.drawn_set(kinds), torch.arange(kinds)
    names = tuple("abcdefgh"[:kinds])
    source = ImageMaskDataset(data.images, data.masks, data.file_names, labels=labels, kinds=names)
    stream, task = BatchStream(source, batch_size=at_a_time, seed=0, balanced=True), joint_task()
    counts = torch.zeros(2, kinds)
    for step in range(200):
        batch = stream.at(at_a_time * step)
        for row, n in enumerate((at_a_time, at_a_time // 2)):  # of the generator, of the path length
            counts[row] += task._fake_kinds(batch, n).bincount(minlength=kinds)
    shares = counts / counts.mean(dim=1, keepdim=True)
    assert shares.min() > 0.7
    assert shares.max() < 1.3


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_kinds_are_as_many_as_the_images(n):
    assert len(joint_task()._fake_kinds(Batch(torch.zeros(6), None, torch.arange(6) % 2), n)) == n


def test_what_is_missing_inside_of_given_masks_is_the_same_however_the_batch_is_split(monkeypatch):
    task = joint_task(given_masks=0.5)
    monkeypatch.setattr(
        "dfmgan_hf.methods.dfmgan.unchanged_inside", lambda images, twins, masks: 1.0 * masks.flatten(1).any(1)
    )
    batch, found = labelled_batch(), {}
    for parts in (1, 2):
        total = 0.0
        for seed in range(100):
            torch.manual_seed(seed)
            statistics = RunningStatistics()
            pieces = [
                Batch(*(t.split(4 // parts)[i] for t in (batch.images, batch.masks, batch.labels)))
                for i in range(parts)
            ]
            task.prepare(pieces)
            for piece in pieces:
                task.generator_loss(piece, statistics)
            total += statistics.collect()["loss/inside"] / 100
        found[parts] = total
    assert found == pytest.approx({1: 1.0, 2: 1.0}, abs=0.15)


def test_batches_show_all_kinds_equally_often():
    data = tiny.drawn_set(7)
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 2])
    source = ImageMaskDataset(data.images, data.masks, data.file_names, labels=labels, kinds=("a", "b", "c"))
    stream = BatchStream(source, batch_size=6, seed=1, balanced=True)
    batches = [stream.at(start) for start in range(0, 60, 6)]
    for batch in batches:
        assert batch.labels.bincount().tolist() == [2, 2, 2]
    shown = torch.cat([b.images[b.labels == 0] for b in batches[:5]])  # two passes of the largest kind
    assert len(shown.flatten(1).unique(dim=0)) == 5
    assert torch.equal(stream.at(12).images, BatchStream(source, batch_size=6, seed=1, balanced=True).at(12).images)


def test_a_set_without_kinds_is_shuffled_as_ever():
    plain, balanced = (BatchStream(tiny.drawn_set(), batch_size=4, seed=5, balanced=b) for b in (False, True))
    for start in range(0, 40, 4):
        assert torch.equal(plain.at(start).images, balanced.at(start).images)


# --- masks that are given ---


def test_given_masks_put_the_defect_and_own_masks_stay_where_nothing_is_given():
    torch.manual_seed(1)
    generator = tiny.make_stage2().generator
    set_noise_strength(generator, 0.0)
    masks = torch.zeros(4, 1, 32, 32, dtype=torch.bool)
    masks[:, :, 8:16, 16:32] = True
    follows = torch.tensor([True, False, True, False])
    plan = plan_drawing(generator, 4, 0.0, Given(masks=masks, follows=follows))
    with torch.no_grad():
        drawing = render(generator, plan, with_twins=True)
        own = generator.synthesize_defect(drawing.trunk, drawing.ws, drawing.defect_ws)
        asked = generator.synthesize_defect(drawing.trunk, drawing.ws, drawing.defect_ws, masks=masks)
    for i, follow in enumerate(follows.tolist()):
        expected = asked if follow else own
        torch.testing.assert_close(drawing.images[i], expected.images[i])
    used = drawing.given.used_masks(drawing.mask_logits)
    assert torch.equal(used[follows], masks[follows] * 2.0 - 1)
    torch.testing.assert_close(used[~follows], torch.tanh(10 * own.mask_logits[~follows]))


def test_masks_are_moved_a_little():
    torch.manual_seed(0)
    masks = torch.zeros(200, 1, 32, 32, dtype=torch.bool)
    masks[:, :, 14:18, 10:22] = True
    moved = move_masks(masks)
    assert moved.dtype == torch.bool
    assert moved.shape == masks.shape
    areas = moved.sum(dim=(1, 2, 3)) / 48
    assert 1 / 2.5 < areas.min() < 0.75
    assert 1.3 < areas.max() < 2.5
    assert len(moved.flatten(1).unique(dim=0)) > 190
    for places, middle in ((torch.arange(32)[:, None], 15.5), (torch.arange(32), 15.5)):
        found = (moved * places).sum(dim=(1, 2, 3)) / moved.sum(dim=(1, 2, 3))
        assert 3 < (found - middle).abs().max() <= 4.5, "up to an eighth of the image"
    nothing = move_masks(torch.zeros(1, 1, 32, 32, dtype=torch.bool))
    assert not nothing.any()


def test_masks_of_strips_keep_their_proportions(monkeypatch):
    monkeypatch.setitem(MOVES, "scale", 1.0)
    torch.manual_seed(0)
    masks = torch.zeros(100, 1, 32, 128, dtype=torch.bool)
    masks[:, :, 14:18, 50:70] = True
    moved = move_masks(masks)[:, 0].float()
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(128.0), indexing="ij")
    weight = moved / moved.sum(dim=(1, 2), keepdim=True)
    variance = sum(
        (weight * (places - (weight * places).sum(dim=(1, 2), keepdim=True)) ** 2).sum(dim=(1, 2)) for places in (x, y)
    )
    # Turned by up to 30 degrees, a bar of 20 by 4 pixels is still one.
    torch.testing.assert_close(variance, torch.full_like(variance, (400 + 16 - 2) / 12), rtol=0.12, atol=0)
    lines = (moved.sum(dim=1) > 0).sum(dim=1)
    assert lines.min() < 20


@pytest.mark.parametrize(
    ("change", "expected"), [(0.0, 1.0), (VISIBLE_CHANGE / 2, 0.5), (VISIBLE_CHANGE, 0.0), (1, 0)]
)
def test_what_does_not_change_inside_a_mask_costs(change: float, expected: float):
    twins = torch.zeros(2, 3, 4, 4)
    masks = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    masks[0, :, :2] = True  # the other sample's is empty
    images = twins + change * masks
    assert unchanged_inside(images, twins, masks).tolist() == pytest.approx([expected, 0])


def test_the_loss_of_given_masks_teaches_the_residual_blocks(monkeypatch):
    monkeypatch.setattr("dfmgan_hf.losses.VISIBLE_CHANGE", 100.0)  # more than new residual blocks change
    task = tiny.make_stage2(given_masks=1.0, inside_weight=5.0, match="none", mode_seeking_weight=0.0)
    for parameter in defect_parameters(task.generator):
        parameter.requires_grad_(True)
    batch = Batch(labelled_batch().images, labelled_batch().masks)
    statistics = RunningStatistics()
    task.prepare([batch])
    task.generator_loss(batch, statistics).backward()
    assert 0 < statistics.collect()["loss/inside"] <= 1
    assert any(p.grad.abs().sum() > 0 for p in task.generator.defect_blocks.parameters() if p.grad is not None)


@pytest.mark.parametrize("wrong", [{"given_masks": -0.1}, {"given_masks": 1.5}, {"inside_weight": -1.0}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Stage2Options(**wrong)


# --- the whole way, by the command line ---


@pytest.fixture(scope="module")
def trained(category, tmp_path_factory) -> Path:
    """A model of both kinds that also learnt to follow masks."""
    folder = tmp_path_factory.mktemp("listening")
    where = ["--data_dir", str(category), *SIZES, *RUN]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dfmgan_hf.training.run.try_report", lambda _: None)
        run_training(["stage1", *where, "--output_dir", str(folder / "stage1"), "--total_kimg=0.004"])
        listens = [
            "--joint",
            "--given_masks=0.5",
            "--conditioning_kimg=0",
            "--pretrained_backbone",
            str(folder / "stage1"),
        ]
        sizes = [size for size in where if not size.startswith(("--resolution", "--image_c", "--channel", "--preset"))]
        listens += [*sizes, "--preset=small", "--total_kimg=0.008"]
        run_training(["stage2", *listens, "--output_dir", str(folder / "stage2")])
        run_training(["stage2", *listens[:-1], "--total_kimg=0.004", "--output_dir", str(folder / "again")])
        resume = "--resume_from_checkpoint=latest"
        run_training(["stage2", *listens, "--output_dir", str(folder / "again"), resume])
    return folder


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(trained):
    for network in ("generator", "discriminator", "match_discriminator"):
        name = f"{network}/diffusion_pytorch_model.safetensors"
        assert (trained / "stage2" / name).read_bytes() == (trained / "again" / name).read_bytes()


def test_a_saved_model_knows_its_kinds_and_draws_them_on_demand(trained):
    record = json.loads((trained / "stage2/training_config.json").read_text())
    assert record["defect"] == "dot, spot"
    pipe = DFMGANPipeline.from_pretrained(str(trained / "stage2"))
    assert pipe.defect_names == list(KINDS)
    both = pipe(seeds=[3, 3], defect=["dot", "spot"], output_type="pt")
    assert both.defects == ["dot", "spot"]
    assert torch.equal(both.defect_free_images[0], both.defect_free_images[1])
    alone = pipe(seeds=[3], defect="spot", output_type="pt")
    assert torch.equal(alone.images[0], both.images[1])
    assert torch.equal(pipe(seeds=[3, 3], defect="spot", output_type="pt").images[1], both.images[1])
    by_seed = pipe(seeds=range(12), output_type="pt")
    assert set(by_seed.defects) == set(KINDS)
    assert pipe(seeds=[7], output_type="pt").defects == [by_seed.defects[7]], "a kind follows from its seed alone"
    with pytest.raises(ValueError, match="draws no 'dent'; it knows dot, spot"):
        pipe(seeds=[1], defect="dent")
    with pytest.raises(ValueError, match="must hold 2 to go with `defect`"):
        pipe(seeds=[1, 2, 3], defect=["dot", "spot"])


def test_a_model_of_one_kind_has_none_to_choose(trained):
    generator = DFMGANGenerator(**tiny.SIZES, z_dim=16, w_dim=16, residual_resolution=8)
    pipe = DFMGANPipeline(generator)
    assert pipe.defect_names == []
    assert pipe(seeds=[1]).defects is None
    with pytest.raises(ValueError, match="draws no 'dot'; it knows a single kind of defect"):
        pipe(seeds=[1], defect="dot")
    backbone = DFMGANPipeline.from_pretrained(str(trained / "stage1"))
    with pytest.raises(ValueError, match="backbone without defects"):
        backbone(seeds=[1], defect="dot")


def test_samplers_exports_and_painting_take_the_kind(trained, category, tmp_path):
    source = str(trained / "stage2")
    data = DataConfig(data_dir=category)
    drawn: dict[str, Tensor] = {}
    pipe = DFMGANPipeline.from_pretrained(source)
    for kind in KINDS:
        sampler = open_sampler(SamplerRequest(source=source, data=data, defect=kind))
        assert sampler.settings["defect"] == kind
        drawn[kind], _ = sampler.sample_at([3], seed=2)
        config = ExportConfig(tmp_path / kind, num_images=1, defect=kind, seed=4, max_mask_area=1.0, min_mask_area=0.0)
        (sample,) = draw_samples(pipe, config, [0])
        expected = pipe(seeds=[sample.record.seed], defect=kind).images[0]
        image = Image.open(io.BytesIO(sample.image))
        assert np.array_equal(np.asarray(image), np.asarray(expected))
    assert not torch.equal(drawn["dot"], drawn["spot"])
    with pytest.raises(ExportError, match="draws the defects dot, spot, but not 'defect': say which with --defect"):
        next(iter(draw_samples(pipe, ExportConfig(tmp_path / "none", num_images=1), [0])))

    with torch.no_grad():  # two steps of training leave black and white, on which nothing can be painted
        for name, parameter in pipe.generator.named_parameters():
            if name.endswith(("to_rgb.weight", "to_rgb.bias")):
                parameter.mul_(0.02)
    photograph = np.full((40, 40), 120, dtype=np.uint8)
    box = (10, 10, 30, 30)
    painted = {
        kind: pipe.paint(photograph, mask=box, seeds=[5], defect=kind, any_product=True, window=0, strength=4)
        for kind in KINDS
    }
    assert painted["dot"].placements[0][0].defect == "dot"
    assert np.asarray(painted["dot"].labels[0]).any()
    assert not np.array_equal(painted["dot"].images[0], painted["spot"].images[0])
    chosen = pipe.paint(photograph, mask=box, seeds=[5], any_product=True, window=0, strength=4)
    assert np.array_equal(chosen.images[0], painted[chosen.placements[0][0].defect].images[0])
    with pytest.raises(ValueError, match="draws no 'dent'"):
        pipe.paint(photograph, mask=box, defect="dent")


def test_the_card_names_the_kinds(trained):
    card = str(build_model_card(trained / "stage2", CardFacts(product="plates")))
    assert 'It draws dot, spot: `pipe(seeds=range(8), defect="dot")`' in card
    assert facts_from_folder(trained / "stage2").defect == 'the defects "dot" and "spot"'


def test_both_stages_of_the_method_are_joint_on_demand():
    assert METHOD.is_joint(Stage2Options(joint=True))
    assert not METHOD.is_joint(Stage2Options())
