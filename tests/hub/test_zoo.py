"""`dfmgan models`: what is listed of folders and of the Hub, without loading weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.hub import CardError, HubError, zoo
from dfmgan_hf.hub.cards import of_kinds, read_card

MODELS = Path(__file__).parents[2] / "models"


def test_shipped_models_are_listed_with_the_numbers_of_their_cards():
    listed = zoo.list_models(str(MODELS))
    assert [Path(model.name).name for model in listed] == [
        "dfmgan-magnetic-tile",
        "dfmgan-mvtec-bottle",
        "dfmgan-mvtec-pill",
    ]
    assert [model.licence for model in listed] == ["apache-2.0", "cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0"]
    for model in listed:
        kinds = of_kinds(json.loads((Path(model.name) / "results.json").read_text())).values()
        kid = [1000 * kind["metrics"]["kid"]["unbiased"]["kid"] for kind in kinds]
        assert (model.kid, model.features) == (pytest.approx(kid, rel=1e-3), "alexnet-relu1to5-mean")
        lpips = [kind["metrics"]["clustered_lpips"]["clustered_lpips"] for kind in kinds]
        assert model.clustered_lpips == pytest.approx(lpips, abs=1e-4)
        weights = Path(model.name) / "generator" / "diffusion_pytorch_model.safetensors"
        assert model.megabytes == weights.stat().st_size / 1e6
        assert zoo.list_models(model.name) == [model]
    table = zoo.format_models(listed)
    assert "DFMGAN: broken bottles, 256x256" in table
    for numbers in ("  225  ", "  0.200", "  40 to 68  ", "  0.033 to 0.045", "KID (on alexnet-relu1to5-mean)"):
        assert numbers in table
    lines = table.splitlines()
    assert len({line.index("apache" if "apache" in line else "cc-by") for line in lines[2:8:2]}) == 1
    start = lines[2].index("64x64")
    assert max(len(line[start:]) for line in lines) < 70  # however long the folder's name


def test_folders_that_hold_no_model_of_ours_are_passed_over(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (tmp_path / "a_file").write_text("")
    zoo.print_models(zoo.ZooConfig(str(tmp_path)))
    assert "no model of this package is there" in capsys.readouterr().out


def test_a_model_without_a_card_is_listed(tmp_path):
    shutil.copytree(MODELS / "dfmgan-magnetic-tile", tmp_path / "mine")
    (tmp_path / "mine" / "README.md").unlink()
    [model] = zoo.list_models(str(tmp_path))
    assert (model.title, model.size, model.licence, model.kid) == ("(no card)", (64, 64), None, ())
    assert zoo.format_models([model]).splitlines()[2].split()[-3:] == ["-", "-", "-"]


@pytest.mark.parametrize("metadata", ["license_name: foo: bar", "model-index: [{name: x}]", "- mit"])
def test_a_card_that_cannot_be_read_does_not_hide_the_other_models(tmp_path, metadata):
    for name in ("damaged", "whole"):
        shutil.copytree(MODELS / "dfmgan-magnetic-tile", tmp_path / name)
    card = tmp_path / "damaged" / "README.md"
    card.write_text(f"---\n{metadata}\n---\n# Mine\n")
    damaged, whole = zoo.list_models(str(tmp_path))
    assert (damaged.title, damaged.size) == ("(no readable card)", (64, 64))
    assert whole.kid
    with pytest.raises(CardError, match=r"damaged/README\.md: the metadata between the two lines"):
        read_card(card)


def test_the_size_of_a_model_of_strips_is_listed(make_generator, tmp_path):
    DFMGANPipeline(make_generator(aspect=(1, 4))).save_pretrained(tmp_path)
    assert "  128x32  " in zoo.format_models(zoo.list_models(str(tmp_path)))


def test_models_of_the_hub(monkeypatch, tmp_path):
    """Only small files are fetched, and half-precision copies do not count."""
    asked = []

    class Api:
        def list_models(self, author, filter):
            assert (author, filter) == ("org", "dfmgan")
            return [SimpleNamespace(id="org/tiles"), SimpleNamespace(id="org/not-ours")]

        def model_info(self, repo, files_metadata):
            names = {
                "generator/diffusion_pytorch_model.safetensors": 2_000_000,
                "generator/diffusion_pytorch_model.fp16.safetensors": 1_000_000,
                "generator/diffusion_pytorch_model.bf16-00001-of-00002.safetensors": 500_000,
                "discriminator/diffusion_pytorch_model.safetensors": 9_000_000,
            }
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename=n, size=s) for n, s in names.items()])

    def snapshot_download(repo, allow_patterns):
        asked.append(allow_patterns)
        return MODELS / "dfmgan-magnetic-tile" if repo == "org/tiles" else tmp_path

    monkeypatch.setattr(zoo, "HfApi", Api)
    monkeypatch.setattr(zoo, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    [model] = zoo.list_models("org")
    assert (model.name, model.megabytes, model.size) == ("org/tiles", 2.0, (64, 64))
    assert not [p for patterns in asked for p in patterns if "safetensors" in p]


def test_neither_a_folder_nor_a_name(monkeypatch):
    with pytest.raises(HubError, match="There is no folder a/b"):
        zoo.list_models("a/b")

    class Api:
        def list_models(self, author, filter):
            raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(zoo, "HfApi", Api)
    with pytest.raises(HubError, match=r"There is no folder nobody here.*HF_HUB_OFFLINE is set"):
        zoo.list_models("nobody")
