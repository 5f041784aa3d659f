"""Networks and losses written the straightforward way: the baseline that speed-ups are taken against.

Networks: per-sample weights in a grouped convolution, zero insertion before every upsampling filter, one operation
after the other, contiguous layout, and a defect-free twin that is computed from the latents again. Same parameters,
same results as `dfmgan_hf.models`; nothing of it is imported here but the modules that hold the parameters.

Losses: every parameter with gradients all the time, generated images with a graph even for the discriminator, and in
stage 2 a graph through the frozen trunk, images drawn anew for each discriminator, and a whole second pass for the
mode-seeking loss. Random numbers are drawn as the package's tasks draw them, so that equal seeds give equal losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfmgan_hf.methods.dfmgan import Plan, Stage2Task, plan_drawing
from dfmgan_hf.methods.stylegan2 import LatentDraw, Stage1Task, draw_latents
from dfmgan_hf.models.dfmgan import DFMGANGenerator
from dfmgan_hf.models.discriminator import StyleGAN2Discriminator
from dfmgan_hf.models.layers import EqualizedConv2d, EqualizedLinear
from dfmgan_hf.models.stylegan2 import MappingNetwork, ModulatedConv2d, StyledConv2d, StyleGAN2Generator, ToChannels
from dfmgan_hf.training import Batch

NoiseOf = Callable[[StyledConv2d, int], Tensor]
"""(layer, N) -> noise that broadcasts to (N, 1, r, r)."""


def make_contiguous(network: nn.Module) -> nn.Module:
    """Bring all parameters into the default layout; a 1x1 kernel's strides would otherwise stay those of another."""
    for parameter in network.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    return network


class RandomNoise:
    """Noise that is drawn once for a layer, in the order in which the layers ask for it."""

    def __init__(self) -> None:
        self.drawn: dict[StyledConv2d, Tensor] = {}

    def __call__(self, layer: StyledConv2d, n: int) -> Tensor:
        if layer not in self.drawn:
            self.drawn[layer] = torch.randn(n, 1, *layer.noise_const.shape)
        return self.drawn[layer][:n]


def linear(layer: EqualizedLinear, x: Tensor) -> Tensor:
    gain = math.sqrt(2.0) if layer.activation else 1.0
    x = F.linear(x, layer.weight * (layer.weight_scale / gain), layer.bias * (layer.bias_scale / gain))
    return F.leaky_relu(x, 0.2) * gain if layer.activation else x


def mapping(network: MappingNetwork, z: Tensor) -> Tensor:
    x = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
    for layer in network.layers:
        x = linear(layer, x)
    return x


def fir(x: Tensor, padding: tuple[int, int], gain: float = 1.0) -> Tensor:
    """The filter [1, 3, 3, 1] x [1, 3, 3, 1] / 64 on every channel, `padding` before and after."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype)
    kernel = (torch.outer(taps, taps) * (gain / 64)).repeat(x.shape[1], 1, 1, 1)
    return F.conv2d(F.pad(x, padding * 2), kernel, groups=x.shape[1])


def upsample(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    x = F.pad(x.reshape(n, c, h, 1, w, 1), (0, 1, 0, 0, 0, 1)).reshape(n, c, 2 * h, 2 * w)
    return fir(x, (2, 1), gain=4)


def activate(x: Tensor, gain: float, clamp: float | None) -> Tensor:
    x = F.leaky_relu(x, 0.2) * (math.sqrt(2.0) * gain)
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


def modulated_conv(layer: ModulatedConv2d, x: Tensor, w: Tensor) -> Tensor:
    """A weight for every sample, and the batch as groups of one convolution."""
    n, c_in, h, width = x.shape
    style = linear(layer.affine, w) * layer.style_gain
    weight = layer.weight.unsqueeze(0) * style[:, None, :, None, None]
    if layer.demodulate:
        weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    c_out, k = weight.shape[1], weight.shape[-1]
    x = x.reshape(1, n * c_in, h, width)
    if isinstance(layer, StyledConv2d) and layer.up:
        weight = weight.transpose(1, 2).reshape(n * c_in, c_out, k, k)
        x = F.conv_transpose2d(x, weight, stride=2, groups=n)
        return fir(x.reshape(n, c_out, 2 * h + 1, 2 * width + 1), (1, 1), gain=4)
    x = F.conv2d(x, weight.reshape(n * c_out, c_in, k, k), padding=k // 2, groups=n)
    return x.reshape(n, c_out, h, width)


def styled_conv(layer: StyledConv2d, x: Tensor, w: Tensor, noise: NoiseOf) -> Tensor:
    x = modulated_conv(layer, x, w)
    x = x + noise(layer, len(x)) * layer.noise_strength
    x = x + layer.bias[:, None, None]
    return activate(x, 1.0, layer.conv_clamp)


def to_channels(layer: ToChannels, x: Tensor, w: Tensor) -> Tensor:
    x = modulated_conv(layer, x, w) + layer.bias[:, None, None]
    return x if layer.conv_clamp is None else x.clamp(-layer.conv_clamp, layer.conv_clamp)


def synthesize(
    network: StyleGAN2Generator, ws: Tensor, noise: NoiseOf, defect_ws: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Images (N, C, R, R), with `defect_ws` of a DFMGAN generator's defect, and its mask logits (N, 1, R, R)."""
    x: Tensor | None = None
    image = mask = None
    for r in network.synthesis.resolutions:
        block = network.synthesis.blocks[str(r)]
        residual = None
        if defect_ws is not None and str(r) in network.defect_blocks:
            defect_block, first = network.defect_blocks[str(r)], 2 * network.residual_resolutions.index(r)
            # ToMask's latent is the third, so that later blocks start one further on.
            first += first > 0
            residual = styled_conv(defect_block.conv0, x, defect_ws[:, first], noise)
            residual = styled_conv(defect_block.conv1, residual, defect_ws[:, first + 1], noise)
            if mask is None:
                mask = to_channels(network.to_mask, residual, defect_ws[:, 2])
            else:
                mask = upsample(mask)
        first = max(block.latent - 1, 0)
        if x is None:
            x = block.const.unsqueeze(0).repeat(len(ws), 1, 1, 1)
        else:
            x = styled_conv(block.conv0, x, ws[:, first], noise)
            first += 1
        x = styled_conv(block.conv1, x, ws[:, first], noise)
        if residual is not None:
            x = x + residual * (mask >= 0).to(x.dtype)
        rgb = to_channels(block.to_rgb, x, ws[:, first + 1])
        image = rgb if image is None else upsample(image) + rgb
    return image, mask


def triplet(network: DFMGANGenerator, object_latents: Tensor, defect_latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Defect images, mask logits, and the defect-free twins from the same latents, computed from scratch."""
    ws = repeated(network.mapping, object_latents, network.num_latents)
    defect_ws = repeated(network.defect_mapping, defect_latents, network.num_defect_latents)
    images, masks = synthesize(network, ws, lambda layer, n: layer.noise_const, defect_ws)
    twin_ws = repeated(network.mapping, object_latents, network.num_latents)
    twins, _ = synthesize(network, twin_ws, lambda layer, n: layer.noise_const)
    assert masks is not None
    return images, masks, twins


def repeated(network: MappingNetwork, z: Tensor, num_latents: int) -> Tensor:
    """The latent of every layer, (N, num_latents, D)."""
    return mapping(network, z).unsqueeze(1).repeat(1, num_latents, 1)


def latents(network: MappingNetwork, drawn: LatentDraw, num_latents: int) -> Tensor:
    ws = repeated(network, drawn.z, num_latents)
    if drawn.mixed_z is None:
        return ws
    other = repeated(network, drawn.mixed_z, num_latents)
    return torch.cat([ws[:, : drawn.cut], other[:, drawn.cut :]], dim=1)


def conv(layer: EqualizedConv2d, x: Tensor) -> Tensor:
    gain = layer.output_gain / (math.sqrt(2.0) if layer.activation else 1.0)
    k = layer.kernel_size
    weight = layer.weight * (layer.weight_scale / layer.output_gain)
    if layer.down:
        margin = k // 2 + 1
        x = F.conv2d(fir(x, (margin, margin)), weight, stride=2)
    else:
        x = F.conv2d(x, weight, padding=k // 2)
    if layer.bias is not None:
        x = x + layer.bias[:, None, None]
    if layer.activation:
        return activate(x, gain, None if layer.clamp is None else layer.clamp / gain)
    return x * gain


def minibatch_stddev(x: Tensor, group_size: int) -> Tensor:
    n = len(x)
    group = next(g for g in range(min(group_size, n), 0, -1) if n % g == 0)
    y = x.reshape(group, n // group, *x.shape[1:])
    y = (y - y.mean(dim=0)).square().mean(dim=0)
    y = (y + 1e-8).sqrt().mean(dim=(1, 2, 3), keepdim=True)
    return torch.cat([x, y.repeat(group, 1, *x.shape[2:])], dim=1)


def discriminate(network: StyleGAN2Discriminator, images: Tensor) -> Tensor:
    """Logits (N, 1)."""
    x = images
    for block in network.blocks.values():
        if hasattr(block, "from_rgb"):
            x = conv(block.from_rgb, x)
        x = conv(block.skip, fir(x, (1, 1))[:, :, ::2, ::2]) + conv(block.conv1, conv(block.conv0, x))
    head = network.head
    x = conv(head.conv, minibatch_stddev(x, head.mbstd_group_size))
    return linear(head.out, linear(head.fc, x.flatten(1)))


@dataclass
class NaivePhase:
    """One loss of a batch, what it trains with Adam, one tensor after the other, and how often it is due."""

    loss: Callable[[Batch], Tensor]
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    interval: int

    def run(self, batch: Batch) -> None:
        self.backward(batch)
        self.optimizer.step()

    def backward(self, batch: Batch) -> None:
        self.optimizer.zero_grad()  # what the other network's loss has left
        (self.loss(batch) * self.interval).backward()


def naive_phases(task: Stage1Task | Stage2Task) -> list[NaivePhase]:
    """The task's phases on its own networks, whose parameters all have gradients from now on."""
    losses = Stage2Losses(task) if isinstance(task, Stage2Task) else Stage1Losses(task)
    for network in task.networks.values():
        make_contiguous(network).requires_grad_(True)
    return [
        NaivePhase(
            getattr(losses, phase.name),
            phase.parameters,
            torch.optim.Adam(phase.parameters, lr=0.0025, betas=(0.0, 0.99), foreach=False, fused=False),
            phase.interval,
        )
        for phase in task.phases
    ]


def r1(logits: Tensor, inputs: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_length_penalty(images: Tensor, ws: Tensor, mean: Tensor) -> Tensor:
    # In the memory order of the package's images, so that both draw the same noise.
    noise = torch.randn_like(images, memory_format=torch.channels_last) / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
    return (gradient.square().sum(dim=2).mean(dim=1).sqrt() - mean).square().mean()


class Stage1Losses:
    def __init__(self, task: Stage1Task) -> None:
        self.task, self.settings = task, task.settings

    def judge(self, images: Tensor) -> Tensor:
        if self.task.augment is not None:
            images = self.task.augment(images, 1.0 if self.task.ada is None else self.task.ada.p)
        return discriminate(self.task.discriminator, images)

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        g = self.task.generator
        ws = latents(g.mapping, draw_latents(g.mapping, n, g.num_latents, self.settings.style_mixing), g.num_latents)
        return synthesize(g, ws, RandomNoise())[0], ws

    def generator(self, batch: Batch) -> Tensor:
        images, _ = self.draw(len(batch))
        return F.softplus(-self.judge(images)).mean()

    def path_length(self, batch: Batch) -> Tensor:
        images, ws = self.draw(max(len(batch) // 2, 1))
        return self.settings.path_length_weight * path_length_penalty(images, ws, self.task.path_length.mean)

    def discriminator(self, batch: Batch) -> Tensor:
        images, _ = self.draw(len(batch))
        fake, real = self.judge(images.detach()), self.judge(batch.images)
        return F.softplus(fake).mean() + F.softplus(-real).mean()

    def r1(self, batch: Batch) -> Tensor:
        images = batch.images.detach().requires_grad_()
        return self.settings.r1_gamma / 2 * r1(self.judge(images), images)


class Stage2Losses(Stage1Losses):
    task: Stage2Task  # type: ignore[assignment]

    def __init__(self, task: Stage2Task) -> None:
        self.task, self.settings = task, task.settings  # type: ignore[assignment]

    @property
    def match(self) -> StyleGAN2Discriminator:
        assert self.task.match_discriminator is not None
        return self.task.match_discriminator

    def plan(self, batch: Batch) -> Plan:
        return plan_drawing(self.task.generator, len(batch), self.settings.style_mixing)

    def draw_plan(self, plan: Plan, noise: RandomNoise) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images, soft masks, and both latents."""
        g = self.task.generator
        ws = latents(g.mapping, plan.objects, g.num_latents)
        defect_ws = latents(g.defect_mapping, plan.defects, g.num_defect_latents)
        images, mask = synthesize(g, ws, noise, defect_ws)
        assert mask is not None
        return images, torch.tanh(10 * mask), ws, defect_ws

    def generator(self, batch: Batch) -> Tensor:
        plan, noise = self.plan(batch), RandomNoise()
        images, masks, ws, defect_ws = self.draw_plan(plan, noise)
        loss = F.softplus(-self.judge(images)).mean()
        pair = torch.cat(self.draw_plan(plan, noise)[:2], dim=1)
        loss = loss + self.task.settings.match_weight * F.softplus(-discriminate(self.match, pair)).mean()
        half = len(batch) // 2
        _, other = synthesize(self.task.generator, ws[:half], noise, defect_ws[half:])
        assert other is not None
        spread = (masks[:half] - torch.tanh(10 * other)).abs().mean()
        seeking = (defect_ws[:half] - defect_ws[half:]).abs().mean() / spread.clamp_min(1e-8)
        return loss + self.task.settings.mode_seeking_weight * seeking

    def path_length(self, batch: Batch) -> Tensor:
        g, n, mixing = self.task.generator, max(len(batch) // 2, 1), self.settings.style_mixing
        ws = latents(g.mapping, draw_latents(g.mapping, n, g.num_latents, mixing), g.num_latents)
        defects = draw_latents(g.defect_mapping, n, g.num_defect_latents, mixing)
        defect_ws = latents(g.defect_mapping, defects, g.num_defect_latents)
        images, _ = synthesize(g, ws, RandomNoise(), defect_ws)
        return self.settings.path_length_weight * path_length_penalty(images, ws, self.task.path_length.mean)

    def discriminator(self, batch: Batch) -> Tensor:
        assert batch.masks is not None
        plan, noise = self.plan(batch), RandomNoise()
        fake, real = self.judge(self.draw_plan(plan, noise)[0].detach()), self.judge(batch.images)
        loss = F.softplus(fake).mean() + F.softplus(-real).mean()
        pair = torch.cat(self.draw_plan(plan, noise)[:2], dim=1).detach()
        fake = discriminate(self.match, pair)
        real = discriminate(self.match, torch.cat([batch.images, batch.masks], dim=1))
        return loss + F.softplus(fake).mean() + F.softplus(-real).mean()

    def r1(self, batch: Batch) -> Tensor:
        assert batch.masks is not None
        images = batch.images.detach().requires_grad_()
        pair = torch.cat([batch.images, batch.masks], dim=1).requires_grad_()
        penalty = r1(self.judge(images), images) + r1(discriminate(self.match, pair), pair)
        return self.settings.r1_gamma / 2 * penalty
