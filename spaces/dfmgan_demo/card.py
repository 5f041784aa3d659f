"""The page about a model: its own card, and what its configuration says."""

from __future__ import annotations

import base64
import json
import mimetypes
import re
from dataclasses import dataclass
from pathlib import Path

from catalog import Model
from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from dfmgan_hf.files import module_sha256
from dfmgan_hf.models.base import image_size

# A card's pictures travel inside the page, so large ones are left out.
MAX_PICTURE_BYTES = 2_000_000
_PICTURE = re.compile(r"!\[(?P<text>[^\]]*)\]\((?P<file>[^)\s]+)\)")


@dataclass(frozen=True)
class Facts:
    """What a visitor is told first of a model.

    Args:
        shows: product and defect, as in "bottles seen from above with large breaks of the rim", or the product alone
            of a model of several kinds; empty if not known.
        license: as the Hub spells it; empty if not known.
        note: on the licence of what it was trained on; empty if not known.
        sha256: of its weights; empty if not known.
    """

    shows: str = ""
    license: str = ""
    note: str = ""
    sha256: str = ""


def facts(model: Model) -> Facts:
    """What the model's own files say of it: `card_facts.json` that training wrote, else the card."""
    card, known = _file_of(model, "README.md"), _file_of(model, "card_facts.json")
    said = json.loads(known.read_text(encoding="utf-8")) if known else {}
    license = said.get("license", "")
    if not license and card is not None:
        data = ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data
        license = str(data.get("license") or "")
    # The name of one of several kinds, "Pill: crack", says which defect it is.
    parts = ("product", "defect") if model.defect is None else ("product",)
    shows = " with ".join(said[name] for name in parts if said.get(name))
    sha256 = module_sha256(model.pipe.unwrapped_generator)
    return Facts(shows, license, said.get("dataset_license", ""), sha256)


def about(model: Model) -> str:
    """Markdown about a model: its card without the metadata, pictures embedded, and its size."""
    config = model.pipe.unwrapped_generator.config
    parameters = sum(parameter.numel() for parameter in model.pipe.unwrapped_generator.parameters())
    colour = "grey" if config["image_channels"] == 1 else "colour"
    height, width = image_size(config)
    size = f"{width} × {height} pixels, {colour}, {parameters / 1e6:.2f} million parameters."
    readme = _file_of(model, "README.md")
    if readme is None:
        return (
            "This model came without a card: what it was trained on and what was measured is not known here. Ask "
            f"whoever runs this page before relying on its pictures.\n\n{size}"
        )
    text = ModelCard(readme.read_text(encoding="utf-8"), ignore_metadata_errors=True).text
    # The page has a heading of its own above it.
    text = re.sub(r"^(#{1,5}) ", r"#\1 ", text, flags=re.MULTILINE)
    text = re.sub(r"^\|\s+\|(?=.*\n\|[-| :]+$)", "| Measure |", text, flags=re.MULTILINE)
    return f"{_PICTURE.sub(lambda match: _embedded(match, model), text).strip()}\n\n{size}"


def _file_of(model: Model, name: str) -> Path | None:
    """A file of the model's folder or Hub repository; None if it has none of that name."""
    folder = Path(model.source)
    if folder.is_dir():
        path = (folder / name).resolve()
        return path if path.is_file() and path.is_relative_to(folder.resolve()) else None
    try:
        return Path(hf_hub_download(model.source, name))
    except (EntryNotFoundError, HfHubHTTPError):
        return None


def _embedded(match: re.Match[str], model: Model) -> str:
    """A picture of the card with its bytes in place of its file name; its text alone if it cannot be had."""
    kind = mimetypes.guess_type(match["file"])[0] or ""
    path = None if "://" in match["file"] or not kind.startswith("image/") else _file_of(model, match["file"])
    if path is None or path.stat().st_size > MAX_PICTURE_BYTES:
        return f"*{match['text']}*" if match["text"] else ""
    return f"![{match['text']}](data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()})"
