"""What of a model's folder is published, and the options that say so."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import tyro
from safetensors.torch import load_file

from dfmgan_hf import DFMGANPipeline, StyleGAN2Discriminator
from dfmgan_hf.hub import CardError, HubConfig
from dfmgan_hf.hub.cards import published_files, without_local_paths
from dfmgan_hf.models.base import PickledWeightsError

PIPELINE = {"model_index.json", "generator/config.json", "generator/diffusion_pytorch_model.safetensors"}


@pytest.fixture
def model_dir(make_generator, tmp_path):
    DFMGANPipeline(make_generator()).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def aside(tmp_path):
    (tmp_path / "aside").mkdir()
    return tmp_path / "aside"


def test_pipeline_only(model_dir, aside):
    for name in ("logs/events", "checkpoints/1/a.safetensors", "samples/1.png", "metrics.jsonl", "photograph.png"):
        (model_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (model_dir / name).write_bytes(b"")
    assert set(published_files(model_dir, aside)) == PIPELINE


def test_variant_and_shards_leave_the_folder_alone(model_dir, aside):
    before = {path: path.read_bytes() for path in model_dir.rglob("*") if path.is_file()}
    files = published_files(model_dir, aside, variant="fp16", max_shard_size="50KB")
    assert before == {path: path.read_bytes() for path in model_dir.rglob("*") if path.is_file()}
    merged = {}
    for name, path in files.items():
        if name.endswith(".safetensors") and ".fp16" not in name:
            merged |= load_file(path)
    original = load_file(model_dir / "generator" / "diffusion_pytorch_model.safetensors")
    assert merged.keys() == original.keys()
    assert all(torch.equal(merged[name], tensor) for name, tensor in original.items())
    assert sum(name.endswith(".safetensors") for name in files) >= 3


def test_discriminators_are_named_as_not_to_be_downloaded(model_dir, aside):
    StyleGAN2Discriminator(resolution=32, channel_base=64, channel_max=4).save_pretrained(model_dir / "discriminator")
    files = published_files(model_dir, aside, with_training_networks=True)
    extra = {"discriminator/config.json", "discriminator/diffusion_pytorch_model.safetensors"}
    assert set(files) == PIPELINE | extra
    assert json.loads(files["model_index.json"].read_text())["_ignore_files"] == sorted(extra)
    assert "_ignore_files" not in json.loads((model_dir / "model_index.json").read_text())


def test_only_pictures_of_the_card_are_published(model_dir, aside, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"")
    (model_dir / "grid.png").write_bytes(b"")
    (model_dir / "nearest.png").write_bytes(b"")
    (model_dir / "README.md").write_text("![a](grid.png) ![b](../secret.png) ![c](missing.png) ![d](http://x/y.png)")
    assert set(published_files(model_dir, aside)) == PIPELINE | {"README.md", "grid.png"}


def test_local_paths_are_cut():
    record = {
        "_name_or_path": "models/x",
        "a": ["/home/alice/nuts", "runs/nuts", "C:\\customers\\nuts", 3, None],
        "b": {"c": "/"},
    }
    assert without_local_paths(record) == {"a": ["nuts", "runs/nuts", "nuts", 3, None], "b": {"c": ""}}


def test_where_a_model_was_loaded_from_is_not_published(model_dir, aside):
    DFMGANPipeline.from_pretrained(model_dir).save_pretrained(model_dir)
    files = published_files(model_dir, aside)
    assert not any(str(model_dir).encode() in path.read_bytes() for path in files.values())


def test_folders_that_cannot_be_published(model_dir, aside, tmp_path):
    with pytest.raises(CardError, match=r"has no model_index.json"):
        published_files(tmp_path, aside)
    with pytest.raises(ValueError, match=r"`variant` must be one of fp16, bf16, but is 'int8'"):
        published_files(model_dir, aside, variant="int8")
    (model_dir / "generator" / "old.pt").write_bytes(b"")
    with pytest.raises(PickledWeightsError, match=r"old.pt"):
        published_files(model_dir, aside)
    for path in (model_dir / "generator").iterdir():
        path.unlink()
    with pytest.raises(CardError, match=r"holds no weights as safetensors"):
        published_files(model_dir, aside)


def test_options_of_scripts():
    @dataclasses.dataclass(frozen=True)
    class Config:
        hub: HubConfig = dataclasses.field(default_factory=HubConfig)

    def parse(*arguments: str) -> HubConfig:
        return tyro.cli(Config, args=arguments, config=(tyro.conf.OmitArgPrefixes,)).hub

    assert parse() == HubConfig()
    given = parse("--push_to_hub", "--hub_model_id", "a/b", "--hub_max_shard_size", "5GB", "--hub_private_repo")
    assert given == HubConfig(push_to_hub=True, hub_model_id="a/b", hub_max_shard_size="5GB", hub_private_repo=True)
    with pytest.raises(ValueError, match=r"`hub_model_id` has no effect without `push_to_hub`"):
        HubConfig(hub_model_id="a/b")
    with pytest.raises(ValueError, match=r"`hub_variant` must be one of fp16, bf16"):
        HubConfig(push_to_hub=True, hub_variant="half")
