"""What the pages of the project say exists: files, headings, commands, options, and the code in README."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from dfmgan_hf import DFMGANPipeline

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / name / "README.md" for name in ("examples", "benchmarks", "spaces/dfmgan_demo")),
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r'(?:\]\(|(?:src|href)=")([^)"\s]+)')
# Their options are not ours: what starts our commands, up to the command itself.
LAUNCHERS = ("accelerate", "python", "torchrun", ".venv/bin/python")

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """Names of a page's headings in links, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", read(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[list[str]]:
    """Every command line of a page's shell blocks, as words."""
    for language, block in FENCE.findall(read(page)):
        if language == "bash":
            for line in block.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield words


def own_part(words: list[str]) -> tuple[str, list[str]] | None:
    """What of ours a command starts (a script, a module or a subcommand) and the words after it; None if nothing."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if words[0] == "dfmgan":
        return f"dfmgan {words[1]}", words[2:]
    if words[0] in LAUNCHERS:
        for i, word in enumerate(words):
            if word.endswith(".py"):
                return word, words[i + 1 :]
            if word == "-m" and words[i + 1].split(".")[0] in ("dfmgan_hf", "benchmarks"):
                return words[i + 1], words[i + 2 :]
    return None


@cache
def declared_options() -> set[str]:
    """Names of all fields of all classes: options are fields of dataclasses."""
    names = {"help"}
    for folder in ("dfmgan_hf", "examples", "benchmarks", "spaces"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(read(path))):
                if isinstance(node, ast.ClassDef):
                    fields = (field for field in node.body if isinstance(field, ast.AnnAssign))
                    names |= {field.target.id for field in fields if isinstance(field.target, ast.Name)}
    return names


def test_readme_can_be_read_in_one_sitting():
    assert len((ROOT / "README.md").read_bytes()) < 16 * 1024


@by_page
def test_links_lead_somewhere(page: Path):
    broken = []
    for link in LINK.findall(FENCE.sub("", read(page))):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@by_page
def test_commands_and_their_options_exist(page: Path):
    from dfmgan_hf.cli import COMMANDS

    options, makefile = declared_options(), read(ROOT / "Makefile")
    wrong = []
    for words in commands(page):
        if words[0] == "make" and not re.search(rf"^{words[1]}:", makefile, re.MULTILINE):
            wrong.append(" ".join(words))
        started = own_part(words)
        if started is None:
            continue
        name, rest = started
        if name.startswith("dfmgan "):
            known = name.removeprefix("dfmgan ") in ("--help", *COMMANDS)
        elif name.endswith(".py"):
            known = (ROOT / name).is_file()
        else:
            path = ROOT / name.replace(".", "/")
            known = path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
        wrong += [] if known else [name]
        for word in rest:
            option = word.split("=")[0].split(".")[-1].removeprefix("--")
            if word.startswith("--") and option.replace("-", "_") not in options:
                wrong.append(f"{name} {word}")
    assert not wrong


def test_contributing_names_what_is_there():
    """Files that it names exist in the package or the repository, and hold the functions that it says they hold."""
    text = FENCE.sub("", read(ROOT / "CONTRIBUTING.md"))
    found = {}
    for name in re.findall(r"`([\w/]+\.py)`", text):
        places = [path for path in (ROOT / "dfmgan_hf" / name, ROOT / name) if path.is_file()]
        found[name] = read(places[0]) if places else None
    assert not [name for name, source in found.items() if source is None and "NAME" not in name]
    wrong = []
    for names, file in re.findall(r"((?:`\w+`(?:, | and )?)+) in `([\w/]+\.py)`", text):
        for name in re.findall(r"`(\w+)`", names):
            if not re.search(rf"^(?:def |class )?{name}\b", found[file], re.MULTILINE):
                wrong.append(f"{name} in {file}")
    assert not wrong


def test_the_code_in_readme_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    # A photograph of tiles for it to paint into, and few twins to look for.
    tile = DFMGANPipeline.from_pretrained("models/dfmgan-magnetic-tile")(seeds=[0]).defect_free_images[0]
    photograph = Image.new("L", (400, 320))
    for x, y in itertools.product(range(0, 400, 80), range(0, 320, 80)):
        photograph.paste(tile.resize((80, 80)), (x, y))
    photograph.save("good.png")
    monkeypatch.setattr("dfmgan_hf.painting.NUM_TWINS", 8)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    blocks = [block for language, block in FENCE.findall(read(ROOT / "README.md")) if language == "python"]
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert len(names["one_tile_many_defects"].images) == len(names["out"].masks) == 8
    assert names["output"].labels[0].size == (400, 320)
