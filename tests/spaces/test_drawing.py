"""What is drawn, shown and written, without a server."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.export import make_writer
from dfmgan_hf.export.writers import WRITERS

pytest.importorskip("gradio", reason="gradio is not installed: pip install dfmgan-hf[demo]")
from take_away import LAYOUTS


@pytest.fixture(scope="module")
def studio(model_folders):
    from catalog import load_catalog
    from studio import Studio

    return Studio(load_catalog([(name, str(folder)) for name, folder in model_folders.items()]))


def _pixels(images) -> list[np.ndarray]:
    return [np.asarray(image) for image in images]


def _same(left, right) -> bool:
    return all((a == b).all() for a, b in zip(_pixels(left), _pixels(right), strict=True))


def test_new_parts_are_what_the_pipeline_draws_from_these_seeds(studio, model_folders):
    pipe = DFMGANPipeline.from_pretrained(model_folders["Blobs"])
    expected = pipe(seeds=[5, 6, 7], truncation_psi=0.7, mask_threshold=0.5)
    triplets = studio.drawer.draw(studio.new_parts(studio.settings("Blobs", 0.7, 0.5), 3, 5))
    assert _same([t.image for t in triplets], expected.images)
    assert _same([t.mask for t in triplets], expected.masks)
    assert _same([t.defect_free for t in triplets], expected.defect_free_images)


def test_each_kind_of_a_model_of_several_is_an_entry_of_its_own(make_generator, tmp_path):
    from card import Facts
    from catalog import load_catalog
    from snippet import export_command, snippet
    from studio import Studio
    from take_away import write_archive, write_shown

    pipe = DFMGANPipeline(make_generator(defect_names=["crack", "pit_hole"]))
    pipe.save_pretrained(tmp_path)
    studio = Studio(load_catalog([("Part", str(tmp_path))]))
    assert studio.catalog.names == ["Part: crack", "Part: pit hole"]
    for name, kind in zip(studio.catalog.names, pipe.defect_names, strict=True):
        recipe = studio.new_parts(studio.settings(name, 1.0, 0.0), 2, 5)
        drawn = studio.drawer.draw(recipe)
        assert _same([t.image for t in drawn], pipe(seeds=[5, 6], defect=kind).images)
        assert f"defect={kind!r}" in snippet(studio.catalog, recipe)
        config = studio.export(studio.settings(name, 1.0, 0.0), 1, 5, "MVTec AD")
        assert f"--defect {kind}" in export_command(studio.catalog, name, config)
        list(write_archive(tmp_path / "drawn.zip", studio.drawer, name, config, Facts()))
        write_shown(tmp_path / "shown.zip", studio.catalog[name], recipe, drawn, "MVTec AD", Facts())
        for path in ("drawn.zip", "shown.zip"):
            with zipfile.ZipFile(tmp_path / path) as archive:
                assert f"{config.output_dir}/{config.category}/test/{kind}/000000.png" in archive.namelist()


def test_a_model_of_strips_is_loaded_drawn_and_told(make_generator, tmp_path):
    from card import about
    from catalog import load_catalog
    from gallery import gallery
    from pictures import FRAME_PIXELS, GAP_PIXELS, enlarge, save_animation
    from studio import Studio

    pipe = DFMGANPipeline(make_generator(aspect=(1, 4)))
    pipe.save_pretrained(tmp_path)
    studio = Studio(load_catalog([("Rail", str(tmp_path))]))
    (drawn,) = studio.drawer.draw(studio.new_parts(studio.settings("Rail", 1.0, 0.0), 1, 5))
    assert drawn.image.size == drawn.mask.size == (128, 32)
    assert "128 × 32 pixels" in about(studio.catalog["Rail"])
    recipe = studio.new_parts(studio.settings("Rail", 1.0, 0.0), 1, 5)
    assert 'data-width="128" data-height="32"' in gallery(recipe, [drawn], 0, "")
    save_animation([drawn, drawn, drawn], tmp_path / "walk.webp")
    with Image.open(tmp_path / "walk.webp") as animation:
        assert animation.size == (2 * 4 * FRAME_PIXELS + GAP_PIXELS, FRAME_PIXELS)
    large = drawn.image.resize((2048, 512))
    assert enlarge(large, FRAME_PIXELS, Image.Resampling.BICUBIC).size == (4 * FRAME_PIXELS, FRAME_PIXELS)


def test_same_part_shares_the_twin_and_same_defect_shares_the_latent(studio):
    settings = studio.settings("Blobs", 1.0, 0.0)
    parts = studio.drawer.draw(studio.same_part(settings, 4, 3, 10))
    assert _same([t.defect_free for t in parts], [parts[0].defect_free] * 4)
    assert len({t.mask.tobytes() for t in parts}) == 4
    defects = studio.drawer.draw(studio.same_defect(settings, 4, 3, 10))
    assert len({t.defect_free.tobytes() for t in defects}) == 4
    both = studio.drawer.draw(settings.recipe((10,), (3,)))[0]
    assert both.image.tobytes() == defects[0].image.tobytes()


def test_strength_scales_what_the_defect_changes_and_nothing_else(studio):
    from drawing import at_strength

    faint, plain, strong = (
        studio.drawer.draw(studio.new_parts(studio.settings("Blobs", 1.0, 0.0, strength), 3, 5))
        for strength in (0.4, 1.0, 1.6)
    )
    for a, b, c in zip(faint, plain, strong, strict=True):
        assert a.mask.tobytes() == b.mask.tobytes() == c.mask.tobytes()
        assert a.defect_free.tobytes() == b.defect_free.tobytes()
        before, *images = _pixels([b.defect_free, a.image, b.image, c.image])
        faint_change, change, strong_change = (image.astype(float) - before for image in images)
        assert np.abs(faint_change - 0.4 * change).max() <= 1
        unclipped = (images[2] > 0) & (images[2] < 255)
        assert np.abs(strong_change - 1.6 * change)[unclipped].max() <= 1
    # Every step of the page's range is seen: that of a defect of 40 levels.
    twin, image = Image.new("L", (8, 8), 120), Image.new("L", (8, 8), 80)
    seen = [at_strength(twin, image, step / 5).getpixel((0, 0)) for step in range(1, 11)]
    assert np.diff(seen).max() <= -7


@pytest.mark.parametrize(
    ("how", "strength"), [("new_parts", 1.0), ("new_parts", 1.4), ("same_part", 1.0), ("same_defect", 0.6)]
)
def test_snippet_draws_exactly_what_is_shown(studio, how, strength, monkeypatch):
    from snippet import snippet

    settings = studio.settings("Coloured blobs", 0.8, -0.3, strength)
    recipe = getattr(studio, how)(settings, 3, 4, *([20] if how != "new_parts" else []))
    code = snippet(studio.catalog, recipe)
    folder = Path(studio.catalog["Coloured blobs"].source)
    assert str(folder.parent) not in code
    monkeypatch.chdir(folder.parent)
    images = "out.images" if strength == 1 else "images"
    assert code.splitlines()[-1] == f"{images}, out.masks, out.defect_free_images"
    scope: dict = {}
    exec(code, scope)
    shown = studio.drawer.draw(recipe)
    assert _same(eval(images, scope), [t.image for t in shown])
    assert _same(scope["out"].masks, [t.mask for t in shown])


def test_snippet_of_a_space_gets_the_model_from_the_space(studio, monkeypatch):
    import huggingface_hub
    import snippet

    folder = Path(studio.catalog["Blobs"].source)
    monkeypatch.setenv("SPACE_ID", "org/defects")
    monkeypatch.setattr(snippet, "HERE", folder.parents[1])
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *args, **how: asked.append((args, how)) or str(folder.parents[1])
    )
    recipe = studio.new_parts(studio.settings("Blobs", 1.0, 0.0), 2, 4)
    code = snippet.snippet(studio.catalog, recipe)
    assert str(folder.parent) not in code
    scope: dict = {}
    exec(code, scope)
    inside = f"{folder.parent.name}/blobs"
    assert asked == [(("org/defects",), {"repo_type": "space", "allow_patterns": f"{inside}/*"})]
    assert _same(scope["out"].images, [t.image for t in studio.drawer.draw(recipe)])
    command = snippet.export_command(
        studio.catalog, "Blobs", studio.export(studio.settings("Blobs", 1.0, 0.0), 2, 0, "Parquet")
    )
    download = f"hf download org/defects --repo-type space --include '{inside}/*' --local-dir .\n"
    assert command.startswith(f"{download}python examples/generate.py \\\n  --model {inside} ")


def test_what_is_seen_first_has_defects_is_kept_and_says_what_follows(studio, monkeypatch):
    recipe = studio.new_parts(studio.settings("Blobs", 1.0, 0.0), 4, 900)
    first = studio.drawer.opening(recipe)
    assert all(triplet.defect_pixels for triplet in first.triplets)
    assert len(first.triplets) == 4
    assert first.next_seed == first.recipe.part_seeds[-1] + 1
    monkeypatch.setattr(studio.drawer, "draw", lambda recipe: pytest.fail("drawn again"))
    assert studio.drawer.opening(recipe) is first


def test_only_with_a_defect_passes_over_seeds_that_draw_none(studio):
    settings = studio.settings("Blobs", 1.0, 0.8)
    everything = studio.drawer.draw(studio.new_parts(settings, 24, 0))
    with_defect = [triplet.part_seed for triplet in everything if triplet.defect_pixels][:6]
    assert with_defect != list(range(6))
    drawn = studio.drawer.draw_with_defects(studio.new_parts(settings, 6, 0))
    assert list(drawn.recipe.part_seeds) == with_defect
    assert _same([t.image for t in drawn.triplets], [everything[seed].image for seed in with_defect])
    none = studio.drawer.draw_with_defects(studio.new_parts(studio.settings("Blobs", 1.0, 10.0), 2, 0))
    assert none.recipe.part_seeds == (0, 1)


def test_an_address_draws_what_it_says_or_is_refused_in_words(studio):
    import gradio as gr

    address = {"model": "Blobs", "parts": "3.3.9", "defects": "1.2.3", "variety": "0.7", "size": "1.5"}
    assert studio.addressed(address) == studio.settings("Blobs", 0.7, -1.5).recipe((3, 3, 9), (1, 2, 3))
    stronger = studio.settings("Blobs", 0.7, -1.5, 1.2).recipe((3, 3, 9), (1, 2, 3))
    assert studio.addressed({**address, "strength": "1.2"}) == stronger
    assert studio.addressed({"model": "Blobs", "parts": "4"}) == studio.settings("Blobs", 1.0, 0.0).recipe((4,), (4,))
    wrong = [
        {},
        {"parts": "x"},
        {"parts": "1.2", "defects": "1"},
        {"parts": "9" * 30},
        {"size": "nan"},
        {"strength": "3"},
        {"model": "y"},
    ]
    for change in wrong:
        broken = {**{"model": "Blobs", "parts": "1"}, **change} if change else {}
        with pytest.raises(gr.Error):
            studio.addressed(broken)


def test_what_the_page_sends_back_is_checked_again(studio):
    import gradio as gr

    shown = {
        "model": "Blobs",
        "part_seeds": [1, 2],
        "defect_seeds": [3, 4],
        "truncation_psi": 0.7,
        "mask_threshold": 0.5,
        "strength": 1.0,
    }
    assert studio.chosen(shown, 1) == studio.settings("Blobs", 0.7, 0.5).recipe((2,), (4,))
    wrong = [(None, 0), ({}, 0), (shown, 2), (shown, -1), (shown, None), ("shown", 0)]
    wrong += [({**shown, **change}, 1) for change in ({"model": "x"}, {"part_seeds": 5}, {"part_seeds": [1]})]
    wrong += [({**shown, **change}, 1) for change in ({"part_seeds": [1, -2]}, {"truncation_psi": "1"}, {"more": 1})]
    for values in wrong:
        with pytest.raises(gr.Error):
            studio.chosen(*values)


def test_walk_starts_and_ends_at_its_ends_and_holds_the_other_latent(studio):
    from studio import WALK_FRAMES

    ends = studio.settings("Blobs", 1.0, 0.0).recipe((1, 2), (5, 6))
    defects = studio.walk(ends, "defect")
    assert len(defects) == WALK_FRAMES
    assert len({t.defect_free.tobytes() for t in defects}) == 1
    parts = studio.walk(ends, "part")
    assert len({t.defect_free.tobytes() for t in parts}) == WALK_FRAMES
    corners = studio.drawer.draw(ends.of((1, 1, 2), (5, 6, 5)))
    # An end of the arc is the latent itself but for float rounding, which a mask may show in a pixel or two.
    for frame, corner in ((defects[0], corners[0]), (defects[-1], corners[1]), (parts[-1], corners[2])):
        assert np.mean(np.asarray(frame.mask) != np.asarray(corner.mask)) < 0.002


def test_walk_between_what_is_the_same_is_refused_in_words(studio):
    import gradio as gr

    ends = studio.settings("Blobs", 1.0, 0.0).recipe((1, 2), (5, 5))
    with pytest.raises(gr.Error, match="Both ends have the same defect, so nothing would move"):
        studio.walk(ends, "defect")
    assert studio.walk(ends, "part")


def test_points_of_a_walk_are_as_long_as_its_ends():
    import torch
    from drawing import _arc

    start, end = torch.randn(2, 64, generator=torch.Generator().manual_seed(0)).unbind()
    start, end = start / start.norm(), end / end.norm()
    assert torch.allclose(_arc(start, end, 9).norm(dim=1), torch.ones(9), atol=1e-5)
    assert torch.allclose(_arc(start, start, 3), start.expand(3, -1))


def test_animation_plays_there_and_back_for_ever(studio, tmp_path):
    from pictures import save_animation

    frames = studio.walk(studio.settings("Blobs", 1.0, 0.0).recipe((1, 2), (1, 2)), "defect")
    save_animation(frames, tmp_path / "walk.webp")
    with Image.open(tmp_path / "walk.webp") as animation:
        assert animation.n_frames == 2 * len(frames) - 2
        assert animation.info["loop"] == 0


def test_outline_runs_between_on_and_off_pixels():
    from pictures import outline_path

    mask = np.zeros((4, 4), np.uint8)
    mask[0, 0] = mask[1:3, 1:3] = 255
    drawn = set(re.findall(r"M(\d+) (\d+)([HV])(\d+)", outline_path(Image.fromarray(mask))))
    across = {("0", "0", "H", "1"), ("0", "1", "H", "3"), ("1", "3", "H", "3")}
    down = {("0", "0", "V", "1"), ("1", "0", "V", "3"), ("3", "1", "V", "3")}
    assert drawn == across | down
    assert outline_path(Image.new("L", (4, 4), 0)) == ""
    assert outline_path(Image.new("L", (4, 4), 255)).count("M") == 4


def test_empty_mask_is_said_in_words(studio):
    from gallery import gallery
    from words import area_in_words, drawn_in_words

    recipe = studio.new_parts(studio.settings("Blobs", 1.0, 10.0), 1, 0)
    triplet = studio.drawer.draw(recipe)[0]
    assert triplet.defect_pixels == 0
    html = gallery(recipe, [triplet], 0, "mit")
    assert "This part has no defect." in html
    assert 'data-empty="1"' in html
    assert "no defect" in area_in_words(triplet)
    assert drawn_in_words([triplet, triplet]).startswith("No defect came out")


def test_defects_that_are_seen_best_are_neither_missing_nor_everywhere():
    from drawing import Triplet

    def visibility(columns: int, darker: int = 60) -> float:
        mask = np.zeros((8, 8), np.uint8)
        mask[:, :columns] = 255
        image = np.where(mask > 0, 120 - darker, 120).astype(np.uint8)
        pictures = (Image.fromarray(image), Image.fromarray(mask), Image.new("L", (8, 8), 120))
        return Triplet(0, 0, *pictures).visibility

    assert visibility(4) > visibility(1) > visibility(0) == 0
    assert visibility(4) > visibility(7) > visibility(8) == 0
    assert visibility(4) > visibility(4, darker=10)


@pytest.mark.parametrize(
    ("columns", "cut"), [((16, 24), 31), ((0, 2), 10), ((63, 64), 90), ((0, 64), 50), ((0, 0), 50)]
)
def test_divider_stands_in_the_middle_of_the_defect_at_first(columns, cut):
    from compare import first_cut

    mask = np.zeros((64, 64), np.uint8)
    mask[:, slice(*columns)] = 255
    assert first_cut(Image.fromarray(mask)) == cut


@pytest.mark.parametrize(("low", "high"), [(0, 60), (100, 140), (0, 255)])
def test_contrast_is_stretched_from_the_darkest_to_the_brightest(low, high):
    from pictures import stretch

    levels = np.tile(np.linspace(low, high, 256), (8, 1))
    slope, intercept = stretch(Image.fromarray(levels.astype(np.uint8)))
    assert slope * low / 255 + intercept == pytest.approx(0, abs=0.05)
    assert slope * high / 255 + intercept == pytest.approx(1, abs=0.05)


def test_every_format_has_a_name_on_the_page():
    assert list(LAYOUTS.values()) == list(WRITERS)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_what_is_shown_is_taken_home_as_it_is_in_every_layout(studio, tmp_path, layout):
    from card import Facts
    from take_away import write_shown

    recipe = studio.settings("Coloured blobs", 1.0, 0.0).recipe((3, 3, 9), (1, 2, 3))
    model, facts = studio.catalog["Coloured blobs"], Facts("squares", "mit", "none")
    write_shown(tmp_path / "shown.zip", model, recipe, studio.drawer.draw(recipe), layout, facts)
    assert [file.name for file in tmp_path.iterdir()] == ["shown.zip"]
    with zipfile.ZipFile(tmp_path / "shown.zip") as archive:
        readme = archive.read("coloured_blobs/README.md").decode()
        assert len(archive.namelist()) > 1
    for said in ("Nothing here is a photograph", "It draws squares", "mit", "| 000001 | 3 | 2 |"):
        assert said in readme


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_what_was_taken_home_can_be_drawn_again_from_what_the_zip_says(studio, model_folders, tmp_path, layout):
    from card import Facts
    from take_away import export_config, write_shown

    model = studio.catalog["Coloured blobs"]
    recipe = studio.settings("Coloured blobs", 1.0, 0.0).recipe((3, 3, 9), (1, 3, 3))
    write_shown(tmp_path / "shown.zip", model, recipe, studio.drawer.draw(recipe), layout, Facts())
    with zipfile.ZipFile(tmp_path / "shown.zip") as archive:
        archive.extractall(tmp_path)
    config = export_config(model, 3, layout, 0, 1.0, 0.0)
    root = tmp_path / config.output_dir
    settings = json.loads((root / "generation/settings.json").read_text())
    assert (settings["part_seeds"], settings["defect_seeds"]) == ([3, 3, 9], [1, 3, 3])
    assert settings["seed"] is None
    for table in root.glob("*.csv"):
        with table.open(newline="") as stream:
            assert [row["seed"] for row in csv.DictReader(stream)] == ["", "3", ""]

    pipe = DFMGANPipeline.from_pretrained(model_folders["Coloured blobs"])
    samples = make_writer(replace(config, output_dir=root)).read(3)
    assert [sample.record.seed for sample in samples] == [None, 3, None]
    for sample, part, defect in zip(samples, settings["part_seeds"], settings["defect_seeds"], strict=True):
        taken = [Image.open(io.BytesIO(sample.image))]
        parts, defects = pipe.latents_from_seeds([part])[0], pipe.latents_from_seeds([defect])[1]
        assert _same(taken, pipe(object_latents=parts, defect_latents=defects).images)
        if sample.record.seed is not None:
            assert _same(taken, pipe(seeds=[sample.record.seed]).images)


def test_area_is_the_share_of_white_pixels(studio):
    triplet = studio.drawer.draw(studio.new_parts(studio.settings("Blobs", 1.0, 0.0), 1, 3))[0]
    assert triplet.defect_percent == pytest.approx(100 * np.mean(np.asarray(triplet.mask) == 255))
    assert 0 < triplet.defect_percent < 100


@pytest.mark.parametrize("layout", ["MVTec AD", "Image folder", "Parquet"])
def test_zip_holds_what_the_export_writes(studio, model_folders, tmp_path, layout):
    from card import Facts
    from take_away import write_archive

    from dfmgan_hf.export import generate_dataset

    config = studio.export(studio.settings("Blobs", 0.9, 0.1), 5, 3, layout)
    path = tmp_path / "five.zip"
    assert list(write_archive(path, studio.drawer, "Blobs", config, Facts())) == [1, 2, 3, 4, 5]
    assert [file.name for file in tmp_path.iterdir()] == ["five.zip"]
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert "- seed: 3" in files.pop("blobs/README.md").decode()
    assert json.loads(files.pop("blobs/generation/settings.json"))["model"] == "Blobs"
    if layout == "Parquet":
        ((name, content),) = files.items()
        assert name == "blobs/data/train-00000-of-00001.parquet"
        encoded = [row["mask"]["bytes"] for row in pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()]
    else:
        encoded = [content for name, content in files.items() if "mask" in name and ".png" in name]
    masks = [Image.open(io.BytesIO(content)) for content in encoded]
    assert len(masks) == 5
    assert all(set(np.unique(np.asarray(mask))) == {0, 255} for mask in masks)

    elsewhere = replace(config, output_dir=tmp_path / config.output_dir)
    pipe = DFMGANPipeline.from_pretrained(model_folders["Blobs"])
    generate_dataset(pipe, elsewhere, model_name="m")
    for name, content in files.items():
        assert (tmp_path / name).read_bytes() == content, name


def test_zip_holds_defects_of_the_chosen_strength_and_says_so(studio, tmp_path):
    from card import Facts
    from take_away import write_archive

    config = studio.export(studio.settings("Blobs", 1.0, 0.0), 2, 3, "Image folder")
    pictures = {}
    for strength in (1.0, 0.4):
        path = tmp_path / f"{strength}.zip"
        list(write_archive(path, studio.drawer, "Blobs", config, Facts(), strength))
        with zipfile.ZipFile(path) as archive:
            assert f"- strength: {strength}" in archive.read("blobs/README.md").decode()
            for kind in ("images", "defect_free", "masks"):
                pictures[kind, strength] = Image.open(io.BytesIO(archive.read(f"blobs/{kind}/000001.png")))
                pictures[kind, strength].load()
    for kind in ("defect_free", "masks"):
        assert pictures[kind, 0.4].tobytes() == pictures[kind, 1.0].tobytes()
    faint = Image.blend(pictures["defect_free", 1.0], pictures["images", 1.0], 0.4)
    assert pictures["images", 0.4].tobytes() == faint.tobytes() != pictures["images", 1.0].tobytes()
    assert pictures["images", 0.4].info == pictures["images", 1.0].info


@pytest.mark.parametrize("layout", ["MVTec AD", "Image folder", "Parquet"])
def test_stopped_zip_leaves_nothing_behind(studio, tmp_path, layout):
    from card import Facts
    from take_away import write_archive

    config = studio.export(studio.settings("Blobs", 1.0, 0.0), 50, 0, layout)
    writing = write_archive(tmp_path / "never.zip", studio.drawer, "Blobs", config, Facts())
    assert next(writing) == 1
    writing.close()
    assert list(tmp_path.iterdir()) == []


def test_zip_of_a_model_that_draws_no_defect_is_refused_in_words(studio, tmp_path):
    import gradio as gr
    from card import Facts
    from take_away import write_archive

    config = replace(studio.export(studio.settings("Blobs", 1.0, 10.0), 2, 0, "MVTec AD"), max_attempts=2)
    with pytest.raises(gr.Error, match="drew no defect at this threshold"):
        list(write_archive(tmp_path / "never.zip", studio.drawer, "Blobs", config, Facts()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_command_line_beside_the_zip_is_one_that_the_example_takes(studio, model_folders, tmp_path):
    import shlex
    import subprocess
    import sys

    from snippet import export_command

    root = Path(__file__).resolve().parents[2]
    config = studio.export(studio.settings("Blobs", 0.9, 0.1), 2, 3, "MVTec AD")
    command = shlex.split(export_command(studio.catalog, "Blobs", config).replace("\\\n", " "))
    assert command[0] == "python"
    script = [sys.executable, str(root / command[1]), *command[2:]]
    subprocess.run(
        [*script, "--output_dir", str(tmp_path / "blobs")],
        cwd=model_folders["Blobs"].parent,
        check=True,
        capture_output=True,
    )
    assert len(list((tmp_path / "blobs" / "blobs" / "test" / "defect").iterdir())) == 2
