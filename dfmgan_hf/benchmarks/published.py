"""The numbers of DFMGAN's Table 1 (AAAI 2023), to stand beside measured ones."""

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
