"""A model's folder that loads where this package is not installed: it holds the source of networks and pipeline."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import ModelCard

from .card import build_model_card, put_section
from .card_facts import CardFacts, facts_from_folder
from .model_folder import CARD_FILE, INDEX_FILE, copy_published, new_folder
from .records import write_record

PACKAGE = Path(__file__).resolve().parents[1]
NETWORKS_FILE, PIPELINE_FILE = "modeling_dfmgan.py", "pipeline_dfmgan.py"

_PARTS = PACKAGE / "publishing" / "standalone_parts.py"
_REPLACED = {PACKAGE / name: _PARTS for name in ("models/__init__.py", "models/generator.py", "models/modulated.py")}

_USE = """```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{model_name}", trust_remote_code=True)
out = pipe(seeds=range(8))
```

The code of the networks and of the pipeline is in this repository, in `generator/{networks}` and `{pipeline}`:
`trust_remote_code=True` runs it, and the package dfmgan-hf is not needed."""


def export_standalone(model_dir: Path | str, output_dir: Path | str, model_name: str) -> Path:
    """Write a copy of a pipeline that loads with diffusers alone, with `trust_remote_code=True`.

    Keep it apart from the folder it was made from: with the package installed, that one loads without remote code.

    Args:
        model_dir: folder of a pipeline.
        output_dir: folder to write; it appears whole or not at all.
        model_name: Hub id, "org/name", under which the copy will be published, for its card.

    Returns:
        `output_dir`.

    Raises:
        CardError: `model_dir` is no whole pipeline.
        FileExistsError: `output_dir` exists and is not empty.
    """
    model_dir, output_dir = Path(model_dir), Path(output_dir)
    with new_folder(output_dir) as whole:
        copy_published(model_dir, whole)
        index = json.loads((whole / INDEX_FILE).read_text(encoding="utf-8"))
        index["_class_name"] = [Path(PIPELINE_FILE).stem, index["_class_name"]]
        index["generator"][0] = Path(NETWORKS_FILE).stem
        write_record(whole / INDEX_FILE, index)
        (whole / "generator" / NETWORKS_FILE).write_text(networks_source(), encoding="utf-8")
        (whole / PIPELINE_FILE).write_text(pipeline_source(), encoding="utf-8")
        _card(model_dir, whole, model_name).save(whole / CARD_FILE)
    return output_dir


def networks_source() -> str:
    """Source of one module with both generators."""
    return concatenate(PACKAGE / "models" / "generator.py", {})


def pipeline_source() -> str:
    """Source of one module with the pipeline."""
    return concatenate(PACKAGE / "pipelines" / "pipeline_dfmgan.py", _REPLACED)


def concatenate(module: Path, replaced: Mapping[Path, Path]) -> str:
    """A module and all of the package that it imports, as the source of one module.

    Args:
        module: file of the package.
        replaced: files to take in place of others.

    Raises:
        ValueError: the modules cannot share one namespace: two define the same name, or an import has an alias or is
            not at the top.
    """
    plain_imports: set[str] = set()
    imports: dict[str, set[str]] = {}
    owners: dict[str, Path] = {}
    sections = []
    for path in _in_order(module, replaced, []):
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        docstring = ast.get_docstring(tree) or ""
        left_out: list[ast.stmt] = tree.body[:1] if docstring else []
        for node in tree.body:
            if _is_for_type_checkers(node):
                left_out.append(node)
            elif isinstance(node, ast.Import):
                left_out.append(node)
                plain_imports.update(f"import {ast.unparse(name)}" for name in node.names)
            elif isinstance(node, ast.ImportFrom):
                left_out.append(node)
                if node.level == 0 and node.module and node.module != "__future__":
                    imports.setdefault(node.module, set()).update(ast.unparse(name) for name in node.names)
            for name in _defined(node):
                if owners.setdefault(name, path) != path:
                    raise ValueError(f"{name} is defined in {owners[name]} and in {path}.")
        lines = source.splitlines()
        for node in reversed(left_out):
            del lines[node.lineno - 1 : node.end_lineno]
        where = path.relative_to(PACKAGE).as_posix()
        title = docstring.partition("\n")[0]
        sections.append(f"# From dfmgan_hf/{where}.\n# {title}\n\n" + "\n".join(lines).strip())
    header = '"""Made from the source of dfmgan-hf (Apache-2.0); change it there, not here."""'
    from_imports = [f"from {origin} import {', '.join(sorted(names))}" for origin, names in sorted(imports.items())]
    import_lines = "\n".join([*sorted(plain_imports), *from_imports])
    start = f"{header}\n\nfrom __future__ import annotations\n\n{import_lines}"
    return "\n\n\n".join([start, *sections]) + "\n"


def _in_order(module: Path, replaced: Mapping[Path, Path], seen: list[Path]) -> list[Path]:
    """The module after all that it imports of the package; `seen` are those already listed."""
    for dependency in _imported(module):
        dependency = replaced.get(dependency, dependency)
        if dependency not in seen:
            _in_order(dependency, replaced, seen)
    seen.append(module)
    return seen


def _imported(module: Path) -> Iterator[Path]:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in (node for top in tree.body if not _is_for_type_checkers(top) for node in ast.walk(top)):
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            if node not in tree.body or node.module is None or any(name.asname for name in node.names):
                raise ValueError(
                    f"{module}:{node.lineno}: only `from .module import name` at the top can be resolved."
                )
            target = module.parents[node.level - 1].joinpath(*node.module.split("."))
            yield target / "__init__.py" if target.is_dir() else target.with_suffix(".py")


def _is_for_type_checkers(node: ast.stmt) -> bool:
    """Imports that never run, and may therefore go round in circles; annotations are not evaluated either."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _defined(node: ast.stmt) -> Iterator[str]:
    """Names that a statement at the top of a module defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name
    targets = (
        node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    )
    for target in targets:
        yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))


def _card(model_dir: Path, folder: Path, model_name: str) -> ModelCard:
    if (folder / CARD_FILE).exists():
        card = ModelCard.load(folder / CARD_FILE)
    else:
        facts = CardFacts(model_name).filled_from(facts_from_folder(model_dir, model_name))
        card = build_model_card(folder, facts)
    use = _USE.format(model_name=model_name, networks=NETWORKS_FILE, pipeline=PIPELINE_FILE)
    card.text = put_section(card.text, "Use", use, before=("Model", "Training"))
    return card
