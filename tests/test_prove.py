"""`dfmgan prove`: measures, intervals, leakage, made defects, the whole run, and what is said of bad input."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("segmentation_models_pytorch")
pytest.importorskip("scipy")
pytest.importorskip("onnx")

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.data import Partition
from dfmgan_hf.data.patches import patch_stems
from dfmgan_hf.data.records import DataError, ImageRecord
from dfmgan_hf.gate import Judgement
from dfmgan_hf.prove import detector, experiment, perlin, report, statistics
from dfmgan_hf.prove.experiment import Experiment, Network, ProveConfig, ProveError, choose_plan, prove
from dfmgan_hf.prove.statistics import Comparison, Interval, Scores


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    """The smallest network of the kind: what it finds does not matter here, but that it learns at all."""
    monkeypatch.setattr(detector, "FEATURE_NETWORK", "mobilenetv3_small_050")
    monkeypatch.setattr(detector, "DECODER", (32, 16, 16, 8, 8))


def some_scores(rng, count=10, gain=0.0):
    masks = np.zeros((count, 24, 24), dtype=bool)
    for i in range(count // 2):
        masks[i, 2 : 6 + i, 3:15] = True
        masks[i, 18:21, 18 : 20 + i] = i % 2
    logits = 2 * rng.normal(size=masks.shape) + (2 + gain) * masks
    images = rng.normal(size=count) + masks.any(axis=(1, 2))
    return logits, masks, images


# --- Measures ---


def test_measures_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    from benchmarks.paper.localization import f1_max, pro

    logits, masks, images = some_scores(np.random.default_rng(0))
    scores = Scores.of(list(logits), list(masks), images)
    chosen = np.array([0, 1, 1, 3, 4, 6, 6, 6, 8, 9])  # a draw with repeats
    found = statistics.measure(scores, np.bincount(chosen, minlength=10)[None])
    binned, truth = statistics.to_bins(logits).astype(float)[chosen], masks[chosen]
    flat = binned.reshape(-1), truth.reshape(-1)
    expected = {
        "pixel_ap": metrics.average_precision_score(flat[1], flat[0]),
        "pixel_f1": f1_max(*flat),
        "pro": pro(binned, truth),
        "image_auroc": metrics.roc_auc_score(truth.any(axis=(1, 2)), images[chosen]),
    }
    assert {name: float(value[0]) for name, value in found.items()} == pytest.approx(expected, abs=1e-9)


def test_the_best_threshold_has_the_best_f1():
    logits, masks, images = some_scores(np.random.default_rng(1))
    scores = Scores.of(list(logits), list(masks), images)
    found = logits >= statistics.best_threshold(scores)
    f1 = 2 * (found & masks).sum() / (found.sum() + masks.sum())
    best = statistics.measure(scores, np.ones((1, 10)))["pixel_f1"][0]
    assert f1 == pytest.approx(best, abs=2e-3)


def test_parts_are_drawn_whole_and_both_kinds_are_in_each_draw():
    parts = ["a", "a", "b", "c", "d", "d"]
    weights = statistics.draw_parts(parts, np.array([True, True, True, False, False, False]), draws=200)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 4] == weights[:, 5]).all()
    assert (weights[:, 0] + weights[:, 2] == 2).all()
    assert (weights[:, 3] + weights[:, 4] == 2).all()
    assert len(np.unique(weights, axis=0)) == 9


# --- The answer ---


def simulated(rng, parts, seeds, seed_effect, gain=0.0):
    """Networks of two arms whose scores differ by chance: of photographs, of seeds, and of pixels."""
    count = len(parts)
    is_defective = np.arange(count) < count // 2
    shared = rng.normal(size=count)  # a part is hard for every network
    arms = []
    for arm in range(2):
        networks = []
        for _ in range(seeds):
            logits = shared + 0.7 * rng.normal(size=count) + seed_effect * rng.normal() + gain * arm
            defect, good = np.zeros((count, 32), np.float32), np.zeros((count, 32), np.float32)
            bins = np.clip(12 + 4 * logits, 0, 31).astype(int)
            defect[np.arange(count), bins] = is_defective * 20
            noise = np.clip(rng.normal(10, 4, size=(count, 60)), 0, 31).astype(int)
            np.add.at(good, (np.arange(count)[:, None], noise), 1)
            networks.append(Scores(good, defect, defect / 20, logits.astype(np.float32)))
        arms.append(networks)
    return arms


@pytest.mark.parametrize(("seed_effect", "tiles"), [(0.3, 40), (0.0, 24)], ids=["seeds differ", "few parts"])
def test_equal_arms_are_said_to_help_in_at_most_5_percent(seed_effect, tiles):
    rng = np.random.default_rng(tiles)
    parts = [f"part {i % tiles}" for i in range(tiles)]
    answers = []
    for _ in range(500):
        baseline, arm = simulated(rng, parts, seeds=5, seed_effect=seed_effect)
        _, compared = statistics.compare(baseline, {"arm": arm}, parts, 0.02, draws=100)
        answers.append(compared["arm"].answer)
    assert answers.count("helps") + answers.count("harms") > 0
    assert answers.count("helps") <= 25


def test_a_real_gain_is_found():
    rng = np.random.default_rng(0)
    parts = [f"part {i}" for i in range(40)]
    answers = []
    for _ in range(20):
        baseline, arm = simulated(rng, parts, seeds=5, seed_effect=0.1, gain=1.0)
        answers.append(statistics.compare(baseline, {"arm": arm}, parts, 0.02, draws=100)[1]["arm"].answer)
    assert answers.count("helps") >= 18


def test_an_interval_takes_both_kinds_of_chance_in():
    rng = np.random.default_rng(0)
    by_seed, by_draw = np.array([0.1, 0.2, 0.3, 0.2, 0.2]), np.tile(rng.normal(0.2, 0.1, 1000), (5, 1))
    both = statistics.interval(by_seed, by_draw, 20)
    seeds_alone = statistics.interval(by_seed, np.full((5, 1000), 0.2), 20)
    parts_alone = statistics.interval(np.full(5, 0.2), by_draw, 20)
    assert seeds_alone.high - seeds_alone.low == pytest.approx(2 * 2.776 * 0.0707 / 5**0.5, rel=1e-2)
    width = [each.high - each.low for each in (both, seeds_alone, parts_alone)]
    assert width[0] > max(width[1:])
    luck = statistics.interval(by_seed, rng.normal(0.2, 0.1, (5, 1000)), 20)  # of one network in one part
    assert luck.high - luck.low < 1.15 * max(width[1], width[2] / 5**0.5)  # of a t with fewer degrees of freedom
    several = statistics.interval(by_seed, by_draw, 20, intervals=5)
    assert several.high > both.high


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(0.01, 0.2, "helps"), (-0.2, -0.01, "harms"), (-0.1, 0.01, "does not help"), (-0.1, 0.1, "cannot tell")],
)
def test_the_answer_follows_from_the_interval(low, high, answer):
    assert statistics.answer_of(Interval((low + high) / 2, low, high), least_gain=0.02) == answer


def results_of(answers, overlaps=False):
    def arm(answer):
        gain = {"helps": (0.05, 0.01, 0.09), "harms": (-0.05, -0.09, -0.01)}.get(answer, (0.0, -0.1, 0.01))
        gain = (0.02, -0.1, 0.14) if answer == "cannot tell" else gain
        interval = {"value": gain[0], "low": gain[1], "high": gain[2]}
        return {"differences": dict.fromkeys(statistics.MEASURES, interval), "answer": answer}

    return {
        "overlaps": overlaps,
        "baseline": {"pixel_ap": {"value": 0.5, "low": 0.4, "high": 0.6}},
        "gated": {},
        "notes": [],
        "models": [{"model": "m"}],
        "settings": {"ratio": 0.5, "least_gain": 0.02},
        "photographs": {"tested_parts": 40},
        "arms": {f"{name}@0.5": arm(answer) for name, answer in answers.items()},
    }


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (
            {"painted": "helps", "generated": "harms"},
            "It helps: with painted defects beside the photographs, the detector gains 5.0",
        ),
        ({"painted": "does not help", "generated": "harms"}, "It does not help: "),
        ({"painted": "cannot tell", "generated": "harms"}, "These photographs are too few to tell: with painted"),
        ({"painted": "does not help", "crop_paste": "helps"}, "It does not help: "),
        ({"painted": "harms", "generated": "harms"}, "It harms: with painted"),
    ],
)
def test_the_best_arm_that_needs_the_model_leads_the_answer(answers, words):
    assert report.sentence(results_of(answers)).startswith(words)


def test_arms_of_which_something_else_holds_are_named():
    answers = {"painted": "does not help", "generated": "cannot tell", "painted_gated": "does not help"}
    said = report.sentence(results_of({**answers, "mixture": "harms"}))
    assert said.startswith("These photographs are too few to tell: with generated images beside them")
    assert "With painted defects, painted defects that passed the gate: it does not help." in said
    assert said.endswith("With a mixture of all: it harms.")
    assert report.sentence(results_of({"painted": "harms"})).count("harms") == 1


def test_a_detector_that_has_hardly_learnt_is_said():
    results = results_of({"painted": "does not help"})
    assert report.remarks(results) == []
    results["baseline"]["pixel_ap"]["value"] = 0.037
    assert any("finds little (pixel AP 3.7 points of 100)" in line for line in report.remarks(results))


def test_there_is_no_answer_where_the_model_knew_what_was_tested():
    assert report.sentence(results_of({"painted": "helps"}, overlaps=True)).startswith("No answer")


# --- The plan ---


def test_a_budget_takes_arms_first_then_ratios_then_seeds():
    arms = ["photographs", "painted", "crop_paste"]
    seconds = dict.fromkeys(arms, 360.0)  # a tenth of an hour
    assert len(choose_plan(arms, 5, 0.5, None, seconds)) == 15
    assert {n.arm for n in choose_plan(arms, 5, 0.5, 1.0, seconds)} == {"photographs", "painted"}
    assert len(choose_plan(arms, 5, 0.5, 1.5, seconds)) == 15
    assert {n.ratio for n in choose_plan(arms, 5, 0.5, 2.5, seconds)} == {0.5, 0.25}
    most = choose_plan(arms, 5, 0.5, 100, seconds)
    assert len(most) == 10 * (1 + 2 * 3)
    assert len({(n.row, n.seed) for n in most}) == len(most)
    with pytest.raises(ProveError, match=r"budget of 0\.5 hours is not enough"):
        choose_plan(arms, 5, 0.5, 0.5, seconds)


# --- What networks are shown ---


def test_a_crop_shows_the_defect_and_continues_small_photographs():
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 255, (200, 90, 3)).astype(np.uint8), np.zeros((200, 90), dtype=bool)
    mask[150:155, 80:84] = True
    for _ in range(20):
        part, shown = detector.cut(image, mask, 128, rng)
        assert part.shape == (128, 128, 3)
        assert shown.any()
        ys, xs = np.nonzero(shown)
        assert (part[ys, xs].sum(axis=1)[:, None] == image[mask].sum(axis=1)).any(axis=1).all()


def test_half_of_a_batch_has_no_defect_and_made_ones_come_by_their_ratio():
    rng = np.random.default_rng(0)
    mask = np.ones((32, 32), dtype=bool)
    flat = {name: np.full((32, 32, 3), level, np.uint8) for name, level in (("good", 0), ("real", 100), ("made", 200))}
    shown = detector.Shown([flat["good"]], [(flat["real"], mask)], [(flat["made"], mask)], [], 0.25)
    images, masks = detector.draw_batch(shown, 32, 400, rng)
    assert masks[:200].sum() == 0
    assert masks[200:].min() == 1
    assert images[:200].max() == 0
    assert 30 < (images[200:].amax(dim=(1, 2, 3)) > 0.6).sum() < 70


def test_perlin_defects_change_what_their_mask_says_and_nothing_else():
    image = np.full((96, 96, 3), 90, np.uint8)
    source = np.random.default_rng(1).integers(0, 255, (96, 96, 3)).astype(np.uint8)
    made = [perlin.perlin_defect(image, source, np.random.default_rng(seed)) for seed in range(20)]
    assert all((painted[~mask] == 90).all() for painted, mask in made)
    changed = [(painted != image).any(axis=2).sum() / max(mask.sum(), 1) for painted, mask in made if mask.any()]
    assert len(changed) > 10
    assert np.median(changed) > 0.9
    areas = [mask.mean() for _, mask in made]
    assert np.mean(areas) < 0.35
    assert len(set(areas)) > 10


def test_perlin_noise_is_smooth_and_zero_where_its_gradients_sit():
    noise = perlin.perlin_noise(64, 4, 8, np.random.default_rng(0))
    assert np.abs(noise[::16, ::8]).max() < 1e-9
    assert 0.5 < np.abs(noise).max() < 1.2
    assert np.abs(np.diff(noise, axis=0)).max() < 0.4


# --- The whole ---


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """A data set of 24 parts with a bright scratch, each photographed twice, and 30 good ones."""
    folder = tmp_path_factory.mktemp("data") / "product"
    rng = np.random.default_rng(0)
    lines = ["file,group"]

    def save(name, defect=None):
        image = rng.normal(100, 12, (64, 64)).clip(0, 255)
        if defect is not None:
            image[defect] += 70
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)

    for i in range(30):
        name = f"{'train' if i < 18 else 'test'}/good/{i:03d}.png"
        save(name)
        lines.append(f"{name},good {i}")
    for i in range(24):
        mask = np.zeros((64, 64), dtype=bool)
        y, x = rng.integers(8, 50, 2)
        mask[y : y + 4, x : x + 10] = True
        name = f"test/scratch/{i:03d}.png"
        save(name, mask)
        lines.append(f"{name},part {i // 2}")
        truth = folder / f"ground_truth/scratch/{i:03d}_mask.png"
        truth.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(truth)
    (folder.parent / "groups.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def settings(product, tmp_path):
    return {
        "data_dir": product,
        "groups": product.parent / "groups.csv",
        "output_dir": tmp_path / "out",
        "seeds": 3,
        "side": 32,
        "steps": 2,
        "num_made": 4,
        "pretrained": False,
        "device": "cpu",
    }


@pytest.fixture
def model(make_generator, tmp_path):
    """A model of whole photographs, whose masks are about half of an image."""
    folder = tmp_path / "model"
    DFMGANPipeline(make_generator(window=0)).save_pretrained(folder)
    return folder


def test_a_run_leaves_a_report_and_a_network_and_goes_on_where_it_was_stopped(settings, model, capsys, monkeypatch):
    config = ProveConfig(**settings, models=(str(model),), arms=("painted", "mixture"))
    trained = []
    run = Experiment.run

    def stop_after_three(self, network):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(network.title)
        run(self, network)

    monkeypatch.setattr(Experiment, "run", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        prove(config)
    monkeypatch.setattr(Experiment, "run", lambda self, network: (trained.append(network.title), run(self, network)))
    prove(config)
    assert len(trained) == len(set(trained)) == 9  # three arms, three seeds
    out = config.output_dir
    results = json.loads((out / "results.json").read_text())
    assert set(results["arms"]) == {"painted@0.5", "mixture@0.5"}
    assert results["photographs"]["tested_parts"] == 8
    page = (out / "report.html").read_text()
    answer = report.sentence(results)
    assert f">{answer}</h1>" in page
    assert answer in (out / "table.md").read_text()
    assert "is not recorded" in page
    assert page.count("<img") == 4
    assert "src='http" not in page
    said = capsys.readouterr().out
    assert "3 of them done" in said
    assert "to go on this machine" in said

    runtime = pytest.importorskip("onnxruntime")
    images = np.random.default_rng(0).random((2, 3, 32, 64)).astype(np.float32)
    onnx = runtime.InferenceSession(str(out / "network.onnx")).run(None, {"images": images})[0]
    network = detector.Detector(pretrained=False)
    from safetensors.torch import load_file

    network.load_state_dict(load_file(out / "network.safetensors"))
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(images)).sigmoid().numpy()
    assert np.abs(onnx - expected).max() < 1e-4

    with pytest.raises(ProveError, match="begun with another steps"):
        prove(ProveConfig(**{**settings, "steps": 3}, models=(str(model),)))


def test_a_network_learns_and_nothing_is_tested_that_was_trained_on(settings):
    found = Experiment(ProveConfig(**settings))
    part = found._part
    trained = {part(r.name) for r in (*found.train_defects, *found.train_good)}
    assert trained.isdisjoint(part(r.name) for r in found.test)
    assert len({part(r.name) for r in found.test if r.defect != "good"}) == 8
    model = found.train(Network("photographs", 0, 0.5), 60, 0)
    scores = found.test_on(model, found.held_back)
    assert statistics.measure(scores, np.ones((1, len(found.test))))["pixel_ap"][0] > 0.3


def test_good_photographs_are_held_back_where_none_are_for_testing(settings, product):
    own = {
        **settings,
        "data_dir": None,
        "good_dir": product / "train/good",
        "defect_dir": product / "test/scratch",
        "mask_dir": product / "ground_truth/scratch",
        "groups": None,
    }
    with pytest.raises(ProveError, match="4 held-back parts without a defect, but at least 5"):
        Experiment(ProveConfig(**own))


def test_bad_files_are_left_out_or_end_the_run(settings, product, tmp_path, capsys):
    settings["data_dir"] = shutil.copytree(product, tmp_path / "copy")
    for name in ("train/good/001.png", "test/scratch/001.png"):
        (settings["data_dir"] / name).write_bytes(b"cut short")
    found = Experiment(ProveConfig(**settings, skip_bad_files=True))
    assert len(found.good) + len(found.real) + len(found.held_back) > 40
    assert capsys.readouterr().err.count("LEFT OUT") == 2
    with pytest.raises(DataError, match="001"):
        _ = Experiment(ProveConfig(**settings | {"output_dir": tmp_path / "other"})).good


def test_a_defect_that_is_cut_off_is_left_out_or_ends_the_run(settings, product, tmp_path, capsys):
    settings["data_dir"] = shutil.copytree(product, tmp_path / "copy")
    for name in ("test/scratch/002.png", "ground_truth/scratch/002_mask.png"):
        path = settings["data_dir"] / name
        image = Image.open(path)
        wide = Image.new("L", (300, 64))
        wide.paste(image, (0, 0))
        wide.save(path)
    settings["fit"] = "center_crop"
    found = Experiment(ProveConfig(**settings, skip_bad_files=True))
    assert len(found.real) + len(found.held_back) > 20
    assert "002" in capsys.readouterr().err.split("LEFT OUT", 1)[1]
    other = Experiment(ProveConfig(**settings | {"output_dir": tmp_path / "other"}))
    with pytest.raises(DataError, match=r"002.*--fit pad"):
        _ = other.real, other.held_back


@pytest.mark.parametrize("name", ["test/scratch/{}.png", "test/scratch/{}_x00010_y00004.png"])
def test_a_model_that_learnt_from_tested_parts_is_refused(settings, model, name):
    tested = sorted(Experiment(ProveConfig(**settings)).partition.test)
    seen = [name.format(n.split("/")[-1].removesuffix(".png")) for n in tested[:2]]
    (model / "training_config.json").write_text(json.dumps({"training_file_names": seen}))
    config = ProveConfig(**{**settings, "output_dir": settings["output_dir"] / "2"}, models=(str(model),))
    with pytest.raises(ProveError, match="has learnt from 2 photographs of tested parts"):
        Experiment(config)
    allowed = Experiment(ProveConfig(**{**config.__dict__, "allow_overlap": True}))
    assert allowed.sources[0]["overlaps"]


def test_lists_that_share_a_part_are_refused(settings, tmp_path):
    partition = Experiment(ProveConfig(**settings)).partition
    moved = next(n for n in partition.test if "scratch" in n)
    rest = tuple(n for n in partition.test if n != moved)
    Partition((*partition.base, moved), rest).save(tmp_path / "lists", "P1")
    config = ProveConfig(**{**settings, "output_dir": tmp_path / "2"}, split_dir=tmp_path / "lists")
    with pytest.raises(ProveError, match="1 parts are in both lists"):
        Experiment(config)


def test_a_model_of_the_other_parts_is_said_to_be_clean(settings, model):
    base = [n for n in Experiment(ProveConfig(**settings)).partition.base if "scratch" in n]
    (model / "training_config.json").write_text(json.dumps({"training_file_names": base}))
    found = Experiment(ProveConfig(**{**settings, "output_dir": settings["output_dir"] / "2"}, models=(str(model),)))
    assert found.overlap == []
    assert found.sources[0]["origin_known"]


def test_a_damaged_record_is_named(settings, model):
    (model / "backbone_training_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"backbone_training_config\.json is not valid JSON"):
        Experiment(ProveConfig(**settings, models=(str(model),)))


def test_patches_are_traced_to_their_photographs():
    known = {n: ImageRecord(n, None, None, "crack", "test") for n in ("test/crack/a.jpg", "test/crack/b_x1.png")}
    names = ["test/crack/a_x00012_y00003.png", "test/crack/b_x1.png", "test/hole/a.jpg"]
    assert experiment.photographs_of(names, known) == set(known)


def test_patches_of_other_layouts_are_traced():
    """Photographs of an imagefolder lie in any folders; of two with one stem, the patches of one are numbered."""
    known = {name: ImageRecord(name, None, None, "good", "train") for name in ("images/a.png", "more/a.png")}
    stems = patch_stems(known.values())
    for name in known:
        patches = [f"train/good/{stems[name]}_x00000_y00010.png"]
        assert experiment.photographs_of(patches, known) == {name}


# --- With the gate ---


class SomePass:
    """A gate that lets draws pass by their first pixel; it keeps what its thresholds would come from."""

    sha256, thresholds = "0", {"visible": 1.0}

    def __init__(self, defects=(), good=(), *size, parts=(), window=0, **_):
        self.names, self.parts, self.window = [r.name for r in (*defects, *good)], set(parts), window

    def judge(self, image, mask, twin):
        return Judgement({}, () if int(image[0, 0, 0]) % 2 else ("visible",))


@pytest.fixture
def some_pass(monkeypatch):
    monkeypatch.setattr(experiment, "QualityGate", type("Gate", (), {"from_photographs": SomePass}))


def test_the_gates_thresholds_come_from_what_nothing_is_tested_on(settings, model, some_pass):
    found = Experiment(ProveConfig(**settings, models=(str(model),)))
    gate = found.gate(str(model), None)
    assert gate.names == [r.name for r in (*found.train_defects, *found.train_good)]
    assert gate.parts == {found._part(r.name) for r in found.train_defects}
    assert gate.parts.isdisjoint(found._part(r.name) for r in found.test)
    assert gate is found.gate(str(model), None)


@pytest.mark.parametrize("arm", ["generated", "painted"])
def test_a_gated_arm_is_shown_the_first_draws_that_pass(settings, model, some_pass, arm):
    found = Experiment(ProveConfig(**settings, models=(str(model),)))
    made, _ = found.make(arm, 0, 6)
    gated, clean = found.make(f"{arm}_gated", 0, 6)
    assert len(gated) == 6
    assert len(clean) == (6 if arm == "generated" else 0)
    same = [bool((a[0] == b[0]).all()) for a, b in zip(made, gated, strict=True)]
    assert 0 < sum(same) < 6  # those that pass are kept, the others drawn again
    if arm == "generated":  # the model draws at 32x32, which is what networks are shown
        assert same == [bool(image[0, 0, 0] % 2) for image, _ in made]
        assert all(image[0, 0, 0] % 2 for image, _ in gated)


def test_with_and_without_the_gate_are_compared_in_one_run(settings, model, some_pass):
    options = {**settings, "models": (str(model),)}
    assert "generated_gated" not in Experiment(ProveConfig(**options)).arms
    prove(ProveConfig(**options, arms=("generated", "generated_gated")))
    out = settings["output_dir"]
    results = json.loads((out / "results.json").read_text())
    assert set(results["arms"]) == {"generated@0.5", "generated_gated@0.5"}
    gain = results["gated"]["generated_gated@0.5"]["pixel_ap"]
    apart = [results["arms"][f"{arm}@0.5"]["values"]["pixel_ap"]["value"] for arm in ("generated_gated", "generated")]
    assert gain["value"] == pytest.approx(apart[0] - apart[1])
    assert gain["low"] < gain["value"] < gain["high"]
    assert results["gates"] == {str(model): {"sha256": "0", "thresholds": {"visible": 1.0}}}
    assert "With generated images that passed the gate in place of all of them" in (out / "table.md").read_text()


def test_a_gate_that_lets_nothing_pass_ends_the_run(settings, model, some_pass, monkeypatch):
    monkeypatch.setattr(SomePass, "judge", lambda *_: Judgement({}, ("visible",)))
    monkeypatch.setattr(experiment, "TRIES", 3)
    with pytest.raises(ProveError, match="3 defects of the arm generated_gated are empty or refused by the gate"):
        Experiment(ProveConfig(**settings, models=(str(model),))).make("generated_gated", 0, 1)


# --- Bad input ---


def test_masks_good_photographs_and_parts_must_be_there(settings, product, tmp_path):
    def copy(name, *removed):
        folder = tmp_path / name / "product"
        shutil.copytree(product, folder)
        for each in removed:
            shutil.rmtree(folder / each)
        return {**settings, "data_dir": folder, "output_dir": tmp_path / name / "out"}

    with pytest.raises(DataError, match="mask"):
        Experiment(ProveConfig(**copy("masks", "ground_truth")))
    with pytest.raises(DataError, match="no good photographs"):
        Experiment(ProveConfig(**copy("good", "train/good", "test/good")))
    groups = tmp_path / "few.csv"
    lines = (product.parent / "groups.csv").read_text().splitlines()
    few = [f"{line.split(',')[0]},part {int(line[-2:]) // 3}" if "scratch" in line else line for line in lines]
    groups.write_text("\n".join(few) + "\n")
    with pytest.raises(ProveError, match="3 held-back parts with a defect, but at least 5"):
        Experiment(ProveConfig(**{**copy("few"), "groups": groups}))
    with pytest.raises(DataError, match="no photographs of dent"):
        Experiment(ProveConfig(**settings, defects=("dent",)))


def test_models_of_another_size_or_without_defects_are_refused(settings, make_generator, make_backbone, tmp_path):
    large, backbone = tmp_path / "large", tmp_path / "backbone"
    DFMGANPipeline(make_generator(window=80)).save_pretrained(large)
    DFMGANPipeline(make_backbone()).save_pretrained(backbone)
    with pytest.raises(ValueError, match="64x64 pixels, smaller than the 80x80"):
        prove(ProveConfig(**settings, models=(str(large),)))
    with pytest.raises(ProveError, match="is a backbone without defects"):
        Experiment(ProveConfig(**settings, models=(str(backbone),)))
    with pytest.raises(ProveError, match="draws patches at the photographs' own scale"):
        Experiment(ProveConfig(**settings, models=(str(large),), scale="whole"))


def test_models_of_strips_are_shown_and_tested_in_their_shape(settings, make_generator, tmp_path, some_pass):
    wide, square = tmp_path / "wide", tmp_path / "square"
    DFMGANPipeline(make_generator(aspect=(1, 2), window=0)).save_pretrained(wide)
    DFMGANPipeline(make_generator(window=0)).save_pretrained(square)
    found = Experiment(ProveConfig(**settings, models=(str(wide),)))
    assert {image.shape for image in (*found.good, *(image for image, _ in found.real))} == {(32, 64, 3)}
    for arm in ("generated", "painted", "crop_paste"):
        (image, mask), *_ = found.make(arm, 0, 2)[0]
        assert (image.shape, mask.shape) == ((32, 64, 3), (32, 64))
    image, mask = found.make("perlin", 0, 1)[0][0]
    assert (image.shape, mask.shape) == ((32, 32, 3), (32, 32))  # as large as a crop
    scores = found.test_on(found.train(Network("mixture", 0, 0.5), 1, 3), found.held_back[:1])
    assert scores.defect.sum() + scores.good.sum() == 32 * 64
    assert "scaled to 64x32" in found._input()
    with pytest.raises(ProveError, match=r"wide and .*square draw images of different shapes"):
        Experiment(ProveConfig(**settings, models=(str(wide), str(square))))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": 2}, "`seeds` must be at least 3"),
        ({"side": 100}, "`side` must be a multiple of 32"),
        ({"ratio": 1.0}, "`ratio` must be between"),
        ({"budget": -1.0}, "`budget` is in hours"),
        ({"steps": 0}, "`steps` must be at least 1"),
    ],
)
def test_impossible_options_are_refused(settings, change, words):
    with pytest.raises(ValueError, match=words):
        ProveConfig(**{**settings, **change})


def test_made_defects_need_a_model(settings):
    with pytest.raises(ProveError, match="painted need a model"):
        _ = Experiment(ProveConfig(**settings, arms=("painted",))).arms
    with pytest.raises(ProveError, match="Nothing is compared with photographs"):
        _ = Experiment(ProveConfig(**{**settings, "arms": ("photographs",)})).arms


def test_an_estimate_binds_a_folder_to_nothing(settings):
    Experiment(ProveConfig(**settings, estimate=True))
    assert [path.name for path in settings["output_dir"].glob("*")] == []
    Experiment(ProveConfig(**{**settings, "steps": 3}))
    with pytest.raises(ProveError, match="begun with another steps"):
        Experiment(ProveConfig(**settings))


def test_a_device_that_is_not_there_is_refused(settings):
    with pytest.raises(ValueError, match="`device` is 'abacus', which cannot be used here"):
        Experiment(ProveConfig(**{**settings, "device": "abacus"}))


def test_missing_weights_are_explained(monkeypatch, tmp_path):
    monkeypatch.setenv("DFMGAN_FEATURE_WEIGHTS", str(tmp_path / "none.safetensors"))
    with pytest.raises(OSError, match="--no-pretrained"):
        detector.Detector()


@pytest.mark.slow
def test_ten_comparisons_of_equal_networks_claim_nothing(settings):
    """Both arms are photographs alone, with other seeds; networks are of few steps, and differ much."""
    found = Experiment(ProveConfig(**settings))
    parts = [found._part(r.name) for r in found.test]
    networks = [
        found.test_on(found.train(Network("photographs", seed, 0.5), 8, 0), found.held_back) for seed in range(10)
    ]
    rng = np.random.default_rng(0)
    answers = []
    for _ in range(10):
        order = rng.permutation(len(networks))
        arms = [[networks[i] for i in order[k : k + 5]] for k in (0, 5)]
        compared: dict[str, Comparison] = statistics.compare(arms[0], {"arm": arms[1]}, parts, 0.02, 200)[1]
        answers.append(compared["arm"].answer)
    assert answers.count("helps") + answers.count("harms") <= 1
