"""Measure generated images against real ones: all metrics from one pass over the samples."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..arguments import require
from ..data.preparation import Size
from ..data.training_set import ImageMaskDataset
from ..files import to_json, versions, write_json
from ..processes import ProcessGroup
from ..sheets import contact_sheet, outlined, save_sheet, stack, to_pictures
from .diversity import clustered_lpips, ic_lpips, lpips_distances, mean_pairwise, nearest_real
from .kid import fid, inception_score, kid_subsets, kid_unbiased, precision_recall
from .networks import LPIPS, FeatureExtractor, Features, alexnet_extractor, inception_extractor, load_lpips
from .sampler import Generated, Real, Sampler, as_pair, batches, draw

Metric = Literal[
    "kid", "fid", "inception_score", "precision_recall", "clustered_lpips", "ic_lpips", "nearest", "masks"
]
METRICS: tuple[Metric, ...] = get_args(Metric)
FEATURE_METRICS: tuple[Metric, ...] = ("kid", "fid", "inception_score", "precision_recall")
LPIPS_METRICS: tuple[Metric, ...] = ("clustered_lpips", "nearest")
VGG_METRICS: tuple[Metric, ...] = ("ic_lpips",)
DEFAULT_METRICS: tuple[Metric, ...] = (*FEATURE_METRICS, *LPIPS_METRICS, "masks")
"""What is measured unless `EvaluationConfig.metrics` says otherwise."""

T = TypeVar("T")
_LARGE_AREA = 0.5
_PACKAGES = (
    "dfmgan-hf", "torch", "torchvision", "torch-fidelity", "lpips", "numpy", "scipy", "diffusers", "accelerate",
)  # fmt: skip


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured, how, and with which networks; all of it but the paths of weights goes into the results.

    Attributes:
        metrics: What to measure. ic_lpips is not among the defaults: it needs VGG16's 528 MB and many minutes on a
            CPU.
        num_images: Generated images for KID, FID, Inception Score, precision and recall, and masks.
        num_lpips_images: Generated images for the LPIPS metrics: the first of the same ones.
        seed: Image i is drawn with seed + i; also the seed of subsets and bootstrap draws.
        batch_size: Images drawn at once, and passed through a network at once.
        kid_num_subsets: Subsets of the paper's KID.
        num_bootstrap: Bootstrap draws for KID's interval.
        inception_splits: Parts of the Inception Score.
        max_cluster_size: Members of a cluster, the first ones, that clustered LPIPS compares; the paper takes 200.
            None: all.
        max_memory_gib: Limit for LPIPS embeddings in memory, for each process.
        kid_features: Network for KID, FID, precision and recall; results name it. Papers take inception; alexnet has
            no classes, so that there is no Inception Score.
        inception_weights: Inception-v3 of 2015-12-05 as torch-fidelity has it. None: the file that
            DFMGAN_INCEPTION_WEIGHTS names, or a download.
        lpips_weights: AlexNet. None: the file that DFMGAN_LPIPS_WEIGHTS names, or torchvision's download.
        lpips_vgg_weights: VGG16, for ic_lpips only. None: DFMGAN_LPIPS_VGG_WEIGHTS, or torchvision's download.
    """

    metrics: tuple[Metric, ...] = DEFAULT_METRICS
    num_images: int = 5000
    num_lpips_images: int = 1000
    seed: int = 0
    batch_size: int = 16
    kid_num_subsets: int = 100
    num_bootstrap: int = 1000
    inception_splits: int = 10
    max_cluster_size: int | None = None
    max_memory_gib: float = 6.0
    kid_features: Literal["inception", "alexnet"] = "inception"
    inception_weights: Path | None = None
    lpips_weights: Path | None = None
    lpips_vgg_weights: Path | None = None

    def __post_init__(self) -> None:
        if not self.metrics or not set(self.metrics) <= set(METRICS):
            raise ValueError(f"`metrics` must be some of {', '.join(METRICS)}, but is {self.metrics}.")
        counts = ("num_images", "num_lpips_images", "batch_size", "kid_num_subsets", "num_bootstrap")
        for name in (*counts, "inception_splits"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, but is {getattr(self, name)}.")
        if self.max_cluster_size is not None and self.max_cluster_size < 2:
            raise ValueError(f"`max_cluster_size` must be at least 2, but is {self.max_cluster_size}.")

    def check_libraries(self) -> None:
        """Raise an ImportError that names the extra if a metric needs a library that is not installed.

        A metric notices it when it is computed, which is after all images have been drawn.
        """
        is_alexnet = self.kid_features == "alexnet"
        for library, metrics in {
            "torch_fidelity": FEATURE_METRICS[1:] if is_alexnet else FEATURE_METRICS,  # KID itself is our own
            "torchvision": (*LPIPS_METRICS, *VGG_METRICS, *(FEATURE_METRICS if is_alexnet else ())),
        }.items():
            needing = [metric for metric in self.metrics if metric in metrics]
            if needing:
                require(library, purpose=f"Measuring {', '.join(needing)}")


@dataclass(frozen=True)
class Networks:
    """The measuring networks; None where nothing needs one.

    Args:
        extractor: any network, for KID, FID, Inception Score, precision and recall.
        lpips: for clustered LPIPS and nearest images.
        lpips_vgg: for IC-LPIPS.
    """

    extractor: FeatureExtractor | None = None
    lpips: LPIPS | None = None
    lpips_vgg: LPIPS | None = None

    def check(self, metrics: Collection[Metric]) -> None:
        """Raise a ValueError if one of `metrics` lacks its network."""
        for name, group in (("extractor", FEATURE_METRICS), ("lpips", LPIPS_METRICS), ("lpips_vgg", VGG_METRICS)):
            if not set(group).isdisjoint(metrics) and getattr(self, name) is None:
                raise ValueError(f"Measuring {', '.join(group)} needs `networks.{name}`, but it is None.")


def load_networks(
    config: EvaluationConfig | None = None, *, device: torch.device | str = "cpu", progress: bool = True
) -> Networks:
    """Load the networks that the metrics of `config` need; None for the defaults.

    Raises:
        ImportError: see `EvaluationConfig.check_libraries` and `load_lpips`.
        MissingWeightsError, BadWeightsError: see `load_lpips`.
    """
    config = config or EvaluationConfig()
    config.check_libraries()
    wanted = set(config.metrics)
    options: dict[str, Any] = {"device": device, "progress": progress}
    extractor = lpips = lpips_vgg = None
    if wanted & set(FEATURE_METRICS) and config.kid_features == "inception":
        extractor = inception_extractor(config.inception_weights, **options)
    elif wanted & set(FEATURE_METRICS):
        extractor = alexnet_extractor(config.lpips_weights, **options)
    if wanted & set(LPIPS_METRICS):
        lpips = load_lpips("alex", config.lpips_weights, **options)
    if wanted & set(VGG_METRICS):
        lpips_vgg = load_lpips("vgg", config.lpips_vgg_weights, **options)
    return Networks(extractor, lpips, lpips_vgg)


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
    resolution: Size | None = None,
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
        resolution: side, or height and width, to which files are scaled down. None: those of what is not read from
            files, or 256.
        processes: of an accelerate launch.
        progress: whether to draw progress bars.

    Raises:
        ValueError: if there are no images, sizes differ, or a metric lacks its network.
        ImportError: see `EvaluationConfig.check_libraries`.
        DataError: if a folder has no images, or one cannot be read or would have to be enlarged.

    Example:
        >>> config = EvaluationConfig(metrics=("clustered_lpips", "nearest", "masks"))
        >>> print(format_table(evaluate(PipelineSampler(pipe), "part/test/scratch", load_networks(config), config)))
    """
    config = config or EvaluationConfig()
    processes = processes or ProcessGroup()
    config.check_libraries()
    networks.check(config.metrics)
    sampler, real = as_pair(sampler, real, resolution, config.seed)
    if len(real) == 0:
        raise ValueError("`real` holds no images to measure against.")

    wanted = set(config.metrics)
    extractor = networks.extractor if wanted & set(FEATURE_METRICS) else None
    lpips = networks.lpips if wanted & set(LPIPS_METRICS) else None
    lpips_vgg = networks.lpips_vgg if wanted & set(VGG_METRICS) else None
    available = len(sampler) if isinstance(sampler, Sized) else math.inf
    num_images = int(min(available, config.num_images)) if extractor or "masks" in wanted else 0
    num_lpips = int(min(available, config.num_lpips_images)) if lpips or lpips_vgg else 0
    if max(num_images, num_lpips) == 0:
        raise ValueError("`sampler` holds no images to measure.")

    result = Evaluation()
    for name in ("extractor", "lpips", "lpips_vgg"):
        if (network := getattr(networks, name)) is not None:
            result.networks[name] = asdict(network.network)
    with _timed(result, "drawing"):
        drawn = _draw(sampler, real, max(num_images, num_lpips), num_lpips, extractor, config, processes, progress)
    result.settings = {
        # Hashes identify the networks, wherever their weights are.
        "evaluation": {name: value for name, value in asdict(config).items() if not name.endswith("_weights")},
        "num_generated": num_images,
        "num_generated_lpips": num_lpips,
        "unique_share": len(drawn.digests.unique()) / len(drawn.digests),
        "sampler": {"type": type(sampler).__name__, **getattr(sampler, "settings", {})},
        "resolution": list(real.images.shape[2:]),
        "num_real": len(real),
        "real_file_names": list(real.file_names),
        "real_sha256": hashlib.sha256(real.images.contiguous().numpy().tobytes()).hexdigest(),
    }
    if extractor is not None and drawn.features is not None:
        with _timed(result, "feature metrics"):
            logits = None if drawn.logits is None else drawn.logits[:num_images]
            _measure_features(
                result, Features(drawn.features[:num_images], logits), real.images, extractor, config, processes
            )
    distances = partial(
        lpips_distances,
        max_memory_gib=config.max_memory_gib,
        batch_size=config.batch_size,
        processes=processes,
        progress=progress,
    )
    if lpips is not None:
        with _timed(result, "LPIPS metrics"):
            _measure_lpips(result, drawn, real.images, lpips, config, distances)
    if lpips_vgg is not None:
        with _timed(result, "IC-LPIPS"):
            value = ic_lpips(
                distances(lpips_vgg, drawn.images, real.images),
                lambda members: distances(lpips_vgg, drawn.images[members]),
                seed=config.seed,
            )
            result.metrics["ic_lpips"] = {"network": lpips_vgg.network.name, **asdict(value)}
    if "masks" in wanted:
        with _timed(result, "mask statistics"):
            _measure_masks(result, drawn.areas, num_images, real.masks)
    return result


class _Drawn(NamedTuple):
    """What is taken from drawn images, of one batch or of all. Without masks, features or classes these are None.

    Of the first K images: images uint8 (K, 3, H, W), masks uint8 (K, 1, H, W). Of all: a hash of each image's pixels,
    the share of the image that its mask covers, features and logits.
    """

    images: Tensor
    digests: Tensor
    masks: Tensor | None
    areas: Tensor | None
    features: Tensor | None
    logits: Tensor | None


def _draw(
    sampler: Sampler,
    real: ImageMaskDataset,
    num_images: int,
    num_kept: int,
    extractor: FeatureExtractor | None,
    config: EvaluationConfig,
    processes: ProcessGroup,
    progress: bool,
) -> _Drawn:
    """Draw images 0..num_images-1 once, in batches that the processes share."""
    height, width = real.images.shape[2:]

    def take(batch: range) -> _Drawn:
        images, masks = draw(sampler, batch, config.seed)
        if images.shape[2:] != (height, width):
            raise ValueError(
                f"Generated images are {images.shape[3]}x{images.shape[2]}, the real ones {width}x{height}; load "
                "the real ones at the generated ones' size (--resolution)."
            )
        kept = slice(max(0, min(batch.stop, num_kept) - batch.start))
        features, logits = (None, None) if extractor is None else extractor(images)
        return _Drawn(
            images=images[kept].expand(-1, 3, -1, -1),
            digests=_digests(images),
            masks=None if masks is None else masks[kept],
            areas=_mask_areas(masks) if masks is not None and "masks" in config.metrics else None,
            features=features,
            logits=logits,
        )

    bar = "Drawing" if progress else None
    parts = _in_batches(num_images, config.batch_size, take, processes, bar)
    return _Drawn(*map(_join, zip(*parts, strict=True)))  # type: ignore[arg-type]


def _in_batches(
    count: int, size: int, work: Callable[[range], T], processes: ProcessGroup, bar: str | None = None
) -> list[T]:
    """Do batches of numbered work, shared by the processes; each of them gets all results, in order."""
    todo = batches(count, size)
    mine = processes.mine(todo)
    hidden = bar is None or not processes.is_main
    shares = processes.gather([work(batch) for batch in tqdm(mine, bar, unit="batch", disable=hidden, leave=False)])
    return [shares[k % processes.count][k // processes.count] for k in range(len(todo))]


def _join(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known) if len(known) == len(parts) else None


def _digests(images: Tensor) -> Tensor:
    """A 64-bit hash of each image's pixels, int64 (N,)."""
    hashes = (hashlib.blake2b(image.numpy().tobytes(), digest_size=8).digest() for image in images)
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in hashes])


def _measure_features(
    result: Evaluation,
    generated: Features,
    real: Tensor,
    extractor: FeatureExtractor,
    config: EvaluationConfig,
    processes: ProcessGroup,
) -> None:
    real_parts = _in_batches(
        len(real), config.batch_size, lambda b: extractor(real[b.start : b.stop]).features, processes
    )
    x, y, network = generated.features, torch.cat(real_parts), extractor.network.name
    measures: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
        "kid": ("KID", lambda: _kid(x, y, config)),
        "fid": ("FID", lambda: {"fid": fid(x, y)}),
        "precision_recall": ("Precision and recall", lambda: asdict(precision_recall(x, y))),
    }
    for name, (title, measure) in measures.items():
        if name not in config.metrics:
            continue
        if min(len(x), len(y)) < 2:
            result.not_measured[name] = (
                f"{title} needs 2 images of each kind, but there are {len(x)} generated and {len(y)} real ones"
            )
        else:
            result.metrics[name] = {"features": network, **measure()}
    if "inception_score" in config.metrics:
        if generated.logits is None:
            result.not_measured["inception_score"] = f"{network} has no classes"
        elif len(x) < config.inception_splits:
            result.not_measured["inception_score"] = f"{len(x)} images for {config.inception_splits} splits"
        else:
            score = inception_score(generated.logits, config.inception_splits)
            result.metrics["inception_score"] = {"features": network, **asdict(score)}


def _kid(x: Tensor, y: Tensor, config: EvaluationConfig) -> dict[str, Any]:
    unbiased = kid_unbiased(x, y, num_bootstrap=config.num_bootstrap, seed=config.seed)
    subsets = kid_subsets(x, y, num_subsets=config.kid_num_subsets, seed=config.seed)
    return {"kid": unbiased.kid, "unbiased": asdict(unbiased), "subsets": asdict(subsets)}


def _measure_lpips(
    result: Evaluation,
    drawn: _Drawn,
    real: Tensor,
    lpips: LPIPS,
    config: EvaluationConfig,
    distances: Callable[..., Tensor],
) -> None:
    n, m = len(drawn.images), len(real)
    # One table of everything embeds every image once.
    table = distances(lpips, torch.cat([drawn.images, real.expand(-1, 3, -1, -1)]))
    among_generated, to_real, among_real = table[:n, :n], table[:n, n:], table[n:, n:]
    if "clustered_lpips" in config.metrics:
        result.metrics["clustered_lpips"] = {
            "network": lpips.network.name,
            **asdict(clustered_lpips(to_real, among_generated, max_cluster_size=config.max_cluster_size)),
            "pairwise_lpips": mean_pairwise(among_generated) if n > 1 else None,
            "pairwise_lpips_real": mean_pairwise(among_real) if m > 1 else None,
        }
    if "nearest" in config.metrics:
        nearest = nearest_real(to_real, among_real)
        result.metrics["nearest"] = {"network": lpips.network.name, **asdict(nearest)}
    nearest_distances, indices = to_real.min(dim=1)
    result.nearest = Nearest(drawn.images, drawn.masks, indices, nearest_distances)


def _mask_areas(masks: Tensor) -> Tensor:
    """Return the share of the image that each of (n, 1, H, W) masks covers, float64 (n,)."""
    return (masks != 0).double().mean(dim=(1, 2, 3))


def _measure_masks(result: Evaluation, areas: Tensor | None, count: int, real_masks: Tensor | None) -> None:
    """Summarize the first `count` generated masks, beside those of the real ones if there are any."""
    if areas is None:
        result.not_measured["masks"] = "the generated images come without masks"
        return
    sets = {"generated": areas[:count]} | ({} if real_masks is None else {"real": _mask_areas(real_masks)})
    result.metrics["masks"] = {
        name: {
            "num_masks": len(each),
            "area_mean": float(each.mean()),
            "empty_rate": float((each == 0).double().mean()),
            "large_rate": float((each > _LARGE_AREA).double().mean()),
        }
        for name, each in sets.items()
    }


@contextmanager
def _timed(result: Evaluation, step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    result.seconds[step] = time.perf_counter() - start


def to_dict(evaluation: Evaluation, **more: Any) -> dict[str, Any]:
    """Return an evaluation as plain types that JSON knows; numbers that are not finite become None.

    `more` is what else the reader must know, such as model and data; placed first.
    """
    parts = ("metrics", "not_measured", "networks", "settings", "seconds")
    return to_json({**more, **{name: getattr(evaluation, name) for name in parts}, "versions": versions(*_PACKAGES)})


def save_evaluation(output_dir: Path, evaluation: Evaluation, real: ImageMaskDataset, **more: Any) -> list[Path]:
    """Write results.json (see `to_dict`), and nearest.png if nearest images were found; return what was written.

    Without any, nearest.png of an earlier measurement is removed.
    """
    written = [output_dir / "results.json"]
    write_json(written[0], to_dict(evaluation, **more))
    if evaluation.nearest is None:
        (output_dir / "nearest.png").unlink(missing_ok=True)
    else:
        note, nearest = "", evaluation.metrics.get("nearest", {})
        if nearest.get("real_median") is not None:
            note = (
                f"From a real image to the nearest other one it is LPIPS {nearest['real_median']:.3f} (median); below "
                f"{nearest['copy_threshold']:.3f} counts as a copy: {nearest['copy_rate']:.1%} of the generated ones."
            )
        sheet = nearest_sheet(evaluation.nearest, real, note=note)
        written.append(save_sheet(sheet, output_dir / "nearest.png"))
    return written


def nearest_sheet(near: Nearest, real: ImageMaskDataset, *, pairs: int = 12, note: str = "") -> Image.Image:
    """Draw generated images beside their nearest real ones, their masks outlined.

    The upper half of the page has the images that are closest to a real one, the worst suspects; the lower half has
    the first images as they were drawn. Each half has at most `pairs`; `note` follows the title.
    """
    pairs = min(pairs, len(near.images))
    worst = torch.argsort(near.distances)[:pairs]
    halves = {
        f"The {pairs} generated images (left) that are nearest to a real one (right). {note}": worst,
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


def format_table(evaluation: Evaluation) -> str:
    """Format the main numbers, a line each: name, value, what it says."""
    m, settings = evaluation.metrics, evaluation.settings
    rows: list[tuple[str, str, str]] = []
    if kid := m.get("kid"):
        unbiased, subsets = kid["unbiased"], kid["subsets"]
        low, high = (f"{1000 * value:.2f}" for value in unbiased["interval"])
        about = f"all images; {unbiased['confidence']:.0%} from {low} to {high}"
        rows.append(("KID x 1000", f"{1000 * unbiased['kid']:.2f}", about))
        about = f"mean of {subsets['num_subsets']} subsets of {subsets['subset_size']} (as papers report it)"
        rows.append(("KID x 1000, subsets", f"{1000 * subsets['kid']:.2f}", about))
    if value := m.get("fid"):
        rows.append(("FID", f"{value['fid']:.2f}", f"{value['features']}; biased for small sets"))
    if value := m.get("precision_recall"):
        about = f"k = {value['neighbourhood']}"
        rows += [("Precision", f"{value['precision']:.3f}", about), ("Recall", f"{value['recall']:.3f}", about)]
    if value := m.get("inception_score"):
        about = f"sd {value['std']:.3f} over {value['splits']} splits"
        rows.append(("Inception Score", f"{value['mean']:.3f}", about))
    if value := m.get("clustered_lpips"):
        about = f"{value['num_empty']} empty, {value['num_single']} single of {value['num_clusters']} clusters"
        among_real = f"real images: {_number(value['pairwise_lpips_real'])}"
        rows += [
            ("Clustered LPIPS", f"{value['clustered_lpips']:.4f}", about),
            ("  clusters of 2 and more", _number(value["clustered_lpips_nonempty"]), ""),
            ("Pairwise LPIPS", _number(value["pairwise_lpips"]), among_real),
        ]
    if value := m.get("ic_lpips"):
        rows.append(("IC-LPIPS", _number(value["ic_lpips"]), f"{value['num_left_out']} clusters left out"))
    if value := m.get("nearest"):
        about = f"real to nearest real: {_number(value['real_median'])}"
        rows.append(("LPIPS to nearest real", f"{value['median']:.4f}", about))
        if value["copy_rate"] is not None:
            rows.append(("Copies", f"{value['copy_rate']:.1%}", f"LPIPS below {value['copy_threshold']:.4f}"))
    if value := m.get("masks"):
        generated, real = value["generated"], value.get("real")
        rows += [
            ("Mask area", f"{generated['area_mean']:.2%}", f"real: {real['area_mean']:.2%}" if real else ""),
            ("Empty masks", f"{generated['empty_rate']:.1%}", f"real: {real['empty_rate']:.1%}" if real else ""),
            ("Masks over half the image", f"{generated['large_rate']:.1%}", ""),
        ]
    rows += [(name, "-", reason) for name, reason in evaluation.not_measured.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"{name:<{widths[0]}}  {value:>{widths[1]}}  {about}".rstrip() for name, value, about in rows]
    lpips_count, (height, width) = settings["num_generated_lpips"], settings["resolution"]
    counts = f"{settings['num_generated'] or lpips_count} generated"
    counts += f" ({lpips_count} for LPIPS)" if lpips_count else ""
    networks = ", ".join(network["name"] for network in evaluation.networks.values())
    header = f"{counts} against {settings['num_real']} real images, {width}x{height}"
    return "\n".join([header, f"Networks: {networks or 'none'}", *lines])


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"
