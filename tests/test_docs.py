"""The site builds, shows every public name, and its examples and its notebook run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.export import ExportConfig, generate_dataset

from .test_readme import FENCE, read

ROOT = Path(__file__).resolve().parents[1]
API = sorted(path for path in (ROOT / "docs" / "api").glob("*.md") if path.name != "index.md")
# Pages that show other names than `__all__` of the package of their name.
PACKAGES = {"pipeline": "dfmgan_hf", "methods": None}
METHODS = ("METHODS", "get_method", "method_of", "open_sampler", "Method", "SamplerRequest")

by_page = pytest.mark.parametrize("page", API, ids=lambda page: page.stem)


def public_names(page: Path) -> list[tuple[str, object]]:
    """Names that a page of the API has to show, each with what it names."""
    package = PACKAGES.get(page.stem, f"dfmgan_hf.{page.stem}")
    module = importlib.import_module(package or "dfmgan_hf.methods")
    return [(name, getattr(module, name)) for name in (module.__all__ if package else METHODS)]


@pytest.fixture
def folder_of_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where examples run: the models, six photographs of a part with a scratch and six without, a snapshot."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    (tmp_path / "models").symlink_to(ROOT / "models")
    shutil.copyfile(ROOT / "tests" / "golden" / "official_snapshot.pkl", tmp_path / "network-snapshot-000400.pkl")
    config = ExportConfig(Path("my_data"), num_images=6, category="part", defect="scratch", twins="train")
    generate_dataset(DFMGANPipeline.from_pretrained("models/dfmgan-magnetic-tile"), config, model_name="tiles")
    return tmp_path


def run_examples(text: str, name: str) -> list[str]:
    """Run a page's examples in one go, and return what failed."""
    blocks = [block for language, block in FENCE.findall(text) if language == "pycon"]
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {"__name__": "example"}, name, name, 0)
    assert test.examples
    failures: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=failures.append)
    return failures


@by_page
def test_examples_run(page: Path, folder_of_examples: Path):
    if failures := run_examples(read(page), page.name):
        pytest.fail("".join(failures), pytrace=False)


@by_page
def test_every_public_name_has_an_example_and_a_docstring(page: Path):
    examples = "".join(block for language, block in FENCE.findall(read(page)) if language == "pycon")
    names = public_names(page)
    assert not [name for name, _ in names if not re.search(rf"\b{name}\b", examples)]
    objects = [thing for _, thing in names if inspect.isclass(thing) or inspect.isfunction(thing)]
    assert not [thing.__name__ for thing in objects if not thing.__doc__]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The site, built as `make docs` does."""
    commands = pytest.importorskip("mkdocs.commands.build")
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder))
    config.plugins.on_startup(command="build", dirty=False)
    commands.build(config)
    yield folder
    sys.modules.pop("docs/hooks", None)


@by_page
def test_the_site_shows_every_public_name(page: Path, site: Path):
    html = read(site / "api" / page.stem / "index.html")
    ours = [
        name for name, thing in public_names(page) if not getattr(thing, "__module__", "").startswith("diffusers.")
    ]
    assert not [name for name in ours if not re.search(rf'id="dfmgan_hf[\w.]*\.{name}"', html)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    notebook = nbformat.read(ROOT / "examples" / "tutorial.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT / "examples")}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert not [output for output in outputs if "Traceback" in output.get("text", "")]


def test_the_code_in_getting_started_runs(folder_of_examples: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dfmgan_hf.painting.NUM_TWINS", 8)
    names: dict[str, Any] = {}
    for language, block in FENCE.findall(read(ROOT / "docs" / "getting-started.md")):
        if language == "python":
            exec(block, names)
    assert len(names["one_break_on_many_tiles"].images) == 8
    assert (folder_of_examples / "label.png").is_file()
