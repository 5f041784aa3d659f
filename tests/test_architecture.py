"""What the sources may import: one direction, no circles, no optional library on import, no pickles."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dfmgan_hf"

# What each file or folder of the package may import of the others.
ALLOWED: dict[str, set[str]] = {
    "arguments": set(),
    "files": set(),
    "hub_errors": set(),
    "losses": set(),
    "precision": set(),
    "processes": set(),
    "sheets": {"files"},
    "cuda_graphs": set(),
    "models": set(),
    "augmentation": {"precision"},
    "data": {"arguments", "files", "sheets"},
    # hub is imported inside push_to_hub.
    "pipeline": {"arguments", "cuda_graphs", "models", "hub_errors", "painting", "photograph", "hub"},
    "photograph": {"arguments", "data"},
    "painting": {"arguments", "files", "models", "data", "photograph"},
    "training": {"arguments", "cuda_graphs", "files", "processes", "sheets", "data"},
    "metrics": {"arguments", "files", "precision", "processes", "sheets", "data", "pipeline", "training"},
    "hub": {"arguments", "files", "hub_errors", "sheets", "models"},
    "methods": {
        *("arguments", "files", "hub_errors", "processes", "sheets", "losses", "models", "augmentation"),
        *("data", "pipeline", "training", "metrics", "hub"),
    },
    "gate": {"files", "data", "metrics"},
    "export": {
        *("arguments", "gate", "painting", "photograph", "files", "processes", "sheets", "models"),
        *("data", "pipeline", "hub"),
    },
    "prove": {
        *("arguments", "files", "sheets", "models", "data", "pipeline", "painting", "photograph"),
        *("metrics", "hub", "gate", "export"),
    },
    "conversion": {"files", "models", "pipeline"},
    "evaluation": {"arguments", "files", "processes", "models", "data", "metrics", "training", "methods", "hub"},
    "cli": {"processes"},
}
OPTIONAL = {
    "aim", "clearml", "comet_ml", "cv2", "gradio", "lpips", "matplotlib", "mlflow", "onnx", "onnxruntime", "pyiqa",
    "scipy",
    "segmentation_models_pytorch", "skimage", "sklearn", "spaces", "tensorboard", "tensorboardX", "timm",
    "torch_fidelity", "torchmetrics", "torchvision", "trackio", "transformers", "wandb",
}  # fmt: skip


def sources(*folders: str) -> list[Path]:
    return [p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))]


def parse(path: Path) -> ast.Module:
    # The oldest Python that the package supports.
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 10))


def absolute_name(node: ast.ImportFrom, path: Path) -> str:
    """The module that a (relative) `from ... import` names."""
    if node.level == 0:
        return node.module or ""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([*parts[: len(parts) - node.level], *([node.module] if node.module else [])])


def imports(tree: ast.AST, path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, with its line; `from package import part` counts as package.part too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = absolute_name(node, path)
            yield module, node.lineno
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def top_level(tree: ast.Module) -> ast.Module:
    """The module without what runs later (functions) or never (TYPE_CHECKING)."""

    class Pruner(ast.NodeTransformer):
        def visit_FunctionDef(self, node):
            return None

        visit_AsyncFunctionDef = visit_FunctionDef

        def visit_If(self, node):
            return None if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    return Pruner().visit(tree)


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_every_part_has_a_rule():
    assert {part(path) for path in sources("dfmgan_hf")} == {*ALLOWED, "__init__"}


@pytest.mark.parametrize("name", ALLOWED)
def test_imports_point_one_way(name):
    wrong = []
    for path in sources("dfmgan_hf"):
        if part(path) != name:
            continue
        for imported, line in imports(parse(path), path):
            pieces = imported.split(".")
            where = f"{path.relative_to(ROOT)}:{line} imports {imported}"
            if pieces[0] in ("examples", "spaces", "benchmarks", "tests") or (
                pieces[0] == "dfmgan_hf" and set(pieces[1:2]) & (ALLOWED.keys() - {name, *ALLOWED[name]})
            ):
                wrong.append(where)
    assert not wrong, "\n".join(wrong)


def test_the_picture_in_contributing_shows_the_rules():
    picture = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("Imports point down")[1].split("```")[1]
    row = {name: number for number, line in enumerate(picture.splitlines()) for name in line.split()}
    assert row.keys() == ALLOWED.keys()
    assert not [(name, other) for name, allowed in ALLOWED.items() for other in allowed if row[other] <= row[name]]


def test_no_circle_of_files():
    """Imports inside functions and for type checkers count too: reading a file should not lead back to it."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sources("dfmgan_hf")}
    graph = {
        name: {imported for imported, _ in imports(parse(path), path) if imported in modules and imported != name}
        for name, path in modules.items()
        if path.name != "__init__.py"
    }
    while ready := [name for name, needed in graph.items() if not needed & graph.keys()]:
        for name in ready:
            del graph[name]
    assert not graph, f"These files import each other, or what does: {', '.join(sorted(graph))}."


def test_models_import_torch_and_the_mixins_only():
    # timm: the discriminator on frozen features, in training alone. triton: the kernels, on a GPU alone.
    allowed = {"torch", "triton", "diffusers", "safetensors", "dfmgan_hf", "timm", *sys.stdlib_module_names}
    mixins = ("diffusers.configuration_utils", "diffusers.models.modeling_utils", "diffusers.utils")
    for path in sources("dfmgan_hf/models"):
        for name, line in imports(parse(path), path):
            where = f"{path.name}:{line} imports {name}"
            assert name.split(".")[0] in allowed, where
            assert not name.startswith("diffusers") or name.startswith(mixins), where


def test_optional_libraries_are_imported_where_they_are_used():
    wrong = []
    for path in sources("dfmgan_hf"):
        for name, line in imports(top_level(parse(path)), path):
            if name.split(".")[0] in OPTIONAL:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name} when it is imported itself")
    assert not wrong, "\n".join(wrong)


def test_nothing_unpickles():
    """No file of the project lets a pickle run: neither the package nor scripts nor tests.

    But for one: the tests of hostile pickles show that their payloads would do harm if they were unpickled.
    """
    excepted = ROOT / "tests" / "conversion" / "test_hostile_pickles.py"
    calls = {
        "pickle.load", "pickle.loads", "pickle.Unpickler", "_pickle.load", "_pickle.loads", "_pickle.Unpickler",
        "dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads", "joblib.load", "shelve.open",
        "pandas.read_pickle", "pd.read_pickle",
    }  # fmt: skip
    wrong = []
    for path in sources("dfmgan_hf", "examples", "spaces", "benchmarks", "tests"):
        if path == excepted:
            continue
        tree = parse(path)
        in_package = PACKAGE in path.parents
        for name, line in imports(tree, path):
            banned = {"dill", "cloudpickle", "joblib", "shelve"} | ({"pickle", "_pickle"} if in_package else set())
            if name.split(".")[0] in banned or name in calls:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in calls:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} uses {ast.unparse(node)}")
            if isinstance(node, ast.Call):
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                if ast.unparse(node.func) == "torch.load" and keywords.get("weights_only") != "True":
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} calls torch.load without weights_only=True")
                if keywords.get("allow_pickle", "False") != "False":
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} allows pickles")
    assert not wrong, "\n".join(wrong)


def run_python(script: str) -> str:
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_everything_imports_without_the_optional_libraries():
    """Every module of the package, and a drawn picture, with all optional libraries out of reach."""
    run_python(f"""
import importlib, pkgutil, sys
for name in {sorted(OPTIONAL)!r}:
    sys.modules[name] = None
import dfmgan_hf
for module in pkgutil.walk_packages(dfmgan_hf.__path__, "dfmgan_hf."):
    if module.name != "dfmgan_hf.models.kernels":  # needs Triton, and is imported where kernels are launched
        importlib.import_module(module.name)
model = dfmgan_hf.DFMGANGenerator(resolution=32, z_dim=8, w_dim=8, channel_base=64, residual_resolution=16)
assert len(dfmgan_hf.DFMGANPipeline(model)(seeds=[0]).masks) == 1
""")


def test_import_is_quick():
    """What the package adds to torch and diffusers, in processor seconds."""
    seconds = run_python("""
import time
import torch
from diffusers import DiffusionPipeline, ModelMixin
start = time.process_time()
import dfmgan_hf
print(time.process_time() - start)
""")
    assert float(seconds) < 1.5


def test_import_leaves_torch_as_it_was():
    """No global state: threads, default dtype, gradient mode and the random generator stay untouched."""
    run_python("""
import torch
state = lambda: (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
                 torch.backends.cudnn.benchmark, torch.get_rng_state().sum().item())
before = state()
import dfmgan_hf
assert state() == before, (before, state())
""")
