from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dfmgan_hf.metrics import BadWeightsError, ProcessGroup, clustered_lpips, load_lpips, lpips_distances
from dfmgan_hf.metrics.networks import LPIPS, FeatureMaps
from tests.metrics.drawn import draw_images, write_alexnet

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "metrics.safetensors")
needs_weights = pytest.mark.skipif(
    not os.environ.get("DFMGAN_LPIPS_WEIGHTS"),
    reason="DFMGAN_LPIPS_WEIGHTS does not name a file with AlexNet and the LPIPS heads",
)


@needs_weights
def test_golden_lpips_and_clustered_lpips():
    lpips = load_lpips("alex")
    to_real = lpips_distances(lpips, GOLDEN["lpips_fake"], GOLDEN["lpips_real"])
    torch.testing.assert_close(to_real, GOLDEN["lpips_distance"], atol=1e-4, rtol=0)
    assert torch.equal(to_real.argmin(dim=1), GOLDEN["cluster_assignment"])
    result = clustered_lpips(to_real, lpips_distances(lpips, GOLDEN["lpips_fake"]))
    assert result.clustered_lpips == pytest.approx(float(GOLDEN["clustered_lpips"]), abs=1e-4)
    assert result.cluster_values == pytest.approx(GOLDEN["cluster_lpips"].tolist(), abs=1e-4)


def reference(net: str, lpips: LPIPS, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Distances (N, M) by the `lpips` package, with our network's weights."""
    package = pytest.importorskip("lpips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips 0.1.4 uses arguments that torchvision has deprecated.
        model = package.LPIPS(net=net, pnet_rand=True, pretrained=False, verbose=False)
    state = {}
    for name in model.state_dict():
        if name.startswith("net."):
            state[name] = lpips.maps.features.state_dict()[name.split(".", 2)[2]]
        elif name.startswith("lin"):
            index = name.split(".")[1] if name.startswith("lins") else name[3]
            state[name] = getattr(lpips, f"sqrt_weights_{index}").square().view(1, -1, 1, 1)
        else:
            state[name] = model.state_dict()[name]
    model.load_state_dict(state)
    with torch.no_grad():
        rows = [model(x[None].expand(len(b), -1, -1, -1) / 127.5 - 1, b / 127.5 - 1).flatten() for x in a]
    return torch.stack(rows)


def test_alexnet_distances_are_those_of_the_lpips_package(lpips_net: LPIPS):
    a, b = draw_images(5, seed=1, size=64), draw_images(3, seed=2, size=64)
    expected = reference("alex", lpips_net, a, b)
    torch.testing.assert_close(lpips_distances(lpips_net, a, b), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(lpips_net(a[:3], b), expected.diagonal(), atol=1e-6, rtol=1e-5)


def test_vgg_distances_are_those_of_the_lpips_package():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        maps = FeatureMaps("vgg")
        lpips = LPIPS(maps, [torch.rand(c) for c in maps.channels], "vgg")
    a, b = draw_images(2, seed=1), draw_images(3, seed=2)
    torch.testing.assert_close(lpips_distances(lpips, a, b), reference("vgg", lpips, a, b), atol=1e-6, rtol=1e-5)


def test_table_is_symmetric_with_a_zero_diagonal_and_copies_at_zero(lpips_net: LPIPS):
    images = draw_images(6)
    images[4] = images[1]
    table = lpips_distances(lpips_net, images)
    assert torch.equal(table, table.T)
    assert torch.equal(table.diagonal(), torch.zeros(6))
    assert table[1, 4] < 1e-6
    assert table[0, 1] > 1e-2


def test_little_memory_gives_the_same_table(lpips_net: LPIPS):
    images, others = draw_images(23, seed=1), draw_images(9, seed=2)
    image_gib = lpips_net.embed(images[:1]).nbytes / 2**30
    for memory in (0.0, 5.5 * image_gib, 12 * image_gib):
        for second in (None, others):
            full = lpips_distances(lpips_net, images, second)
            tight = lpips_distances(lpips_net, images, second, max_memory_gib=memory)
            torch.testing.assert_close(tight, full, atol=1e-6, rtol=1e-5)


def test_memory_limit_holds(lpips_net: LPIPS, monkeypatch: pytest.MonkeyPatch):
    """No more embeddings are alive than fit, plus the tile that is being made."""
    from dfmgan_hf.metrics import diversity as distances

    images = draw_images(40)
    image_bytes = lpips_net.embed(images[:1]).nbytes
    alive: list[int] = []
    original = distances._Tiles.get

    def get(self, index, room):
        result = original(self, index, room)
        alive.append(sum(embedding.nbytes for embedding, _ in self.cache.values()))
        return result

    monkeypatch.setattr(distances._Tiles, "get", get)
    lpips_distances(lpips_net, images, max_memory_gib=10 * image_bytes / 2**30)
    assert max(alive) <= 10 * image_bytes


def test_embedding_happens_once_per_image_when_memory_allows(lpips_net: LPIPS, monkeypatch: pytest.MonkeyPatch):
    embedded: list[int] = []
    original = LPIPS.embed

    def embed(self, images, **options):
        embedded.append(len(images))
        return original(self, images, **options)

    monkeypatch.setattr(LPIPS, "embed", embed)
    monkeypatch.setattr("dfmgan_hf.metrics.diversity._LARGEST_TILE", 8)
    lpips_distances(lpips_net, draw_images(30))
    assert sum(embedded) == 30 + 1  # one more to learn the embedding's size


def test_parts_of_several_processes_add_up(lpips_net: LPIPS, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dfmgan_hf.metrics.diversity._LARGEST_TILE", 4)
    images = draw_images(18)

    class Part(ProcessGroup):
        def __init__(self, rank: int) -> None:
            super().__init__()
            self.rank, self.count = rank, 3

        def sum(self, tensor: torch.Tensor) -> torch.Tensor:
            return tensor

    parts = [lpips_distances(lpips_net, images, processes=Part(rank)) for rank in range(3)]
    assert torch.equal(sum(parts), lpips_distances(lpips_net, images))


def test_grey_and_floating_point_images(lpips_net: LPIPS):
    grey = draw_images(3)[:, :1]
    expected = lpips_net.embed(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(lpips_net.embed(grey), expected)
    torch.testing.assert_close(lpips_net.embed(grey / 127.5 - 1), expected)


def test_bad_images_are_refused(lpips_net: LPIPS):
    images = draw_images(2)
    with pytest.raises(ValueError, match="at least one image"):
        lpips_distances(lpips_net, images[:0])
    with pytest.raises(ValueError, match="at least one image"):
        lpips_distances(lpips_net, images, images[:0])
    with pytest.raises(ValueError, match="one size"):
        lpips_distances(lpips_net, images, draw_images(2, size=64))
    with pytest.raises(ValueError, match=r"must be \(N, 3, H, W\)"):
        lpips_net.embed(images[:, :2])


def test_hash_is_of_the_weights_and_not_of_the_file(tmp_path: Path, lpips_net: LPIPS):
    as_pth = load_lpips("alex", write_alexnet(tmp_path / "alexnet.pth"))
    assert as_pth.network.weights_sha256 == lpips_net.network.weights_sha256
    assert as_pth.network.files != lpips_net.network.files


def test_channel_weights_come_from_the_lpips_package_when_the_file_has_none(tmp_path: Path):
    pytest.importorskip("lpips")
    lpips = load_lpips("alex", write_alexnet(tmp_path / "trunk.pth", heads=False))
    assert [file.name for file in lpips.network.files] == ["trunk.pth", "alex.pth"]
    # LPIPS v0.1's first weights.
    assert lpips.get_buffer("sqrt_weights_0").square().max() == pytest.approx(0.49213886)


@pytest.mark.parametrize("change", ["missing", "shape", "head"])
def test_another_networks_weights_are_refused(tmp_path: Path, alexnet_file: Path, change: str):
    tensors = load_file(alexnet_file)
    if change == "missing":
        del tensors["features.3.weight"]
    elif change == "shape":
        tensors["features.0.bias"] = torch.zeros(3)
    else:
        tensors["lin2.model.1.weight"] = torch.zeros(1, 5, 1, 1)
    path = tmp_path / "wrong.safetensors"
    save_file(tensors, path)
    with pytest.raises(BadWeightsError, match=r"wrong\.safetensors"):
        load_lpips("alex", path)


def test_unknown_network_is_refused():
    with pytest.raises(ValueError, match="alex, vgg"):
        FeatureMaps("squeeze")
