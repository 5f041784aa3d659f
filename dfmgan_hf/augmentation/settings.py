"""What an augmentation pipeline contains, and named choices for products.

The discriminator sees augmented images only. Past a strength that depends on the product, the generator can no longer
tell an augmentation from the data, and rotated or colour-inverted samples *leak* into what it draws. Where the product
forbids a change, the safe choice is a set that does not make it:

| set | transforms | for products |
|---|---|---|
| `none` | none | plenty of data |
| `b`, `bg`, `bgc` | the paper's: blitting; + geometry; + colour | textures, parts in any pose: carpet, hazelnut |
| `bgcf`, `bgcfn`, `bgcfnc` | + filtering; + noise; + cutout | any sharpness and grain; rarely better than `bgc` |
| `keep_mirror` | `bgc` without x-flip | turned freely, never mirrored: screws, printed pills |
| `keep_upright` | `bgc` without rotations | upright, as good mirrored: standing bottles, transistors |
| `keep_orientation` | `bgc` without x-flip and rotations | one pose only: capsules with print, circuit boards |
| `keep_color` | `bg`, brightness, contrast | hue tells good from bad: fruit, cables, coatings |
| `keep_intensity` | `bg` | the grey level itself counts: X-ray, thermal images |
| `keep_orientation_and_color` | shift, scale, aspect, brightness, contrast | one pose, hue tells good from bad |
| `keep_orientation_and_intensity` | shift, scale, aspect | one pose, the grey level itself counts |

`bgc` is the method's default in both stages. Shift, scale and aspect stay in every set that has any geometry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

BLITTING = ("xflip", "rotate90", "xint")
GEOMETRY = ("scale", "rotate", "aniso", "xfrac")
COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
TRANSFORMS = (*BLITTING, *GEOMETRY, *COLOR, "imgfilter", "noise", "cutout")

_ROTATIONS = ("rotate90", "rotate")
_HUES = ("lumaflip", "hue", "saturation")
_BG = (*BLITTING, *GEOMETRY)
_BGC = (*_BG, *COLOR)


def _without(names: tuple[str, ...], *dropped: str) -> tuple[str, ...]:
    return tuple(name for name in names if name not in dropped)


AUGMENTATION_SETS: dict[str, tuple[str, ...]] = {
    "none": (),
    "b": BLITTING,
    "bg": _BG,
    "bgc": _BGC,
    "bgcf": (*_BGC, "imgfilter"),
    "bgcfn": (*_BGC, "imgfilter", "noise"),
    "bgcfnc": (*_BGC, "imgfilter", "noise", "cutout"),
    "keep_mirror": _without(_BGC, "xflip"),
    "keep_upright": _without(_BGC, *_ROTATIONS),
    "keep_orientation": _without(_BGC, "xflip", *_ROTATIONS),
    "keep_color": _without(_BGC, *_HUES),
    "keep_intensity": _BG,
    "keep_orientation_and_color": _without(_BGC, "xflip", *_ROTATIONS, *_HUES),
    "keep_orientation_and_intensity": _without(_BG, "xflip", *_ROTATIONS),
}


@dataclass(frozen=True)
class AugmentSettings:
    """Strength and range of every transform (StyleGAN2-ADA, appendix B).

    A strength multiplies p: the transform is applied to an image with probability strength * p; 0 switches it off.

    Args:
        xflip: mirror left-right or not, equally likely.
        rotate90: turn by 0, 90, 180 or 270 degrees.
        xint: shift by whole pixels, up to `xint_max` of the image's size per axis.
        scale: scale by 2^N(0, scale_std).
        rotate: turn by up to `rotate_max` half turns; drawn before and after `aniso`, so that either happens with p.
        aniso: scale x by 2^N(0, aniso_std) and y by its inverse.
        xfrac: shift by N(0, xfrac_std) of the image's size per axis, not rounded.
        brightness: add N(0, brightness_std).
        contrast: multiply by 2^N(0, contrast_std), about the mid grey 0.
        lumaflip: invert the luma or not, equally likely; the hue stays. Inverts a grey image.
        hue: turn the colours about the grey axis by up to `hue_max` half turns. Leaves a grey image as it is.
        saturation: scale the distance from the grey axis by 2^N(0, saturation_std). Leaves a grey image as it is.
        imgfilter: amplify each of four octave bands by 2^N(0, imgfilter_std) with this probability, at constant power.
        noise: add Gaussian noise whose standard deviation is |N(0, noise_std)|.
        cutout: set a rectangle of `cutout_size` of the image's size per axis to mid grey.

    Raises:
        ValueError: a strength or range is negative or not finite.
    """

    xflip: float = 0.0
    rotate90: float = 0.0
    xint: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    aniso: float = 0.0
    xfrac: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    lumaflip: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0
    imgfilter: float = 0.0
    noise: float = 0.0
    cutout: float = 0.0

    xint_max: float = 0.125
    scale_std: float = 0.2
    rotate_max: float = 1.0
    aniso_std: float = 0.2
    xfrac_std: float = 0.125
    brightness_std: float = 0.2
    contrast_std: float = 0.5
    hue_max: float = 1.0
    saturation_std: float = 1.0
    imgfilter_std: float = 1.0
    noise_std: float = 0.1
    cutout_size: float = 0.5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"`{field.name}` must be a finite number of at least 0, not {value!r}.")

    @classmethod
    def from_set(cls, name: str) -> AugmentSettings:
        """Strength 1 for the transforms of a set of `AUGMENTATION_SETS`.

        Raises:
            ValueError: no set has this name; the message lists the names.
        """
        if name not in AUGMENTATION_SETS:
            raise ValueError(f"Unknown augmentation set {name!r}; choose one of: {', '.join(AUGMENTATION_SETS)}.")
        return cls(**dict.fromkeys(AUGMENTATION_SETS[name], 1.0))

    def any_of(self, names: tuple[str, ...]) -> bool:
        """Whether at least one of the named transforms is switched on."""
        return any(getattr(self, name) > 0 for name in names)
