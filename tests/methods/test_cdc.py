"""CDC: the distance consistency, two routes through the discriminator, a frozen source."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from dfmgan_hf import StyleGAN2Discriminator
from dfmgan_hf.methods.cdc import CDCConfig, CDCTask, cross_domain_consistency, synthesis_features
from dfmgan_hf.models import fused
from dfmgan_hf.models.discriminator import PatchHeadDiscriminator, available_taps
from dfmgan_hf.training import Batch, RunningStatistics
from tests.parameters import set_noise_strength
from tests.training import tiny


def make_task(**settings) -> CDCTask:
    torch.manual_seed(0)
    generator, discriminator = tiny.make_networks()
    set_noise_strength(generator, 0.3)
    return CDCTask(
        generator,
        copy.deepcopy(generator),
        PatchHeadDiscriminator.from_discriminator(discriminator),
        CDCConfig(**{**tiny.FAST, "num_anchors": 3, **settings}),
    )


def batch(n: int = 4) -> Batch:
    return Batch(tiny.drawn_set(n).images / 127.5 - 1)


@pytest.mark.parametrize(
    ("resolution", "sizes"), [(256, [32, 32, 16, 16]), (128, [16, 16, 8, 8]), (64, [8, 8, 4]), (32, [4])]
)
def test_taps_see_the_same_share_of_the_image_at_every_resolution(resolution, sizes):
    taps = available_taps(resolution)
    assert [block if conv == "conv0" else block // 2 for block, conv in taps] == sizes
    network = PatchHeadDiscriminator(resolution=resolution, channel_base=resolution, channel_max=4, num_taps=len(taps))
    images = torch.randn(2, 3, resolution, resolution)
    for tap, size in enumerate(sizes):
        assert network.judge_patches(images, tap).shape == (2, 1, size, size)


def test_patch_logits_are_those_of_the_features_inside():
    torch.manual_seed(0)
    network = PatchHeadDiscriminator(resolution=64, channel_base=256, channel_max=8, num_taps=3)
    images = torch.randn(2, 3, 64, 64)
    seen = {}
    for r, conv in network.taps:
        getattr(network.blocks[str(r)], conv).register_forward_hook(
            lambda _m, _i, output, key=(r, conv): seen.update({key: output})
        )
    network(images)
    for tap, key in enumerate(network.taps):
        torch.testing.assert_close(network.judge_patches(images, tap), network.patch_heads[tap](seen[key]))


def test_whole_images_are_judged_as_by_stage_1():
    torch.manual_seed(0)
    discriminator = StyleGAN2Discriminator(**tiny.SIZES)
    with_heads = PatchHeadDiscriminator.from_discriminator(discriminator)
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(with_heads(images).logits, discriminator(images).logits)


def test_heads_survive_a_save(tmp_path):
    network = PatchHeadDiscriminator(resolution=32, channel_base=64, channel_max=4)
    network.save_pretrained(tmp_path)
    loaded = PatchHeadDiscriminator.from_pretrained(tmp_path)
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded.judge_patches(images, 0), network.judge_patches(images, 0))


def test_every_fourth_step_judges_whole_images_near_anchors():
    task = make_task(anchor_std=0.0)
    routes, sizes = [], []
    for step in range(8):
        task.after_step(step, RunningStatistics())
        routes.append(task.judges_patches)
        sizes.append(tuple(task.judge(batch().images).shape))
    assert routes == [False, True, True, True] * 2
    assert sizes == ([(4, 1)] + [(4, 1, 4, 4)] * 3) * 2

    task.after_step(4, RunningStatistics())
    _, ws = task._draw(20)
    assert len(ws[:, 0].unique(dim=0)) == 3, "without noise the latents are the three anchors"
    assert (ws == ws[:, :1]).all(), "no style mixing near anchors"
    task.after_step(5, RunningStatistics())
    _, ws = task._draw(20)
    assert len(ws[:, 0].unique(dim=0)) == 20


def test_each_route_trains_its_own_part_of_the_discriminator():
    for step, whole in ((0, True), (1, False)):
        task = make_task()
        task.after_step(step, RunningStatistics())
        network = task.discriminator
        network.requires_grad_(True)
        task.discriminator_loss(batch(), RunningStatistics()).backward()
        trained = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
        assert trained == ({"blocks", "head"} if whole else {"blocks", "patch_heads"})


def test_r1_averages_patches_first():
    """R1's value must not grow with the number of patches: it is that of one logit an image."""
    task = make_task()
    task.after_step(1, RunningStatistics())
    images = batch().images.requires_grad_()
    (gradient,) = torch.autograd.grad(task.judge(images).mean(dim=(1, 2, 3)).sum(), images)
    expected = task.settings.r1_gamma / 2 * gradient.square().sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(task.r1_loss(batch(), RunningStatistics()), expected)


def test_untrained_copy_is_consistent_with_its_source_as_they_share_noise():
    assert make_task().consistency(4).item() == pytest.approx(0.0, abs=1e-9)


def test_features_are_those_of_all_3x3_convolutions():
    task = make_task()
    z = torch.randn(2, tiny.Z_DIM)
    features, w = synthesis_features(task.source, z, noise_seed=1)
    assert [f.shape[-1] for f in features] == [4, 8, 8, 16, 16, 32, 32]
    assert w.shape == (2, tiny.Z_DIM)
    again, _ = synthesis_features(task.source, z, noise_seed=1)
    other, _ = synthesis_features(task.source, z, noise_seed=2)
    assert all(torch.equal(a, b) for a, b in zip(features, again, strict=True))
    assert not torch.equal(features[0], other[0])
    assert not any(module._forward_hooks for module in task.source.modules())


def test_features_are_found_where_drawing_is_fused(monkeypatch):
    """As on a GPU in half precision, without gradients: its operators call no layer."""
    monkeypatch.setattr(fused, "applies", lambda network, ws: True)
    monkeypatch.setattr(fused, "synthesize", lambda *arguments, **options: (torch.zeros(2, 3, 32, 32), None))
    source = make_task().source
    with torch.no_grad():
        features, _ = synthesis_features(source, torch.randn(2, source.config["z_dim"]), noise_seed=1)
    assert len(features) == 7


def test_source_stays_as_it_is(tmp_path):
    task = make_task()
    before = {name: value.clone() for name, value in task.source.state_dict().items()}
    tiny.make_trainer(task, tmp_path, checkpoint_steps=0).train()
    tiny.assert_same_tensors(dict(task.source.state_dict()), before)
    assert not torch.equal(task.generator.synthesis.blocks["4"].const, before["synthesis.blocks.4.const"])


def test_small_micro_batches_compare_as_many_samples_as_the_whole_batch():
    task, compared = make_task(), []
    compare = task.consistency
    task.consistency = lambda n: compared.append(n) or compare(n)
    for n in (4, 2, 1):
        assert task.generator_loss(batch(n), RunningStatistics()).isfinite()
    assert compared == [4, 4, 4]
    with pytest.raises(ValueError, match="`batch_size` must be at least 3, but it is 2"):
        make_task(batch_size=2)


def features(*vectors: list[float]) -> list[Tensor]:
    """One layer with a feature vector for each sample, as maps (B, C, 1, 1)."""
    return [torch.tensor(vectors)[:, :, None, None]]


def random_features(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(5, 4, r, r, generator=generator, dtype=torch.float64) for r in (4, 8)]


def test_nothing_to_say_about_itself():
    source = random_features(0)
    assert cross_domain_consistency(source, source, [0, 1, 1, 0, 1]).item() == pytest.approx(0.0, abs=1e-12)


def test_length_of_features_does_not_matter():
    """Similarities are those of directions: a target that is a scaled source has the same ones."""
    source = random_features(0)
    target = [3.0 * layer for layer in source]
    assert cross_domain_consistency(source, target, [0, 1, 1, 0, 1]).item() == pytest.approx(0.0, abs=1e-12)


def test_equally_similar_samples_are_consistent_with_others_that_are_equally_similar():
    """Orthogonal vectors and identical ones: in both, no sample is nearer than another."""
    orthogonal = features([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    identical = features([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    assert cross_domain_consistency(orthogonal, identical, [0, 0, 0]).item() == pytest.approx(0.0, abs=1e-7)


def test_value_by_hand():
    """Three samples: 0 and 1 alike, 2 orthogonal to both, against a target in which all are orthogonal.

    Similarities to the two others are (1, 0), (1, 0), (0, 0); softmax gives (s, 1 - s) with s = e / (e + 1), twice,
    and (1/2, 1/2). The target is (1/2, 1/2) three times.
    """
    source = features([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    target = features([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    s = math.e / (math.e + 1)
    divergence = s * math.log(2 * s) + (1 - s) * math.log(2 * (1 - s))
    expected = 2 * divergence / (3 * 2)
    assert cross_domain_consistency(source, target, [0, 0, 0]).item() == pytest.approx(expected, rel=1e-6)
    # The other direction of the divergence is another number.
    swapped = (math.log(1 / (2 * s)) + math.log(1 / (2 * (1 - s)))) / 2
    assert cross_domain_consistency(target, source, [0, 0, 0]).item() == pytest.approx(2 * swapped / 6, rel=1e-5)


def test_every_sample_is_compared_at_its_own_layer():
    source, target = random_features(0), random_features(1)
    both = [cross_domain_consistency(source, target, [layer] * 5).item() for layer in (0, 1)]
    mixed = cross_domain_consistency(source, target, [0, 0, 1, 1, 1]).item()
    same = [source[0], source[0]], [target[0], target[0]]
    assert cross_domain_consistency(*same, [0, 1, 0, 1, 1]).item() == pytest.approx(both[0])
    assert mixed not in both


def test_known_optimum_is_reached_by_descent_and_the_source_gets_no_gradient():
    source = [layer.requires_grad_() for layer in random_features(0)]
    target = [layer.requires_grad_() for layer in random_features(1)]
    layers = [0, 1, 0, 1, 0]
    optimizer = torch.optim.Adam(target, lr=0.05)
    before = cross_domain_consistency(source, target, layers).item()
    for _ in range(60):
        optimizer.zero_grad()
        cross_domain_consistency(source, target, layers).backward()
        optimizer.step()
    assert cross_domain_consistency(source, target, layers).item() < 1e-3 * before
    assert all(layer.grad is None for layer in source)
