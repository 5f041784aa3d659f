"""LPIPS, tables of its distances, and what is made of them."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from dfmgan_hf.metrics import (
    BadWeightsError,
    clustered_lpips,
    diversity,
    ic_lpips,
    load_lpips,
    lpips_distances,
    nearest_real,
)
from dfmgan_hf.metrics.diversity import mean_pairwise
from dfmgan_hf.metrics.networks import LPIPS, FeatureMaps
from dfmgan_hf.processes import ProcessGroup
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


def test_nothing_is_float64_on_an_apple_gpu(lpips_net: LPIPS, monkeypatch: pytest.MonkeyPatch):
    """Which has none: here the CPU stands for it, and meta for the CPU."""
    on_gpu = SimpleNamespace(device=torch.device("mps"))
    assert diversity._float64_device(on_gpu) == torch.device("cpu")  # type: ignore[arg-type]
    monkeypatch.setattr(diversity, "_float64_device", lambda tensor: torch.device("meta"))

    class NoFloat64(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            assert not isinstance(made, torch.Tensor) or made.is_meta or made.dtype != torch.float64, func
            return made

    tiles = diversity._Tiles(lpips_net, draw_images(3), 3, 16)
    with NoFloat64():
        embeddings, squared = tiles.get(0, 1)
        products = diversity._dot(embeddings, embeddings)
    assert squared.dtype == products.dtype == torch.float64


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


def table(n: int, seed: int = 0) -> torch.Tensor:
    values = torch.rand(n, n, generator=torch.Generator().manual_seed(seed))
    return (values + values.T).fill_diagonal_(0)


def to_real(assignment: list[int], clusters: int) -> torch.Tensor:
    """Distances (N, M) by which image i is nearest to real image assignment[i]."""
    distances = torch.ones(len(assignment), clusters)
    distances[range(len(assignment)), assignment] = 0.1
    return distances


def test_mean_over_clusters_with_and_without_the_small_ones():
    among = table(6)
    result = clustered_lpips(to_real([0, 0, 0, 2, 2, 3], 5), among)
    first = float(among[:3, :3].sum() / 6)
    third = float(among[3, 4])
    assert result.cluster_sizes == [3, 0, 2, 1, 0]
    assert result.cluster_values == pytest.approx([first, 0, third, 0, 0])
    assert result.clustered_lpips == pytest.approx((first + third) / 5)
    assert result.clustered_lpips_nonempty == pytest.approx((first + third) / 2)
    assert (result.num_clusters, result.num_empty, result.num_single) == (5, 2, 1)


def test_a_limit_compares_the_first_members_of_each_cluster():
    among = table(6)
    result = clustered_lpips(to_real([0, 1, 0, 0, 1, 0], 2), among, max_cluster_size=3)
    assert result.cluster_sizes == [4, 2]
    first = float(among[0, 2] + among[0, 3] + among[2, 3]) / 3
    assert result.cluster_values == pytest.approx([first, float(among[1, 4])])
    with pytest.raises(ValueError, match="`max_cluster_size` must be at least 2"):
        clustered_lpips(to_real([0, 1], 2), table(2), max_cluster_size=1)


def test_one_real_image_makes_it_the_pairwise_mean():
    among = table(7)
    result = clustered_lpips(to_real([0] * 7, 1), among)
    assert result.clustered_lpips == result.clustered_lpips_nonempty == pytest.approx(mean_pairwise(among))


def test_no_cluster_has_two_members():
    result = clustered_lpips(to_real([0, 1], 3), table(2))
    assert result.clustered_lpips == 0
    assert math.isnan(result.clustered_lpips_nonempty)
    assert (result.num_empty, result.num_single) == (1, 2)


def test_one_generated_image():
    result = clustered_lpips(to_real([1], 2), torch.zeros(1, 1))
    assert result.clustered_lpips == 0


def test_copies_of_the_real_images_have_no_diversity():
    """Each real image repeated: every cluster's members are equal."""
    result = clustered_lpips(to_real([0, 1, 0, 1], 2), torch.tensor([[0.0, 1], [1, 0]]).repeat(2, 2))
    assert result.clustered_lpips == 0
    assert result.num_empty == result.num_single == 0


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="among_generated"):
        clustered_lpips(to_real([0, 1], 2), table(3))
    with pytest.raises(ValueError, match="among_real"):
        nearest_real(torch.zeros(3, 2), torch.zeros(3, 3))
    with pytest.raises(ValueError, match="at least one image"):
        clustered_lpips(torch.zeros(3, 0), table(3))
    with pytest.raises(ValueError, match="at least 2"):
        mean_pairwise(torch.zeros(1, 1))


def test_ic_lpips_leaves_small_clusters_out_and_asks_for_few_pairs(monkeypatch):
    among = table(70)
    asked: list[int] = []

    def distances(members: torch.Tensor) -> torch.Tensor:
        asked.append(len(members))
        return among[members][:, members]

    result = ic_lpips(to_real([0] * 60 + [1] * 8 + [2] * 1 + [4] * 1, 5), distances)
    assert asked == [50, 8]
    assert result.cluster_sizes == [60, 8, 1, 0, 1]
    assert result.num_left_out == 3
    second = mean_pairwise(among[60:68, 60:68])
    monkeypatch.setattr("dfmgan_hf.metrics.diversity._MAX_IC_CLUSTER", 60)
    whole = ic_lpips(to_real([0] * 60 + [1] * 8 + [2, 4], 5), distances)
    assert whole.ic_lpips == pytest.approx((mean_pairwise(among[:60, :60]) + second) / 2)


def test_ic_lpips_draws_members_by_seed():
    among = table(60)

    def value(seed: int) -> float:
        return ic_lpips(to_real([0] * 60, 1), lambda m: among[m][:, m], seed=seed).ic_lpips

    assert value(0) == value(0) != value(1)


def test_ic_lpips_without_a_cluster_of_two():
    assert math.isnan(ic_lpips(to_real([0], 2), lambda m: torch.zeros(len(m), len(m))).ic_lpips)


def measure(lpips: LPIPS, generated: torch.Tensor, real: torch.Tensor):
    return nearest_real(lpips_distances(lpips, generated, real), lpips_distances(lpips, real))


def test_copies_are_found(lpips_net: LPIPS):
    real = draw_images(8, seed=1)
    fresh = draw_images(6, seed=2)
    noise = torch.randint(-2, 3, (3, *real.shape[1:]), generator=torch.Generator().manual_seed(0))
    nearly_copied = (real[:3] + noise).clamp(0, 255).to(torch.uint8)
    result = measure(lpips_net, torch.cat([fresh, real[:3], nearly_copied]), real)
    assert result.copy_rate == pytest.approx(6 / 12)


def test_photographs_that_are_there_twice_are_no_yardstick(lpips_net: LPIPS):
    real = draw_images(8, seed=1)
    generated = torch.cat([draw_images(6, seed=2), real[:2]])
    once, twice = measure(lpips_net, generated, real), measure(lpips_net, generated, torch.cat([real, real]))
    assert twice.real_median == pytest.approx(once.real_median, abs=1e-5)
    assert twice.copy_threshold == pytest.approx(once.copy_threshold, abs=1e-5)
    assert twice.copy_rate == once.copy_rate == 2 / 8
    same = measure(lpips_net, generated, real[[0, 0, 0]])
    assert (same.real_median, same.ratio, same.copy_threshold, same.copy_rate) == (None,) * 4


def test_the_training_set_itself_is_all_copies(lpips_net: LPIPS):
    real = draw_images(8)
    result = measure(lpips_net, real, real)
    assert result.copy_rate == 1
    assert result.ratio == pytest.approx(0, abs=1e-4)


def test_fresh_images_are_as_far_as_real_ones_from_each_other(lpips_net: LPIPS):
    result = measure(lpips_net, draw_images(40, seed=1), draw_images(40, seed=2))
    assert result.copy_rate == 0
    assert result.ratio == pytest.approx(1, abs=0.15)


def test_one_real_image_has_no_yardstick(lpips_net: LPIPS):
    real = draw_images(1)
    result = measure(lpips_net, torch.cat([real, draw_images(3, seed=5)]), real)
    assert (result.real_median, result.ratio, result.copy_threshold, result.copy_rate) == (None,) * 4
