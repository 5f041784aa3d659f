"""One picture of a data set: a row of photographs of each kind, with the defects outlined."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .doctor import Inspection
from .reading import read_image, read_mask
from .records import GOOD

Array = np.ndarray[Any, Any]

_CELL = 200
_GAP = 10
_MARGIN = 24
_CAPTION = 22
_TITLE = 30
_HEADER = 56
_BACKGROUND = (250, 250, 250)
_CELL_BACKGROUND = (236, 236, 236)
_INK = (30, 30, 30)
_FAINT = (120, 120, 120)
# Magenta: hardly any product has it, and it differs from grey in every kind of colour vision.
_OUTLINE = (255, 0, 190)
_OUTLINE_PIXELS = 2


def draw_contact_sheet(
    inspections: Sequence[Inspection],
    title: str,
    *,
    duplicate_groups: Sequence[Sequence[str]] = (),
    columns: int = 8,
    bit_depth: int = 16,
) -> Image.Image:
    """Draws up to `columns` photographs of each kind: defects from the smallest mask to the largest.

    The outline runs just outside the mask, so that even the smallest defect stays visible.

    Args:
        inspections: As `doctor.examine` returns them; those with problems are left out.
        title: Written above.
        duplicate_groups: Names of photographs that show the same thing; the first few are drawn side by side.
        columns: Photographs in a row.
        bit_depth: Significant bits of 16-bit photographs.

    Returns:
        RGB image.
    """
    rows = _choose_rows(inspections, columns)
    by_name = {i.record.name: i for i in inspections if not i.errors}
    same = [by_name[name] for group in duplicate_groups for name in group if name in by_name][:columns]
    if same:
        rows.append(("photographs that show the same view", same))
    width = 2 * _MARGIN + columns * (_CELL + _GAP) - _GAP
    row_height = _TITLE + _CELL + _CAPTION + _GAP
    sheet = Image.new("RGB", (width, _HEADER + len(rows) * row_height + _MARGIN), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 16), title, _INK, ImageFont.load_default(24))
    for number, (name, members) in enumerate(rows):
        top = _HEADER + number * row_height
        draw.text((_MARGIN, top + 6), name, _INK, ImageFont.load_default(17))
        for column, inspection in enumerate(members):
            left = _MARGIN + column * (_CELL + _GAP)
            cell = (left, top + _TITLE, left + _CELL - 1, top + _TITLE + _CELL - 1)
            draw.rectangle(cell, fill=_CELL_BACKGROUND)
            thumbnail = _draw_thumbnail(inspection, bit_depth)
            x, y = left + (_CELL - thumbnail.width) // 2, top + _TITLE + (_CELL - thumbnail.height) // 2
            sheet.paste(thumbnail, (x, y))
            draw.text((left, top + _TITLE + _CELL + 3), _caption(inspection), _FAINT, ImageFont.load_default(13))
    return sheet


def save_contact_sheet(sheet: Image.Image, path: Path | str) -> Path:
    """Writes a PNG, in such a way that the file is whole or absent."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    sheet.save(aside, "PNG")
    os.replace(aside, path)
    return path


def _choose_rows(inspections: Sequence[Inspection], columns: int) -> list[tuple[str, list[Inspection]]]:
    kinds: dict[tuple[str, str], list[Inspection]] = {}
    for inspection in inspections:
        if not inspection.errors:
            kinds.setdefault((inspection.record.split, inspection.record.defect), []).append(inspection)
    rows = []
    for split, kind in sorted(kinds, key=lambda key: (key[0] != "train", key[1] != GOOD, key[1])):
        members = sorted(kinds[split, kind], key=lambda inspection: inspection.mask_area or 0)
        chosen = np.unique(np.linspace(0, len(members) - 1, min(columns, len(members))).round().astype(int))
        order = "" if kind == GOOD else ", from the smallest defect to the largest"
        rows.append((f"{split} / {kind}: {len(members)} photographs{order}", [members[index] for index in chosen]))
    return rows


def _draw_thumbnail(inspection: Inspection, bit_depth: int) -> Image.Image:
    record = inspection.record
    photograph = Image.fromarray(read_image(record.image_path, 3, bit_depth))
    scale = _CELL / max(photograph.size)
    size = max(1, round(photograph.width * scale)), max(1, round(photograph.height * scale))
    thumbnail = np.array(photograph.resize(size, Image.Resampling.LANCZOS))
    if record.mask_path is not None:
        mask = Image.fromarray(read_mask(record.mask_path).defect.astype(np.float32))
        # Any coverage at all counts: an outline may be too wide, a defect must not disappear.
        covered = np.asarray(mask.resize(size, Image.Resampling.BOX)) > 0
        thumbnail[_outline(covered)] = _OUTLINE
    return Image.fromarray(thumbnail)


def _outline(covered: Array) -> Array:
    """Pixels outside the mask `(H, W)` that touch it, `_OUTLINE_PIXELS` wide."""
    grown = np.pad(covered, _OUTLINE_PIXELS)
    for _ in range(_OUTLINE_PIXELS):
        for axis in (0, 1):
            grown = grown | np.roll(grown, 1, axis) | np.roll(grown, -1, axis)
    inner = (slice(_OUTLINE_PIXELS, -_OUTLINE_PIXELS),) * 2
    return grown[inner] & ~covered


def _caption(inspection: Inspection) -> str:
    shown = inspection.record.name
    shown = shown if len(shown) <= 24 else f"...{shown[-21:]}"
    return shown if inspection.mask_area is None else f"{shown}  {100 * inspection.mask_area:.2g} %"
