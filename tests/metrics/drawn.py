"""Drawn images, small networks and weight files for the metric tests."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dfmgan_hf.data import ImageMaskDataset
from dfmgan_hf.metrics import FeatureExtractor
from dfmgan_hf.metrics.networks import LPIPS, FeatureMaps, load_lpips


def draw_images(n: int, *, seed: int = 0, size: int = 32, shift: float = 0.0) -> Tensor:
    """Smooth coloured noise, uint8 (n, 3, size, size); `shift` brightens the first channel."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 5, 5, generator=generator)
    coarse[:, 0] += shift
    smooth = nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=True)
    return (smooth * 255).round().clamp(0, 255).to(torch.uint8)


def draw_masks(n: int, *, size: int = 32, side: int = 8) -> Tensor:
    """A square in each mask, moving to the right, uint8 (n, 1, size, size)."""
    masks = torch.zeros(n, 1, size, size, dtype=torch.uint8)
    for i in range(n):
        left = (3 * i) % (size - side)
        masks[i, 0, 10 : 10 + side, left : left + side] = 255
    return masks


def dataset(images: Tensor, masks: Tensor | None = None) -> ImageMaskDataset:
    return ImageMaskDataset(images, masks, [f"test/hole/{i:03d}.png" for i in range(len(images))])


class Fresh:
    """Draws a new image for every seed."""

    def sample_at(self, indices, seed: int):
        return torch.cat([draw_images(1, seed=seed + i) for i in indices]), draw_masks(1).repeat(len(indices), 1, 1, 1)


class TinyNet(nn.Module):
    """A stand-in for Inception: 12 features and 5 logits."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 12, 5, stride=3)
            self.fc = nn.Linear(12, 5)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.conv(images / 127.5 - 1).relu().mean(dim=(2, 3))
        return features, self.fc(features)


def tiny_extractor() -> FeatureExtractor:
    return FeatureExtractor(TinyNet(), "tiny")


def write_alexnet(path: Path, *, heads: bool = True, dtype: torch.dtype = torch.float32) -> Path:
    """A weight file of AlexNet with random weights, in torchvision's names, and of LPIPS's channel weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        maps = FeatureMaps("alex")
        tensors = {f"features.{name}": tensor.to(dtype) for name, tensor in maps.features.state_dict().items()}
        if heads:
            for i, channels in enumerate(maps.channels):
                tensors[f"lin{i}.model.1.weight"] = torch.rand(1, channels, 1, 1).to(dtype)
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


def write_vgg(path: Path) -> Path:
    """A weight file of VGG16's convolutions with random weights, and of LPIPS's channel weights."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        maps = FeatureMaps("vgg")
        tensors = {f"features.{name}": tensor for name, tensor in maps.features.state_dict().items()}
        tensors |= {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(maps.channels)}
    save_file(tensors, path)
    return path


def random_inception() -> dict[str, Tensor]:
    """Random weights in the names of torch-fidelity's Inception-v3."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unloaded(FeatureExtractorInceptionV3):
        def load_state_dict(self, *args, **kwargs):
            return None

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Unloaded("inception", ["2048"], nothing).state_dict()


def random_lpips(folder: Path) -> LPIPS:
    return load_lpips("alex", write_alexnet(folder / "alexnet.safetensors"))
