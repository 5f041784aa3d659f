"""The code that draws exactly what the page shows."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from catalog import HERE, Catalog
from drawing import Recipe

from dfmgan_hf.export import ExportConfig


def snippet(catalog: Catalog, recipe: Recipe) -> str:
    """Python that draws the triplets of `recipe` with the package alone."""
    defect = catalog[recipe.model].defect
    how = "" if defect is None else f", defect={defect!r}"
    if recipe.truncation_psi != 1:
        how += f", truncation_psi={recipe.truncation_psi!r}"
    if recipe.mask_threshold != 0:
        how += f", mask_threshold={recipe.mask_threshold!r}"
    if recipe.part_seeds == recipe.defect_seeds:
        call = f"out = pipe(seeds={_seeds(recipe.part_seeds)}{how})"
    else:
        call = (
            f"parts, _ = pipe.latents_from_seeds({_seeds(recipe.part_seeds)})\n"
            f"_, defects = pipe.latents_from_seeds({_seeds(recipe.defect_seeds)})\n"
            f"out = pipe(num_images={len(recipe.part_seeds)}, object_latents=parts, defect_latents=defects{how})"
        )
    source = public_source(catalog[recipe.model].source)
    imports, where = ["from dfmgan_hf import DFMGANPipeline"], [f"pipe = DFMGANPipeline.from_pretrained({source!r})"]
    if in_space := _in_space(catalog[recipe.model].source):
        repo_id, folder = in_space
        imports.insert(0, "from huggingface_hub import snapshot_download")
        where = [
            f'space = snapshot_download({repo_id!r}, repo_type="space", allow_patterns={folder + "/*"!r})',
            f'pipe = DFMGANPipeline.from_pretrained(f"{{space}}/{folder}")',
        ]
    if catalog[recipe.model].pipe.device.type == "cuda":
        where[-1] += '.to("cuda")'
    images = "out.images"
    if recipe.strength != 1:
        imports.append("from PIL import Image")
        images, pairs = "images", "zip(out.defect_free_images, out.images)"
        call += f"\nimages = [Image.blend(twin, image, {recipe.strength!r}) for twin, image in {pairs}]"
    return "\n".join([*imports, "", *where, call, f"{images}, out.masks, out.defect_free_images", ""])


def export_command(catalog: Catalog, model: str, config: ExportConfig) -> str:
    """The command line that writes the same files as the ZIP, and that has no limit."""
    source, before = public_source(catalog[model].source), ""
    if in_space := _in_space(catalog[model].source):
        repo_id, source = in_space
        before = f"hf download {repo_id} --repo-type space --include {shlex.quote(source + '/*')} --local-dir .\n"
    options = {
        "model": source,
        "num_images": config.num_images,
        "output_dir": config.output_dir,
        "format": config.format,
        "seed": config.seed,
        "truncation_psi": config.truncation_psi,
        "mask_threshold": config.mask_threshold,
        "category": config.category,
    }
    if catalog[model].defect is not None:
        options["defect"] = catalog[model].defect
    return f"{before}python examples/generate.py" + "".join(
        f" \\\n  --{name} {shlex.quote(str(value))}" for name, value in options.items()
    )


def public_source(source: str) -> str:
    """A Hub id as it is; of a folder of this machine what a reader has too: its place in a checkout or its name."""
    folder = Path(source).resolve()
    if not folder.is_dir():
        return source
    checkout = HERE.parents[1]
    return folder.relative_to(checkout).as_posix() if folder.is_relative_to(checkout) else folder.name


def _in_space(source: str) -> tuple[str, str] | None:
    """The Space's id and the model's folder in it, if this page is a Space on the Hub that brings the model along.

    A visitor could do nothing with the path on the Hub's machine.
    """
    repo_id, folder = os.environ.get("SPACE_ID"), Path(source).resolve()
    if not repo_id or not folder.is_dir() or not folder.is_relative_to(HERE):
        return None
    return repo_id, folder.relative_to(HERE).as_posix()


def _seeds(seeds: tuple[int, ...]) -> str:
    """Seeds as a reader would write them: a range, one seed many times, or a list."""
    count = len(seeds)
    if count > 2 and seeds == tuple(range(seeds[0], seeds[0] + count)):
        return f"range({seeds[0]}, {seeds[0] + count})"
    if count > 2 and len(set(seeds)) == 1:
        return f"[{seeds[0]}] * {count}"
    return repr(list(seeds))
