"""The numbers of DFMGAN's Tables 1 and 2 (AAAI 2023), to stand beside measured ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """What the paper reports of one method on one defect.

    Args:
        kid: KID x 1000 of 5,000 images on Inception features; None where the paper leaves it out.
        clustered_lpips: of 1,000 images.
    """

    kid: float | None
    clustered_lpips: float


_HAZELNUT = ("crack", "cut", "hole", "print")
_TABLE_1: dict[str, tuple[tuple[float | None, ...], tuple[float, ...]]] = {
    "finetune": ((41.64, 21.80, 30.54, 28.75), (0.1541, 0.1192, 0.1263, 0.1526)),
    "diffaug": ((24.69, 19.84, 22.43, 39.03), (0.0570, 0.0456, 0.0466, 0.0604)),
    "cdc": ((206.14, 213.98, 271.72, 355.37), (0.0437, 0.0390, 0.0566, 0.0500)),
    "crop_paste": ((None, None, None, None), (0.1894, 0.2045, 0.2108, 0.2185)),
    "sdgan": ((148.86, 161.16, 152.86, 176.09), (0.1607, 0.1474, 0.1689, 0.1748)),
    "defect_gan": ((30.98, 32.69, 36.30, 33.35), (0.1905, 0.1734, 0.2007, 0.2007)),
    "dfmgan": ((19.73, 16.88, 20.78, 27.25), (0.2600, 0.2073, 0.2391, 0.2649)),
}

TABLE_1: dict[tuple[str, str, str], Published] = {
    ("hazelnut", defect, method): Published(kid, lpips)
    for method, (kids, lpips_values) in _TABLE_1.items()
    for defect, kid, lpips in zip(_HAZELNUT, kids, lpips_values, strict=True)
}
"""By category, defect and name of the method."""

_TABLE_2: dict[str, tuple[float, float, float]] = {
    "finetune": (70.83, 72.91, 70.83),
    "diffaug": (64.58, 62.50, 68.75),
    "cdc": (58.33, 64.58, 41.67),
    "crop_paste": (66.67, 52.08, 58.33),
    "sdgan": (56.25, 31.25, 43.75),
    "defect_gan": (60.42, 68.75, 54.17),
    "dfmgan": (83.33, 81.25, 81.25),
}

TABLE_2: dict[tuple[str, str, str], float] = {
    ("hazelnut", f"P{number}", method): accuracy
    for method, accuracies in _TABLE_2.items()
    for number, accuracy in enumerate(accuracies, 1)
}
"""Accuracy in % on 48 photographs, by category, partition and name of the method; generated images only. Which
photographs the paper's partitions hold is not known."""

_LOCALIZATION_MEASURES = ("pixel_auroc", "pixel_ap", "pixel_f1", "image_auroc", "image_ap", "image_f1")

LOCALIZATION: dict[str, dict[str, float]] = {
    name: dict(zip(_LOCALIZATION_MEASURES, values, strict=True))
    for name, values in {
        "DFMGAN": (90.0, 62.7, 62.1, 87.2, 94.8, 94.7),
        "AnomalyDiffusion": (99.1, 81.4, 76.3, 99.2, 99.7, 98.7),
    }.items()
}
"""Means over MVTec AD in %, as AnomalyDiffusion (AAAI 2024) reports them of its U-Net."""
