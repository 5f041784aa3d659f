"""CDC's distance consistency against what its definition says, in numbers that are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dfmgan_hf.methods.cdc import cross_domain_consistency


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


def test_two_samples_are_refused():
    pair = [layer[:2] for layer in random_features(0)]
    with pytest.raises(ValueError, match="at least 3 samples, but there are 2"):
        cross_domain_consistency(pair, pair, [0, 0])
