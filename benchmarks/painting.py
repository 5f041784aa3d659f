"""How real painted defects look: painting against Crop&Paste, with and without Poisson blending.

    python -m benchmarks.painting --model models/dfmgan-magnetic-tile --data_dir magnetic_tile --defect break \\
        --window 80 --output_dir runs/painting

Every real mask of a kind of defect is laid on other photographs, about where it was on its own: on a defect-free
part of one with such a defect (of other parts in the same light; good photographs may be told from them by the light
alone), or, of whole products, on a good one of the test set. There each arm puts a defect of this shape: painted by
the model; cut out of the mask's own photograph; cut out and laid on as painting does, at the model's size (so much is
lost by its resolution alone); or cut out and blended. One more arm lets the model draw a mask of its
own on the same window. With `--held_back`, the list of what the model was not trained on (`dfmgan split`), these
defects are only compared with and the others are laid on; without it, pasting is compared with the very pixels that it
copies. Measured on windows at its own scale:

- AUROC of a logistic regression on frozen features (EfficientNet-Lite0, which a model may have been trained against,
  and AlexNet) that tells composites from photographs of real defects by a ring along the outline of the mask, all else
  grey; 0.5 is not to be told apart. Folds never share a real mask. "Nothing painted" is what the places alone give
  away: the same rings on photographs that nothing was done to.
- KID of the windows against real ones on the same two networks, that have nothing in common; of painted ones also
  where the mask is smaller than the median, and where it is larger, each against real masks of that size.
- of painting: the share of the mask that visibly changed (its label is inside of the mask, so this is their IoU), and
  of requests that changed nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.cli import run
from dfmgan_hf.data import DataConfig, read_file_list
from dfmgan_hf.data.preparation import read_masks
from dfmgan_hf.data.reading import read_image
from dfmgan_hf.data.records import ImageRecord
from dfmgan_hf.files import write_json, write_text
from dfmgan_hf.methods.crop_paste import blend_poisson
from dfmgan_hf.metrics.kid import kid_unbiased
from dfmgan_hf.metrics.networks import alexnet_extractor
from dfmgan_hf.models.base import image_size, sides
from dfmgan_hf.models.projected import FEATURE_NETWORK, FrozenFeatures
from dfmgan_hf.painting import EDGE, bounding_box, faded
from dfmgan_hf.sheets import contact_sheet, save_sheet

Array = np.ndarray[Any, Any]

ARMS = {
    "painted": "Painted",
    "drawn": "Painted, the model's own mask",
    "paste": "Crop&Paste",
    "scaled": "Crop&Paste, at the model's size",
    "poisson": "Crop&Paste, Poisson",
    "nothing": "Nothing painted",
}
RING = (3, 12)
"""From how far inside of the mask up to how far outside the classifier sees, in pixels of a window of 80."""
SIDE = 128
"""Pixels of the shorter side at which windows are compared."""
TRIES = 100
FOLDS = 5


@dataclass(frozen=True)
class PaintingBenchmark:
    """What is compared, and where the results go.

    Attributes:
        model: Folder or Hub repository of the model.
        data: Good photographs of the test set to paint into, and defects.
        defect: Kind of defect.
        output_dir: Folder for the results.
        window: Shorter side of the windows in pixels; 0 for whole photographs. None: what the model says.
        placements: Places for each real mask.
        held_back: List of the photographs whose defects are only compared with; those of all others are laid on.
            None: all are both.
        seed: Of places, defects and folds.
        lpips_weights: File with AlexNet's weights; None for the download.
    """

    model: str
    data: tyro.conf.OmitArgPrefixes[DataConfig]
    defect: str
    output_dir: Path
    window: int | None = None
    placements: int = 2
    held_back: Path | None = None
    seed: int = 0
    lpips_weights: Path | None = None


@dataclass
class Windows:
    """Windows around masks: pixels uint8 (H, W, C), masks bool (H, W), and the number of the real mask of each."""

    pixels: list[Array]
    masks: list[Array]
    numbers: list[int]


def measure(config: PaintingBenchmark) -> None:
    """Make the composites, measure them, and write results.json, a table and a sheet."""
    pipe = DFMGANPipeline.from_pretrained(config.model)
    pipe.set_progress_bar_config(disable=True)
    channels, aspect = pipe.generator.config["image_channels"], pipe.generator.config["aspect"]
    window = config.window if config.window is not None else pipe.generator.config["window"]
    listing = config.data.listing()
    defects, good = listing.select(config.defect), listing.select(None, "test")
    held_back = None if config.held_back is None else set(read_file_list(config.held_back))
    if held_back is not None:
        compared = sum(record.name in held_back for record in defects)
        if compared in (0, len(defects)):
            raise ValueError(
                f"--held_back {config.held_back} names {compared} of the {len(defects)} photographs with "
                f"{config.defect}, but some must be compared with and others laid on: give the list of this data that "
                "`dfmgan split` wrote."
            )
    rng = np.random.default_rng(config.seed)
    real = Windows([], [], [])
    arms = {name: Windows([], [], []) for name in ARMS}
    changed: list[float] = []
    examples = []
    for number, record in enumerate(tqdm(defects, "Composing")):
        photograph = read_image(record.image_path, channels, config.data.bit_depth)
        united = read_masks(record)
        assert united is not None
        mask = united.defect
        height, width = size = sides(window or _largest(photograph, aspect), aspect)
        left, top, right, bottom = bounding_box(mask)
        if right - left > width or bottom - top > height or not _fits(size, photograph):
            continue  # no window holds it
        x, y = _corner((left + right - width) // 2, (top + bottom - height) // 2, size, photograph)
        source, shape = photograph[y : y + height, x : x + width], mask[y : y + height, x : x + width]
        if held_back is None or record.name in held_back:
            _keep(real, source, shape, number)
        if held_back is not None and record.name in held_back:
            continue
        at = (x / photograph.shape[1], y / photograph.shape[0])
        for _ in range(config.placements):
            canvases = defects if window else good
            found = _find_place(rng, canvases, record, size, channels, config.data.bit_depth, at)
            if found is None:
                continue
            canvas, x, y = found
            place = np.zeros(canvas.shape[:2], dtype=bool)
            place[y : y + height, x : x + width] = shape
            plain = canvas[y : y + height, x : x + width]
            flat = canvas[:, :, 0] if channels == 1 else canvas
            output = pipe.paint(flat, mask=place, seeds=[int(rng.integers(2**32))], window=window, any_product=True)
            painted = output.images[0].reshape(canvas.shape)[y : y + height, x : x + width]
            label = np.asarray(output.labels[0]) > 0
            changed.append(label.sum() / place.sum())
            drawn = _draw(pipe, plain, window, rng)
            composites = {
                "painted": painted,
                "drawn": drawn[0],
                "paste": np.where(shape[:, :, None], source, plain),
                "scaled": _paste_scaled(plain, source, shape, image_size(pipe.generator.config)),
                "poisson": blend_poisson(plain, source, shape),
                "nothing": plain,
            }
            for name, composite in composites.items():
                _keep(arms[name], composite, drawn[1] if name == "drawn" else shape, number)
            examples.append([_picture(p) for p in (source, *composites.values())])
    if not (real.pixels and examples):
        raise ValueError(
            "No window holds a defect, or none has a place on another photograph: give a larger or smaller --window, "
            "or 0 for whole photographs."
        )
    results = _judge(config, real, arms)
    results["changed"] = {
        "iou_mean": float(np.mean(changed)),
        "iou_at_least_0.8": float(np.mean(np.array(changed) >= 0.8)),
        "nothing_visible": float(np.mean(np.array(changed) == 0)),
    }
    config.output_dir.mkdir(parents=True, exist_ok=True)
    write_json(config.output_dir / "results.json", results)
    table = format_results(results)
    write_text(config.output_dir / "table.md", table)
    chosen_examples = [examples[i] for i in rng.permutation(len(examples))[:12]]
    sheet = contact_sheet(
        chosen_examples,
        headings=("real, elsewhere", *ARMS.values()),
        title=f"{config.defect}, not selected",
        columns=1,
    )
    save_sheet(sheet, config.output_dir / "sheet.png")
    print(table)


def _draw(pipe: DFMGANPipeline, plain: Array, window: int | None, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return a window with a defect that the model has drawn whole, and its mask."""
    flat = plain[:, :, 0] if plain.shape[2] == 1 else plain
    for _ in range(TRIES):
        output = pipe.paint(flat, seeds=[int(rng.integers(2**32))], window=window, any_product=True)
        mask = np.asarray(output.masks[0]) > 0
        if mask.any():
            return np.asarray(output.images[0]).reshape(plain.shape), mask
    raise RuntimeError(f"The model drew {TRIES} empty masks, one after the other.")


def _paste_scaled(plain: Array, source: Array, shape: Array, size: tuple[int, int]) -> Array:
    """Add what a window with a defect differs by from another one, as a model of this size could at best."""
    difference = torch.from_numpy(source.astype(np.float32) - plain.astype(np.float32)).permute(2, 0, 1)[None]
    for to in (size, shape.shape):
        difference = interpolate(difference, size=to, mode="bicubic", antialias=True, align_corners=False)
    weight = faded(shape, EDGE * len(shape) / size[0])[:, :, None]
    return (plain + weight * difference[0].permute(1, 2, 0).numpy()).round().clip(0, 255).astype(np.uint8)


def _find_place(
    rng: np.random.Generator,
    records: list[ImageRecord],
    own: ImageRecord,
    size: tuple[int, int],
    channels: int,
    bit_depth: int,
    at: tuple[float, float],
) -> tuple[Array, int, int] | None:
    """Return another photograph, and the corner of a window of it without a defect, about where `at` says."""
    for _ in range(TRIES):
        record = records[rng.integers(len(records))]
        canvas = read_image(record.image_path, channels, bit_depth)
        if record == own or not _fits(size, canvas):
            continue
        height, width = canvas.shape[:2]
        jitter = rng.integers(-min(size) // 8, min(size) // 8 + 1, 2)
        x, y = _corner(round(at[0] * width) + jitter[0], round(at[1] * height) + jitter[1], size, canvas)
        mask = read_masks(record)
        if mask is None or not mask.defect[y : y + size[0], x : x + size[1]].any():
            return canvas, x, y
    return None


def _largest(photograph: Array, aspect: Sequence[int]) -> int:
    """Return the shorter side of the largest window of this shape in a photograph."""
    return min(length // multiple for length, multiple in zip(photograph.shape, aspect, strict=False))


def _fits(size: tuple[int, int], photograph: Array) -> bool:
    return photograph.shape[0] >= size[0] and photograph.shape[1] >= size[1]


def _corner(x: int, y: int, size: tuple[int, int], photograph: Array) -> tuple[int, int]:
    height, width = photograph.shape[:2]
    return int(np.clip(x, 0, width - size[1])), int(np.clip(y, 0, height - size[0]))


def _keep(windows: Windows, pixels: Array, mask: Array, number: int) -> None:
    windows.pixels.append(pixels)
    windows.masks.append(mask)
    windows.numbers.append(number)


def _picture(pixels: Array) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def ring_only(windows: Windows) -> Tensor:
    """Return the windows with all but a ring around the mask grey, uint8 (N, 3, H, W)."""
    inner, outer = (round(reach * SIDE / 80) for reach in RING)
    rings = []
    for picture, mask in zip(_stack(windows.pixels), windows.masks, strict=True):
        small = np.asarray(Image.fromarray(mask).resize(_compared(mask), Image.Resampling.NEAREST))
        ring = torch.from_numpy(_grown(small, outer) & _grown(~small, inner))
        rings.append(torch.where(ring, picture, torch.tensor(128, dtype=torch.uint8)))
    return torch.stack(rings)


def _grown(mask: Array, reach: int) -> Array:
    x = torch.from_numpy(mask)[None, None].to(torch.float32)
    return (torch.nn.functional.max_pool2d(x, 2 * reach + 1, 1, reach)[0, 0] > 0).numpy()


def _compared(window: Array) -> tuple[int, int]:
    """Return the width and height at which a window is compared."""
    height, width = window.shape[:2]
    return width * SIDE // min(height, width), height * SIDE // min(height, width)


def _stack(pixels: list[Array]) -> Tensor:
    pictures = [_picture(p).convert("RGB").resize(_compared(p), Image.Resampling.LANCZOS) for p in pixels]
    return torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in pictures])


def _judge(config: PaintingBenchmark, real: Windows, arms: dict[str, Windows]) -> dict[str, Any]:
    alexnet = alexnet_extractor(config.lpips_weights)
    frozen = FrozenFeatures(FEATURE_NETWORK)
    frozen.load_pretrained(FEATURE_NETWORK)

    @torch.no_grad()
    def lite(images: Tensor) -> Tensor:
        parts = [frozen(part.to(torch.float32) / 127.5 - 1) for part in images.split(64)]
        return torch.cat([torch.cat([maps.mean(dim=(2, 3)) for maps in part], dim=1) for part in parts])

    networks = {"efficientnet-lite0": lite, "alexnet": lambda images: alexnet(images).features}
    results: dict[str, Any] = {"num_real": len(real.pixels), "arms": {}, "by_size": {}}
    for name, windows in arms.items():
        row: dict[str, Any] = {"num": len(windows.pixels)}
        for network, extract in networks.items():
            row[f"auroc_{network}"] = _auroc(
                extract(ring_only(real)), extract(ring_only(windows)), real.numbers, windows.numbers, config.seed
            )
            features, wanted = extract(_stack(windows.pixels)), extract(_stack(real.pixels))
            row |= _kid(features, wanted, network)
            if name == "painted":
                areas, real_areas = (np.array([mask.sum() for mask in w.masks]) for w in (windows, real))
                median = np.median(real_areas)
                for half, chosen, real_chosen in (
                    ("smaller", areas < median, real_areas < median),
                    ("larger", areas >= median, real_areas >= median),
                ):
                    if min(chosen.sum(), real_chosen.sum()) < 2:
                        continue  # all masks of one size, or one photograph
                    by_size = results["by_size"].setdefault(half, {"num": int(chosen.sum())})
                    by_size |= _kid(features[torch.from_numpy(chosen)], wanted[torch.from_numpy(real_chosen)], network)
        results["arms"][name] = row
    return results


def _kid(features: Tensor, wanted: Tensor, network: str) -> dict[str, Any]:
    scale = wanted.square().mean().sqrt()  # KID's cubic kernel is made for features of about one
    kid = kid_unbiased(features / scale, wanted / scale)
    return {f"kid_{network}": 1000 * kid.kid, f"kid_interval_{network}": [1000 * x for x in kid.interval]}


def _auroc(
    real: Tensor, composed: Tensor, real_numbers: list[int], composed_numbers: list[int], seed: int
) -> list[float]:
    """Return AUROC of composites against real windows, pooled over folds, and its 95 % interval over real masks."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = torch.cat([real, composed]).numpy()
    y = np.array([0] * len(real) + [1] * len(composed))
    numbers = np.array([*real_numbers, *composed_numbers])
    rng = np.random.default_rng(seed)
    unique = np.unique(numbers)
    fold_of = dict(zip(unique, rng.permutation(len(unique)) % FOLDS, strict=True))
    folds = np.array([fold_of[number] for number in numbers])
    scores = np.zeros(len(y))
    for fold in range(FOLDS):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced"))
        model.fit(x[folds != fold], y[folds != fold])
        scores[folds == fold] = model.decision_function(x[folds == fold])
    draws = []
    for _ in range(500):
        weights = np.bincount(rng.choice(len(unique), len(unique)), minlength=len(unique))
        sample_weight = weights[np.searchsorted(unique, numbers)]
        if all(sample_weight[y == kind].sum() > 0 for kind in (0, 1)):
            draws.append(roc_auc_score(y, scores, sample_weight=sample_weight))
    return [float(roc_auc_score(y, scores)), *map(float, np.quantile(draws, (0.025, 0.975)))]


def format_results(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| | ring told apart, AUROC (EfficientNet-Lite0) | (AlexNet) | KID x 1000 (EfficientNet-Lite0) | (AlexNet) |",
        "|---|---|---|---|---|",
    ]
    for name, row in results["arms"].items():
        cells = []
        for network in ("efficientnet-lite0", "alexnet"):
            value, low, high = row[f"auroc_{network}"]
            cells.append(f"{value:.2f} ({low:.2f} to {high:.2f})")
        for network in ("efficientnet-lite0", "alexnet"):
            low, high = row[f"kid_interval_{network}"]
            cells.append(f"{row[f'kid_{network}']:.1f} ({low:.1f} to {high:.1f})")
        lines.append(f"| {ARMS[name]} | {' | '.join(cells)} |")
    changed = results["changed"]
    lines.append("")
    for half, row in results["by_size"].items():
        kids = (f"{row[f'kid_{network}']:.1f}" for network in ("efficientnet-lite0", "alexnet"))
        lines.append(f"Painted, masks {half} than the median ({row['num']}): KID x 1000 {' / '.join(kids)}.  ")
    lines.append(
        f"{results['num_real']} real windows, {results['arms']['painted']['num']} composites of each kind. Painted: "
        f"{changed['iou_mean']:.2f} of the mask changed visibly on average (IoU), at least 0.8 in "
        f"{changed['iou_at_least_0.8']:.0%} of requests; nothing visible in {changed['nothing_visible']:.1%}."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run(measure)
