"""The photographs that visitors bring: checked before they are decoded, and removed when the visitor leaves."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cache_files import remove
from limits import MAX_MEGAPIXELS, MAX_UPLOAD_BYTES, refusal
from PIL import Image

from dfmgan_hf.data import DataError
from dfmgan_hf.photograph import PaintError, Photograph

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")
MAX_VISITS = 200
# What a photograph is painted on in the browser, in pixels of its longer side.
MIN_CANVAS, MAX_CANVAS = 480, 1024
TOO_LARGE = "cut out the part that matters."
UNREADABLE = "The file is no whole photograph in PNG, JPEG, TIFF or WebP: export it again in one of these."
# What Pillow raises on broken files depends on the format.
DECODING_ERRORS = (OSError, ValueError, LookupError, SyntaxError, EOFError, RuntimeError)
GONE = "There is no photograph yet, or it is no longer here: choose one."


@dataclass
class Visit:
    """What a visitor has here.

    Args:
        photograph: its file.
        name: the visitor's own for it.
        files: all that were brought or made for it, which go with the visitor.
        former: those of the photograph before it.
    """

    photograph: Path | None = None
    name: str = ""
    files: set[Path] = field(default_factory=set)
    former: set[Path] = field(default_factory=set)


class Visits:
    """Visits by gradio's name of the session, which only its browser knows."""

    def __init__(self) -> None:
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self._lock = threading.Lock()

    def bring(self, session: str | None, photograph: Path, name: str) -> None:
        """Take in a photograph; the one before goes with the next, since the page may still be loading it."""
        with self._lock:
            before = self._visits.pop(session or "", Visit())
            kept = {file for other in self._visits.values() for file in other.files | other.former}
        for file in before.former - before.files - kept - {photograph}:
            remove(file)
        self.note(session, [photograph])
        with self._lock:
            visit = self._visits[str(session)]
            visit.photograph, visit.name, visit.former = photograph, name, before.files

    def note(self, session: str | None, files: Iterable[Path]) -> None:
        """Remember files that go with the visitor; without a session nobody could come back for them."""
        if not session:
            raise refusal(GONE)
        with self._lock:
            self._visits.setdefault(session, Visit()).files.update(files)
            self._visits.move_to_end(session)
            oldest = next(iter(self._visits)) if len(self._visits) > MAX_VISITS else None
        if oldest is not None:
            self.end(oldest)

    def photograph(self, session: str | None) -> tuple[Path, str]:
        """The visitor's photograph and its name; `gr.Error` in words if there is none."""
        with self._lock:
            visit = self._visits.get(session or "", Visit())
        if visit.photograph is None or not visit.photograph.is_file():
            raise refusal(GONE)
        return visit.photograph, visit.name

    def end(self, session: str | None) -> None:
        """Remove a visitor's files, but for those of the same content that another visitor has too."""
        with self._lock:
            visit = self._visits.pop(session or "", Visit())
            kept = {file for other in self._visits.values() for file in other.files | other.former}
        for file in (visit.files | visit.former) - kept:
            remove(file)


def open_safely(file: Path) -> Photograph:
    """Decode a file that anybody may have sent; `gr.Error` in words if it is none that may be painted on."""
    try:
        num_bytes = file.stat().st_size
        with file.open("rb") as stream, Image.open(stream, formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise refusal(f"The photograph has more than {MAX_MEGAPIXELS} million pixels: {TOO_LARGE}") from error
    except DECODING_ERRORS as error:
        raise refusal(UNREADABLE) from error
    if num_bytes > MAX_UPLOAD_BYTES:
        raise refusal(f"The file is larger than {MAX_UPLOAD_BYTES >> 20} MB: {TOO_LARGE}")
    if width * height > MAX_MEGAPIXELS * 10**6:
        raise refusal(f"The photograph has {width} × {height} pixels, more than {MAX_MEGAPIXELS} million: {TOO_LARGE}")
    try:
        return Photograph.open(file)
    except PaintError as error:
        raise refusal(str(error)) from error
    except (DataError, *DECODING_ERRORS) as error:
        raise refusal(UNREADABLE) from error


def to_look_at(photograph: Photograph, pixels: np.ndarray) -> Image.Image:
    """Pixels (H, W, 1 or 3) in a photograph's levels as an 8-bit picture."""
    levels = pixels if pixels.dtype == np.uint8 else (pixels // ((photograph.highest + 1) // 256)).astype(np.uint8)
    return Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)


def at_most(image: Image.Image, pixels: int, resampling: Image.Resampling) -> Image.Image:
    """`image`, made smaller if its longer side has more than `pixels`."""
    factor = pixels / max(image.size)
    return image if factor >= 1 else image.resize([max(round(n * factor), 1) for n in image.size], resampling)


def canvas(photograph: Photograph) -> Image.Image:
    """The photograph at a size at which a brush serves; a small one is enlarged by a whole factor."""
    image = at_most(to_look_at(photograph, photograph.pixels), MAX_CANVAS, Image.Resampling.BICUBIC)
    factor = -(-MIN_CANVAS // max(image.size))
    return image.resize([n * factor for n in image.size], Image.Resampling.BICUBIC)


def brushed(layer: Path, size: tuple[int, int]) -> np.ndarray | None:
    """Where a layer of the canvas was painted on, as bool (H, W) at a photograph's size; None if nowhere.

    Args:
        layer: file that the browser sent.
        size: height and width of the photograph.
    """
    try:
        with layer.open("rb") as stream, Image.open(stream, formats=("PNG", "WEBP")) as image:
            is_large = max(image.size) > 2 * MAX_CANVAS
            opacity = None if is_large else image.convert("RGBA").getchannel("A")
    except (*DECODING_ERRORS, Image.DecompressionBombError) as error:
        raise refusal("The brush strokes did not arrive: try again.") from error
    if opacity is None:
        raise refusal("The painted layer is larger than the canvas: load the page again.")
    painted = np.asarray(opacity) >= 128
    if not painted.any():
        return None
    smooth = Image.fromarray(painted.astype(np.uint8) * 255).resize(size[::-1], Image.Resampling.BILINEAR)
    mask = np.asarray(smooth) >= 128
    # Of a stroke that is thinner than a pixel of a small photograph, every pixel that it touches is left.
    return mask if mask.any() else np.asarray(smooth) > 0
