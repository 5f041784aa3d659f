"""The operator's list, the card, and ZeroGPU."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dfmgan_hf import DFMGANPipeline


def test_given_models_come_before_the_variable_and_the_folders(monkeypatch, tmp_path):
    import catalog

    (tmp_path / "models" / "dfmgan-magnetic-tile").mkdir(parents=True)
    (tmp_path / "models" / "dfmgan-magnetic-tile" / "model_index.json").write_text("{}")
    monkeypatch.setattr(catalog, "HERE", tmp_path)
    found = str(tmp_path / "models" / "dfmgan-magnetic-tile")
    monkeypatch.delenv("DFMGAN_MODELS", raising=False)
    assert catalog.configured_sources([]) == [("Magnetic tile", found)]
    monkeypatch.setenv("DFMGAN_MODELS", "Blowhole=org/dfmgan-tile-blowhole, org/dfmgan-tile_break,")
    listed = [("Blowhole", "org/dfmgan-tile-blowhole"), ("Tile break", "org/dfmgan-tile_break")]
    assert catalog.configured_sources([]) == listed
    assert catalog.configured_sources(["A b=c/d"]) == [("A b", "c/d")]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["=a/b"], "names no model"),
        (["A="], "names no model"),
        (["A=x", "A=y"], "Two models"),
        ([], "No model to show"),
    ],
)
def test_wrong_lists_are_said_in_words(monkeypatch, tmp_path, entries, message):
    import catalog

    monkeypatch.setattr(catalog, "HERE", tmp_path / "deep" / "down")
    monkeypatch.delenv("DFMGAN_MODELS", raising=False)
    with pytest.raises(catalog.CatalogError, match=message):
        catalog.configured_sources(entries)


def test_what_is_no_model_with_defects_is_refused_at_start_up(make_backbone, tmp_path):
    from catalog import CatalogError, load_catalog

    with pytest.raises(CatalogError, match="cannot be loaded from"):
        load_catalog([("Nothing", str(tmp_path / "nothing"))])
    DFMGANPipeline(make_backbone()).save_pretrained(tmp_path / "backbone")
    with pytest.raises(CatalogError, match="draws no defects"):
        load_catalog([("Backbone", str(tmp_path / "backbone"))])


def test_a_model_of_pickles_is_refused(make_generator, tmp_path):
    from catalog import CatalogError, load_catalog

    pipe = DFMGANPipeline(make_generator())
    pipe.save_pretrained(tmp_path)
    (weights,) = (tmp_path / "generator").glob("*.safetensors")
    weights.unlink()
    torch.save(pipe.generator.state_dict(), tmp_path / "generator" / "diffusion_pytorch_model.bin")
    with pytest.raises(CatalogError, match="cannot be loaded"):
        load_catalog([("Pickles", str(tmp_path))])


def test_about_page_is_the_card_with_its_pictures_inside(model_folders):
    from card import about
    from catalog import load_catalog

    source = model_folders["Blobs"]
    text = about(load_catalog([("Blobs", str(source))])["Blobs"])
    assert "64 × 64 pixels, grey" in text
    assert "## A model of nothing" in text
    assert text.startswith("##")
    assert "It knows no part." in text
    assert "license:" not in text
    assert "![Samples](data:image/png;base64," in text


def test_a_card_cannot_show_files_from_outside_its_folder(make_generator, tmp_path):
    from card import about
    from catalog import load_catalog

    (tmp_path / "secret.png").write_bytes(b"secret")
    DFMGANPipeline(make_generator()).save_pretrained(tmp_path / "model")
    catalog = load_catalog([("M", str(tmp_path / "model"))])
    assert "came without a card" in about(catalog["M"])
    (tmp_path / "model" / "README.md").write_text("![a](../secret.png) ![b](http://x.org/b.png) ![c](missing.png)")
    assert "*a* *b* *c*" in about(catalog["M"])


def test_a_gpu_is_borrowed_where_there_is_zerogpu(monkeypatch):
    from device import where_it_computes

    asked = []

    def borrow(duration):
        asked.append(duration)
        return lambda function: lambda *args: ("on gpu", function(*args))

    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=borrow))
    assert where_it_computes(abs)(-3) == ("on gpu", 3)
    assert asked == [60]


def test_without_zerogpu_all_calls_of_a_function_are_computed_in_one_thread(monkeypatch):
    from device import where_it_computes

    monkeypatch.setitem(sys.modules, "spaces", None)

    def one(x):
        if x < 0:
            raise ValueError(x)
        return x, threading.get_ident()

    closed = []

    def many(count):
        try:
            for i in range(count):
                yield one(i)
        finally:
            closed.append(threading.get_ident())

    call, iterate = where_it_computes(one), where_it_computes(many)
    with ThreadPoolExecutor(8) as visitors:
        numbers, threads = zip(*visitors.map(call, range(40)), strict=True)
        lists = list(visitors.map(lambda count: list(iterate(count)), range(8)))
    assert numbers == tuple(range(40))
    assert len({*threads}) == 1
    assert [[number for number, _ in items] for items in lists] == [list(range(count)) for count in range(8)]
    own = {thread for items in lists for _, thread in items}
    assert len(own) == 1
    with pytest.raises(ValueError, match="-1"):
        call(-1)
    closed.clear()
    stopped = iterate(5)
    next(stopped)
    stopped.close()
    assert closed == [*own]


def test_front_matter_is_what_the_hub_wants():
    from huggingface_hub import SpaceCard

    space = Path(__file__).resolve().parents[2] / "spaces" / "dfmgan_demo"
    data = SpaceCard.load(space / "README.md").data
    assert data.sdk == "gradio"
    assert (space / data.app_file).is_file()
    assert len(data.to_dict()["short_description"]) <= 60
