"""The standalone copy: its source is whole, it draws what the package draws, and it needs trust_remote_code."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from typing import get_args

import pytest
import torch
from huggingface_hub import ModelCard

from dfmgan_hf import DFMGANPipeline, models
from dfmgan_hf.models import generator as generator_module
from dfmgan_hf.publishing import CardError, standalone_parts
from dfmgan_hf.publishing.standalone import concatenate, export_standalone, networks_source, pipeline_source

STRANGER = """
import sys
sys.modules["dfmgan_hf"] = None  # the package cannot be imported
import torch
from diffusers import DiffusionPipeline

folders = sys.argv[1:]
try:
    DiffusionPipeline.from_pretrained(folders[0])
except ValueError as error:
    assert "trust_remote_code=True" in str(error), error
else:
    raise AssertionError("remote code ran without leave")
for folder in folders:
    pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    out = pipe(seeds=[3, 4], output_type="pt", truncation_psi=0.7)
    masks = torch.zeros(0) if out.masks is None else out.masks.float()
    torch.save([out.images, masks, out.defect_free_images], f"{folder}.pt")
    assert type(pipe).__name__ == "DFMGANPipeline"
    assert not type(pipe).__module__.startswith("dfmgan_hf")
try:
    DiffusionPipeline.from_pretrained(folders[0], trust_remote_code=True)(num_images=0)
except ValueError as error:
    assert "`num_images` must be an integer of at least 1" in str(error)
"""


def test_draws_what_the_package_draws(make_generator, make_backbone, tmp_path):
    pipes = [DFMGANPipeline(make_generator()), DFMGANPipeline(make_backbone(image_channels=1))]
    folders = []
    for i, pipe in enumerate(pipes):
        pipe.save_pretrained(tmp_path / f"model{i}")
        folders.append(export_standalone(tmp_path / f"model{i}", tmp_path / f"standalone{i}", "org/alone"))
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    run = subprocess.run(
        [sys.executable, "-c", STRANGER, *map(str, folders)],
        capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Expected types" not in run.stderr
    for pipe, folder in zip(pipes, folders, strict=True):
        expected = pipe(seeds=[3, 4], output_type="pt", truncation_psi=0.7)
        images, masks, defect_free = torch.load(f"{folder}.pt", weights_only=True)
        assert torch.equal(images, expected.images)
        assert torch.equal(defect_free, expected.defect_free_images)
        assert torch.equal(masks, torch.zeros(0) if expected.masks is None else expected.masks.float())


def test_folder_and_card(make_generator, tmp_path):
    DFMGANPipeline(make_generator()).save_pretrained(tmp_path / "model")
    folder = export_standalone(tmp_path / "model", tmp_path / "a" / "standalone", "org/alone")
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "README.md",
        "generator/config.json",
        "generator/diffusion_pytorch_model.safetensors",
        "generator/modeling_dfmgan.py",
        "model_index.json",
        "pipeline_dfmgan.py",
    }
    card = ModelCard.load(folder / "README.md")
    assert 'DiffusionPipeline.from_pretrained("org/alone", trust_remote_code=True)' in card.text
    assert "pip install" not in card.text
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["standalone"]
    with pytest.raises(FileExistsError, match=r"standalone exists already"):
        export_standalone(tmp_path / "model", folder, "org/alone")
    with pytest.raises(CardError, match=r"is a standalone copy with its own code"):
        export_standalone(folder, tmp_path / "again", "org/alone")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("source", [networks_source, pipeline_source])
def test_source_needs_nothing_of_the_package(source):
    text = source()
    tree = ast.parse(text)
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert imported <= {
        "torch",
        "diffusers",
        "accelerate",
        "huggingface_hub",
        "numpy",
        "PIL",
        *sys.stdlib_module_names,
    }
    # diffusers looks for imports of neighbours with this expression, in comments and docstrings too.
    assert not re.findall(r"^\s*(?:from\s+\.\S+\s+import|import\s+\.)", text, flags=re.MULTILINE)


def test_parts_agree_with_the_package(make_generator, make_backbone):
    assert standalone_parts.NOISE_MODES == models.NOISE_MODES
    assert get_args(standalone_parts.NoiseMode) == get_args(models.NoiseMode)
    assert get_args(standalone_parts.LatentSpace) == get_args(generator_module.LatentSpace)
    assert isinstance(make_generator(), standalone_parts.DFMGANGenerator)
    assert isinstance(make_backbone(), standalone_parts.StyleGAN2Generator)
    assert not isinstance(make_backbone(), standalone_parts.DFMGANGenerator)


def test_imports_for_type_checkers_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("dfmgan_hf.publishing.standalone.PACKAGE", tmp_path)
    (tmp_path / "one.py").write_text('"""One."""\n\nfrom .other import g\n\n\ndef f(): ...\n')
    circle = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from .one import f\n"
    (tmp_path / "other.py").write_text(f'"""Other."""\n\n{circle}\n\ndef g(x: f): ...\n')
    text = concatenate(tmp_path / "one.py", {})
    assert "import f" not in text
    assert text.index("def g(x: f)") < text.index("def f()")
    exec(compile(text, "one", "exec"), {})


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ("def f(): ...", "f = 1", r"f is defined in .*other.py and in .*one.py"),
        ("from .other import g as h", "g = 1", r"one.py:2: only `from .module import name`"),
        ("def f():\n    from .other import g", "g = 1", r"one.py:3: only"),
    ],
)
def test_modules_that_cannot_be_joined(tmp_path, monkeypatch, one, other, message):
    monkeypatch.setattr("dfmgan_hf.publishing.standalone.PACKAGE", tmp_path)
    (tmp_path / "one.py").write_text(f"from .other import x\n{one}\n")
    (tmp_path / "other.py").write_text(f"x = 0\n{other}\n")
    with pytest.raises(ValueError, match=message):
        concatenate(tmp_path / "one.py", {})
