"""Measure generated images against real ones: all metrics from one pass over the samples."""

from __future__ import annotations

import hashlib
import math
import platform
import time
from collections.abc import Mapping, Sized
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..data.training_set import ImageMaskDataset
from ..files import write_json
from ..processes import ProcessGroup
from ..sheets import contact_sheet, outlined, save_sheet, stack, to_pictures
from .diversity import clustered_lpips, ic_lpips, lpips_distances, mean_pairwise, nearest_real
from .kid import fid, inception_score, kid_subsets, kid_unbiased, precision_recall
from .masks import MEASUREMENTS, compare_masks, measure_masks, summarize_masks
from .networks import (
    DEFAULT_METRICS,
    FEATURE_METRICS,
    LPIPS,
    LPIPS_METRICS,
    METRICS,
    VGG_METRICS,
    FeatureExtractor,
    Features,
    Metric,
    Networks,
)
from .sampler import Generated, Real, Sampler, as_pair, batches, draw

# --- What is measured and how.


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured and how; all of it goes into the results.

    Attributes:
        metrics: What to measure. ic_lpips is not among the defaults: it needs VGG16's 528 MB and many minutes on a
            CPU.
        num_images: Generated images for KID, FID, Inception Score, precision and recall, and masks.
        num_lpips_images: Generated images for the LPIPS metrics: the first of the same ones.
        seed: Image i is drawn with seed + i; also the seed of subsets and bootstrap draws.
        batch_size: Images drawn at once, and passed through a network at once.
        kid_num_subsets: Subsets of the paper's KID.
        kid_max_subset_size: Largest subset.
        num_bootstrap: Bootstrap draws for KID's intervals.
        inception_splits: Parts of the Inception Score.
        neighbourhood: k of precision and recall.
        ic_lpips_max_cluster_size: Members of a cluster that IC-LPIPS compares.
        copy_threshold: LPIPS to the nearest real image below which a generated one counts as a copy. Default: half of
            the real images' median distance to their nearest neighbour.
        max_memory_gib: Limit for LPIPS embeddings in memory, for each process.
    """

    metrics: tuple[Metric, ...] = DEFAULT_METRICS
    num_images: int = 5000
    num_lpips_images: int = 1000
    seed: int = 0
    batch_size: int = 16
    kid_num_subsets: int = 100
    kid_max_subset_size: int = 1000
    num_bootstrap: int = 1000
    inception_splits: int = 10
    neighbourhood: int = 3
    ic_lpips_max_cluster_size: int = 50
    copy_threshold: float | None = None
    max_memory_gib: float = 6.0

    def __post_init__(self) -> None:
        if not self.metrics or not set(self.metrics) <= set(METRICS):
            raise ValueError(f"`metrics` must be some of {', '.join(METRICS)}, but is {self.metrics}.")
        at_least_one = ("num_images", "num_lpips_images", "batch_size", "kid_num_subsets", "num_bootstrap")
        for name in (*at_least_one, "inception_splits", "neighbourhood"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, but is {getattr(self, name)}.")


# --- Draw images once and take from them all that the metrics need.


@dataclass(frozen=True)
class Collected:
    """What was taken from N drawn images, of which the first K were kept; the same in every process.

    Args:
        images: uint8 (K, 3, H, W).
        masks: uint8 (K, 1, H, W), values 0 and 255; None if the sampler has no masks.
        mask_measurements: of all N masks, see `measure_masks`; None if the sampler has no masks.
        features: of all N images, or None without an extractor.
        unique_share: share of the N images that differ from all before them, in (0, 1].
    """

    images: Tensor
    masks: Tensor | None
    mask_measurements: Tensor | None
    features: Features | None
    unique_share: float


def collect(
    sampler: Sampler,
    num_images: int,
    *,
    num_kept: int,
    size: tuple[int, int],
    seed: int = 0,
    batch_size: int = 16,
    extractor: FeatureExtractor | None = None,
    with_masks: bool = True,
    processes: ProcessGroup | None = None,
    progress: bool = False,
    description: str = "Drawing",
) -> Collected:
    """Draw images 0..num_images-1 of a sampler in batches that the processes share.

    Args:
        sampler: draws; image i depends on `seed + i` alone.
        num_images: N.
        num_kept: K, images that are kept themselves, at most N.
        size: (H, W) that the images must have.
        seed: base seed.
        batch_size: images drawn, and passed through the extractor, at once. Batches are the same for any number of
            processes.
        extractor: gives the features.
        with_masks: whether masks are measured and kept.
        processes: share of the work.
        progress: whether to draw a progress bar.
        description: its text.

    Raises:
        ValueError: if the sampler's images have another size.
    """
    processes = processes or ProcessGroup()
    images = torch.zeros(num_kept, 3, *size, dtype=torch.uint8)
    masks = torch.zeros(num_kept, 1, *size, dtype=torch.uint8)
    measurements = torch.zeros(num_images, MEASUREMENTS, dtype=torch.float64)
    digests = torch.zeros(num_images, dtype=torch.int64)
    unmasked = torch.zeros(1)
    features: list[Tensor] = []
    logits: list[Tensor] = []

    work = processes.mine(batches(num_images, batch_size))
    with tqdm(
        total=sum(len(batch) for batch in work),
        desc=description,
        unit="image",
        disable=not (progress and processes.is_main),
        leave=False,
    ) as bar:
        for batch in work:
            drawn, drawn_masks = draw(sampler, batch, seed)
            if tuple(drawn.shape[2:]) != size:
                raise ValueError(
                    f"Generated images are {drawn.shape[3]}x{drawn.shape[2]}, the real ones {size[1]}x{size[0]}; load "
                    "the real ones at the generated ones' size (--resolution)."
                )
            kept = range(batch.start, min(batch.stop, num_kept))
            images[batch.start : kept.stop] = drawn[: len(kept)]
            digests[batch.start : batch.stop] = _digests(drawn)
            if drawn_masks is None:
                unmasked += 1
            elif with_masks:
                masks[batch.start : kept.stop] = drawn_masks[: len(kept)]
                measurements[batch.start : batch.stop] = measure_masks(drawn_masks)
            if extractor is not None:
                output = extractor(drawn)
                features.append(output.features)
                logits.append(torch.empty(len(drawn), 0) if output.logits is None else output.logits)
            bar.update(len(drawn))

    has_masks = with_masks and float(processes.sum(unmasked)) == 0
    return Collected(
        images=processes.sum(images),
        masks=processes.sum(masks) if has_masks else None,
        mask_measurements=processes.sum(measurements) if has_masks else None,
        features=None if extractor is None else _gather(features, logits, num_images, batch_size, processes),
        unique_share=len(processes.sum(digests).unique()) / num_images,
    )


def extract(
    images: Tensor, extractor: FeatureExtractor, *, batch_size: int = 16, processes: ProcessGroup | None = None
) -> Features:
    """Extract features of images uint8 (N, 3 or 1, H, W); the processes share the work and each gets the whole."""
    processes = processes or ProcessGroup()
    work = processes.mine(batches(len(images), batch_size))
    outputs = [extractor(images[batch.start : batch.stop]) for batch in work]
    features = [output.features for output in outputs]
    logits = [torch.empty(len(f), 0) if o.logits is None else o.logits for f, o in zip(features, outputs, strict=True)]
    return _gather(features, logits, len(images), batch_size, processes)


def _gather(
    features: list[Tensor], logits: list[Tensor], count: int, batch_size: int, processes: ProcessGroup
) -> Features:
    """Put this process's batches into their places and add the others'."""
    # A process without a batch learns the widths from the others.
    widths = torch.zeros(2, dtype=torch.int64)
    if processes.is_main:
        widths = torch.tensor([features[0].shape[1], logits[0].shape[1]])
    widths = processes.sum(widths)
    whole = []
    for parts, width in zip((features, logits), widths.tolist(), strict=True):
        tensor = torch.zeros(count, width)
        for batch, part in zip(processes.mine(batches(count, batch_size)), parts, strict=True):
            tensor[batch.start : batch.stop] = part
        whole.append(processes.sum(tensor) if width else None)
    assert whole[0] is not None
    return Features(whole[0], whole[1])


def _digests(images: Tensor) -> Tensor:
    """A 64-bit hash of each image's pixels, int64 (N,)."""
    hashes = (hashlib.blake2b(image.numpy().tobytes(), digest_size=8).digest() for image in images)
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in hashes])


# --- From features, images and masks to values, for each group of metrics that shares its inputs.


@dataclass(frozen=True)
class NotMeasurable:
    """Why a metric has no value for these images."""

    reason: str


Values = dict[str, dict[str, Any] | NotMeasurable]


def measure_features(network: str, generated: Features, real: Features, config: EvaluationConfig) -> Values:
    """Measure KID, FID, Inception Score, precision and recall, as far as `config` asks for them.

    Args:
        network: name of the network, which goes into each value.
        generated, real: its features.
        config: which metrics, and how.

    Returns:
        By metric. `kid` holds both estimates; its `kid` is the one from all images.
    """
    x, y = generated.features, real.features
    values: Values = {}
    if "kid" in config.metrics:
        values["kid"] = _too_few("KID", x, y) or {"features": network, **_kid(x, y, config)}
    if "fid" in config.metrics:
        values["fid"] = _too_few("FID", x, y) or {"features": network, "fid": fid(x, y)}
    if "precision_recall" in config.metrics:
        values["precision_recall"] = _too_few("Precision and recall", x, y) or {
            "features": network,
            **asdict(precision_recall(x, y, config.neighbourhood)),
        }
    if "inception_score" in config.metrics:
        if generated.logits is None:
            values["inception_score"] = NotMeasurable(f"{network} has no classes")
        elif len(x) < config.inception_splits:
            values["inception_score"] = NotMeasurable(f"{len(x)} images for {config.inception_splits} splits")
        else:
            score = inception_score(generated.logits, config.inception_splits)
            values["inception_score"] = {"features": network, **asdict(score)}
    return values


def measure_lpips(
    generated: Tensor, real: Tensor, lpips: LPIPS, config: EvaluationConfig, processes: ProcessGroup, progress: bool
) -> tuple[Values, Tensor]:
    """Measure clustered and pairwise LPIPS, and nearest real images, as far as `config` asks for them.

    Args:
        generated: uint8 (N, 3, H, W).
        real: uint8 (M, 3 or 1, H, W).
        lpips: the network.
        config: which metrics, and how.
        processes: share of the work.
        progress: whether to draw a progress bar.

    Returns:
        By metric, and the table (N, M) of distances to the real images.
    """
    options: dict[str, Any] = {
        "max_memory_gib": config.max_memory_gib,
        "batch_size": config.batch_size,
        "processes": processes,
        "progress": progress,
    }
    n = len(generated)
    # One table of everything embeds every image once.
    table = lpips_distances(lpips, torch.cat([generated, real.expand(-1, 3, -1, -1)]), **options)
    among_generated, to_real, among_real = table[:n, :n], table[:n, n:], table[n:, n:]
    values: Values = {}
    if "clustered_lpips" in config.metrics:
        clusters = clustered_lpips(to_real, among_generated)
        values["clustered_lpips"] = {
            "network": lpips.network.name,
            **asdict(clusters),
            "pairwise_lpips": mean_pairwise(among_generated) if n > 1 else None,
            "pairwise_lpips_real": mean_pairwise(among_real) if len(among_real) > 1 else None,
        }
    if "nearest" in config.metrics:
        nearest = nearest_real(to_real, among_real, config.copy_threshold)
        values["nearest"] = {"network": lpips.network.name, **asdict(nearest)}
    return values, to_real


def measure_ic_lpips(
    generated: Tensor, real: Tensor, lpips: LPIPS, config: EvaluationConfig, processes: ProcessGroup, progress: bool
) -> Values:
    """Measure IC-LPIPS; arguments as in `measure_lpips`."""
    options: dict[str, Any] = {
        "max_memory_gib": config.max_memory_gib,
        "batch_size": config.batch_size,
        "processes": processes,
        "progress": progress,
        "description": "IC-LPIPS",
    }
    result = ic_lpips(
        lpips_distances(lpips, generated, real, **options),
        lambda members: lpips_distances(lpips, generated[members], **options),
        max_cluster_size=config.ic_lpips_max_cluster_size,
        seed=config.seed,
    )
    return {"ic_lpips": {"network": lpips.network.name, **asdict(result)}}


def measure_mask_statistics(measurements: Tensor | None, count: int, real_masks: Tensor | None) -> Values:
    """Summarize the first `count` generated masks, beside those of the real ones if there are any.

    Args:
        measurements: what `measure_masks` took of the generated masks; None if there are none.
        count: masks to use.
        real_masks: uint8 (M, 1, H, W), or None.
    """
    if measurements is None:
        return {"masks": NotMeasurable("the generated images come without masks")}
    generated = measurements[:count]
    value: dict[str, Any] = {"generated": asdict(summarize_masks(generated))}
    if real_masks is not None:
        real = measure_masks(real_masks)
        value |= {"real": asdict(summarize_masks(real)), "comparison": asdict(compare_masks(generated, real))}
    return {"masks": value}


def _kid(x: Tensor, y: Tensor, config: EvaluationConfig) -> dict[str, Any]:
    unbiased = kid_unbiased(x, y, num_bootstrap=config.num_bootstrap, seed=config.seed)
    subsets = kid_subsets(
        x,
        y,
        num_subsets=config.kid_num_subsets,
        max_subset_size=config.kid_max_subset_size,
        seed=config.seed,
    )
    return {"kid": unbiased.kid, "unbiased": asdict(unbiased), "subsets": asdict(subsets)}


def _too_few(what: str, x: Tensor, y: Tensor) -> NotMeasurable | None:
    if min(len(x), len(y)) >= 2:
        return None
    return NotMeasurable(
        f"{what} needs 2 images of each kind, but there are {len(x)} generated and {len(y)} real ones"
    )


# --- Measure generated images against real ones: all metrics from one pass over the samples.


@dataclass(frozen=True)
class Nearest:
    """Generated images and their nearest real ones, for pictures.

    Args:
        images: generated, uint8 (K, 3, H, W).
        masks: uint8 (K, 1, H, W), or None.
        indices: number of the nearest real image, (K,).
        distances: its LPIPS distance, (K,).
    """

    images: Tensor
    masks: Tensor | None
    indices: Tensor
    distances: Tensor


@dataclass
class Evaluation:
    """What was measured.

    Args:
        metrics: values by metric, as plain types.
        not_measured: why, for each metric that was asked for and could not be measured.
        settings: configuration, counts, samplers and real images.
        networks: name and hashes of each network.
        seconds: wall time by step.
        nearest: None if neither clustered LPIPS nor nearest were measured.
    """

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    networks: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    nearest: Nearest | None = None


def evaluate(
    sampler: Generated,
    real: Real,
    networks: Networks,
    config: EvaluationConfig | None = None,
    *,
    resolution: int | None = None,
    processes: ProcessGroup | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measure a sampler against real images. Every process of a launch calls it and gets the same result.

    A metric that these images cannot have (KID with one real image, mask statistics of a sampler without masks) is
    named in `not_measured` with the reason.

    Args:
        sampler: draws the generated images; one with a length gives no more than that. Or a folder of them, or a
            uint8 tensor (N, 3 or 1, H, W).
        real: the real images, of the same size, with their masks if they have any: a set that is loaded, a folder, a
            uint8 tensor, or rows of a Hugging Face data set; see `as_real`.
        networks: from `load_networks`, or any others.
        config: what to measure; None for the defaults.
        resolution: side of the square to which files are scaled down. None: the size of the side that is not read from
            files, or 256.
        processes: of an accelerate launch.
        progress: whether to draw progress bars.

    Raises:
        ValueError: if there are no real images, sizes differ, or a metric lacks its network.
        DataError: if a folder has no images, or one cannot be read or would have to be enlarged.
    """
    config = config or EvaluationConfig()
    processes = processes or ProcessGroup()
    networks.check(config.metrics)
    sampler, real = as_pair(sampler, real, resolution, config.seed)
    if len(real) == 0:
        raise ValueError("`real` holds no images to measure against.")
    clock = _Clock()

    height, width = real.images.shape[2:]
    wanted = set(config.metrics)
    extractor = networks.extractor if wanted & set(FEATURE_METRICS) else None
    lpips = networks.lpips if wanted & set(LPIPS_METRICS) else None
    lpips_vgg = networks.lpips_vgg if wanted & set(VGG_METRICS) else None
    num_images = _available(sampler, config.num_images) if extractor or "masks" in wanted else 0
    num_lpips = _available(sampler, config.num_lpips_images) if lpips or lpips_vgg else 0
    drawn = collect(
        sampler,
        max(num_images, num_lpips),
        num_kept=num_lpips,
        size=(height, width),
        seed=config.seed,
        batch_size=config.batch_size,
        extractor=extractor,
        processes=processes,
        progress=progress,
    )
    clock.lap("drawing")

    evaluation = Evaluation(
        settings={
            "evaluation": asdict(config),
            "num_generated": num_images,
            "num_generated_lpips": num_lpips,
            "unique_share": drawn.unique_share,
            "sampler": {"type": type(sampler).__name__, **getattr(sampler, "settings", {})},
            "resolution": [height, width],
            "num_real": len(real),
            "real_file_names": list(real.file_names),
            "real_sha256": hashlib.sha256(real.images.contiguous().numpy().tobytes()).hexdigest(),
        },
        networks=networks.describe(),
        seconds=clock.laps,
    )
    measured: Values = {}
    if extractor is not None and drawn.features is not None:
        real_features = extract(real.images, extractor, batch_size=config.batch_size, processes=processes)
        measured |= measure_features(extractor.network.name, drawn.features.first(num_images), real_features, config)
        clock.lap("feature metrics")
    if lpips is not None:
        values, to_real = measure_lpips(drawn.images, real.images, lpips, config, processes, progress)
        measured |= values
        nearest = to_real.min(dim=1)
        evaluation.nearest = Nearest(drawn.images, drawn.masks, nearest.indices, nearest.values)
        clock.lap("LPIPS metrics")
    if lpips_vgg is not None:
        measured |= measure_ic_lpips(drawn.images, real.images, lpips_vgg, config, processes, progress)
        clock.lap("IC-LPIPS")
    if "masks" in wanted:
        measured |= measure_mask_statistics(drawn.mask_measurements, num_images, real.masks)
        clock.lap("mask statistics")
    for name, value in measured.items():
        if isinstance(value, NotMeasurable):
            evaluation.not_measured[name] = value.reason
        else:
            evaluation.metrics[name] = value
    return evaluation


class _Clock:
    """Wall time of the steps since the last one, in seconds."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.start = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self.start, 3)
        self.start = now


def _available(sampler: Sampler, wanted: int) -> int:
    """Images that a sampler can give, at most `wanted`."""
    return min(wanted, len(sampler)) if isinstance(sampler, Sized) else wanted


# --- What an evaluation leaves behind: a table on screen and results.json.

_PACKAGES = (
    "dfmgan-hf",
    "torch",
    "torchvision",
    "torch-fidelity",
    "lpips",
    "numpy",
    "scipy",
    "diffusers",
    "accelerate",
)


def to_dict(evaluation: Evaluation, **more: Any) -> dict[str, Any]:
    """Return an evaluation as plain types that JSON knows; numbers that are not finite become None.

    Args:
        evaluation: what was measured.
        more: what else the reader must know, such as model and data; placed first.
    """
    return _plain(
        {
            **more,
            "metrics": evaluation.metrics,
            "not_measured": evaluation.not_measured,
            "networks": evaluation.networks,
            "settings": evaluation.settings,
            "seconds": evaluation.seconds,
            "versions": versions(),
        }
    )


def save_evaluation(output_dir: Path, evaluation: Evaluation, real: ImageMaskDataset, **more: Any) -> list[Path]:
    """Write results.json, and nearest.png if nearest images were found.

    Args:
        output_dir: folder; made if need be.
        evaluation: what was measured.
        real: the real images it was measured against.
        more: see `to_dict`.

    Returns:
        The files written.
    """
    written = [output_dir / "results.json"]
    write_json(written[0], to_dict(evaluation, **more))
    if (near := evaluation.nearest) is not None:
        note = _yardstick(evaluation.metrics.get("nearest", {}))
        written.append(save_sheet(nearest_sheet(near, real, note=note), output_dir / "nearest.png"))
    return written


def nearest_sheet(near: Nearest, real: ImageMaskDataset, *, pairs: int = 12, note: str = "") -> Image.Image:
    """Draw generated images beside their nearest real ones, their masks outlined.

    The upper half of the page has the images that are closest to a real one, the worst suspects; the lower half has
    the first images as they were drawn.

    Args:
        near: K generated images and their nearest real ones.
        real: M real images; their names are written below.
        pairs: pairs in each half, at most.
        note: words after the title.
    """
    pairs = min(pairs, len(near.images))
    halves = {
        f"The {pairs} generated images (left) that are nearest to a real one (right). {note}": torch.argsort(
            near.distances
        )[:pairs],
        f"The first {pairs} generated images (left) and their nearest real ones (right)": torch.arange(pairs),
    }
    size = 160
    pages = []
    for title, chosen in halves.items():
        generated, photographs = to_pictures(near.images[chosen]), to_pictures(real.images[near.indices[chosen]])
        if near.masks is not None:
            masks = to_pictures(near.masks[chosen])
            generated = [outlined(image, mask, size) for image, mask in zip(generated, masks, strict=True)]
        captions = [
            f"{i}: LPIPS {float(near.distances[i]):.3f}  {real.file_names[int(near.indices[i])]}" for i in chosen
        ]
        samples = list(zip(generated, photographs, strict=True))
        pages.append(contact_sheet(samples, title=title, captions=captions, columns=3, picture_size=size))
    return stack(pages)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that measured."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def format_table(evaluation: Evaluation) -> str:
    """Format the main numbers, a line each: name, value, what it says."""
    m = evaluation.metrics
    rows: list[tuple[str, str, str]] = []
    if kid := m.get("kid"):
        low, high = (f"{1000 * value:.2f}" for value in kid["unbiased"]["interval"])
        confidence = f"{kid['unbiased']['confidence']:.0%}"
        rows.append(
            ("KID x 1000", f"{1000 * kid['unbiased']['kid']:.2f}", f"all images; {confidence} from {low} to {high}")
        )
        subsets = kid["subsets"]
        about = f"mean of {subsets['num_subsets']} subsets of {subsets['subset_size']} (as papers report it)"
        rows.append(("KID x 1000, subsets", f"{1000 * subsets['kid']:.2f}", about))
    if value := m.get("fid"):
        rows.append(("FID", f"{value['fid']:.2f}", f"{value['features']}; biased for small sets"))
    if value := m.get("precision_recall"):
        about = f"k = {value['neighbourhood']}"
        rows += [("Precision", f"{value['precision']:.3f}", about), ("Recall", f"{value['recall']:.3f}", about)]
    if value := m.get("inception_score"):
        rows.append(
            ("Inception Score", f"{value['mean']:.3f}", f"sd {value['std']:.3f} over {value['splits']} splits")
        )
    if value := m.get("clustered_lpips"):
        about = f"{value['num_empty']} empty, {value['num_single']} single of {value['num_clusters']} clusters"
        rows.append(("Clustered LPIPS", f"{value['clustered_lpips']:.4f}", about))
        rows.append(("  clusters of 2 and more", _number(value["clustered_lpips_nonempty"]), ""))
        about = f"real images: {_number(value['pairwise_lpips_real'])}"
        rows.append(("Pairwise LPIPS", _number(value["pairwise_lpips"]), about))
    if value := m.get("ic_lpips"):
        rows.append(("IC-LPIPS", _number(value["ic_lpips"]), f"{value['num_left_out']} clusters left out"))
    if value := m.get("nearest"):
        about = f"real to nearest real: {_number(value['real_median'])}"
        rows.append(("LPIPS to nearest real", f"{value['median']:.4f}", about))
        if value["copy_rate"] is not None:
            rows.append(("Copies", f"{value['copy_rate']:.1%}", f"LPIPS below {value['copy_threshold']:.4f}"))
    if value := m.get("masks"):
        generated, real = value["generated"], value.get("real")
        about = f"real: {real['area_mean']:.2%}" if real else ""
        rows.append(("Mask area", f"{generated['area_mean']:.2%}", about))
        rows.append(
            ("Empty masks", f"{generated['empty_rate']:.1%}", f"real: {real['empty_rate']:.1%}" if real else "")
        )
        rows.append(("Masks over half the image", f"{generated['large_rate']:.1%}", ""))
    rows += [(name, "-", reason) for name, reason in evaluation.not_measured.items()]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    lines = [f"{name:<{widths[0]}}  {value:>{widths[1]}}  {about}".rstrip() for name, value, about in rows]
    settings = evaluation.settings
    counts = f"{settings['num_generated'] or settings['num_generated_lpips']} generated"
    if settings["num_generated_lpips"]:
        counts += f" ({settings['num_generated_lpips']} for LPIPS)"
    networks = ", ".join(network["name"] for network in evaluation.networks.values())
    header = (
        f"{counts} against {settings['num_real']} real images, {settings['resolution'][1]}x{settings['resolution'][0]}"
    )
    return "\n".join([header, f"Networks: {networks or 'none'}", *lines])


def _yardstick(nearest: Mapping[str, Any]) -> str:
    """What the distances on the page of nearest images are to be judged by."""
    if nearest.get("real_median") is None:
        return ""
    return (
        f"From a real image to the nearest other one it is LPIPS {nearest['real_median']:.3f} (median); below "
        f"{nearest['copy_threshold']:.3f} counts as a copy: {nearest['copy_rate']:.1%} of the generated images."
    )


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value
