"""What SDGAN and Defect-GAN have in common: learning rates that fall, who is trained, folders, sheets."""

from __future__ import annotations

import pytest
import torch

from dfmgan_hf.data import DataConfig
from dfmgan_hf.methods import defect_gan, open_sampler, sdgan
from dfmgan_hf.methods.method import SamplerRequest
from dfmgan_hf.methods.translation import Photographs, decayed_lr
from tests.methods.translation import batch_of, make_task, run_phase
from tests.parameters import set_noise_strength

both_methods = pytest.mark.parametrize("method", [sdgan.METHOD, defect_gan.METHOD], ids=["sdgan", "defect_gan"])


def test_falls_on_a_line_after_the_constant_part():
    rates = [decayed_lr(progress, 0.2, constant_until=0.5) for progress in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)]
    assert rates == pytest.approx([0.2, 0.2, 0.2, 0.1, 0.0, 0.0])
    assert decayed_lr(0.5, 0.2, final_lr=0.1) == pytest.approx(0.15)
    assert decayed_lr(1.0, 0.2, final_lr=0.1) == pytest.approx(0.1)


def test_good_photographs_are_mirrored_as_defects_are():
    torch.manual_seed(0)
    pixels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    pixels[..., 0] = 255
    shown = {mirror: Photographs(pixels, torch.device("cpu"), mirror).choose(64) for mirror in (False, True)}
    assert shown[False][..., 0].eq(1).all()
    assert 16 < shown[True][:, 0, 0, 7].eq(1).sum() < 48


@pytest.mark.parametrize(
    ("method", "options"),
    [(sdgan.METHOD, {"adversarial": "d2lsgan"}), (sdgan.METHOD, {"adversarial": "d2gan"}), (defect_gan.METHOD, {})],
    ids=["d2lsgan", "d2gan", "defect_gan"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_phase_trains_its_own_networks(method, options, category, channels):
    task = make_task(method, category, channels=channels, **options)
    for phase in task.phases:
        assert torch.tensor(run_phase(task, phase.name, batch_of(category, channels))).isfinite()


@both_methods
def test_low_precision_trains(method, category):
    task = make_task(method, category, low_precision_dtype=torch.bfloat16)
    for phase in task.phases:
        assert torch.tensor(run_phase(task, phase.name, batch_of(category))).isfinite()


@both_methods
def test_saved_folder_draws_what_the_task_drew(method, category, tmp_path):
    task = make_task(method, category)
    set_noise_strength(task.generator, 0.5)
    task.export(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == task.networks.keys()
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    expected = method.sample_task(task).sample_at(range(5), seed=1)[0]
    loaded = open_sampler(SamplerRequest(source=str(tmp_path), data=DataConfig(data_dir=category)))
    images, masks = loaded.sample_at(range(5), seed=1)
    assert torch.equal(images, expected)
    assert masks is None


@both_methods
def test_sheet_leaves_the_random_state_alone(method, category):
    task = make_task(method, category)
    before = torch.get_rng_state()
    task.sample_sheet()
    assert torch.equal(torch.get_rng_state(), before)
