"""What the page says about pictures."""

from __future__ import annotations

import html
from collections.abc import Sequence

from drawing import Triplet

BUSY = "Too many visitors are drawing at this moment: try again in a minute."
CANCELLED = "Cancelled: no ZIP was made."


def seeds_in_words(triplet: Triplet) -> str:
    """What a picture was drawn from."""
    if triplet.part_seed == triplet.defect_seed:
        return f"seed {triplet.part_seed}"
    return f"part {triplet.part_seed}, defect {triplet.defect_seed}"


def area_in_words(triplet: Triplet) -> str:
    """How much of the picture is defect."""
    if triplet.defect_pixels == 0:
        return "no defect"
    return f"{triplet.defect_percent:.1f} %" if triplet.defect_percent >= 0.1 else "less than 0.1 %"


def status(message: str, *, refused: bool = False) -> str:
    """HTML of a line about what was drawn, or why nothing was; `page.js` has it read out."""
    return (
        f'<p role="alert" class="refused">{html.escape(message)}</p>' if refused else f"<p>{html.escape(message)}</p>"
    )


def drawn_in_words(triplets: Sequence[Triplet]) -> str:
    """How many parts were drawn, and what to do if some or all of them have no defect."""
    empty = sum(triplet.defect_pixels == 0 for triplet in triplets)
    if empty == len(triplets):
        return "No defect came out: make the defect larger under “Fine tuning”, or draw again."
    drawn = "1 part drawn" if len(triplets) == 1 else f"{len(triplets)} parts drawn"
    if empty:
        drawn += f", {empty} without a defect"
    return f"{drawn}. Choose one to see it large."
