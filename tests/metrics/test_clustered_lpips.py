from __future__ import annotations

import math

import pytest
import torch

from dfmgan_hf.metrics import clustered_lpips, ic_lpips, mean_pairwise


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
    with pytest.raises(ValueError, match="at least one image"):
        clustered_lpips(torch.zeros(3, 0), table(3))
    with pytest.raises(ValueError, match="at least 2"):
        mean_pairwise(torch.zeros(1, 1))


def test_ic_lpips_leaves_small_clusters_out_and_asks_for_few_pairs():
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
    whole = ic_lpips(to_real([0] * 60 + [1] * 8 + [2, 4], 5), distances, max_cluster_size=60)
    assert whole.ic_lpips == pytest.approx((mean_pairwise(among[:60, :60]) + second) / 2)


def test_ic_lpips_draws_members_by_seed():
    among = table(60)

    def value(seed: int) -> float:
        return ic_lpips(to_real([0] * 60, 1), lambda m: among[m][:, m], max_cluster_size=10, seed=seed).ic_lpips

    assert value(0) == value(0) != value(1)


def test_ic_lpips_without_a_cluster_of_two():
    assert math.isnan(ic_lpips(to_real([0], 2), lambda m: torch.zeros(len(m), len(m))).ic_lpips)
