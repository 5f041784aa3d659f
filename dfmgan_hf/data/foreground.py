"""Find where a product lies on a plain background, without any training (Otsu 1979, by OpenCV)."""

from __future__ import annotations

import numpy as np

from ..arguments import require
from .reading import Array

# Grey levels between product and background below which there is nothing to tell apart.
_LEAST_CONTRAST = 8
# Share of the variance that has to lie between product and background (Otsu's eta). Textures without any product have
# up to 0.78 (60 photographs of magnetic tiles), products on a plain background above 0.9.
_LEAST_SEPARATION = 0.8
# Share of the picture's border that the product may cover: a whole side.
_MOST_BORDER = 0.25
# Parts of the product have at least this share of the largest one's area; smaller ones are dust.
_SMALLEST_PART = 0.1


def find_foreground(image: Array, name: str) -> Array:
    """Return pixels that differ from the border's colour by more than Otsu's threshold, without holes.

    This is for products on a background of one colour. It is wrong where the product fills the picture (then its own
    colour is the border's), where the background has a pattern, a gradient or a shadow (which is then taken for
    product), and where parts of the product have the background's colour or are transparent (which are then cut off).
    The clear cases of these are refused; look at the others.

    Args:
        image: uint8 (H, W, C).
        name: of the photograph, for errors.

    Returns:
        bool (H, W).

    Raises:
        ValueError: nothing stands out, not clearly, or what does covers more than a quarter of the border.
        ImportError: OpenCV is not installed.
    """
    require("cv2", purpose="Finding the product", extra="poisson")
    import cv2

    border = np.ones(image.shape[:2], dtype=bool)
    border[1:-1, 1:-1] = False
    background = np.median(image[border], axis=0)
    difference = np.abs(image - background).max(axis=2).round().astype(np.uint8)
    smooth = cv2.GaussianBlur(difference, (0, 0), max(1.0, len(image) / 256))
    level, above = cv2.threshold(smooth, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    contours, _ = cv2.findContours(above, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    advice = "Give a mask that shows where the product is instead."
    if level < _LEAST_CONTRAST or not contours:
        raise ValueError(f"On {name} nothing stands out from the colour of its border. {advice}")
    separation = _separation(smooth, above > 0)
    if separation < _LEAST_SEPARATION:
        raise ValueError(
            f"On {name} nothing stands out clearly from the border's colour: the difference of the two accounts for "
            f"{separation:.0%} of the variance, and for at least {_LEAST_SEPARATION:.0%} where a product is on a "
            f"plain background. {advice}"
        )
    areas = [cv2.contourArea(contour) for contour in contours]
    parts = [c for c, area in zip(contours, areas, strict=True) if area >= _SMALLEST_PART * max(areas)]
    found: Array = cv2.drawContours(np.zeros_like(above), parts, -1, 255, cv2.FILLED) > 0
    covered = found[border].mean()
    if covered > _MOST_BORDER:
        raise ValueError(
            f"What stands out on {name} covers {covered:.0%} of its border, so that the product is not on a plain "
            f"background, or fills the picture. {advice}"
        )
    return found


def _separation(values: Array, above: Array) -> float:
    """Return the share of the variance of `values` that lies between those above a threshold and the others."""
    share, values = above.mean(), values.astype(np.float64)
    between = share * (1 - share) * (values[above].mean() - values[~above].mean()) ** 2
    return float(between / values.var())
