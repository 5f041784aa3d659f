"""The warp agrees with a direct evaluation of its definition, wherever a map reaches."""

from __future__ import annotations

import math

import pytest
import torch

from dfmgan_hf.augmentation.ada import draw_parameters, inverse_maps, lookup_bilinear, lookup_by_gathering, warp
from dfmgan_hf.augmentation.wavelets import SYM6
from tests.augmentation.quantile import Quantile

CPU = torch.device("cpu")


def drawn_images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def similarity(scale: float = 1.0, angle: float = 0.0, x: float = 0.0, y: float = 0.0) -> torch.Tensor:
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    return torch.tensor([[cos, -sin, x], [sin, cos, y], [0.0, 0.0, 1.0]])


def warp_by_definition(image: torch.Tensor, inverse_map: torch.Tensor) -> torch.Tensor:
    """One (H, W) image, every doubled sample on its own: a sum over an endlessly reflected image."""
    height, width = image.shape
    low_pass = [tap / math.sqrt(2) for tap in SYM6]

    def fold(index: int, size: int) -> int:
        index %= 2 * size - 2
        return min(index, 2 * size - 2 - index)

    def taps(u: int, size: int) -> torch.Tensor:
        row = torch.zeros(size, dtype=image.dtype)
        for j, tap in enumerate(low_pass):
            if (u + 5 - j) % 2 == 0:
                row[fold((u + 5 - j) // 2, size)] += 2 * tap
        return row

    def doubled(v: int, u: int) -> float:
        return float(taps(v, height) @ image @ taps(u, width))

    def look_up(v: int, u: int) -> float:
        x, y = (u - (width - 1)) / 2, (v - (height - 1)) / 2
        source_x, source_y, _ = (inverse_map.double() @ torch.tensor([x, y, 1.0], dtype=torch.float64)).tolist()
        source_u, source_v = 2 * source_x + width - 1, 2 * source_y + height - 1
        left, top = math.floor(source_u), math.floor(source_v)
        right_share, bottom_share = source_u - left, source_v - top
        upper = doubled(top, left) * (1 - right_share) + doubled(top, left + 1) * right_share
        lower = doubled(top + 1, left) * (1 - right_share) + doubled(top + 1, left + 1) * right_share
        return upper * (1 - bottom_share) + lower * bottom_share

    rows, columns = range(-5, 2 * height + 5), range(-5, 2 * width + 5)
    looked_up = torch.tensor([[look_up(v, u) for u in columns] for v in rows], dtype=image.dtype)
    filtered = torch.tensor(low_pass, dtype=image.dtype)
    halved = looked_up.unfold(0, len(SYM6), 2) @ filtered
    return halved.unfold(1, len(SYM6), 2) @ filtered


@pytest.mark.parametrize(
    "inverse_map",
    [
        pytest.param(similarity(angle=0.3), id="rotated"),
        pytest.param(similarity(scale=0.6, angle=2.0, x=1.3, y=-0.4), id="enlarged"),
        pytest.param(similarity(scale=3.5, angle=-0.7), id="shrunk to less than the reflection's period"),
        pytest.param(similarity(x=37.25, y=-61.5), id="shifted by many sizes"),
        pytest.param(torch.diag(torch.tensor([-1.0, 1.0, 1.0])), id="mirrored"),
    ],
)
@pytest.mark.parametrize("shape", [(6, 6), (5, 8)], ids=["square", "oblong"])
def test_warp_agrees_with_its_definition(inverse_map: torch.Tensor, shape: tuple[int, int]):
    image = drawn_images(*shape)
    expected = warp_by_definition(image, inverse_map)
    warped = warp(image[None, None], inverse_map[None])[0, 0]
    torch.testing.assert_close(warped, expected, rtol=0, atol=2e-5)


def test_images_of_a_batch_do_not_depend_on_each_other(monkeypatch):
    images = drawn_images(5, 3, 16, 16)
    maps = torch.stack([similarity(1 + 0.2 * i, 0.5 * i, x=3.0 * i) for i in range(5)])  # the first is the identity
    alone = torch.cat([warp(images[i : i + 1], maps[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(warp(images, maps), alone, rtol=0, atol=1e-5)
    monkeypatch.setattr("dfmgan_hf.augmentation.ada._CPU_SAMPLES_AT_ONCE", 2 * 16 * 3 * 16 * 16)
    torch.testing.assert_close(warp(images, maps), alone, rtol=0, atol=1e-5)


def test_identity_maps_leave_their_images_alone_bit_for_bit():
    images = drawn_images(3, 1, 8, 8).float()
    maps = torch.stack([similarity(), similarity(angle=1.0), similarity()])
    warped = warp(images, maps)
    assert torch.equal(warped[[0, 2]], images[[0, 2]])
    assert not torch.allclose(warped[1], images[1], atol=0.1)
    assert warp(images, similarity().expand(3, 3, 3)) is images


@pytest.mark.parametrize(
    ("transform", "quantile", "expected"),
    [
        ("xflip", 0.75, [[-1, 0, 0], [0, 1, 0]]),
        ("rotate90", 0.6, [[-1, 0, 0], [0, -1, 0]]),  # of a strip only the half turn is left
        ("xint", 0.9, [[1, 0, -6], [0, 1, -3]]),  # 0.8 * 0.125 * (64, 32), rounded
        ("scale", 0.75, [[0.93599, 0, 0], [0, 0.93599, 0]]),  # 2^-(0.2 erfinv(0.5))
        ("aniso", 0.75, [[0.93599, 0, 0], [0, 1.06839, 0]]),
        ("rotate", 0.75, [[0, -1, 0], [1, 0, 0]]),
        ("xfrac", 0.75, [[1, 0, -3.8155], [0, 1, -1.9077]]),  # 0.125 erfinv(0.5) (64, 32)
    ],
)
def test_each_transform_has_the_range_of_the_paper(transform: str, quantile: float, expected: list[list[float]]):
    draws = Quantile(2, quantile)
    maps = inverse_maps(draw_parameters(frozenset({transform}), draws, height=32, width=64))
    wanted = torch.tensor([*expected, [0, 0, 1]], dtype=torch.float32)
    torch.testing.assert_close(maps, wanted.expand(2, 3, 3), rtol=0, atol=1e-4)


def test_a_square_is_turned_by_quarters():
    maps = inverse_maps(draw_parameters(frozenset({"rotate90"}), Quantile(2, 0.3), height=32, width=32))
    wanted = torch.tensor([[0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float32)
    torch.testing.assert_close(maps, wanted.expand(2, 3, 3), rtol=0, atol=1e-4)


def test_both_lookups_interpolate_and_agree():
    images = drawn_images(2, 3, 5, 7)
    grid = drawn_images(2, 4, 6, 2)
    grid[0, 0, :3] = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    looked_up = lookup_bilinear(images, grid)
    torch.testing.assert_close(
        looked_up[0, :, 0, :3].T, torch.stack([images[0, :, i, j] for i, j in ((0, 0), (4, 6), (2, 3))])
    )
    torch.testing.assert_close(lookup_by_gathering(images, grid), looked_up)
    inputs = (images.requires_grad_(), grid)
    assert torch.autograd.gradgradcheck(lookup_bilinear, inputs)
    assert torch.autograd.gradgradcheck(lookup_by_gathering, inputs)
    gradients = [
        torch.autograd.grad(f(*inputs).square().sum(), images)[0] for f in (lookup_bilinear, lookup_by_gathering)
    ]
    torch.testing.assert_close(*gradients)


def test_products_round_as_convolutions_on_a_gpu_alone(monkeypatch):
    """Which meta tensors stand for."""
    seen = []
    plain = torch.bmm

    def bmm(a, b):
        seen.append((a.device.type, torch.get_float32_matmul_precision()))
        return plain(a, b)

    monkeypatch.setattr(torch, "bmm", bmm)

    def derivatives(device, allowed):
        images = torch.zeros(2, 3, 16, 16, device=device, requires_grad=True)
        with torch.backends.cudnn.flags(allow_tf32=allowed):
            warp(images, 2 * torch.eye(3, device=device).expand(2, 3, 3)).sum().backward()

    for device, allowed in (("meta", True), ("meta", False), ("cpu", True)):
        derivatives(device, allowed)
    assert set(seen[:4]) == {("meta", "high")}
    assert set(seen[4:8]) == {("meta", "highest")}
    assert set(seen[8:]) == {("cpu", "highest")}
    assert len(seen) > 8
    assert torch.get_float32_matmul_precision() == "highest"
