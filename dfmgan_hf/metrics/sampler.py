"""Where measured images come from: a pipeline, a folder, tensors, or any method that can draw samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from dfmgan_hf.data import DataError, find_listing, fit_to_square, read_image, read_mask
from dfmgan_hf.data.folders import image_files
from dfmgan_hf.data.imagefolder import metadata_files
from dfmgan_hf.data.matching import split_images_and_masks
from dfmgan_hf.data.records import GOOD, ImageRecord, shorten
from dfmgan_hf.files import module_sha256

if TYPE_CHECKING:
    from dfmgan_hf.pipelines.pipeline_dfmgan import DFMGANPipeline

Samples = tuple[Tensor, Tensor | None]
"""Images uint8 (n, 3 or 1, H, W), and masks uint8 (n, 1, H, W) with values 0 and 255, or None; on the CPU.

A sampler with the attribute `rounded = False` gives images as float32 in [-1, 1], which LPIPS alone can measure."""


@runtime_checkable
class Sampler(Protocol):
    """All that metrics, benchmarks and bulk generation know of a method."""

    def sample(self, n: int, generator: torch.Generator) -> Samples:
        """Draws n images, and masks if the method has any; the same for a generator in the same state."""
        ...


@runtime_checkable
class IndexedSampler(Sampler, Protocol):
    """A sampler that draws image i alone, efficiently in batches: what evaluation prefers."""

    def sample_at(self, indices: Sequence[int], seed: int) -> Samples:
        """Draws the images of these numbers; image i depends on seed and i alone."""
        ...


def draw(sampler: Sampler, indices: Sequence[int], seed: int) -> Samples:
    """Images number `indices` of a sampler: image i depends on `seed + i` alone, whatever else is drawn.

    A sampler that has no `sample_at` is asked for one image at a time, with a generator seeded for each.

    Raises:
        ValueError: if what the sampler returns is not what `Samples` says.
    """
    if isinstance(sampler, IndexedSampler):
        images, masks = sampler.sample_at(indices, seed)
    else:
        parts = [sampler.sample(1, torch.Generator().manual_seed(seed + i)) for i in indices]
        images = torch.cat([part[0] for part in parts])
        drawn_masks = [mask for _, mask in parts if mask is not None]
        masks = torch.cat(drawn_masks) if len(drawn_masks) == len(parts) else None
    _check_samples(type(sampler).__name__, images, masks, len(indices), image_dtype(sampler))
    return images, masks


def image_dtype(sampler: Sampler) -> torch.dtype:
    """Type of a sampler's images, see `Samples`."""
    return torch.uint8 if getattr(sampler, "rounded", True) else torch.float32


class PipelineSampler:
    """Samples of a `DFMGANPipeline`; image i is drawn with `seeds=[seed + i]`.

    Args:
        pipe: the pipeline.
        truncation_psi: truncation of both latents.
        noise_mode: `"const"` or `"random"`.
        defect_free: measure the defect-free twins instead of the defect images; they have no masks.
        shared_latents: use one z for object and defect, drawn from `numpy.random.RandomState(seed + i)`, as the
            official clustered LPIPS does; only for repeating its numbers.
        rounded: images as 8 bits, as they would be saved. False: float32 in [-1, 1], as the official clustered LPIPS
            measures them; only for repeating its numbers.
    """

    def __init__(
        self,
        pipe: DFMGANPipeline,
        *,
        truncation_psi: float = 1.0,
        noise_mode: str = "const",
        defect_free: bool = False,
        shared_latents: bool = False,
        rounded: bool = True,
    ) -> None:
        self.pipe = pipe
        self.truncation_psi = truncation_psi
        self.noise_mode = noise_mode
        self.defect_free = defect_free
        self.shared_latents = shared_latents
        self.rounded = rounded

    @property
    def settings(self) -> dict[str, Any]:
        """What the images depend on, for results; the hash is that of the generator's tensors."""
        return {
            "weights_sha256": module_sha256(self.pipe.unwrapped_generator),
            "truncation_psi": self.truncation_psi,
            "noise_mode": self.noise_mode,
            "defect_free": self.defect_free,
            "shared_latents": self.shared_latents,
            "rounded": self.rounded,
        }

    def sample(self, n: int, generator: torch.Generator) -> Samples:
        """Draws n images with seeds drawn from `generator`."""
        seeds = torch.randint(2**31, (n,), generator=generator, device=generator.device)
        return self._call([int(seed) for seed in seeds])

    def sample_at(self, indices: Sequence[int], seed: int) -> Samples:
        """Draws the images with seeds `seed + i`."""
        return self._call([seed + i for i in indices])

    def _call(self, seeds: list[int]) -> Samples:
        pipe: Any = self.pipe
        arguments: dict[str, Any] = {"seeds": seeds}
        if self.shared_latents:
            z_dim = pipe.unwrapped_generator.config.z_dim
            latents = np.concatenate([np.random.RandomState(seed).randn(1, z_dim) for seed in seeds])
            z = torch.from_numpy(latents).float()
            arguments = {"seeds": seeds, "object_latents": z, "defect_latents": z}
        with _no_progress_bar(pipe):
            output = pipe(
                num_images=len(seeds),
                truncation_psi=self.truncation_psi,
                noise_mode=self.noise_mode,
                batch_size=len(seeds),
                output_type="pt",
                **arguments,
            )
        as_asked = to_uint8 if self.rounded else _to_signed
        if self.defect_free:
            return as_asked(output.defect_free_images), None
        masks = output.masks
        return as_asked(output.images), None if masks is None else (masks != 0).to("cpu", torch.uint8) * 255


class TensorSampler:
    """Samples that are in memory already, such as the real images themselves as a reference.

    Args:
        images: uint8 (N, 3 or 1, H, W).
        masks: uint8 (N, 1, H, W), values 0 and 255, or None.
    """

    def __init__(self, images: Tensor, masks: Tensor | None = None) -> None:
        _check_samples("TensorSampler", images, masks, len(images))
        self.images = images
        self.masks = masks

    @property
    def settings(self) -> dict[str, Any]:
        """For results."""
        return {"num_available": len(self)}

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, n: int, generator: torch.Generator) -> Samples:
        """Draws n different images."""
        return self._at(_draw_indices(n, len(self), generator, "TensorSampler"))

    def sample_at(self, indices: Sequence[int], seed: int) -> Samples:
        """The images of these numbers, in order; the seed has no effect."""
        return self._at(list(indices))

    def _at(self, indices: list[int]) -> Samples:
        return self.images[indices], None if self.masks is None else self.masks[indices]


class FolderSampler:
    """Images in a folder, decoded when they are needed; image i is the i-th by name.

    Args:
        directory: images directly inside, in which case `x_mask.png` beside `x.png` is its mask; or a data set in
            MVTec AD's layout or an imagefolder with a mask column, as examples/generate.py writes them.
        mask_dir: masks named like the images, with or without a suffix such as `_mask`.
        defect: kind of defect, where the folder holds several.
        resolution: side of the square that images are scaled down to; None leaves them as they are, all of one size.
        image_channels: 1 or 3.

    Raises:
        DataError: if there are no images, or masks don't match, or (when drawn) a file cannot be read.
    """

    def __init__(
        self,
        directory: Path | str,
        mask_dir: Path | str | None = None,
        *,
        defect: str | None = None,
        resolution: int | None = None,
        image_channels: int = 3,
    ) -> None:
        self.directory = Path(directory)
        self.records = _find_records(self.directory, None if mask_dir is None else Path(mask_dir), defect)
        self.resolution = resolution
        self.image_channels = image_channels
        self.has_masks = all(record.mask_path is not None for record in self.records)

    @property
    def settings(self) -> dict[str, Any]:
        """For results."""
        return {"folder": self.directory.name, "num_available": len(self), "has_masks": self.has_masks}

    def __len__(self) -> int:
        return len(self.records)

    def sample(self, n: int, generator: torch.Generator) -> Samples:
        """Draws n different images."""
        return self._at(_draw_indices(n, len(self), generator, str(self.directory)))

    def sample_at(self, indices: Sequence[int], seed: int) -> Samples:
        """The images of these numbers, in order of their names; the seed has no effect."""
        return self._at(indices)

    def _at(self, indices: Sequence[int]) -> Samples:
        images, masks = [], []
        for index in indices:
            image, mask = self._read(self.records[index])
            images.append(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))))
            if mask is not None:
                masks.append(torch.from_numpy(mask)[None].to(torch.uint8) * 255)
        sizes = {tuple(image.shape) for image in images}
        if len(sizes) > 1:
            raise DataError(
                "size_mismatch",
                self.directory,
                found=f"images of {len(sizes)} sizes",
                expected="one size, or a resolution to scale them to",
                advice="Give --resolution.",
            )
        return torch.stack(images), torch.stack(masks) if masks else None

    def _read(self, record: ImageRecord) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
        image = read_image(record.image_path, self.image_channels)
        mask = read_mask(record.mask_path).defect if self.has_masks and record.mask_path else None
        if mask is not None and mask.shape != image.shape[:2]:
            raise DataError(
                "size_mismatch",
                record.mask_path or record.image_path,
                found=f"a mask of {mask.shape[1]}x{mask.shape[0]} pixels",
                expected=f"{image.shape[1]}x{image.shape[0]}, the size of {record.image_path}",
                advice="Export image and mask again together.",
            )
        if self.resolution is None:
            return image, mask
        if min(image.shape[:2]) < self.resolution:
            raise too_small(record.image_path, image.shape, self.resolution)
        return fit_to_square(image, mask, self.resolution)


def too_small(path: Path | str, shape: Sequence[int], resolution: int) -> DataError:
    """The error for an image (H, W, ...) that would have to be enlarged."""
    return DataError(
        "too_small",
        path,
        found=f"an image of {shape[1]}x{shape[0]} pixels",
        expected=f"{resolution}x{resolution} or larger",
        advice="Enlarged images would be measured as blurred: give a smaller --resolution.",
    )


def _find_records(directory: Path, mask_dir: Path | None, defect: str | None) -> list[ImageRecord]:
    if not directory.is_dir():
        raise DataError(
            "no_images",
            directory,
            found="there is no such folder",
            expected="a folder of generated images",
            advice="Check the path.",
        )
    images = image_files(directory)[0]
    if images and not metadata_files(directory):
        _, masks = split_images_and_masks(images)
        if masks or mask_dir is not None:
            listing = find_listing(defect_dir=directory, mask_dir=mask_dir, defect=defect)
        else:
            listing = find_listing(good_dir=directory)
        records = listing.records
    else:
        listing = find_listing(directory)
        kinds = listing.defects or [GOOD]
        if defect is None and len(kinds) == 1:
            defect = kinds[0]
        records = [] if defect is None else listing.select(defect)
        if not records:
            raise DataError(
                "unknown_defect",
                directory,
                found=f"images of {shorten(kinds)}",
                expected="one kind of defect" if defect is None else f"images of '{defect}'",
                advice="Say which with --defect.",
            )
    for record in records:
        if record.name in listing.errors:
            raise listing.errors[record.name]
    return records


def _draw_indices(n: int, available: int, generator: torch.Generator, name: str) -> list[int]:
    if n > available:
        raise ValueError(f"{name} holds {available} images, so it cannot draw {n} different ones.")
    return torch.randperm(available, generator=generator, device=generator.device)[:n].tolist()


def batches(count: int, size: int) -> list[range]:
    """Cut 0..count-1 into consecutive ranges of `size`, the last one shorter."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] as 8 bits, rounded as a PNG export rounds them."""
    return (images.float() * 255).round().clamp(0, 255).to("cpu", torch.uint8)


def _to_signed(images: Tensor) -> Tensor:
    return (images.float() * 2 - 1).cpu()


def _check_samples(
    name: str, images: Tensor, masks: Tensor | None, count: int, dtype: torch.dtype = torch.uint8
) -> None:
    if images.dtype != dtype or images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) != count:
        raise ValueError(
            f"{name} must give {count} images, {str(dtype).removeprefix('torch.')} (n, 3 or 1, H, W), but gave "
            f"{images.dtype} {tuple(images.shape)}."
        )
    if masks is not None and (masks.dtype != torch.uint8 or masks.shape != (count, 1, *images.shape[2:])):
        raise ValueError(
            f"{name} must give masks uint8 {(count, 1, *images.shape[2:])}, but gave {masks.dtype} "
            f"{tuple(masks.shape)}."
        )


@contextmanager
def _no_progress_bar(pipe: Any) -> Iterator[None]:
    """A pipeline's own bar would start anew for every batch; the evaluation has one for all."""
    before = dict(getattr(pipe, "_progress_bar_config", {}))
    pipe.set_progress_bar_config(**{**before, "disable": True})
    try:
        yield
    finally:
        pipe.set_progress_bar_config(**before)
