"""Several kinds of defect in one model: labels, classes, saved names, drawing one of them, and the benchmarks."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from benchmarks.paper.cells import check_learnt
from benchmarks.paper.classification import ClassificationBenchmark, ClassificationConfig, ClassifierConfig
from benchmarks.paper.downstream import Trial
from benchmarks.paper.generation import GenerationBenchmark, GenerationConfig
from dfmgan_hf.data import DataConfig, DataError
from dfmgan_hf.methods import defect_gan, open_sampler
from dfmgan_hf.methods.defect_gan import METHOD, DefectGANSampler
from dfmgan_hf.methods.method import SamplerRequest
from dfmgan_hf.methods.train import train as run_training
from dfmgan_hf.metrics import EvaluationConfig, Networks
from dfmgan_hf.models.defect_gan import DefectGANDiscriminatorOutput, DefectGANGenerator, control_map
from dfmgan_hf.sheets import to_pixels
from dfmgan_hf.training import Batch, NonFiniteLossError, RunningStatistics
from tests.methods.test_defect_gan import Fixed, Judge
from tests.methods.translation import make_task, run_phase
from tests.metrics.drawn import tiny_extractor

pytestmark = pytest.mark.usefixtures("no_report")

KINDS = ("dot", "spot")
SIZES = ["--preset=small", "--resolution=32", "--image_channels=1", "--channel_base=128", "--batch_size=4"]
RUN = ["--log_every_kimg=0.008", "--sample_every_kimg=0", "--checkpoint_every_kimg=0.004", "--report_to=none"]


def train(category: Path, output: Path, *more: str, total_kimg: float = 0.008) -> None:
    """Two steps of Defect-GAN on four images each."""
    where = ["--data_dir", str(category), "--output_dir", str(output), f"--total_kimg={total_kimg}"]
    run_training(["defect_gan", *where, *SIZES, *RUN, *more])


@pytest.fixture(scope="module")
def trained(category, tmp_path_factory) -> Path:
    """A model of both kinds."""
    folder = tmp_path_factory.mktemp("joint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dfmgan_hf.training.run.try_report", lambda _: None)
        train(category, folder, "--joint", "--defect", *KINDS)
    return folder


def labelled_batch(category: Path) -> Batch:
    """Two photographs of the first kind, then two of the second."""
    data = DataConfig(data_dir=category).load_kinds(KINDS, resolution=32, image_channels=1)
    return Batch(data.images[2:6] / 127.5 - 1, labels=data.labels[2:6])


# --- data ---


def test_photographs_of_several_kinds_are_one_labelled_set(category):
    data = DataConfig(data_dir=category)
    both = data.load_kinds(("spot", "dot"), resolution=32)
    assert both.kinds == ("spot", "dot")
    for number, kind in enumerate(both.kinds):
        alone = data.load_defects(kind, resolution=32)
        mine = both.labels == number
        assert torch.equal(both.images[mine], alone.images)
        assert torch.equal(both.masks[mine], alone.masks)
        assert [name for name, own in zip(both.file_names, mine, strict=True) if own] == alone.file_names
    assert data.load_kinds(resolution=32).kinds == KINDS, "all kinds of the category where none is named"
    few = DataConfig(data_dir=category, shots=1).load_kinds(KINDS, resolution=32)
    assert few.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"a single kind of defect to learn \(dot\).* Name more of dot, spot with"):
        data.load_kinds(("dot", "dot"))


# --- losses ---


def test_good_photographs_get_the_kind_of_their_partner(category):
    task = make_task(METHOD, category, joint=True)
    assert task.generator.config["num_classes"] == task.discriminator.config["num_classes"] == 3
    task.generator, task.discriminator = Fixed(0.0, 0.0), Judge()
    task.discriminator.forward = lambda images: DefectGANDiscriminatorOutput(
        images.mean(dim=(1, 2, 3), keepdim=True), torch.tensor([[0.0, 9.0, 0.0]]).expand(len(images), -1)
    )
    statistics = RunningStatistics()
    task.generator_loss(labelled_batch(category), statistics)
    there, back = (control.argmax(dim=1).flatten().tolist() for control in task.generator.controls)
    assert there == [1, 1, 2, 2, 0, 0, 0, 0]
    assert back == [0, 0, 0, 0, 1, 1, 2, 2]
    # The judge takes all for the first kind: right for two of the eight that are wanted.
    assert statistics.collect()["class_accuracy/fake"] == pytest.approx(2 / 8)


def test_critic_compares_and_classifies_within_a_kind(category, monkeypatch):
    """With m = 0 fakes are the good images, then the defective ones; each is paired with one of the class it fakes."""
    task = make_task(METHOD, category, joint=True)
    task.generator = Fixed(0.0, 0.0)
    pairs = []
    monkeypatch.setattr(
        defect_gan, "gradient_penalty", lambda critic, real, fake: pairs.append((real, fake)) or torch.zeros(len(real))
    )
    batch = labelled_batch(category)
    statistics = RunningStatistics()
    torch.manual_seed(0)
    loss = task.discriminator_loss(batch, statistics)
    ((real, fake),) = pairs
    assert torch.equal(real[:4], batch.images), "real defects of the classes that the first half of the fakes has"
    assert torch.equal(fake[4:], batch.images)
    (control,) = task.generator.controls
    assert control.argmax(dim=1).flatten().tolist() == [1, 1, 2, 2, 0, 0, 0, 0]
    logits = task.discriminator(torch.cat([fake[:4], batch.images])).class_logits
    expected = 2 * torch.nn.functional.cross_entropy(logits, torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]))
    torch.testing.assert_close(loss, expected)


def test_each_phase_trains_its_own_network(category):
    task = make_task(METHOD, category, joint=True)
    for name in ("discriminator", "generator"):
        assert torch.tensor(run_phase(task, name, labelled_batch(category))).isfinite()


def test_samples_while_training_are_of_all_kinds(category):
    sampler = METHOD.sample_task(make_task(METHOD, category, joint=True))
    assert sampler.classes == (1, 1, 1, 1, 2, 2, 2, 2)
    sampler.generator = Recording(sampler.generator)
    images, _ = sampler.sample_at(range(12), seed=0)
    drawn = sampler.generator.classes
    assert set(drawn) == {1, 2}
    again, _ = sampler.sample_at([7], seed=0)
    assert drawn[7] == sampler.generator.classes[12]
    assert torch.equal(again[0], images[7])


class Recording:
    """A generator that notes which classes are asked of it."""

    def __init__(self, generator: DefectGANGenerator) -> None:
        self.generator, self.config, self.classes = generator, generator.config, []

    def __call__(self, images, control, generators):
        self.classes += control.argmax(dim=1).flatten().tolist()
        return self.generator(images, control, generators)


# --- a trained model ---


def test_saved_model_knows_its_kinds_and_draws_the_chosen_one(category, trained):
    record = json.loads((trained / "training_config.json").read_text())
    assert (record["defect"], record["images"]) == ("dot, spot", 8)
    generator = DefectGANGenerator.from_pretrained(trained, subfolder="generator")
    assert list(generator.config["defect_names"]) == list(KINDS)
    data = DataConfig(data_dir=category)
    drawn = {}
    for number, kind in enumerate(KINDS, 1):
        sampler = open_sampler(SamplerRequest(source=str(trained), data=data, defect=kind))
        assert sampler.settings["defect"] == kind
        drawn[kind] = sampler.sample_at([3], seed=2)[0]
        good = sampler.good.at([int(torch.randint(6, (), generator=torch.Generator().manual_seed(5)))])
        random = torch.Generator().manual_seed(5)
        torch.randint(6, (), generator=random)
        control = control_map(torch.tensor([number]), 3)
        with torch.no_grad():
            expected = generator(good, control, [random]).images
        assert torch.equal(drawn[kind], to_pixels(expected)[:, :1])
    assert not torch.equal(drawn["dot"], drawn["spot"])
    for defect, message in ((None, "dot, spot: choose one with --defect"), ("dent", "dot, spot, but not 'dent'")):
        with pytest.raises(ValueError, match=message):
            open_sampler(SamplerRequest(source=str(trained), data=data, defect=defect))


def test_model_of_one_kind_needs_no_name(category, tmp_path):
    task = make_task(METHOD, category)
    task.export(tmp_path)
    assert task.generator.config["defect_names"] is None
    data = DataConfig(data_dir=category)
    expected = DefectGANSampler(task.generator, task.good).sample_at([0, 1], 3)[0]
    for defect in (None, "dot", "what it is called elsewhere"):
        sampler = open_sampler(SamplerRequest(source=str(tmp_path), data=data, defect=defect))
        # Another memory layout rounds differently.
        assert (sampler.sample_at([0, 1], 3)[0].int() - expected.int()).abs().max() <= 1


def test_a_stopped_joint_run_goes_on_as_if_it_had_not_been_stopped(category, trained, tmp_path):
    train(category, tmp_path, "--joint", total_kimg=0.004)
    train(category, tmp_path, "--joint", "--defect", *KINDS, "--resume_from_checkpoint=latest")
    for network in ("generator", "discriminator"):
        name = f"{network}/diffusion_pytorch_model.safetensors"
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()


def test_several_kinds_without_joint_are_several_models(category, tmp_path, monkeypatch):
    train(category, tmp_path, "--defect", *KINDS)
    for kind in KINDS:
        record = json.loads((tmp_path / kind / "training_config.json").read_text())
        assert (record["defect"], record["images"]) == (kind, 4)
        assert record["settings"]["options"]["joint"] is False
    assert not (tmp_path / "generator").exists()

    def diverge(method, config):
        done.append(config.defect)
        assert not any(weak() for weak in networks), "what diverged still takes memory"
        network = torch.nn.Linear(1, 1)
        networks.append(weakref.ref(network))
        if config.defect == ("dot",):
            raise NonFiniteLossError("At 0.01 kimg the loss of generator is not finite.")

    done, networks = [], []
    monkeypatch.setattr("dfmgan_hf.methods.train.train_method", diverge)
    with pytest.raises(SystemExit, match=r"^dot: At 0\.01 kimg the loss of generator is not finite\.$"):
        train(category, tmp_path / "again", "--defect", *KINDS)
    assert done == [("dot",), ("spot",)]


# --- benchmarks ---


def test_one_model_draws_every_kind_in_the_benchmarks(category, trained, tmp_path):
    pytest.importorskip("torchvision", reason="the metrics extra is not installed")
    config = GenerationConfig(
        output_dir=tmp_path,
        methods=("defect_gan",),
        trained=(str(trained),),
        data=DataConfig(data_dir=category),
        evaluation=EvaluationConfig(metrics=("kid",), num_images=4, num_bootstrap=2),
    )
    assert GenerationBenchmark(config, Networks(tiny_extractor(), None), Accelerator(cpu=True)).run() == []
    results = {
        kind: json.loads(next(tmp_path.glob(f"*/{kind}/defect_gan/results.json")).read_text()) for kind in KINDS
    }
    assert {kind: result["settings"]["sampler"]["defect"] for kind, result in results.items()} == {k: k for k in KINDS}

    chosen = ClassificationConfig(
        output_dir=tmp_path / "downstream",
        methods=("defect_gan",),
        trained=("runs/{defect}", f"defect_gan={trained}"),
        training_sets=("real",),
        resolution=32,
        data=DataConfig(data_dir=category),
        classifier=ClassifierConfig(init="scratch"),
    )
    benchmark = ClassificationBenchmark(chosen, Accelerator(cpu=True))
    ((name, subject),) = benchmark.subjects.items()
    sampler = benchmark.open_source(Trial(name, "P1", "defect_gan", False, 0), subject, "spot")
    assert sampler.settings["defect"] == "spot"


def test_one_model_of_one_kind_is_not_taken_for_others(category, trained, tmp_path):
    (tmp_path / "generator").mkdir()
    (tmp_path / "training_config.json").write_text(json.dumps({"defect": "dot"}))
    check_learnt(tmp_path, "dot", "runs/{method}")
    check_learnt(tmp_path, "spot", "runs/{defect}")
    check_learnt(trained, "spot", "runs/{method}")
    config = GenerationConfig(
        output_dir=tmp_path / "table",
        methods=("defect_gan",),
        trained=(str(tmp_path),),
        data=DataConfig(data_dir=category),
    )
    with pytest.raises(ValueError, match=r"has learnt dot, but is to draw spot too\. Put \{defect\} into --trained"):
        GenerationBenchmark(config, Networks(tiny_extractor(), None), Accelerator(cpu=True))
    assert not (tmp_path / "table").exists()
