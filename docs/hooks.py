"""What MkDocs does not do by itself: pages of the repository outside of docs/ are part of the site, too.

GitHub shows the same files. So links are written as GitHub reads them, relative to the file and with GitHub's names of
headings, and are turned into links of the site here. A link to a file that is no page of the site becomes plain text.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "speed.md",
    "benchmarks/results/export_memory.png": "images/export_memory.png",
    "examples/README.md": "scripts.md",
}
"""Files of the repository, and what they are called in the site."""

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
log = logging.getLogger("mkdocs.plugins.hooks")


class Examples(griffe.Extension):
    """Show what follows "Example:" in a docstring as code; of itself, Griffe does so after "Examples:" only."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename the section of one object."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)


def github_slug(heading: str, separator: str) -> str:
    """Name a heading in links as GitHub does."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def on_config(config: Any) -> Any:
    """Name headings as GitHub does."""
    config.mdx_configs["toc"]["slugify"] = github_slug
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the files that are outside of docs/."""
    for source, name in OUTSIDE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links that are relative to the file in the repository into links of the site."""
    source = Path(page.file.abs_src_path)

    def lead(match: re.Match[str]) -> str:
        image, text, link = match.groups()
        path, _, anchor = link.partition("#")
        if not path or re.match(r"\w+:", link):
            return match[0]
        target = (source.parent / path).resolve()
        if not target.exists():
            log.warning("%s links to %s, which does not exist.", source.relative_to(ROOT), link)
            return match[0]
        name = OUTSIDE.get(target.relative_to(ROOT).as_posix())
        if name is None and target.is_relative_to(DOCS):
            name = target.relative_to(DOCS).as_posix()
        if name is None or files.get_file_from_path(name) is None:
            return text
        name = posixpath.relpath(name, posixpath.dirname(page.file.src_uri))
        return f"{image}[{text}]({name}{'#' + anchor if anchor else ''})"

    return LINK.sub(lead, markdown)
