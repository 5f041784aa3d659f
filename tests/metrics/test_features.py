from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dfmgan_hf.metrics import BadWeightsError, FeatureExtractor, alexnet_extractor, inception_extractor
from dfmgan_hf.metrics.networks import FeatureMaps
from tests.metrics.drawn import draw_images, random_inception, tiny_extractor, write_alexnet


@pytest.fixture(scope="module")
def inception_state() -> dict[str, torch.Tensor]:
    return random_inception()


def test_inception_from_either_kind_of_file(tmp_path: Path, inception_state: dict[str, torch.Tensor], caplog):
    torch.save(inception_state, tmp_path / "inception.pth")
    save_file(inception_state, tmp_path / "inception.safetensors")
    with caplog.at_level(logging.WARNING):
        first = inception_extractor(tmp_path / "inception.pth")
    assert "not the published weights-inception-2015-12-05-6726825d.pth" in caplog.text
    second = inception_extractor(tmp_path / "inception.safetensors")
    assert first.network.weights_sha256 == second.network.weights_sha256
    assert first.network.name == "inception-v3-2015-12-05"

    images = draw_images(3)
    features, logits = first(images)
    assert features.shape == (3, 2048)
    assert logits is not None
    assert logits.shape == (3, 1008)
    # Class scores without the bias, as the Inception Score wants them.
    torch.testing.assert_close(logits, features @ inception_state["fc.weight"].T, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second(images).features, features)


def test_inception_refuses_other_weights(tmp_path: Path, inception_state: dict[str, torch.Tensor]):
    wrong = {name: tensor for name, tensor in inception_state.items() if not name.startswith("Mixed_7c")}
    torch.save(wrong, tmp_path / "wrong.pth")
    with pytest.raises(BadWeightsError, match=r"wrong\.pth.*torch-fidelity"):
        inception_extractor(tmp_path / "wrong.pth")


def test_alexnet_features_are_means_of_its_maps(alexnet_file: Path):
    extractor = alexnet_extractor(alexnet_file)
    images = draw_images(2)
    features, logits = extractor(images)
    assert logits is None
    assert features.shape == (2, 1152)
    maps = extractor.module.get_submodule("maps")(images / 127.5 - 1)
    torch.testing.assert_close(features[:, 64:256], maps[1].mean(dim=(2, 3)))


def test_alexnet_features_need_no_channel_weights(tmp_path: Path, alexnet_file: Path):
    images = draw_images(2)
    bare = alexnet_extractor(write_alexnet(tmp_path / "trunk.pth", heads=False))
    assert bare.network.weights_sha256 == alexnet_extractor(alexnet_file).network.weights_sha256
    torch.testing.assert_close(bare(images).features, alexnet_extractor(alexnet_file)(images).features)


def test_any_module_gives_features_and_is_named_with_its_hash():
    extractor = tiny_extractor()
    assert extractor.network.name == "tiny"
    assert len(extractor.network.weights_sha256) == 64
    other = tiny_extractor()
    assert other.network == extractor.network
    with torch.no_grad():
        other.module.get_parameter("fc.bias").add_(1)
    assert FeatureExtractor(other.module, "tiny").network.weights_sha256 != extractor.network.weights_sha256


def test_grey_images_are_repeated():
    extractor = tiny_extractor()
    grey = draw_images(2)[:, :1]
    assert torch.equal(extractor(grey).features, extractor(grey.expand(-1, 3, -1, -1)).features)


def test_wrong_images_and_modules_are_refused():
    with pytest.raises(ValueError, match="must be uint8"):
        tiny_extractor()(draw_images(2).float())
    with pytest.raises(ValueError, match=r"must return features \(2, d\)"):
        FeatureExtractor(nn.Identity(), "identity")(draw_images(2))


def test_maps_are_torchvisions(alexnet_file: Path):
    """Taps and channels are where torchvision has its ReLUs."""
    for net, names in (("alex", "conv1 to 5"), ("vgg", "relu1_2 to 5_3")):
        maps = FeatureMaps(net)
        outputs = maps(torch.zeros(1, 3, 64, 64))
        assert tuple(output.shape[1] for output in outputs) == maps.channels, names
        assert all(isinstance(maps.features[tap], nn.ReLU) for tap in maps.taps)
        assert len(maps.features) == maps.taps[-1] + 1
