"""Weight files, features, and float32 that is float32."""

from __future__ import annotations

import hashlib
import logging
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dfmgan_hf.arguments import require
from dfmgan_hf.files import module_sha256
from dfmgan_hf.metrics import (
    BadWeightsError,
    FeatureExtractor,
    MissingWeightsError,
    inception_extractor,
    load_lpips,
    lpips_distances,
)
from dfmgan_hf.metrics.networks import (
    INCEPTION,
    LPIPS,
    FeatureMaps,
    PublishedWeights,
    alexnet_extractor,
    find_weights,
    read_weights,
)
from tests.metrics.drawn import draw_images, random_inception, tiny_extractor, write_alexnet


def test_given_file_comes_before_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("given.pth", "environment.pth"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setenv("DFMGAN_INCEPTION_WEIGHTS", str(tmp_path / "environment.pth"))
    assert find_weights(INCEPTION, tmp_path / "given.pth").name == "given.pth"
    assert find_weights(INCEPTION).name == "environment.pth"


def test_missing_file_says_which_one_from_where(tmp_path: Path):
    with pytest.raises(MissingWeightsError) as caught:
        inception_extractor(tmp_path / "nowhere.pth")
    for part in ("nowhere.pth", INCEPTION.file_name, INCEPTION.url, "--inception_weights", "DFMGAN_INCEPTION_WEIGHTS"):
        assert part in str(caught.value)


def unreachable(tmp_path: Path, **changes: str) -> PublishedWeights:
    fields = {
        "url": "http://127.0.0.1:9/net-6726825d.pth",
        "option": "--net_weights",
        "environment": "DFMGAN_TEST_WEIGHTS",
        "used_for": "The test",
    }
    return PublishedWeights(**{**fields, **changes}, megabytes=1)


def test_without_network_the_error_says_where_to_put_the_file(tmp_path: Path):
    with pytest.raises(MissingWeightsError, match="--net_weights or DFMGAN_TEST_WEIGHTS, or put it into") as caught:
        find_weights(unreachable(tmp_path), progress=False)
    assert str(Path(torch.hub.get_dir()) / "checkpoints") in str(caught.value)


def test_download_is_checked_and_cached(tmp_path: Path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "net.pth")
    digest = hashlib.sha256((tmp_path / "net.pth").read_bytes()).hexdigest()[:8]
    source = (tmp_path / "net.pth").rename(tmp_path / f"net-{digest}.pth")
    published = unreachable(tmp_path, url=source.as_uri())
    path = find_weights(published, progress=False)
    assert path.parent == Path(torch.hub.get_dir()) / "checkpoints"
    source.unlink()
    assert find_weights(published, progress=False) == path

    path.write_bytes(b"cut off")
    with pytest.raises(BadWeightsError, match="its name says"):
        read_weights(find_weights(published))


def test_a_download_with_another_hash_is_refused_and_not_kept(tmp_path: Path):
    source = tmp_path / "net-6726825d.pth"
    source.write_bytes(b"not what it should be")
    published = unreachable(tmp_path, url=source.as_uri())
    with pytest.raises(MissingWeightsError, match="hash"):
        find_weights(published, progress=False)
    assert not list((Path(torch.hub.get_dir()) / "checkpoints").glob("*.pth"))


def test_damaged_files_are_named(tmp_path: Path):
    for name in ("broken.pth", "broken.safetensors"):
        path = tmp_path / name
        path.write_bytes(b"\x00" * 100)
        with pytest.raises(BadWeightsError, match=name.replace(".", r"\.")):
            read_weights(path)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(BadWeightsError, match="dictionary of tensors"):
        load_lpips("alex", tmp_path / "list.pth")


def test_a_pickle_is_not_executed(tmp_path: Path):
    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    path = tmp_path / "hostile.pth"
    path.write_bytes(pickle.dumps(Hostile(), protocol=2))
    for load in (lambda: inception_extractor(path), lambda: load_lpips("alex", path)):
        with pytest.raises(BadWeightsError):
            load()
    assert not (tmp_path / "executed").exists()


def test_hash_depends_on_names_shapes_types_and_values():
    def digest(change=None, dtype=torch.float32) -> str:
        module = nn.Linear(2, 3).to(dtype)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(0.5)
            if change:
                change(module)
        return module_sha256(module)

    different = {
        digest(),
        digest(dtype=torch.float64),
        digest(lambda m: m.weight[0, 0].add_(1e-6)),
        digest(lambda m: setattr(m, "bias", None)),
        digest(lambda m: setattr(m, "weight", nn.Parameter(m.weight.reshape(2, 3)))),
    }
    assert len(different) == 5
    assert digest() == digest()


def test_missing_library_names_the_extra():
    with pytest.raises(ImportError, match=r"no_such_library.*pip install dfmgan-hf\[metrics\]"):
        require("torch", "no_such_library", purpose="The test")


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


def test_scores_do_not_depend_on_autocast(lpips_net: LPIPS):
    images = draw_images(4)
    extractor = tiny_extractor()
    distances, features = lpips_distances(lpips_net, images), extractor(images).features
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lpips_distances(lpips_net, images), distances)
        assert torch.equal(extractor(images).features, features)
