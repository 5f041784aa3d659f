"""Where measured images come from: a pipeline, a folder, tensors, data set rows, or any method that draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..data.layouts import metadata_files, name_of, split_images_and_masks
from ..data.preparation import Size, check_pair, fit_to_size, height_and_width, read_masks
from ..data.reading import image_to_array, mask_to_array, read_image
from ..data.records import GOOD, DataError, ImageRecord, list_entries, shorten
from ..data.sources import DataSource, find_listing
from ..data.training_set import ImageMaskDataset
from ..files import module_sha256

if TYPE_CHECKING:
    from datasets import Dataset

    from ..pipeline import DFMGANPipeline


Samples = tuple[Tensor, Tensor | None]
"""Images uint8 (n, 3 or 1, H, W), and masks uint8 (n, 1, H, W) with values 0 and 255, or None; on the CPU."""


@runtime_checkable
class Sampler(Protocol):
    """All that metrics, benchmarks and bulk generation know of a method.

    One with a length has no more images than that; the attribute `settings`, a dictionary, goes into results.

    Example:
        >>> class Grey:
        ...     def sample_at(self, indices, seed):
        ...         return torch.full((len(indices), 3, 64, 64), 128, dtype=torch.uint8), None
    """

    def sample_at(self, indices: Sequence[int], seed: int) -> Samples:
        """Draw the images of these numbers, with masks if the method has any.

        Image i depends on `seed + i` alone (images that lie there already: on i alone), whatever else is drawn.
        """
        ...


Generated: TypeAlias = Sampler | Tensor | str | Path
"""A sampler, a folder (see `FolderSampler`), or images uint8 (N, 3 or 1, H, W)."""

Real: TypeAlias = "ImageMaskDataset | Dataset | Tensor | str | Path"
"""A set that is loaded, rows of a Hugging Face data set, images uint8 (M, 3 or 1, H, W), or a folder."""

FOLDER_RESOLUTION = 256


def draw(sampler: Sampler, indices: Sequence[int], seed: int) -> Samples:
    """Draw images number `indices` of a sampler, and see that they are what `Samples` says.

    Raises:
        ValueError: they are not.
    """
    images, masks = sampler.sample_at(indices, seed)
    _check_samples(type(sampler).__name__, images, masks, len(indices))
    return images, masks


class PipelineSampler:
    """Samples of a `DFMGANPipeline`; image i is drawn with `seeds=[seed + i]`.

    Args:
        pipe: the pipeline.
        truncation_psi: truncation of both latents.
        noise_mode: `"const"` or `"random"`.
        defect_free: measure the defect-free twins instead of the defect images; they have no masks.
        defect: kind of defect, of a model that knows several; None for all of them, as seeds have it.

    Raises:
        ValueError: the model draws no such kind.
    """

    def __init__(
        self,
        pipe: DFMGANPipeline,
        *,
        truncation_psi: float = 1.0,
        noise_mode: Literal["const", "random", "none"] = "const",
        defect_free: bool = False,
        defect: str | None = None,
    ) -> None:
        self.pipe = pipe.silent()  # its own bar would start anew for every batch; the caller has one for all of them
        self.defect = defect
        if defect is not None:
            pipe.unwrapped_generator.numbers_of([defect])
        self.truncation_psi = truncation_psi
        self.noise_mode = noise_mode
        self.defect_free = defect_free

    @property
    def settings(self) -> dict[str, Any]:
        """What the images depend on, for results; the hash is that of the generator's tensors."""
        generator = self.pipe.unwrapped_generator
        return {
            "weights_sha256": module_sha256(generator),
            **({"soft_gate": True} if generator.config.get("soft_gate") else {}),
            "truncation_psi": self.truncation_psi,
            "noise_mode": self.noise_mode,
            "defect_free": self.defect_free,
            **({} if self.defect is None else {"defect": self.defect}),
        }

    def sample_at(self, indices: Sequence[int], seed: int) -> Samples:
        """Draw the images with seeds `seed + i`."""
        output: Any = self.pipe(
            seeds=[seed + i for i in indices],
            num_images=len(indices),
            truncation_psi=self.truncation_psi,
            noise_mode=self.noise_mode,
            batch_size=len(indices),
            output_type="pt",
            defect=self.defect,
        )
        if self.defect_free:
            return to_uint8(output.defect_free_images), None
        masks = output.masks
        return to_uint8(output.images), None if masks is None else (masks != 0).to("cpu", torch.uint8) * 255


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

    def sample_at(self, indices: Sequence[int], seed: int) -> Samples:
        """Return the images of these numbers; the seed has no effect."""
        chosen = list(indices)
        return self.images[chosen], None if self.masks is None else self.masks[chosen]


class FolderSampler:
    """Images in a folder, decoded when they are needed; image i is the i-th by name.

    Args:
        directory: images directly inside, in which case `x_mask.png` beside `x.png` is its mask; or a data set in
            MVTec AD's layout, an imagefolder with a mask column, what `dfmgan generate` writes for COCO and YOLO, or
            what `dfmgan draw` writes, of which only `x_defect.png` with `x_mask.png` are taken, or what a model
            without masks drew.
        mask_dir: masks named like the images, with or without a suffix such as `_mask`.
        defect: kind of defect, where the folder holds several.
        resolution: side, or height and width, that images are scaled down to; None leaves them as they are, all of
            one size.
        bit_depth: significant bits of 16-bit images, see `read_image`; that of the real ones they are compared with.
        defect_free: take the defect-free twins of what `dfmgan draw` or `dfmgan generate` wrote, or a data set's good
            photographs, without masks; of images directly inside a folder, all.

    Raises:
        DataError: if there are no images, or masks don't match, or (when drawn) a file cannot be read.
    """

    def __init__(
        self,
        directory: Path | str,
        mask_dir: Path | str | None = None,
        *,
        defect: str | None = None,
        resolution: Size | None = None,
        bit_depth: int = 16,
        defect_free: bool = False,
    ) -> None:
        self.directory = Path(directory)
        self.records = _find_records(self.directory, None if mask_dir is None else Path(mask_dir), defect, defect_free)
        self.resolution = resolution
        self.bit_depth = bit_depth
        self.has_masks = all(record.mask_path is not None for record in self.records)

    @property
    def settings(self) -> dict[str, Any]:
        """For results."""
        return {"folder": self.directory.name, "num_available": len(self), "has_masks": self.has_masks}

    def __len__(self) -> int:
        return len(self.records)

    def sample_at(self, indices: Sequence[int], seed: int) -> Samples:
        """Return the images of these numbers, in order of their names; the seed has no effect."""
        images, masks = [], []
        for index in indices:
            record = self.records[index]
            photograph = read_image(record.image_path, 3, self.bit_depth)
            drawn = read_masks(record) if self.has_masks else None
            if drawn is not None and drawn.defect.any():  # a generated mask may be empty
                check_pair(record, photograph, drawn)
            image, mask = _to_tensors(
                photograph, None if drawn is None else drawn.defect, self.resolution, record.image_path
            )
            images.append(image)
            if mask is not None:
                masks.append(mask)
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


def _to_tensors(
    image: np.ndarray[Any, Any], mask: np.ndarray[Any, Any] | None, resolution: Size | None, path: Path | str
) -> tuple[Tensor, Tensor | None]:
    """Scale a decoded image down to a size if asked to, with its mask; uint8 (3, H, W) and (1, H, W)."""
    if resolution is not None:
        height, width = height_and_width(resolution)
        if image.shape[0] < height or image.shape[1] < width:
            raise DataError(
                "too_small",
                path,
                found=f"an image of {image.shape[1]}x{image.shape[0]} pixels",
                expected=f"{width}x{height} or larger",
                advice="Enlarged images would be measured as blurred: give a smaller --resolution.",
            )
        image, mask = fit_to_size(image, mask, resolution)
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return pixels, None if mask is None else torch.from_numpy(mask)[None].to(torch.uint8) * 255


def _find_records(
    directory: Path, mask_dir: Path | None, defect: str | None, defect_free: bool = False
) -> list[ImageRecord]:
    if not directory.is_dir():
        raise DataError(
            "no_images",
            directory,
            found="there is no such folder",
            expected="a folder of generated images",
            advice="Check the path.",
        )
    images = list_entries(directory).images
    drawn = _find_drawn(images, defect_free) if mask_dir is None else []
    twins = directory / "defect_free"  # where `dfmgan generate` puts them, but in the layout mvtec
    if drawn:
        kind = GOOD if defect_free else defect or name_of(directory)
        records = [ImageRecord(f"test/{kind}/{image.name}", image, mask, kind, "test") for image, mask in drawn]
    elif defect_free and twins.is_dir():
        records = find_listing(DataSource(good_dir=twins)).records
    elif images and not metadata_files(directory):
        if mask_dir is not None or split_images_and_masks(images)[1]:
            records = find_listing(DataSource(defect_dir=directory, mask_dir=mask_dir), defect).records
        else:
            records = find_listing(DataSource(good_dir=directory)).records
    else:
        listing = find_listing(DataSource(directory))
        kinds = listing.defects or [GOOD]
        if defect_free:
            defect = GOOD
        elif defect is None and len(kinds) == 1:
            defect = kinds[0]
        records = [] if defect is None else listing.select(defect)
        if not records:
            raise DataError(
                "unknown_defect",
                directory,
                found=f"images of {shorten(kinds)}",
                expected="one kind of defect" if defect is None else f"images of '{defect}'",
                advice="Leave --defect_free out." if defect_free else "Say which with --defect.",
            )
    for record in records:
        if record.error is not None:
            raise record.error
    return records


def _find_drawn(images: Sequence[Path], defect_free: bool) -> list[tuple[Path, Path | None]]:
    """Return what `dfmgan draw` wrote among these, if it wrote them: the images with defects, each with its mask.

    A model without masks draws twins alone, as what it calls all of its images. Beside them lies a page that shows
    all, which is no image.

    Args:
        images: in one folder.
        defect_free: return the twins instead.
    """
    by_kind: dict[str, dict[str, Path]] = {"defect": {}, "mask": {}, "defect_free": {}}
    for path in images:
        for kind, found in by_kind.items():
            if path.name.endswith(f"_{kind}.png"):
                found[path.name.removesuffix(f"_{kind}.png")] = path
    defects, masks, twins = by_kind.values()
    pairs: list[tuple[Path, Path | None]] = [(defects[stem], masks[stem]) for stem in defects if stem in masks]
    if not pairs and not all(path in twins.values() or path.name == "contact_sheet.png" for path in images):
        return []
    if defect_free and pairs and not twins:
        raise DataError(
            "no_images",
            pairs[0][0].parent,
            found=f"images with defects, such as {pairs[0][0].name}, and no defect-free ones",
            expected="twins as `dfmgan draw` writes them beside these, called x_defect_free.png",
            advice="Draw them again, or leave --defect_free out.",
        )
    return pairs if pairs and not defect_free else [(twin, None) for twin in twins.values()]


def as_sampler(samples: Generated, resolution: Size | None = None) -> Sampler:
    """Make a sampler of what is to be measured; images of a folder are scaled down to `resolution`.

    Of images with 16 bits, all count: for raw values of 12 bits, give a `FolderSampler` with that `bit_depth`.

    Raises:
        DataError: there are no images in the folder.
        ValueError: a tensor of another type or shape than `Generated` says.
        TypeError: anything else.
    """
    if isinstance(samples, Tensor):
        return TensorSampler(samples)
    if isinstance(samples, (str, Path)):
        return FolderSampler(samples, resolution=resolution)
    if isinstance(samples, Sampler):
        return samples
    raise TypeError(
        f"`sampler` must be a Sampler, a folder or a uint8 tensor (N, 3, H, W), but is a {type(samples).__name__}."
    )


def as_real(real: Real, resolution: Size) -> ImageMaskDataset:
    """Bring the real images into memory.

    Args:
        real: a set that is loaded already, which is used as it is; a folder in any layout that `FolderSampler` reads;
            rows of a Hugging Face data set with a column `image`, and perhaps `mask` and `file_name`, such as
            `load_mvtec_ad(...)["test"].filter(...)`; or images uint8 (M, 3 or 1, H, W).
        resolution: side, or height and width, that photographs of a folder or of rows are scaled down to. Of those
            with 16 bits, all count: raw values of 12 bits are read by `DataConfig(bit_depth=12)`, whose sets are
            loaded.

    Raises:
        DataError: there are no images, or one cannot be read or is smaller than `resolution`.
        ValueError: images of another type or shape.
        TypeError: anything else.
    """
    if isinstance(real, Tensor):
        real = ImageMaskDataset(real, None, [str(i) for i in range(len(real))])
    if isinstance(real, ImageMaskDataset):
        _check_samples("`real`", real.images, real.masks, len(real))
        return real
    if isinstance(real, (str, Path)):
        folder = FolderSampler(real, resolution=resolution)
        images, masks = draw(folder, range(len(folder)), 0)
        return ImageMaskDataset(images, masks, [record.name for record in folder.records])
    if "image" not in (getattr(real, "column_names", None) or []):
        raise TypeError(
            "`real` must be an ImageMaskDataset, a folder, a uint8 tensor (M, 3, H, W) or a datasets.Dataset with a "
            f"column 'image', but is a {type(real).__name__}."
        )
    photographs, defects, names = [], [], []
    for i, row in enumerate(real):
        names.append(str(row.get("file_name", i)))
        array = image_to_array(row["image"], 3, path=names[-1])
        defect = None if row.get("mask") is None else mask_to_array(row["mask"]).defect
        photograph, mask = _to_tensors(array, defect, resolution, names[-1])
        photographs.append(photograph)
        if mask is not None:
            defects.append(mask)
    if not names:
        raise ValueError("`real` holds no images to measure against.")
    return ImageMaskDataset(
        torch.stack(photographs), torch.stack(defects) if len(defects) == len(names) else None, names
    )


def as_pair(
    samples: Generated, real: Real, resolution: Size | None = None, seed: int = 0
) -> tuple[Sampler, ImageMaskDataset]:
    """Make both sides of a comparison, of one size; see `as_sampler` and `as_real`.

    Args:
        samples, real: the sides.
        resolution: side, or height and width, for images that are read from files. None: those of the side that is in
            memory or drawn; 256 if both come from files.
        seed: of the image that is drawn to learn the size of a sampler's images.
    """
    if resolution is None:
        images = real.images if isinstance(real, ImageMaskDataset) else real
        if not isinstance(images, Tensor) and not isinstance(samples, (str, Path)):
            images = draw(as_sampler(samples), [0], seed)[0]
        resolution = (images.shape[-2], images.shape[-1]) if isinstance(images, Tensor) else FOLDER_RESOLUTION
    return as_sampler(samples, resolution), as_real(real, resolution)


def batches(count: int, size: int) -> list[range]:
    """Cut 0..count-1 into consecutive ranges of `size`, the last one shorter."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def to_uint8(images: Tensor) -> Tensor:
    """Turn images in [0, 1] into 8 bits, rounded as a PNG export rounds them."""
    return (images.float() * 255).round().clamp(0, 255).to("cpu", torch.uint8)


def _check_samples(name: str, images: Tensor, masks: Tensor | None, count: int) -> None:
    """Raise ValueError unless these are `count` images, uint8 (n, 3 or 1, H, W), and their masks, if any."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) != count:
        raise ValueError(
            f"{name} must give {count} images, uint8 (n, 3 or 1, H, W), but gave {images.dtype} {tuple(images.shape)}."
        )
    if masks is not None and (masks.dtype != torch.uint8 or masks.shape != (count, 1, *images.shape[2:])):
        raise ValueError(
            f"{name} must give masks uint8 {(count, 1, *images.shape[2:])}, but gave {masks.dtype} "
            f"{tuple(masks.shape)}."
        )
