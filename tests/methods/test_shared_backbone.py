from pathlib import Path

import pytest
import torch

from dfmgan_hf import DFMGANGenerator, DFMGANPipeline
from dfmgan_hf.methods.shared_backbone import SHARDS, share_backbone


@pytest.fixture
def pipelines(make_backbone, tmp_path) -> dict[Path, DFMGANGenerator]:
    """Two defects on one backbone."""
    generators = {}
    for seed, name in enumerate(("crack", "cut")):
        torch.manual_seed(seed)
        generators[tmp_path / name] = DFMGANGenerator.from_backbone(make_backbone()).eval()
    for folder, generator in generators.items():
        DFMGANPipeline(generator).save_pretrained(str(folder))
    return generators


def weights_on_disk(folder: Path) -> int:
    files = {path.stat().st_ino: path.stat().st_size for path in folder.rglob("*.safetensors")}
    return sum(files.values())


def test_pipelines_load_as_before_and_share_one_file(pipelines, tmp_path):
    before = weights_on_disk(tmp_path)
    shared = tmp_path / "backbone.safetensors"
    share_backbone(pipelines, shared)
    shards = [folder / "generator" / SHARDS[0] for folder in pipelines]
    assert {path.stat().st_ino for path in shards} == {shared.stat().st_ino}
    assert weights_on_disk(tmp_path) < before - 0.8 * shared.stat().st_size
    for folder, generator in pipelines.items():
        loaded = DFMGANPipeline.from_pretrained(str(folder)).generator.state_dict()
        assert loaded.keys() == generator.state_dict().keys()
        for name, value in generator.state_dict().items():
            assert torch.equal(loaded[name], value), name
    # Nothing changes the second time, or for a folder without a pipeline.
    share_backbone([*pipelines, tmp_path / "none"], shared)
    assert {path.stat().st_ino for path in shards} == {shared.stat().st_ino}


def test_without_hard_links_the_file_is_copied(pipelines, tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError("Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    share_backbone(pipelines, tmp_path / "backbone.safetensors")
    for folder in pipelines:
        assert DFMGANPipeline.from_pretrained(str(folder)).has_defects


def test_another_backbone_is_refused_and_left_whole(pipelines, tmp_path):
    other = list(pipelines)[1]
    generator = pipelines[other]
    with torch.no_grad():
        generator.mapping.w_avg[0] += 1e-6
    generator.save_pretrained(other / "generator")
    with pytest.raises(ValueError, match=r"mapping\.w_avg differ.*another --output_dir"):
        share_backbone(pipelines, tmp_path / "backbone.safetensors")
    assert DFMGANPipeline.from_pretrained(str(other)).has_defects
