"""Drawing with CUDA graphs, emulated on the CPU: the same pictures, whatever has changed since the capture."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.cuda_graphs import CaptureError, NetworkGraphs
from tests import replay


@pytest.fixture
def graphs(monkeypatch) -> NetworkGraphs:
    replay.install(monkeypatch, "dfmgan_hf.cuda_graphs")
    return NetworkGraphs()


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


SETTINGS: dict[str, Any] = {"noise_mode": "const", "return_defect_free": True, "return_dict": False}


def latents(seed: int, n: int = 2) -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(2, n, 16, generator=torch.Generator().manual_seed(seed)))  # type: ignore[return-value]


def count(network: torch.nn.Module) -> list[int]:
    calls: list[int] = []
    network.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def assert_same(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> None:
    assert len(left) == len(right) == 3
    assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_a_pass_is_captured_when_it_comes_again(pipe, graphs):
    network = pipe.generator
    expected = [network(*latents(seed), **SETTINGS) for seed in range(5)]
    calls = count(network)
    drawn = [graphs(network, *latents(seed), **SETTINGS) for seed in range(5)]
    for ours, theirs in zip(drawn, expected, strict=True):
        assert_same(ours, theirs)
    assert len(calls) == 3, "one as it is, one to warm up, one to capture"


def test_other_batch_sizes_and_settings_are_other_graphs(pipe, graphs):
    network = pipe.generator
    for n in (1, 2, 1, 2, 1, 2):
        for psi in (1.0, 0.5):
            ours = graphs(network, *latents(n, n), **SETTINGS, truncation_psi=psi)
            assert_same(ours, network(*latents(n, n), **SETTINGS, truncation_psi=psi))
    assert len(graphs._captured) == 4
    for n in range(1, 12):
        for _ in range(2):
            graphs(network, *latents(n, n), **SETTINGS)
    assert len(graphs._captured) == graphs.MOST


@pytest.mark.parametrize(
    "change",
    [
        lambda network: network.mapping.w_avg.add_(1),
        lambda network: network.to_mask.bias.data.fill_(5.0),
        lambda network: network.double(),
        lambda network: network.set_mixed_precision(torch.bfloat16),
        lambda network: network.load_state_dict({k: v * 1.1 for k, v in network.state_dict().items()}, assign=True),
    ],
)
def test_a_network_that_has_changed_is_drawn_as_it_is_now(pipe, graphs, change):
    network = pipe.generator
    settings = {**SETTINGS, "truncation_psi": 0.5}
    before = [graphs(network, *latents(1), **settings) for _ in range(3)][-1]
    change(network)
    expected = network(*latents(1), **settings)
    for _ in range(3):
        assert_same(graphs(network, *latents(1), **settings), expected)
    assert not all(torch.equal(a, b.to(a.dtype)) for a, b in zip(before, expected, strict=True))


def test_a_capture_that_fails_is_said_once(pipe, graphs, monkeypatch, caplog):
    def fail(*_: Any) -> None:
        raise CaptureError("no room")

    monkeypatch.setattr("dfmgan_hf.cuda_graphs.capture", fail)
    network = pipe.generator
    with caplog.at_level(logging.WARNING):
        for n in (1, 1, 1, 2, 2):
            assert_same(graphs(network, *latents(n, n), **SETTINGS), network(*latents(n, n), **SETTINGS))
    assert graphs.failed
    assert [record.getMessage() for record in caplog.records] == [
        "No CUDA graph of the network (no room): it runs as without graphs."
    ]


@pytest.mark.parametrize("output_type", ["np", "pil"])
@pytest.mark.parametrize("backbone", [False, True])
def test_the_pipeline_draws_the_same(pipe, make_backbone, monkeypatch, output_type, backbone):
    """As on a GPU, but for the device."""
    replay.install(monkeypatch, "dfmgan_hf.cuda_graphs")
    pipe = DFMGANPipeline(make_backbone()) if backbone else pipe
    expected = pipe(seeds=range(5), output_type=output_type, truncation_psi=0.7)
    pipe.enable_cuda_graphs()
    monkeypatch.setattr(pipe, "_can_be_captured", lambda network, device, noise_mode: noise_mode != "random")
    calls = count(pipe.generator)
    drawn = pipe(seeds=range(5), output_type=output_type, truncation_psi=0.7)
    assert len(calls) == 3
    for name in ("images", "masks", "defect_free_images"):
        ours, theirs = getattr(drawn, name), getattr(expected, name)
        assert (ours is None) == (backbone and name == "masks")
        if ours is not None:
            assert len(ours) == 5
            assert all((a == b) if output_type == "pil" else (a == b).all() for a, b in zip(ours, theirs, strict=True))


def test_what_is_not_captured(pipe):
    cuda = torch.device("cuda")
    network = pipe.generator
    assert pipe._can_be_captured(network, cuda, "const")
    assert not pipe._can_be_captured(network, cuda, "random")
    assert not pipe._can_be_captured(network, torch.device("cpu"), "const")
    assert not pipe._can_be_captured(torch.compile(network), cuda, "const")
    network._hf_hook = object()
    assert not pipe._can_be_captured(network, cuda, "none")


def test_in_inference_mode_and_out_of_it(pipe, graphs):
    network = pipe.generator
    for _ in range(3):
        with torch.inference_mode():
            assert_same(graphs(network, *latents(1), **SETTINGS), network(*latents(1), **SETTINGS))
        assert_same(graphs(network, *latents(2), **SETTINGS), network(*latents(2), **SETTINGS))


def test_a_gate_that_is_changed_is_seen(pipe, graphs):
    """Whether it is soft follows from the configuration, and from whether the network is being trained."""
    network = pipe.generator
    network.register_to_config(soft_gate=False)
    for change in (lambda: network.register_to_config(soft_gate=True), network.train, network.eval):
        for seed in range(3):
            graphs(network, *latents(seed), **SETTINGS)
        change()
        assert_same(graphs(network, *latents(3), **SETTINGS), network(*latents(3), **SETTINGS))
