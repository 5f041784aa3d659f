"""What an evaluation leaves behind: a table on screen and results.json."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from dfmgan_hf.data import ImageMaskDataset
from dfmgan_hf.files import whole_file, write_json

from .evaluate import Evaluation
from .nearest_sheet import nearest_sheet

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
        page = nearest_sheet(
            *(near.images, near.masks, real.images, near.indices, near.distances, real.file_names),
            note=_yardstick(evaluation.metrics.get("nearest", {})),
        )
        written.append(output_dir / "nearest.png")
        with whole_file(written[1]) as aside:
            page.save(aside, format="PNG")
    return written


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
