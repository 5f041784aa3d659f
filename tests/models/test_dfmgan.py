"""The generators as networks: sizes, configuration, the backbone inside, latents, precision and gradients."""

import math

import pytest
import torch

from dfmgan_hf import DFMGANGenerator, StyleGAN2Generator
from dfmgan_hf.models.dfmgan import gate
from dfmgan_hf.models.layers import EqualizedLayer
from dfmgan_hf.models.stylegan2 import NoiseInput, hold_weights
from tests.parameters import backbone_parameters, defect_parameters


def latents(n: int = 2, width: int = 16, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=source), torch.randn(n, width, generator=source)


# Sizes and configuration


@pytest.mark.parametrize("image_channels", [1, 3])
@pytest.mark.parametrize("resolution", [32, 64, 128, 256, 512, 1024])
def test_every_resolution(make_generator, resolution, image_channels):
    model = make_generator(
        resolution=resolution,
        image_channels=image_channels,
        channel_base=2 * resolution,
        channel_max=4,
        residual_resolution=min(64, resolution),
    )
    with torch.no_grad():
        out = model(*latents(1), noise_mode="const", return_defect_free=True)
    assert out.images.shape == out.defect_free_images.shape == (1, image_channels, resolution, resolution)
    assert out.mask_logits.shape == (1, 1, resolution, resolution)
    assert all(torch.isfinite(v).all() for v in out.values())
    assert model.num_latents == 2 * (resolution.bit_length() - 1) - 2
    assert model.num_defect_latents == 2 * (resolution // min(64, resolution)).bit_length() + 1


def test_default_channels_grow_from_512_on():
    with torch.device("meta"):
        small, large = StyleGAN2Generator(resolution=256), StyleGAN2Generator(resolution=512)
    assert small.synthesis.blocks["256"].conv1.weight.shape == (64, 64, 3, 3)
    assert large.synthesis.blocks["256"].conv1.weight.shape == (128, 128, 3, 3)
    assert large.synthesis.blocks["512"].conv1.weight.shape == (64, 64, 3, 3)
    assert small.synthesis.blocks["4"].conv1.weight.shape == (512, 512, 3, 3)


@pytest.mark.parametrize("first", [8, 16, 32])
def test_residual_blocks_start_where_told(make_generator, first):
    model = make_generator(residual_resolution=first)
    assert list(model.defect_blocks) == [str(r) for r in (8, 16, 32) if r >= first]
    assert model(*latents()).mask_logits.shape == (2, 1, 32, 32)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"resolution": 48}, "`resolution` must be a power of two from 32 to 1024, but is 48"),
        ({"resolution": 16}, "`resolution` .* 16"),
        ({"resolution": 2048}, "`resolution` .* 2048"),
        ({"image_channels": 4}, "`image_channels` must be 1 or 3, but is 4"),
        ({"channel_base": 16}, "`channel_base` must be at least the resolution 32, but is 16"),
        ({"residual_resolution": 64}, "`residual_resolution` must be a power of two from 8 to 32, but is 64"),
        ({"residual_resolution": 4}, "`residual_resolution` .* 4"),
        ({"residual_resolution": 24}, "`residual_resolution` .* 24"),
    ],
)
def test_impossible_configurations(make_generator, config, message):
    with pytest.raises(ValueError, match=message):
        make_generator(**config)


# The backbone inside the DFMGAN generator


def test_from_backbone_keeps_every_tensor(make_backbone):
    backbone = make_backbone(image_channels=1)
    model = DFMGANGenerator.from_backbone(backbone, residual_resolution=16)
    assert model.config.image_channels == 1
    assert model.config.residual_resolution == 16
    ours = model.state_dict()
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(ours[name], tensor), name
        assert ours[name].data_ptr() != tensor.data_ptr(), f"{name} is shared: training one would change the other"
    for name, tensor in ours.items():
        assert not tensor.is_meta
        assert torch.isfinite(tensor).all(), name
    # A new branch, as every new layer starts: not zeros, not leftovers of memory.
    assert model.defect_blocks["16"].conv0.weight.std().item() == pytest.approx(1, abs=0.1)
    names = {id(p) for p in backbone_parameters(model)}
    assert names.isdisjoint(id(p) for p in defect_parameters(model))
    assert len(names) + len(defect_parameters(model)) == len(list(model.parameters()))


def test_from_backbone_draws_the_backbones_images(make_backbone):
    backbone = make_backbone()
    model = DFMGANGenerator.from_backbone(backbone, residual_resolution=16)
    objects, defects = latents()
    twins = model(objects, defects, noise_mode="const", return_defect_free=True).defect_free_images
    assert torch.equal(twins, backbone(objects, noise_mode="const").images)


def test_from_backbone_of_a_loaded_folder(make_backbone, tmp_path):
    backbone = make_backbone()
    backbone.save_pretrained(tmp_path)
    model = DFMGANGenerator.from_backbone(StyleGAN2Generator.from_pretrained(tmp_path))
    assert model.config.residual_resolution == 8, "64, or a quarter of the resolution below 256"
    assert torch.equal(model.mapping.w_avg, backbone.mapping.w_avg)


def test_from_backbone_is_strict(make_backbone):
    backbone = make_backbone()
    backbone.register_buffer("surplus", torch.zeros(1))
    with pytest.raises(RuntimeError, match=r"unexpected .*surplus"):
        DFMGANGenerator.from_backbone(backbone)
    backbone = make_backbone()
    del backbone.synthesis.blocks["8"].conv1.noise_const
    with pytest.raises(RuntimeError, match=r"missing .*synthesis\.blocks\.8\.conv1\.noise_const"):
        DFMGANGenerator.from_backbone(backbone)
    backbone = make_backbone()
    backbone.mapping.w_avg = torch.zeros(5)
    with pytest.raises(RuntimeError, match="w_avg"):
        DFMGANGenerator.from_backbone(backbone)


def test_the_trunk_is_computed_once_for_the_triplet(make_generator):
    model = make_generator(resolution=64, residual_resolution=32)
    calls: dict[str, int] = {}

    def count(name):
        return lambda *_: calls.__setitem__(name, calls.get(name, 0) + 1)

    for name, module in model.named_modules():
        if name.endswith(("conv0", "conv1")):
            module.register_forward_hook(count(name))
    model(*latents(), return_defect_free=True)
    # The twin shares everything up to the backbone's block at the first residual resolution; above, it has its own.
    for r in (4, 8, 16, 32):
        assert calls[f"synthesis.blocks.{r}.conv1"] == 1
    assert calls["synthesis.blocks.64.conv1"] == 2
    assert calls["defect_blocks.32.conv1"] == calls["defect_blocks.64.conv1"] == 1
    calls.clear()
    model(*latents())
    assert set(calls.values()) == {1}


def test_the_gate_is_equation_1_and_open_at_zero():
    logits = torch.tensor([-1.0, -0.0, 0.0, 1.0]).reshape(1, 1, 2, 2)
    features, residual = torch.full((1, 3, 2, 2), 5.0), torch.full((1, 3, 2, 2), 2.0)
    expected = torch.tensor([5.0, 7.0, 7.0, 7.0]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert torch.equal(gate(features, residual, logits), expected)


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 4, 2.0])
@pytest.mark.parametrize("steepness", [0.01, 3.0])
def test_a_soft_gate_rises_over_the_first_pixel_inside(angle, steepness):
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    distance = (x - 5.3) * math.cos(angle) + (y - 5.3) * math.sin(angle)
    logits = (steepness * distance).reshape(1, 1, 12, 12)
    opened = gate(torch.zeros(1, 2, 12, 12), torch.ones(1, 2, 12, 12), logits, soft=True)
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # at the image's edge there is no slope beyond
    torch.testing.assert_close(opened[inside], distance.clamp(0, 1).expand(1, 2, 12, 12)[inside])


def test_a_soft_gate_leaves_thin_defects_and_flat_masks_whole():
    line = torch.full((1, 1, 9, 9), -1.0)
    line[:, :, 4] = 1
    opened = gate(torch.zeros(1, 1, 9, 9), torch.ones(1, 1, 9, 9), line, soft=True)
    assert torch.equal(opened, (line > 0).float())
    full = gate(torch.zeros(1, 1, 9, 9), torch.ones(1, 1, 9, 9), torch.ones(1, 1, 9, 9), soft=True)
    assert torch.equal(full, torch.ones(1, 1, 9, 9))


def test_a_soft_gate_changes_drawn_defects_alone_and_is_kept(make_generator, tmp_path):
    hard, soft = make_generator().eval(), make_generator(soft_gate=True).eval()
    soft.load_state_dict(hard.state_dict())
    draw = {"noise_mode": "const", "return_defect_free": True}
    a, b = (model(*latents(), **draw) for model in (hard, soft))
    assert torch.equal(a.defect_free_images, b.defect_free_images)
    assert torch.equal(a.mask_logits, b.mask_logits)
    assert not torch.equal(a.images, b.images)
    off = soft(*latents(), **draw, mask_threshold=soft.config.conv_clamp)
    assert torch.equal(off.images, off.defect_free_images)
    # Training goes by the published gate.
    assert torch.equal(soft.train()(*latents(), **draw).images, hard.train()(*latents(), **draw).images)
    soft.save_pretrained(tmp_path)
    assert torch.equal(type(soft).from_pretrained(tmp_path)(*latents(), **draw).images, b.images)


def test_the_gate_adds_the_residual_where_the_mask_is_on(make_generator):
    model = make_generator()
    objects, defects = latents()
    clamp = model.config.conv_clamp
    off = model(objects, defects, noise_mode="const", return_defect_free=True, mask_threshold=clamp)
    assert torch.equal(off.images, off.defect_free_images)
    on = model(objects, defects, noise_mode="const", return_defect_free=True, mask_threshold=-clamp)
    assert torch.equal(on.defect_free_images, off.defect_free_images)
    assert (on.images != on.defect_free_images).float().mean() > 0.99


# Latents


@pytest.mark.parametrize("space", ["w", "w+"])
def test_latent_spaces_draw_the_same(make_generator, space):
    model = make_generator()
    objects, defects = latents()
    w, defect_w = model.mapping(objects), model.defect_mapping(defects)
    if space == "w+":
        w = w.unsqueeze(1).repeat(1, model.num_latents, 1)
        defect_w = defect_w.unsqueeze(1).repeat(1, model.num_defect_latents, 1)
    expected = model(objects, defects, noise_mode="const")
    actual = model(w, defect_w, noise_mode="const", object_latent_space=space, defect_latent_space=space)
    assert torch.equal(actual.images, expected.images)
    assert torch.equal(actual.mask_logits, expected.mask_logits)


def test_every_layer_latent_matters(make_generator):
    model = make_generator()
    objects, defects = latents(1)
    ws = model.mapping(objects).unsqueeze(1).repeat(1, model.num_latents, 1).requires_grad_()
    defect_ws = model.defect_mapping(defects).unsqueeze(1).repeat(1, model.num_defect_latents, 1).requires_grad_()
    out = model(ws, defect_ws, object_latent_space="w+", defect_latent_space="w+", mask_threshold=-256.0)
    gradients = torch.autograd.grad(out.images.square().sum() + out.mask_logits.square().sum(), [ws, defect_ws])
    for gradient in gradients:
        assert (gradient.abs().sum(dim=(0, 2)) > 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"object_latents": torch.zeros(2, 8)}, r"`object_latents` in space 'z' must be \(N, 16\), but is \(2, 8\)"),
        ({"defect_latents": torch.zeros(2, 5, 16)}, r"`defect_latents` in space 'z' must be \(N, 16\)"),
        ({"object_latent_space": "w+"}, r"`object_latents` in space 'w\+' must be \(N, 8, 16\), but is \(2, 16\)"),
        ({"defect_latent_space": "w+"}, r"`defect_latents` in space 'w\+' must be \(N, 5, 16\), but is \(2, 16\)"),
        ({"object_latent_space": "x"}, "`object_latents` must be 'z', 'w' or 'w\\+', but is 'x'"),
        ({"defect_latents": torch.zeros(3, 16)}, "`object_latents` holds 2 samples, `defect_latents` 3"),
        ({"noise_mode": "fixed"}, "`noise_mode` must be one of"),
        (
            {"object_latent_space": "w", "defect_latent_space": "w", "truncation_psi": 0.5},
            "`truncation_psi` acts on z",
        ),
    ],
)
def test_wrong_arguments(make_generator, arguments, message):
    call = {"object_latents": torch.zeros(2, 16), "defect_latents": torch.zeros(2, 16), **arguments}
    with pytest.raises(ValueError, match=message):
        make_generator()(**call)


def test_truncation_of_w_is_refused_by_the_backbone(make_backbone):
    with pytest.raises(ValueError, match="`truncation_psi` acts on z"):
        make_backbone()(torch.zeros(1, 16), truncation_psi=0.5, latent_space="w")


def test_noise_is_shared_by_image_and_twin(make_generator):
    model = make_generator()
    out = model(*latents(), noise_mode="random", return_defect_free=True, mask_threshold=256.0)
    assert torch.equal(out.images, out.defect_free_images)


# Precision and memory format


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision_weights(make_generator, dtype, tolerance):
    model = make_generator()
    objects, defects = latents()
    with torch.no_grad():
        exact = model(objects, defects, noise_mode="const", return_defect_free=True)
        half = model.to(dtype)(objects, defects, noise_mode="const", return_defect_free=True)
    assert half.images.dtype == half.mask_logits.dtype == torch.float32
    assert all(torch.isfinite(v).all() for v in half.values())
    error = (half.defect_free_images - exact.defect_free_images).abs().max()
    assert error < tolerance * exact.defect_free_images.abs().max()


def test_float16_survives_large_styles(make_generator):
    """Weights and latents far outside the usual: what would overflow half precision stays finite."""
    model = make_generator()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("affine.bias"):
                parameter.fill_(300.0)
            elif name.endswith("const"):
                parameter.mul_(100)
    with torch.no_grad():
        out = model.half()(*latents(), noise_mode="const", return_defect_free=True)
    assert all(torch.isfinite(v).all() for v in out.values())


def test_mixed_precision_leaves_parameters_and_outputs_in_float32(make_generator):
    model = make_generator()
    objects, defects = latents()
    exact = model(objects, defects, noise_mode="const", return_defect_free=True)
    model.set_mixed_precision(torch.bfloat16, num_resolutions=2)
    assert [model.compute_dtype(r) for r in (4, 8, 16, 32)] == [torch.float32] * 2 + [torch.bfloat16] * 2
    mixed = model(objects, defects, noise_mode="const", return_defect_free=True)
    assert mixed.images.dtype == mixed.mask_logits.dtype == torch.float32
    assert not torch.equal(mixed.images, exact.images)
    assert (mixed.defect_free_images - exact.defect_free_images).abs().max() < 0.1
    mixed.images.mean().backward()
    assert {p.grad.dtype for p in backbone_parameters(model)} == {torch.float32}
    model.set_mixed_precision(None)
    assert torch.equal(model(objects, defects, noise_mode="const").images, exact.images)


def test_float64_agrees_with_float32(make_generator):
    model = make_generator()
    objects, defects = latents()
    single = model(objects, defects, noise_mode="const", return_defect_free=True)
    double = model.double()(objects.double(), defects.double(), noise_mode="const", return_defect_free=True)
    assert double.images.dtype == torch.float64
    for name in ("mask_logits", "defect_free_images"):
        assert (single[name] - double[name]).abs().max() < 1e-5 * double[name].abs().max()
    flips = (single.mask_logits >= 0) != (double.mask_logits >= 0)
    assert not flips.any()
    assert (single.images - double.images).abs().max() < 1e-5 * double.images.abs().max()


def test_channels_last_draws_the_same(make_generator):
    model = make_generator()
    objects, defects = latents()
    expected = model(objects, defects, noise_mode="const", return_defect_free=True)
    actual = model.to(memory_format=torch.channels_last)(objects, defects, noise_mode="const", return_defect_free=True)
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_held_weights_change_nothing(make_generator, dtype):
    generator = make_generator().double()
    generator.set_mixed_precision(dtype)
    codes = torch.stack(latents()).double()
    with torch.no_grad():
        free = generator(*codes, noise_mode="const", return_defect_free=True)
        with hold_weights(generator):
            held = [generator(*codes, noise_mode="const", return_defect_free=True) for _ in range(2)]
    generator.set_mixed_precision(None)
    for out in held:
        for a, b in zip(out.to_tuple(), free.to_tuple(), strict=True):
            torch.testing.assert_close(a, b)
    assert all(module.kept is None for module in generator.modules() if isinstance(module, EqualizedLayer))


# Gradients


def test_path_length_has_a_second_derivative(make_backbone):
    """The gradient of a gradient's norm against finite differences, through the whole network."""
    model = make_backbone(channel_base=64, channel_max=4).double()
    w = model.mapping(torch.randn(1, 16, generator=torch.Generator().manual_seed(1)).double())
    ws = w.unsqueeze(1).repeat(1, model.num_latents, 1).detach()
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)).double()

    def length(ws):
        images = model.synthesize(ws, NoiseInput("const", 1))
        (gradient,) = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
        return gradient.square().sum()

    (gradient,) = torch.autograd.grad(length(ws.requires_grad_()), ws)
    direction = torch.randn(ws.shape, generator=torch.Generator().manual_seed(3)).double()
    step = 1e-6
    ends = [length((ws + s * step * direction).detach().requires_grad_()) for s in (1, -1)]
    torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=0)
    gradients = torch.autograd.grad(length(ws), list(model.synthesis.parameters()), allow_unused=True)
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)
    assert any((g != 0).any() for g in gradients if g is not None)


def test_the_image_teaches_the_mask_nothing(make_generator):
    model = make_generator()
    out = model(*latents(), return_defect_free=True)
    of_image = torch.autograd.grad(out.images.sum(), [model.to_mask.weight], allow_unused=True, retain_graph=True)
    assert of_image == (None,)
    (of_mask,) = torch.autograd.grad(out.mask_logits.sum(), [model.to_mask.weight], retain_graph=True)
    assert (of_mask != 0).any()
    of_twin = torch.autograd.grad(out.defect_free_images.sum(), defect_parameters(model), allow_unused=True)
    assert set(of_twin) == {None}
