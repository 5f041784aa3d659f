"""The mode-seeking loss: the official number, and the same loss however the batch is split."""

import torch

from dfmgan_hf.methods.dfmgan import Drawing, mode_seeking_distances, mode_seeking_loss
from dfmgan_hf.models.stylegan2 import NoiseInput
from tests.models.golden import assert_close_to_golden, golden_generator, load_numbers


def equation2(latents1, latents2, outputs1, outputs2) -> torch.Tensor:
    """Equation 2 of DFMGAN, word by word."""
    return (latents1 - latents2).abs().mean() / (outputs1 - outputs2).abs().mean()


@torch.no_grad()
def test_golden():
    numbers, generator = load_numbers(), golden_generator()
    ws = generator.mapping(numbers["z_object"]).unsqueeze(1).expand(-1, generator.num_latents, -1)
    defect_ws = generator.defect_mapping(numbers["z_defect"]).unsqueeze(1)
    defect_ws = defect_ws.expand(-1, generator.num_defect_latents, -1)
    trunk = generator.run_trunk(ws, NoiseInput("const", len(ws)))
    masks = generator.mask_logits(trunk, defect_ws)
    drawing = Drawing(None, masks, None, trunk, ws, defect_ws, numbers["z_defect"])
    distances = mode_seeking_distances(generator, drawing, "mask", "w")
    assert_close_to_golden(mode_seeking_loss(distances, distances), numbers["mode_seeking_loss"])


def distances(codes: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    half = len(codes) // 2
    return torch.stack([(codes[:half] - codes[half:]).abs().mean(), (outputs[:half] - outputs[half:]).abs().mean()])


def test_one_part_is_the_published_loss():
    codes, outputs = torch.randn(4, 3, 5, requires_grad=True), torch.randn(4, 1, 6, 6, requires_grad=True)
    expected = equation2(codes[:2], codes[2:], outputs[:2], outputs[2:])
    part = distances(codes, outputs)
    loss = mode_seeking_loss(part, part.detach())
    assert torch.allclose(loss, expected)
    for ours, theirs in zip(
        torch.autograd.grad(loss, [codes, outputs]), torch.autograd.grad(expected, [codes, outputs]), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-7)


def test_parts_together_are_the_whole_batch():
    """Not the mean of the parts' ratios, which differs."""
    codes = torch.randn(4, 2, 5, dtype=torch.float64, requires_grad=True)
    outputs = torch.randn(4, 2, 7, dtype=torch.float64, requires_grad=True)
    # The second part's outputs are ten times as far apart.
    masks = outputs * torch.tensor([1.0, 10.0], dtype=torch.float64)[:, None]
    whole = equation2(codes[:2], codes[2:], masks[:2], masks[2:])
    parts = [distances(codes[:, i], masks[:, i]) for i in range(2)]
    means = torch.stack(parts).mean(dim=0).detach()
    loss = sum(mode_seeking_loss(part, means) for part in parts) / 2
    assert torch.allclose(loss, whole)
    assert not torch.allclose(sum(mode_seeking_loss(part, part.detach()) for part in parts) / 2, whole)
    gradients = torch.autograd.grad(loss, [codes, outputs], retain_graph=True)
    for ours, theirs in zip(gradients, torch.autograd.grad(whole, [codes, outputs]), strict=True):
        assert torch.allclose(ours, theirs)


def test_equal_masks_give_a_finite_loss_and_gradient():
    codes, outputs = torch.randn(2, 3, requires_grad=True), torch.zeros(2, 4, requires_grad=True)
    part = distances(codes, outputs)
    loss = mode_seeking_loss(part, part.detach())
    loss.backward()
    assert loss.isfinite()
    assert loss > 1e6
    assert outputs.grad.abs().sum() == 0
