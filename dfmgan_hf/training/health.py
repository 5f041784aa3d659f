"""What is going wrong, seen in the statistics, and what to do about it.

A rule is a function of the last rows of the log, oldest first, that returns advice or None. It looks at the quantities
that it knows by name, so that a method whose rows lack them is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Rows = Iterable[dict[str, Any]]
Rule = Callable[[Rows], str | None]

PATIENCE = 5
"""Intervals in a row that a condition must hold for: one alone may be chance, and the first ones always look bad."""


class TrainingWarning(UserWarning):
    """The run looks as if it will not end well; the message says why and what to do."""


def _last(rows: Rows, *names: str) -> list[tuple[float, ...]] | None:
    """The named numbers of the last PATIENCE rows, or None if there are fewer or one is missing."""
    recent = list(rows)[-PATIENCE:]
    values = [tuple(row.get(name) for name in names) for row in recent]
    if len(recent) < PATIENCE or any(value is None for numbers in values for value in numbers):
        return None
    return values  # type: ignore[return-value]


def masks_empty(rows: Rows) -> str | None:
    """At least 90 % of the generated masks are empty, and at most 10 % of the real ones."""
    values = _last(rows, "mask_empty/fake", "mask_empty/real")
    if values is None or not all(fake >= 0.9 and real <= 0.1 for fake, real in values):
        return None
    return (
        f"{values[-1][0]:.0%} of the generated masks are empty: no defect is learnt. Check the real masks with "
        "check_dataset.py; then train on, since masks can take a while to appear, and if they don't, start again "
        "with another --seed or a larger --mode_seeking_weight."
    )


def masks_full(rows: Rows) -> str | None:
    """At least half of the generated masks cover nearly everything, and at most 10 % of the real ones."""
    values = _last(rows, "mask_full/fake", "mask_full/real")
    if values is None or not all(fake >= 0.5 and real <= 0.1 for fake, real in values):
        return None
    return (
        f"{values[-1][0]:.0%} of the generated masks cover nearly the whole image. Check that white means defect in "
        "the real masks; then start again with another --seed, or a smaller --match_discriminator if D_match's "
        "accuracy is near 1."
    )


def area_far_from_real(rows: Rows) -> str | None:
    """The mean generated area is over 4 times, or under a quarter of, the mean real one, with masks neither all empty
    nor all full."""
    values = _last(rows, "mask_area/fake", "mask_area/real", "mask_empty/fake", "mask_full/fake")
    if values is None:
        return None
    for fake, real, empty, full in values:
        if real <= 0 or empty >= 0.9 or full >= 0.5 or real / 4 <= fake <= real * 4:
            return None
    fake, real = values[-1][:2]
    return (
        f"Generated masks cover {fake:.2%} of the image on average, real ones {real:.2%}. Train on if the ratio still "
        "falls; if not, a larger --match_weight makes the masks follow the real ones more closely."
    )


def masks_at_border(rows: Rows) -> str | None:
    """Most generated masks touch the border, while few real ones do."""
    values = _last(rows, "mask_border/fake", "mask_border/real")
    if values is None or not all(fake >= 0.75 and fake - real >= 0.5 for fake, real in values):
        return None
    fake, real = values[-1]
    return (
        f"{fake:.0%} of the generated masks touch the border, but only {real:.0%} of the real ones. Look at the "
        "sheets: if frames are drawn instead of defects, start again with another --seed, or with --augmentation "
        "none, since all others shift the images."
    )


def ada_at_cap(rows: Rows) -> str | None:
    """The augmentation's probability has been at its limit for whole intervals."""
    values = _last(rows, "ada/at_cap", "ada/p", "ada/r_t")
    if values is None or not all(at_cap >= 0.99 for at_cap, _, _ in values):
        return None
    _, p, r_t = values[-1]
    return (
        f"ADA's probability is at its limit {p:.2f} and the discriminator still overfits (r_t {r_t:.2f}): there are "
        "too few photographs for so long a run. Keep the best checkpoint (--eval_every_kimg) or stop; add "
        "photographs, --mirror, or a larger --augmentation set if the product allows. Raising --ada_max above 0.8 "
        "makes augmentations leak into the samples."
    )


def discriminator_memorised(rows: Rows) -> str | None:
    """D tells nearly every real image from nearly every generated one, with logits far apart."""
    values = _last(rows, "accuracy/real", "accuracy/fake", "logits/real", "logits/fake")
    if values is None or not all(min(a, b) >= 0.97 and real - fake >= 6 for a, b, real, fake in values):
        return None
    _, _, real, fake = values[-1]
    return (
        f"The discriminator has memorised the photographs: mean logits {real:.1f} on real and {fake:.1f} on generated "
        "images, and both are told apart nearly always. What comes now is seldom better: use the best or an earlier "
        "checkpoint. For the next run: augmentation (--augmentation, not none), more photographs, a larger "
        "--r1_gamma."
    )


def defects_do_not_change(rows: Rows) -> str | None:
    """Another z_defect changes neither mask nor image, although there are masks."""
    values = _last(rows, "defect_change/mask", "defect_change/image", "mask_empty/fake")
    if values is None or not all(mask < 0.05 and image < 0.02 and empty < 0.5 for mask, image, empty in values):
        return None
    return (
        f"The defects hardly change with z_defect (masks differ by {values[-1][0]:.1%} of their union): the generator "
        "draws one defect. Raise --mode_seeking_weight, or use more photographs of the defect."
    )


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        masks_empty,
        masks_full,
        area_far_from_real,
        masks_at_border,
        ada_at_cap,
        discriminator_memorised,
        defects_do_not_change,
    )
}


def examine(rows: Rows) -> dict[str, str]:
    """Advice by the name of the rule that gives it."""
    advice = {name: rule(rows) for name, rule in RULES.items()}
    return {name: text for name, text in advice.items() if text is not None}
