"""Put together a Space that needs nothing else: the page, its models, and this package, as a folder to publish.

    python examples/assemble_space.py --output_dir my_space
    python examples/assemble_space.py --output_dir my_space --model runs/hazelnut_crack runs/hazelnut_hole
    hf upload org/defects my_space --repo-type space

It runs the same way on any machine: pip install -r my_space/requirements.txt, then python my_space/app.py.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from dataclasses import dataclass
from pathlib import Path

from dfmgan_hf.cli import run
from dfmgan_hf.files import whole_folder

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "dfmgan_hf"
# What a model's folder holds beyond what draws and what the page tells of it: checkpoints, logs, training networks.
MODEL_FILES = ("model_index.json", "README.md", "LICENSE", "card_facts.json", "*.png", "*.jpg", "generator/*")
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__")


@dataclass(frozen=True)
class Config:
    """What goes into the Space, and where to put it.

    Args:
        output_dir: Folder to make; it may exist if it is empty.
        model: Folders of trained models, in the order in which the page lists them.
    """

    output_dir: Path
    model: tuple[Path, ...] = (REPOSITORY / "models" / "dfmgan-magnetic-tile",)


def requirements() -> list[str]:
    """What this package and its extra `demo` need, one requirement a line."""
    needed = [entry.split(";") for entry in importlib.metadata.requires("dfmgan-hf") or []]
    return [entry.strip() for entry, *marker in needed if not marker or marker[0].strip() == 'extra == "demo"']


def copy_model(model: Path, models: Path) -> None:
    """Copy what the page needs of a model into a folder of its name inside `models`."""
    for pattern in MODEL_FILES:
        for file in sorted(model.glob(pattern)):
            target = models / model.resolve().name / file.relative_to(model)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def assemble(config: Config) -> None:
    """Make the folder, whole or not at all.

    Raises:
        FileExistsError: there is something in `output_dir`.
        ValueError: a model that is no pipeline's folder, or two of one name.
    """
    names = [model.resolve().name for model in config.model]
    for model in config.model:
        if not (model / "model_index.json").is_file():
            raise ValueError(
                f"{model} has no model_index.json: give a folder that save_pretrained or a training wrote."
            )
        if names.count(model.resolve().name) > 1:
            raise ValueError(f"Two models are called {model.resolve().name}: the page could not tell them apart.")
    with whole_folder(config.output_dir) as space:
        for folder, target in ((REPOSITORY / "spaces" / "dfmgan_demo", space), (PACKAGE, space / PACKAGE.name)):
            shutil.copytree(folder, target, ignore=NOT_COPIED, dirs_exist_ok=True)
        shutil.copyfile(REPOSITORY / "LICENSE", space / "LICENSE")
        for model in config.model:
            copy_model(model, space / "models")
        (space / "requirements.txt").write_text("\n".join(requirements()) + "\n")
    print(
        f"The Space is in {config.output_dir}, with {', '.join(names)}. Try it:\n  python {config.output_dir}/app.py"
    )


if __name__ == "__main__":
    run(assemble)
