"""README's list of files: every file once, with what its first line says."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("dfmgan_hf", "examples", "spaces", "benchmarks")


def listed_files() -> list[str]:
    """A line for each Python file: its path and the first sentence of its docstring."""
    lines = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            if text:
                lines.append(f"{path.relative_to(ROOT).as_posix():<47} {text.splitlines()[0]}")
    return lines


def test_readme_lists_every_file_with_what_it_is_for():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.split("<summary>Every file</summary>", 1)[1].split("```")[1]
    assert block.strip().splitlines() == listed_files(), (
        "README's list of files is not that of the repository. Paste this between its ``` marks:\n"
        + "\n".join(listed_files())
    )
