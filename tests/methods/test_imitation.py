"""Latents and noise that stand for photographs while a generator imitates them."""

from __future__ import annotations

import pytest
import torch

from dfmgan_hf.methods.imitation import PhotographCodes, PhotographNoise
from dfmgan_hf.models.stylegan2 import MappingNetwork


def test_codes_of_photographs_are_their_principal_components_and_noise():
    torch.manual_seed(0)
    # Photographs that differ in two ways: how bright they are, and, half as much, by how much left exceeds right.
    ramp = torch.linspace(-1, 1, 32)
    bright, steep = torch.randn(40, 1, 1, 1), torch.randn(40, 1, 1, 1) / 2
    photographs = (128 + 20 * (bright + steep * ramp)).expand(-1, 3, 32, -1).round().clamp(0, 255).to(torch.uint8)
    photographs = photographs.to(torch.float32) / 127.5 - 1
    codes = PhotographCodes(photographs.split(16), z_dim=8)
    z = codes(photographs)
    assert z.shape == (40, 8)
    known = torch.stack([bright.flatten(), steep.flatten()])
    correlation = torch.corrcoef(torch.cat([known, z.t()]))[:2, 2:].abs()
    assert correlation[0, 0] > 0.99
    assert correlation[1, 1] > 0.99
    torch.testing.assert_close(z[:, :2].std(dim=0), torch.ones(2), atol=1e-3, rtol=0)
    # The other half is new each time; the first is not.
    again = codes(photographs)
    torch.testing.assert_close(again[:, :4], z[:, :4])
    assert (again[:, 4:] - z[:, 4:]).abs().min() > 0


def test_photographs_leave_the_generators_of_all_devices_as_they_are(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    photographs = torch.linspace(-1, 1, 4 * 3 * 64 * 64).view(4, 3, 64, 64).sin()
    PhotographNoise([photographs], PhotographCodes([photographs], z_dim=16))
    assert not seeded
    assert torch.equal(torch.get_rng_state(), before)


def test_codes_of_kinds_are_standardised_each_by_itself():
    torch.manual_seed(0)
    labels = torch.tensor([0] * 9 + [1] * 4 + [2])
    photographs = torch.rand(14, 3, 32, 32) + labels[:, None, None, None]
    codes = PhotographCodes([photographs], z_dim=16, labels=labels)
    z = codes(photographs, labels)
    assert codes.is_coded.sum(dim=1).tolist() == [8, 3, 0]  # one fewer than photographs
    for kind, count in ((0, 8), (1, 3)):
        coded = z[labels == kind, :count]
        torch.testing.assert_close(coded.mean(dim=0), torch.zeros(count), atol=1e-4, rtol=0)
        torch.testing.assert_close(coded.std(dim=0), torch.ones(count), atol=1e-3, rtol=0)
    again = codes(photographs, labels)
    is_noise = ~torch.nn.functional.pad(codes.is_coded, (0, 8))[labels]
    assert torch.equal(again == z, ~is_noise)


def test_mapping_networks_listen_to_codes_first():
    torch.manual_seed(0)
    codes = PhotographCodes([torch.rand(9, 3, 32, 32)], z_dim=512)
    for num_kinds in (0, 3):
        mapping = MappingNetwork(512, 512, 2, num_kinds)
        before = mapping.layers[0].weight.detach().clone()
        codes.amplify(mapping)
        weight = mapping.layers[0].weight.detach()
        energy = weight[:, :512].square().sum(dim=0)
        assert energy[:8].sum() / energy.sum() == pytest.approx(0.9, abs=0.01)
        assert energy.sum() == pytest.approx(before[:, :512].square().sum().item(), rel=0.05)
        assert torch.equal(weight[:, 512:], before[:, 512:])


def test_a_single_photograph_has_no_code():
    codes, photograph = PhotographCodes([torch.rand(1, 3, 32, 32)], z_dim=16), torch.rand(2, 3, 32, 32)
    assert codes(photograph).shape == (2, 16)
    mapping = MappingNetwork(16, 16, 2)
    before = mapping.layers[0].weight.detach().clone()
    codes.amplify(mapping)
    assert torch.equal(mapping.layers[0].weight, before)


def spotted(n: int, height: int = 64, width: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Photographs (n, 3, height, width) of one product, more or less bright, with red spots, and where these lie."""
    product = torch.linspace(-0.5, 0.5, width).expand(3, height, -1) + 0.2 * torch.randn(n, 1, 1, 1)
    spots = torch.nn.functional.interpolate((torch.rand(n, 1, height // 2, width // 2) < 0.02).float(), scale_factor=2)
    return product - 0.4 * spots * torch.tensor([0.0, 1.0, 1.0])[:, None, None], spots[:, 0] > 0


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 128)])
def test_noise_of_photographs_is_normal_and_says_where_details_lie(height, width):
    torch.manual_seed(0)
    photographs, spots = spotted(80, height, width)
    codes = PhotographCodes([photographs], z_dim=64)
    details = PhotographNoise(photographs.split(30), codes)
    noise = details(photographs, codes(photographs))
    assert {r: tuple(n.shape) for r, n in noise.items()} == {32: (80, 1, height // 2, width // 2)}
    values, inside = noise[32][:, 0], spots[:, ::2, ::2]
    assert values.mean().abs() < 0.02
    assert values.std() == pytest.approx(1, abs=0.02)
    assert values.pow(4).mean() == pytest.approx(3, abs=0.2)  # a normal distribution's
    assert (values[inside].mean() - values[~inside].mean()).abs() > 1
    assert not PhotographNoise([photographs[..., :32, :32]], codes).resolutions, "images are too small"


def test_noise_leaves_out_what_the_code_says():
    torch.manual_seed(0)
    # A ridge that is as high as its photograph is bright follows from the code; grain does not.
    bright = torch.randn(60, 1, 1, 1)
    ridge = torch.zeros(64, 64)
    ridge[:, 31] = 0.6
    grain = 0.1 * torch.randn(60, 3, 64, 64)
    photographs = 0.2 * bright + bright * ridge + grain
    codes = PhotographCodes([photographs], z_dim=2)
    noise = PhotographNoise(photographs.split(30), codes)(photographs, codes(photographs))[32][:, 0]
    along, by_code = noise[:, :, 15], bright[:, 0]
    assert (along * by_code).mean().abs() < 0.1
    assert along.std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("n", [1, 2])
def test_noise_of_photographs_that_codes_tell_all_of_is_noise(n):
    photographs = torch.rand(n, 1, 64, 64)
    codes = PhotographCodes([photographs], z_dim=8)
    noise = PhotographNoise(photographs.split(30), codes)(photographs, codes(photographs))[32]
    assert noise.isfinite().all()
    assert noise.std() == pytest.approx(1, abs=0.15)
