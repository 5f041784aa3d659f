"""The discriminator on frozen features: what is frozen, what it sees, and where its weights come from."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from dfmgan_hf.models.projected import (
    FEATURE_NETWORK,
    WEIGHTS_VARIABLE,
    WIDTH,
    FeatureWeightsError,
    FrozenFeatures,
    ProjectedDiscriminator,
    RandomMixing,
)


@pytest.fixture(scope="module")
def discriminator() -> ProjectedDiscriminator:
    torch.manual_seed(0)
    return ProjectedDiscriminator(resolution=128)


def images(n: int = 4, size: int = 128, channels: int = 3) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(size)) * 2 - 1


def test_only_the_heads_learn(discriminator):
    learns = ("heads.", "texture.")
    assert all(name.startswith(learns) for name, _ in discriminator.named_parameters())
    before = {name: buffer.clone() for name, buffer in discriminator.named_buffers()}
    discriminator.train()
    optimizer = torch.optim.Adam(discriminator.parameters(), 0.01)
    discriminator(images()).logits.square().mean().backward()
    optimizer.step()
    for name, buffer in discriminator.named_buffers():
        if not name.startswith(learns):  # whose spectral norm keeps vectors
            assert torch.equal(buffer, before[name]), name
    assert all(parameter.grad is not None for parameter in discriminator.parameters())


def test_the_gradient_reaches_the_images(discriminator):
    x = images(size=32).requires_grad_()
    discriminator(x).logits.sum().backward()
    assert (x.grad.abs().amax(dim=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize(("dtype", "changes"), [(torch.float16, True), (torch.bfloat16, False)])
def test_frozen_features_run_in_float16_and_never_in_bfloat16(discriminator, dtype, changes):
    x = images()
    discriminator.eval()  # spectral norm goes on learning otherwise
    discriminator.measure_scales(x)
    expected, scales = discriminator(x).logits, discriminator.mixing.scales.clone()
    discriminator.set_mixed_precision(dtype)
    try:
        discriminator.measure_scales(x)
        x.requires_grad_()
        logits = discriminator(x).logits
        logits.sum().backward()
    finally:
        discriminator.set_mixed_precision(None)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, expected) != changes
    torch.testing.assert_close(logits, expected, rtol=0.05, atol=0.05)
    torch.testing.assert_close(discriminator.mixing.scales, scales, rtol=0.02, atol=0)
    assert (x.grad.abs().amax(dim=(1, 2, 3)) > 0).all()


def test_features_are_timms_up_to_a_sixteenth():
    torch.manual_seed(0)
    frozen = FrozenFeatures(FEATURE_NETWORK)
    reference = timm.create_model(FEATURE_NETWORK, features_only=True).eval()
    state = frozen.network.state_dict()
    reference.load_state_dict({name: state.get(name, value) for name, value in reference.state_dict().items()})
    x = images(2, 64)
    maps = frozen.train()(x)  # it does not go into training mode
    with torch.no_grad():
        # The network expects mean 0.5 and deviation 0.5 of images in [0, 1]: those in [-1, 1], as they are.
        expected = reference(x)[:4]
    assert [tuple(features.shape[1:]) for features in maps] == [(16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4)]
    for features, known in zip(maps, expected, strict=True):
        torch.testing.assert_close(features, known, rtol=1e-4, atol=1e-5)


def test_mixed_maps_see_their_own_scale_and_the_smaller_ones():
    torch.manual_seed(0)
    mixing = RandomMixing([3, 5, 7])
    maps = [torch.randn(2, 3, 16, 16), torch.randn(2, 5, 8, 8), torch.randn(2, 7, 4, 4)]
    before = mixing(maps)
    assert [tuple(x.shape) for x in before] == [(2, WIDTH, 16, 16), (2, WIDTH, 8, 8), (2, WIDTH, 4, 4)]
    for changed in range(3):
        others = [x + 1 if i == changed else x for i, x in enumerate(maps)]
        differs = [not torch.equal(a, b) for a, b in zip(mixing(others), before, strict=True)]
        assert differs == [i <= changed for i in range(3)]


def test_measured_scales_bring_maps_to_unit_deviation():
    torch.manual_seed(0)
    mixing = RandomMixing([3, 5])
    maps = [torch.randn(8, 3, 16, 16) * 50, torch.randn(8, 5, 8, 8) / 50]
    mixing.measure(maps)
    assert mixing(maps)[1].std().item() == pytest.approx(1, rel=1e-4)
    # The larger one has the smaller one's share on top.
    assert 1 < mixing(maps)[0].std().item() < 2


@pytest.mark.parametrize(
    ("resolution", "size", "patches"), [(32, 32, 256), (64, 16, 256), (128, 128, 1024), (256, 64, 4096)]
)
def test_every_head_has_sixteen_patches_and_the_texture_head_a_quarter_of_the_pixels_a_side(resolution, size, patches):
    logits = ProjectedDiscriminator(resolution)(images(2, size)).logits
    assert logits.shape == (2, 5, patches)
    counts = [len(head.unique()) for head in logits[0]]
    assert max(counts[:4]) <= 16
    assert counts[4] > 0.9 * patches


def test_the_texture_head_judges_windows_of_18_pixels(discriminator):
    x = images(1).requires_grad_()
    discriminator.texture(x)[0, 0, 16, 16].backward()
    rows = x.grad.abs().amax(dim=(0, 1, 3)).nonzero()
    assert rows.max() - rows.min() == 17


def test_smaller_images_are_judged_enlarged(discriminator):
    small = images(2, 64)
    large = torch.nn.functional.interpolate(small, size=128, mode="bilinear", align_corners=False)
    torch.testing.assert_close(discriminator.eval()(small).logits, discriminator(large).logits)


def test_another_number_of_channels_is_refused(discriminator):
    with pytest.raises(ValueError, match=r"`images` must be \(N, 3, H, W\), but is \(2, 1, 64, 64\)"):
        discriminator(images(2, 64, channels=1))


# --- ImageNet's weights ---


def test_weights_come_from_the_file_that_the_environment_names(tmp_path, monkeypatch):
    torch.manual_seed(1)
    state = timm.create_model(FEATURE_NETWORK).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "model.safetensors"))
    discriminator = ProjectedDiscriminator.from_features(resolution=32)
    found = discriminator.features.network.state_dict()
    assert len(found) > 100
    assert all(torch.equal(value, state[name]) for name, value in found.items())


@pytest.mark.parametrize("content", [None, b"not weights"])
def test_weights_that_cannot_be_had_are_named_with_a_way_out(tmp_path, monkeypatch, content):
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(path))
    with pytest.raises(FeatureWeightsError, match=r"model\.safetensors.*hf download timm/.*stylegan2"):
        ProjectedDiscriminator.from_features(resolution=32)


def test_saved_weights_need_no_download(tmp_path, monkeypatch, discriminator):
    monkeypatch.setenv(WEIGHTS_VARIABLE, "nowhere")
    discriminator.eval().save_pretrained(tmp_path)
    again = ProjectedDiscriminator.from_pretrained(tmp_path)
    torch.testing.assert_close(again(images()).logits, discriminator(images()).logits)
