"""Reading official snapshots: what they hold, and files that are something else."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import load_file

from dfmgan_hf.conversion import SnapshotError, read_official_snapshot
from tests.conversion.snapshots import GOLDEN_SNAPSHOT, EasyDict, Persistent, dump, write_snapshot


@pytest.fixture(scope="module")
def golden():
    return read_official_snapshot(GOLDEN_SNAPSHOT)


@pytest.mark.parametrize(("network", "prefix"), [("G", "G."), ("G_ema", "G."), ("D", "D."), ("D_match", "D_match.")])
def test_golden_tensors_are_read_bit_for_bit(golden, network, prefix):
    state = load_file(GOLDEN_SNAPSHOT.with_name("networks_state.safetensors"))
    expected = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    tensors = golden.networks[network].tensors
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_golden_attributes_are_read(golden):
    generator = golden.networks["G_ema"]
    assert generator.class_name == "Generator"
    assert generator.attributes["c_dim"] == 0
    assert generator.attributes["synthesis.b4.conv1.conv_clamp"] == 256
    assert generator.attributes["synthesis._init_kwargs"]["channel_base"] == 1024
    assert golden.augmentation_probability is None


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pickle_protocols_that_python3_writes_are_read(golden, tmp_path, protocol):
    pipe = Persistent("AugmentPipe", {"_parameters": {}, "_buffers": {"p": torch.tensor(0.25)}, "_modules": {}})
    path = write_snapshot(
        tmp_path / "snapshot.pkl",
        golden.networks,
        protocol=protocol,
        augment_pipe=pipe,
        training_set_kwargs=EasyDict(path="x.zip", resolution=64, _names={"a", "b"}),
    )
    snapshot = read_official_snapshot(path)
    assert snapshot.networks.keys() == golden.networks.keys()
    for name, network in golden.networks.items():
        assert snapshot.networks[name].attributes == network.attributes
        assert all(torch.equal(snapshot.networks[name].tensors[key], t) for key, t in network.tensors.items())
    assert snapshot.augmentation_probability == 0.25


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_become_contiguous_float32(tmp_path, dtype):
    weight = torch.randn(4, 3, 2, 2).to(dtype).to(memory_format=torch.channels_last)
    module = Persistent("Generator", {"_parameters": {"weight": torch.nn.Parameter(weight)}})
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(dump({"G_ema": module}))
    read = read_official_snapshot(path).networks["G_ema"].tensors["weight"]
    assert read.dtype == torch.float32
    assert read.is_contiguous()
    assert torch.equal(read, weight.float())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"not a pickle at all", "not a complete pickle"),
        (GOLDEN_SNAPSHOT.read_bytes()[:500_000], "not a complete pickle"),
        (GOLDEN_SNAPSHOT.read_bytes()[:-1], "not a complete pickle"),
        (b"PK\x03\x04rest of an archive", "zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (pickle.dumps([1, 2]), "not a snapshot.* got a list"),
        (pickle.dumps({"state_dict": {}}), "not a snapshot"),
        (pickle.dumps({"G_ema": [1]}), "G_ema is no network but a list"),
        (dump({"D": Persistent("Discriminator", {})}), "no averaged generator 'G_ema', only D"),
        (dump({"G_ema": Persistent("Generator", {}, version=5)}), "version 5 of the snapshot format"),
        (dump({"G_ema": Persistent("Generator", {"_modules": [1]})}), "no dict of names"),
        (b"\x80\x03cdnnlib.tflib.network\nNetwork\n)\x81.", "TensorFlow version.*legacy.py"),
        (b"\x80\x02ctfutil\nNetwork\n)\x81.", "TensorFlow version"),
    ],
)
def test_other_files_are_explained(tmp_path, content, expected):
    path = tmp_path / "snapshot.pkl"
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match=expected) as raised:
        read_official_snapshot(path)
    assert str(path) in str(raised.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*absent\.pkl; expected a snapshot"):
        read_official_snapshot(tmp_path / "absent.pkl")
    with pytest.raises(SnapshotError, match="is a folder"):
        read_official_snapshot(tmp_path)
