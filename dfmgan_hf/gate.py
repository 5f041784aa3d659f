"""Judge generated defects by what the user's real ones show, and say why one is refused.

No threshold is a constant: each is measured on the real defects themselves. These have no twin, so what stands in for
it is the good photograph that agrees best with one around its mask or, on a texture, what lies beside the mask:
whichever differs less from its like. That difference is taken off.

Most thresholds are 5 % quantiles of what the real defects show. Two are not. `copy` is half the median distance
between real defects of different parts. `likeness` is the 95 % quantile of each real defect's distance to the nearest
one of another part, while a sample is compared with all of them.

How well it works was measured on samples that were marked by eye: docs/gate.md. Precision is only 3 to 6 points above
that of accepting everything. The design was changed once after verdicts on tiles had been seen (the first version had
a precision of 0.47 and a recall of 0.08 there), so the tiles' numbers are not held out; the bottles' are.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .data.duplicates import describe_photograph, find_duplicates, group_duplicates
from .data.foreground import find_foreground
from .data.partitions import read_groups
from .data.patches import defect_places, product_places
from .data.preparation import Fit, Size, fit_to_size, height_and_width, read_pair
from .data.records import ImageRecord, normalised
from .data.training_set import DataConfig
from .files import tensors_sha256
from .metrics.networks import LPIPS, load_lpips

__all__ = ["REASONS", "GateError", "Judgement", "QualityGate"]

TAIL = 0.05
"""Share of the real defects that each check may refuse; for `copy` and `likeness` see above."""

REASONS = {
    "visible": "nothing visible",
    "mask": "the mask is not what changed",
    "smallest": "smaller than real defects",
    "largest": "larger than real defects",
    "product": "off the product",
    "copy": "copy of a training photograph",
    "likeness": "unlike the real defects",
}
"""What a check says of a sample that it refuses, in the order in which checks are named."""

# These refuse what is above their threshold, the others what is below.
_UPPER = ("largest", "likeness")
_NETWORK_SIDE = 224  # that AlexNet learnt at
_COMPARED_SIDE = 128  # for copies: a photograph's likeness is there at this size, and 170 of them fit in memory
_SEARCHED_SIDE = 32
_MOST_GOOD = 500
_LARGEST_GAIN = 2.0


class GateError(ValueError):
    """Real defects that no thresholds can be measured on; the message says why and what to do."""


@dataclass(frozen=True)
class Judgement:
    """What the gate says of one sample.

    Attributes:
        numbers: what was measured. `visible`: change under the mask, in units of the noise beside it. `mask`: how
            probable it is that a pixel of the mask changed more than one outside, 0 to 1. `area`: share of the image
            that the mask covers. `product`: share of the mask that is on the product, where that can be told.
            `copy`: LPIPS distance to the nearest real defect, mirrored or not. `likeness`: distance to it in features
            under the mask.
        failed: names of the checks that refuse it, keys of `REASONS`.
    """

    numbers: dict[str, float]
    failed: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.failed

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return why it was refused, in words."""
        return tuple(REASONS[name] for name in self.failed)


@dataclass(eq=False, repr=False)
class QualityGate:
    """Judge samples by thresholds that were measured on real defects; see `from_defects`.

    Attributes:
        lpips: whose network gives the features.
        thresholds: by check, keys of `REASONS`; a check without one refuses nothing.
        features: of the real defects, (N, D).
        embeddings: of the real defects and their mirror images, (2N, E).
        sha256: of what the thresholds come from.
    """

    lpips: LPIPS
    thresholds: dict[str, float]
    features: Tensor
    embeddings: Tensor
    sha256: str

    @classmethod
    def from_defects(
        cls,
        images: Tensor,
        masks: Tensor,
        good: Tensor,
        *,
        parts: Sequence[str] | None = None,
        lpips: LPIPS | None = None,
    ) -> QualityGate:
        """Measure the thresholds.

        Args:
            images: of real defects, uint8 (N, 1 or 3, H, W), as large as the samples will be.
            masks: theirs, uint8 (N, 1, H, W), not zero on the defect.
            good: defect-free photographs, uint8 (M, 1 or 3, H, W).
            parts: what part each photograph of a defect shows: those of one part are left out of each other's nearest
                distances. None: what is found by comparing them, which misses other exposures and other places.
            lpips: LPIPS with AlexNet, on the device that judges; None loads it.

        Raises:
            GateError: fewer than three defects, of as many parts, or no good photograph.
            MissingWeightsError: there are no weights.
            ImportError: OpenCV is not installed.

        Example:
            >>> gate = QualityGate.from_defects(defects.images, defects.masks, good.images)
            >>> gate.judge(image, mask, twin).reasons
            ('nothing visible',)
        """
        groups = _groups(images) if parts is None else torch.tensor([list(parts).index(part) for part in parts])
        if len(set(groups.tolist())) < 3 or not len(good):
            raise GateError(
                f"The gate's thresholds need real defects on at least 3 parts and a defect-free photograph, but there "
                f"are {len(images)} on {len(set(groups.tolist()))} and {len(good)}."
            )
        lpips = lpips or load_lpips()
        good = good[:: math.ceil(len(good) / _MOST_GOOD)]
        features = torch.stack([_features(lpips, x, m) for x, m in zip(images, masks, strict=True)])
        embeddings = torch.stack([_embed(lpips, x) for x in [*images, *images.flip(-1)]])
        others = groups[:, None] != groups
        apart = torch.cdist(features, features)
        unlike = torch.stack([row[other].min() for row, other in zip(apart, others, strict=True)])
        copies = torch.stack(
            [_squares(embeddings, own)[each.repeat(2)].min() for own, each in zip(embeddings, others, strict=False)]
        )
        search = _Search(good)
        real: dict[str, list[float]] = {"visible": [], "mask": [], "area": [], "product": []}
        for image, mask in zip(images, masks, strict=True):
            there = mask[0] != 0
            change, usual = min(search.changes(image, there), key=lambda found: found[1])
            excess = float(change.square()[there].mean()) - usual
            real["visible"].append(max(excess, 0.0) ** 0.5 / _noise(image.float(), there))
            real["mask"].append(_agreement(change, there))
            real["area"].append(float(there.float().mean()))
            real["product"].append(_on_product(image, there))
        # One photograph without a clear background must not take the check from all.
        real["product"] = [share for share in real["product"] if not math.isnan(share)]
        low = {name: float(np.quantile(values, TAIL)) for name, values in real.items() if values}
        thresholds = {
            "visible": low["visible"],
            "mask": low["mask"],
            "smallest": low["area"],
            "largest": float(np.quantile(real["area"], 1 - TAIL)),
            # Half of what is usual between real ones: what `nearest_real` calls a copy.
            "copy": float(copies.median()) / 2,
            "likeness": float(unlike.quantile(1 - TAIL)),
        }
        if "product" in low:
            thresholds["product"] = low["product"]
        source = {
            "tensors": tensors_sha256({"images": images, "masks": masks, "good": good, "parts": groups}),
            "network": lpips.network.weights_sha256,
            "tail": TAIL,
        }
        sha256 = hashlib.sha256(json.dumps(source).encode()).hexdigest()
        return cls(lpips, thresholds, features, embeddings, sha256)

    @classmethod
    def from_data(
        cls,
        data_dir: Path,
        defect: str,
        resolution: Size,
        image_channels: int,
        *,
        category: str | None = None,
        groups: Path | None = None,
        fit: Fit = "resize",
        bit_depth: int = 16,
        device: torch.device | str = "cpu",
    ) -> QualityGate:
        """Measure the thresholds on a data set: `from_defects` of what a model of this size would be trained on.

        Args:
            data_dir: root of the category, in any layout that training reads, or a folder of several categories.
            defect: the kind of defect; if there is none of this name, the only one there is.
            resolution, image_channels: of the model's images; see `Size`.
            category: which of several; if there is none of this name, `data_dir` itself.
            groups: CSV of file names and the parts that they show, as `dfmgan split` takes it, with a line for each
                photograph of the defect.
            fit: how photographs of another shape get that of the model's images: as in its training, of which
                `painting.trained_fit` reads the record.
            bit_depth: significant bits of 16-bit photographs.
            device: that judges.

        Raises:
            DataError, GateError: the data set or `groups` cannot be used.
            MissingWeightsError, ImportError: as `from_defects`.
        """
        is_one_of_several = category is not None and (data_dir / category).is_dir()
        data = DataConfig(data_dir, category if is_one_of_several else None, bit_depth=bit_depth, fit=fit)
        kind = defect if normalised(defect) in data.listing().defects else None
        size: dict[str, Any] = {"resolution": resolution, "image_channels": image_channels}
        defects, good = data.load_defects(kind, **size), data.load_good(**size)
        if defects.masks is None:
            raise GateError(f"The defects in {data_dir} have no masks, which the gate needs.")
        parts = None
        if groups is not None:
            by_name = read_groups(groups, defects.file_names)
            parts = [by_name[name] for name in defects.file_names]
        lpips = load_lpips(device=device)
        return cls.from_defects(defects.images, defects.masks, good.images, parts=parts, lpips=lpips)

    @classmethod
    def from_photographs(
        cls,
        defects: Sequence[ImageRecord],
        good: Sequence[ImageRecord],
        resolution: Size,
        image_channels: int,
        *,
        window: int = 0,
        parts: Sequence[str] | None = None,
        fit: Fit = "resize",
        bit_depth: int = 16,
        device: torch.device | str = "cpu",
    ) -> QualityGate:
        """Measure the thresholds on chosen photographs: `from_defects` of what an image of a model shows of each.

        Args:
            defects, good: photographs with masks, and photographs without a defect.
            resolution, image_channels: of the model's images; see `Size`.
            window: side in pixels of the patch that an image of the model shows of a photograph: of each, one is
                taken, around its defect. 0: it shows the whole.
            parts: what part each of `defects` shows; None to find out.
            fit, bit_depth: how photographs are read.
            device: that judges.

        Raises:
            DataError, GateError: the photographs cannot be used.
            MissingWeightsError, ImportError: as `from_defects`.
        """
        records, rng = [*defects, *good], np.random.default_rng(0)
        size = height_and_width(resolution)
        images = torch.zeros((len(records), image_channels, *size), dtype=torch.uint8)
        masks = torch.zeros((len(records), 1, *size), dtype=torch.uint8)
        for number, record in enumerate(records):
            image, mask = read_pair(record, image_channels, bit_depth, None if window else resolution, fit)
            defect = np.zeros(image.shape[:2], dtype=bool) if mask is None else mask.defect
            height, width = defect.shape
            if window > min(height, width):
                raise GateError(
                    f"{record.image_path} is {width}x{height} pixels, smaller than the {window}x{window} that an "
                    "image of the model shows: leave this photograph out."
                )
            if window:
                places = product_places(image, window) if mask is None else defect_places(defect, window, 1, 0.5, rng)
                x, y = places[rng.integers(len(places))]
                image, defect = (each[y : y + window, x : x + window] for each in (image, defect))
            fitted, small = fit_to_size(image, defect, resolution, fit)
            assert small is not None  # since there was a mask
            images[number] = torch.from_numpy(fitted.transpose(2, 0, 1).copy())
            masks[number, 0] = torch.from_numpy(small)
        split, lpips = len(defects), load_lpips(device=device)
        return cls.from_defects(images[:split], masks[:split], images[split:], parts=parts, lpips=lpips)

    def judge(self, image: Tensor, mask: Tensor, twin: Tensor) -> Judgement:
        """Judge a sample; the same one is always judged alike, whatever came before.

        Args:
            image, twin: uint8 (1 or 3, H, W), of the size that the thresholds were measured at. The twin may be the
                photograph that was painted into.
            mask: uint8 (1, H, W), not zero on the defect.
        """
        there = mask[0] != 0
        numbers = {"visible": 0.0, "mask": 0.0, "area": float(there.float().mean())}
        if there.any():
            change = _change(image.float(), twin.float())
            energy = float(change.square()[there].mean())
            product = _on_product(twin, there)
            numbers |= {
                "visible": energy**0.5 / _noise(twin.float(), there),
                "mask": _agreement(change, there),
                **({} if math.isnan(product) else {"product": product}),
                "copy": float(_squares(self.embeddings, _embed(self.lpips, image)).min()),
                "likeness": float((self.features - _features(self.lpips, image, mask)).norm(dim=1).min()),
            }
        return Judgement({name: round(value, 4) for name, value in numbers.items()}, tuple(self._failed(numbers)))

    def _failed(self, numbers: dict[str, float]) -> Iterator[str]:
        for check in REASONS:
            value = numbers.get("area" if check in ("smallest", "largest") else check)
            threshold = self.thresholds.get(check)
            if value is None or threshold is None:
                continue
            if value > threshold if check in _UPPER else value < threshold:
                yield check


def _groups(images: Tensor) -> Tensor:
    """Number the parts that the photographs show, (N,): the same for photographs of the same part."""
    pictures = [describe_photograph(image.permute(1, 2, 0).numpy()) for image in images]
    digests = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images]
    numbers = torch.arange(len(images))
    for group in group_duplicates(find_duplicates(pictures, digests)):
        numbers[group] = group[0]
    return numbers


def _smooth(images: Tensor) -> Tensor:
    return F.avg_pool2d(images[None], 3, 1, 1, count_include_pad=False)[0]


def _change(after: Tensor, before: Tensor) -> Tensor:
    """Return how much each pixel changed, (H, W) in levels of 255, single pixels' noise smoothed away."""
    return _smooth(after - before).square().mean(dim=0).sqrt()


def _near(mask: Tensor) -> Tensor:
    """Return a mask bool (H, W) with what is beside it, a sixteenth of the shorter side around."""
    reach = max(1, min(mask.shape) // 16)
    return F.max_pool2d(mask[None, None].float(), 2 * reach + 1, 1, reach)[0, 0] > 0


def _noise(image: Tensor, mask: Tensor) -> float:
    """Return the noise beside a mask in levels of 255, and one level that rounding may take."""
    ring = _near(mask) & ~mask
    fine = (image - _smooth(image)).square().mean(dim=0)
    return float(fine[ring if ring.any() else torch.ones_like(ring)].mean().sqrt()) + 1


def _agreement(change: Tensor, mask: Tensor) -> float:
    """Return the probability that a pixel of the mask changed more than one outside (AUROC); 1 without an outside."""
    inside, outside = change[mask].numpy(), np.sort(change[~mask].numpy())
    if not len(outside):
        return 1.0
    below = np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")
    return float(below.mean() / 2 / len(outside))


def _on_product(image: Tensor, mask: Tensor) -> float:
    """Return the share of a mask that is on the product; nan where nothing stands out from a plain background."""
    try:
        product = find_foreground(image.permute(1, 2, 0).numpy(), "the picture")
    except ValueError:
        return math.nan  # but a missing OpenCV is an error: other draws would be refused than where it is installed
    return float(product[mask.numpy()].mean())


def _network_input(image: Tensor, shorter: int) -> Tensor:
    x = image[None].float() / 127.5 - 1
    size = [side * shorter // min(x.shape[2:]) for side in x.shape[2:]]
    if list(x.shape[2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bicubic", antialias=True).clamp(-1, 1)


@torch.inference_mode()
def _features(lpips: LPIPS, image: Tensor, mask: Tensor) -> Tensor:
    """Return AlexNet's five maps, averaged over the mask and what is beside it, each of length 1; (1152,)."""
    x = _network_input(image, _NETWORK_SIDE).expand(-1, 3, -1, -1).to(lpips.maps.shift.device)
    weight = _near(mask[0] != 0)[None, None].float()
    parts = []
    for maps in lpips.maps(x.contiguous(memory_format=torch.channels_last)):
        # On the CPU: Apple's GPUs cannot do it where sizes do not divide.
        share = F.interpolate(weight, size=maps.shape[2:], mode="area").to(maps.device)
        parts.append(F.normalize((maps * share).sum(dim=(0, 2, 3)), dim=0))
    return torch.cat(parts).float().cpu()


def _embed(lpips: LPIPS, image: Tensor) -> Tensor:
    side = max(min(*image.shape[-2:], _COMPARED_SIDE), 32)
    return lpips.embed(_network_input(image, side))[0].cpu()


def _squares(embeddings: Tensor, embedding: Tensor) -> Tensor:
    return (embeddings - embedding).square().sum(dim=1)


class _Search:
    """Good photographs, to find the one that agrees best with a photograph around a mask."""

    def __init__(self, good: Tensor) -> None:
        self.good = good.float()
        self.small = F.interpolate(self.good, size=(_SEARCHED_SIDE, _SEARCHED_SIDE), mode="area")

    def nearest(self, image: Tensor, mask: Tensor, without: int | None = None) -> tuple[Tensor, int]:
        """Return the best, float32 (C, H, W) and as bright as the photograph, and its number; not `without`."""
        size = (_SEARCHED_SIDE, _SEARCHED_SIDE)
        free = (~mask).float() * (0.1 + _near(mask).float())
        weight = F.interpolate(free[None, None], size=size, mode="area")[0] + 1e-6
        small = F.interpolate(image[None].float(), size=size, mode="area")[0]
        products, squares = ((self.small * other * weight).sum(dim=(1, 2, 3)) for other in (small, self.small))
        gains = (products / squares.clamp_min(1e-6)).clamp(1 / _LARGEST_GAIN, _LARGEST_GAIN)
        errors = ((gains[:, None, None, None] * self.small - small).square() * weight).sum(dim=(1, 2, 3))
        if without is not None and len(errors) > 1:
            errors[without] = math.inf
        number = int(errors.argmin())
        return gains[number] * self.good[number], number

    def changes(self, image: Tensor, mask: Tensor) -> Iterator[tuple[Tensor, float]]:
        """Yield how a photograph differs from each stand-in, (H, W), and by what mean square its like does."""
        stand_in, number = self.nearest(image, mask)
        other = self.nearest(self.good[number], mask, without=number)[0]
        usual = _change(self.good[number], other).square()[mask].mean()
        yield _change(image.float(), stand_in), float(usual)
        ring = _near(mask) & ~mask
        if ring.any():
            beside = image.float()[:, ring].mean(dim=1)[:, None, None]
            change = _change(image.float(), beside.expand_as(image))
            yield change, float(change.square()[ring].mean())


def join(judgements: Sequence[Judgement]) -> Judgement:
    """Return one judgement of a photograph with several defects: refused if one of them is, with its numbers."""
    refused = [each for each in judgements if not each.passed]
    failed = {name for each in refused for name in each.failed}
    return Judgement((refused or list(judgements))[0].numbers, tuple(name for name in REASONS if name in failed))
