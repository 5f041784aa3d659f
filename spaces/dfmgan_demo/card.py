"""The page about a model: its own card, and what its configuration says."""

from __future__ import annotations

import base64
import mimetypes
import re
from pathlib import Path

from catalog import Model
from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

# A card's pictures travel inside the page, so large ones are left out.
MAX_PICTURE_BYTES = 2_000_000
_PICTURE = re.compile(r"!\[(?P<text>[^\]]*)\]\((?P<file>[^)\s]+)\)")


def about(model: Model) -> str:
    """Markdown about a model: size and source, then the card without its metadata, pictures embedded."""
    config = model.pipe.generator.config
    parameters = sum(parameter.numel() for parameter in model.pipe.generator.parameters())
    colour = "grey" if config["image_channels"] == 1 else "colour"
    facts = (
        f"**{model.name}** · {config['resolution']} × {config['resolution']} pixels, {colour} · "
        f"{parameters / 1e6:.2f} million parameters"
    )
    readme = _file_of(model, "README.md")
    if readme is None:
        return (
            f"{facts}\n\nThis model came without a card: what it was trained on and what was measured is not known "
            "here. Ask whoever runs this page before relying on its pictures."
        )
    text = ModelCard(readme.read_text(encoding="utf-8"), ignore_metadata_errors=True).text
    return f"{facts}\n\n{_PICTURE.sub(lambda match: _embedded(match, model), text).strip()}"


def _file_of(model: Model, name: str) -> Path | None:
    """A file of the model's folder or Hub repository; None if it has none of that name."""
    folder = Path(model.source)
    if folder.is_dir():
        path = (folder / name).resolve()
        return path if path.is_file() and path.is_relative_to(folder.resolve()) else None
    try:
        return Path(hf_hub_download(model.source, name))
    except (EntryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError):
        return None


def _embedded(match: re.Match[str], model: Model) -> str:
    """A picture of the card with its bytes in place of its file name; its text alone if it cannot be had."""
    kind = mimetypes.guess_type(match["file"])[0] or ""
    path = None if "://" in match["file"] or not kind.startswith("image/") else _file_of(model, match["file"])
    if path is None or path.stat().st_size > MAX_PICTURE_BYTES:
        return f"*{match['text']}*" if match["text"] else ""
    return f"![{match['text']}](data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()})"
