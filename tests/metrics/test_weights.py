from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from dfmgan_hf.files import module_sha256
from dfmgan_hf.metrics import BadWeightsError, MissingWeightsError, inception_extractor, load_lpips
from dfmgan_hf.metrics.networks import INCEPTION, PublishedWeights, find_weights, read_weights, require


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
