"""Drawing on windows around the mask against drawing everything."""

import pytest
import torch

from dfmgan_hf.models import DFMGANGenerator
from dfmgan_hf.models.modulated import StyledConv2d, hold_weights
from dfmgan_hf.models.window import Window


@pytest.fixture(scope="module")
def generator() -> DFMGANGenerator:
    torch.manual_seed(0)
    sizes = {"resolution": 64, "z_dim": 8, "w_dim": 8, "channel_base": 256, "residual_resolution": 8}
    model = DFMGANGenerator(**sizes).double().eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, StyledConv2d):
            module.noise_strength.fill_(0.3)
    return model


@pytest.mark.parametrize("noise_mode", ["const", "random"])
@pytest.mark.parametrize("mask_threshold", [0.0, -0.4, 0.4])
@pytest.mark.parametrize("mask_bias", [-2.5, -1.0, 1.0, 3.0], ids=lambda bias: f"bias{bias}")
def test_windows_draw_what_the_whole_maps_do(generator, mask_bias, mask_threshold, noise_mode):
    generator.to_mask.bias.fill_(mask_bias)
    latents = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(1)).double()
    outputs = []
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            out = generator(
                *latents,
                noise_mode=noise_mode,
                generator=[torch.Generator().manual_seed(seed) for seed in range(6)],
                return_defect_free=True,
                mask_threshold=mask_threshold,
            )
        outputs.append(out.to_tuple())
    for whole, windowed in zip(*outputs, strict=True):
        torch.testing.assert_close(windowed, whole)


def test_the_masks_of_the_test_above_are_of_all_kinds(generator):
    """None, some and all of a picture, or nothing would be tested."""
    latents = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(1)).double()
    shares = []
    for bias in (-2.5, -1.0, 3.0):
        generator.to_mask.bias.fill_(bias)
        shares += [float(m.double().mean()) for m in generator(*latents, noise_mode="const").mask_logits >= 0]
    assert min(shares) == 0
    assert max(shares) == 1
    assert any(0 < share < 0.2 for share in shares)


@pytest.mark.parametrize("seed", range(12))
def test_boxes_anywhere(seed, monkeypatch):
    """Windows lie on grids, which are not the same places from one resolution to the next."""
    torch.manual_seed(0)
    sizes = {"resolution": 128, "z_dim": 8, "w_dim": 8, "channel_base": 256, "residual_resolution": 32}
    model = DFMGANGenerator(**sizes).double().eval().requires_grad_(False)
    logits = torch.full((1, 1, 32, 32), -1.0, dtype=torch.float64)
    random = torch.Generator().manual_seed(seed)
    top, left = torch.randint(0, 32, (2,), generator=random).tolist()
    height, width = torch.randint(1, 12, (2,), generator=random).tolist()
    logits[..., top : top + height, left : left + width] = 1.0
    monkeypatch.setattr(model.to_mask, "forward", lambda x, w: logits)
    latents = torch.randn(2, 1, 8, generator=random).double()
    with torch.no_grad():
        windowed = model(*latents, noise_mode="const", return_defect_free=True).to_tuple()
    whole = model(*latents, noise_mode="const", return_defect_free=True).to_tuple()
    for ours, expected in zip(windowed, whole, strict=True):
        torch.testing.assert_close(ours, expected)


def test_window_around_what_is_on():
    on = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    assert Window.around(on) is None
    on[0, 0, 3, 5] = True
    assert Window.around(on) == Window(2, 4, 4, 6)
    assert Window.around(on).grown(3, 8) == Window(0, 7, 1, 8)
    assert torch.equal(Window.around(on).crop(on).nonzero(), torch.tensor([[0, 0, 1, 1]]))


def test_windows_have_few_sizes():
    """Each size costs a program of the convolution library."""
    sizes = set()
    for left in range(64):
        for right in range(left, 64):
            on = torch.zeros(1, 1, 1, 64, dtype=torch.bool)
            on[..., left], on[..., right] = True, True
            window = Window.around(on)
            assert window.left <= left
            assert right < window.right <= 64
            sizes.add(window.right - window.left)
    assert sizes == {8, 16, 24, 32, 40, 48, 56, 64}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_held_weights_change_nothing(generator, dtype):
    generator.set_mixed_precision(dtype)
    latents = torch.randn(2, 2, 8).double()
    with torch.no_grad():
        free = generator(*latents, noise_mode="const", return_defect_free=True)
        with hold_weights(generator):
            held = [generator(*latents, noise_mode="const", return_defect_free=True) for _ in range(2)]
    generator.set_mixed_precision(None)
    for out in held:
        for a, b in zip(out.to_tuple(), free.to_tuple(), strict=True):
            torch.testing.assert_close(a, b)
    assert all(module.held is None for module in generator.modules() if isinstance(module, StyledConv2d))
