"""What a triplet depends on: the settings and its number, and nothing else."""

import io
import json
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.export import ExportConfig, ExportError, GenerateConfig, draw_samples, generate, generate_dataset
from dfmgan_hf.export.generate import DrawConfig, _draw_batch, candidate_seed, one_ahead, open_gate, why_dropped
from dfmgan_hf.export.generate import draw as draw_to_folder
from dfmgan_hf.export.paint import PaintSetConfig, paint_dataset
from dfmgan_hf.gate import QualityGate
from dfmgan_hf.painting import PaintConfig


def draw(pipe, indices=range(10), **options):
    return list(draw_samples(pipe, ExportConfig("out", **options), indices))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_triplet_depends_on_its_number_alone(pipe, batch_size):
    options = {"max_mask_area": 0.2, "noise_mode": "random"}
    expected = draw(pipe, **options)
    assert sum(sample.record.dropped_too_large for sample in expected) > 0
    # Any part of the numbers, as a stopped export or another process draws it.
    for sample in draw(pipe, [1, 2, 7, 9], batch_size=batch_size, **options):
        whole = expected[sample.record.index]
        assert sample.record == whole.record
        assert np.abs(pixels(sample.image) - pixels(whole.image)).max() <= 1


def test_seeds_stay_what_they_are():
    """Else an export of an earlier version could not go on."""
    assert [candidate_seed(0, index, 0) for index in range(3)] == [2968811710, 3964924996, 3141116543]
    assert candidate_seed(7, 99_999, 3) == 613863291
    sets = [{candidate_seed(seed, index, 0) for index in range(1000)} for seed in (0, 1, 2**32 - 1)]
    assert len(set.union(*sets)) == 3000, "sets of other seeds do not overlap, as they would with seed + i"


def test_dropped_draws_are_counted_by_reason(pipe):
    bounds = {"min_mask_area": 0.05, "max_mask_area": 0.2}
    for sample in draw(pipe, range(20), **bounds):
        record = sample.record
        attempts = record.dropped_empty + record.dropped_too_small + record.dropped_too_large
        candidates = [candidate_seed(0, record.index, attempt) for attempt in range(attempts + 1)]
        areas = [(np.asarray(mask) != 0).mean() for mask in pipe(seeds=candidates).masks]
        assert candidates[-1] == record.seed
        assert 0.05 <= areas[-1] == record.mask_area <= 0.2
        assert record.dropped_empty == sum(area == 0 for area in areas)
        assert record.dropped_too_small == sum(0 < area < 0.05 for area in areas)
        assert record.dropped_too_large == sum(area > 0.2 for area in areas)


def test_settings_reach_the_pipeline(pipe):
    options = {"truncation_psi": 0.5, "noise_mode": "none", "mask_threshold": -1.0}
    (sample,) = draw(pipe, [3], seed=9, min_mask_area=0, **options)
    output = pipe(seeds=[candidate_seed(9, 3, 0)], **options)
    assert np.array_equal(pixels(sample.image), output.images[0])
    assert np.array_equal(pixels(sample.mask), output.masks[0])
    assert np.array_equal(pixels(sample.defect_free), output.defect_free_images[0])


@pytest.mark.parametrize(
    ("lowest", "highest", "area", "reason"),
    [
        (None, 1.0, 0.0, "empty"),
        (None, 1.0, 1e-6, None),
        (0.0, 1.0, 0.0, None),
        (0.1, 0.3, 0.0, "empty"),
        (0.1, 0.3, 0.09, "too_small"),
        (0.1, 0.3, 0.1, None),
        (0.1, 0.3, 0.3, None),
        (0.1, 0.3, 0.31, "too_large"),
    ],
)
def test_bounds(lowest, highest, area, reason):
    assert why_dropped(area, ExportConfig("out", min_mask_area=lowest, max_mask_area=highest)) == reason


def test_bounds_that_nothing_passes(pipe):
    with torch.no_grad():
        pipe.generator.to_mask.bias.fill_(-100.0)
    with pytest.raises(ExportError, match=r"None of the first 7 draws of image 0 .*\(7 empty\).*raise max_attempts"):
        draw(pipe, max_attempts=7)


def test_a_gate_keeps_the_first_draw_that_passes_and_records_the_others(pipe, gate):
    samples = list(draw_samples(pipe, ExportConfig("out", min_mask_area=0), range(10), gate))
    failed = set()
    for sample in samples:
        entry = json.loads(sample.record.gate)
        seeds = [seed for seed, _ in entry["refused"]] + [sample.record.seed]
        assert seeds == [candidate_seed(0, sample.record.index, attempt) for attempt in range(len(seeds))]
        assert 0.01 <= entry["numbers"]["area"] <= 0.1
        failed |= {name for _, names in entry["refused"] for name in names}
    assert failed == {"visible", "smallest", "largest"}
    (alone,) = draw_samples(pipe, ExportConfig("out", min_mask_area=0), [7], gate)
    assert alone.record == samples[7].record


def test_a_gate_that_hardly_anything_passes(pipe, gate):
    gate.thresholds["visible"] = 1e6
    with pytest.raises(ExportError, match=r"Of 200 draws the gate let 0 pass \(.*200 nothing visible.*--gate"):
        list(draw_samples(pipe, ExportConfig("out", min_mask_area=0), range(32), gate))
    with pytest.raises(ExportError, match=r"3 draws of image 0 .* passes the gate \(3 nothing visible\)"):
        list(draw_samples(pipe, ExportConfig("out", min_mask_area=0, max_attempts=3), [0], gate))


def test_a_gated_export_sums_up_and_shows_what_was_refused(export, gate, tmp_path):
    summary = export(gate=gate)
    written = json.loads((tmp_path / "out/generation/summary.json").read_text())
    assert written["refused"] == summary.refused
    assert f"drew {12 + sum(summary.refused.values())}, kept 12: " in str(summary)
    assert Image.open(tmp_path / "out/generation/refused.png").width > 500
    gate.sha256 = "1" * 64
    with pytest.raises(ExportError, match=r"gate_sha256 was 0000.* and is 1111"):
        export(gate=gate)


def test_a_gate_reads_its_photographs_with_the_bit_depth_of_the_camera(pipe, gate, tmp_path, monkeypatch):
    depths = []
    monkeypatch.setattr(QualityGate, "from_data", lambda *_, bit_depth=16, **__: depths.append(bit_depth) or gate)
    pipe.save_pretrained(tmp_path / "model")
    Image.new("RGB", (32, 32), (90, 120, 60)).save(tmp_path / "photograph.png")
    how = PaintConfig(bit_depth=12, any_product=True)
    settings = {"model": str(tmp_path / "model"), "photographs": tmp_path / "photograph.png", "how": how}
    with monkeypatch.context() as context:
        context.setattr("dfmgan_hf.export.paint.paint_samples", lambda *_, **__: iter([None]))
        context.setattr("dfmgan_hf.export.paint.export_dataset", lambda *_, **__: None)
        paint_dataset(PaintSetConfig(output_dir=tmp_path / "painted", gate=tmp_path, device="cpu", **settings))
    for options in ({}, {"gate_bit_depth": 10}):
        export = ExportConfig(tmp_path / f"out{len(options)}", num_images=1)
        generate(GenerateConfig(str(tmp_path / "model"), export, gate=tmp_path, **options))
    assert depths == [12, 16, 10]


def test_a_gate_sees_photographs_in_the_shape_that_training_gave_them(pipe, gate, tmp_path, monkeypatch):
    fits = []
    monkeypatch.setattr(QualityGate, "from_data", lambda *_, fit, **__: fits.append(fit) or gate)
    pipe.save_pretrained(tmp_path)
    for fit in ("pad", "resize"):
        (tmp_path / "training_config.json").write_text(json.dumps({"config": {"data": {"fit": fit}}}))
        open_gate(tmp_path, ExportConfig(tmp_path), DFMGANPipeline.from_pretrained(tmp_path))
    assert fits == ["pad", "resize"]


def test_a_folder_holds_one_drawing(pipe, make_backbone, tmp_path, capsys):
    pipe.save_pretrained(tmp_path / "model")
    DFMGANPipeline(make_backbone()).save_pretrained(tmp_path / "backbone")
    out = tmp_path / "out"
    own = {"00007_mask.png", "7_defect_free.png", "notes_defect_free.png", "00001.png"}
    out.mkdir()
    for name in own:
        (out / name).write_bytes(b"mine")

    def drawn(model: str, **options) -> set[str]:
        draw_to_folder(DrawConfig(str(tmp_path / model), out, device="cpu", **options))
        return {path.name for path in out.iterdir()} - own - {"contact_sheet.png"}

    triplet = ("defect", "defect_free", "mask")
    assert drawn("model", num_images=3) == {f"{seed:05d}_{kind}.png" for seed in range(3) for kind in triplet}
    assert drawn("model", num_images=1, first_seed=2) == {f"00002_{kind}.png" for kind in triplet}
    assert "Removed 6 pictures of an earlier drawing from" in capsys.readouterr().out
    assert drawn("backbone", num_images=2, first_seed=2) == {"00002_defect_free.png", "00003_defect_free.png"}
    assert all((out / name).read_bytes() == b"mine" for name in own)


def test_a_refused_export_leaves_its_folder_to_the_right_command(make_pipe, tmp_path):
    pipe = make_pipe(defect_names=["dent", "hole"])
    for wrong in ({}, {"defect": "dent", "mask_threshold": -1e9}):
        with pytest.raises(ValueError, match=r"say which with --defect|`mask_threshold` must be"):
            generate_dataset(pipe, ExportConfig(tmp_path / "out", num_images=2, **wrong), model_name="tiny")
        assert not list(tmp_path.iterdir())
    config = ExportConfig(tmp_path / "out", num_images=2, defect="dent", min_mask_area=0)
    assert generate_dataset(pipe, config, model_name="tiny").num_drawn == 2


def test_a_backbone_is_refused(make_backbone):
    with pytest.raises(ExportError, match="a backbone of stage 1"):
        draw(DFMGANPipeline(make_backbone()))


def test_one_ahead_computes_the_next_while_the_last_is_used():
    started = [threading.Event() for _ in range(3)]

    def items():
        for i, event in enumerate(started):
            event.set()
            yield i
        raise ExportError("none is left")

    ahead = one_ahead(items())
    assert next(ahead) == 0
    assert started[1].wait(10)
    assert next(ahead) == 1
    assert next(ahead) == 2
    with pytest.raises(ExportError, match="none is left"):
        next(ahead)
    assert list(one_ahead(iter([]))) == []


def test_a_batch_ahead_gives_the_same_triplets(pipe):
    config, parts = ExportConfig("out"), ([0, 1, 2], [3, 4], [5])
    expected = [_draw_batch(pipe, config, part) for part in parts]
    assert list(one_ahead(_draw_batch(pipe, config, part) for part in parts)) == expected
