"""The code that draws exactly what the page shows."""

from __future__ import annotations

import shlex
import textwrap

from catalog import Catalog
from drawing import Recipe

from dfmgan_hf.export import ExportConfig


def snippet(catalog: Catalog, recipe: Recipe) -> str:
    """Python that draws the triplets of `recipe` with the package alone."""
    how = ""
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
    head = f"""
        from dfmgan_hf import DFMGANPipeline

        pipe = DFMGANPipeline.from_pretrained({catalog[recipe.model].source!r})
        """
    return f"{textwrap.dedent(head).lstrip()}{call}\nout.images, out.masks, out.defect_free_images\n"


def export_command(catalog: Catalog, model: str, config: ExportConfig) -> str:
    """The command line that writes the same files as the ZIP, and that has no limit."""
    options = {
        "model": catalog[model].source,
        "num_images": config.num_images,
        "output_dir": config.output_dir,
        "format": config.format,
        "seed": config.seed,
        "truncation_psi": config.truncation_psi,
        "mask_threshold": config.mask_threshold,
        "category": config.category,
    }
    return "python examples/generate.py" + "".join(
        f" \\\n  --{name} {shlex.quote(str(value))}" for name, value in options.items()
    )


def _seeds(seeds: tuple[int, ...]) -> str:
    """Seeds as a reader would write them: a range, one seed many times, or a list."""
    count = len(seeds)
    if count > 2 and seeds == tuple(range(seeds[0], seeds[0] + count)):
        return f"range({seeds[0]}, {seeds[0] + count})"
    if count > 2 and len(set(seeds)) == 1:
        return f"[{seeds[0]}] * {count}"
    return repr(list(seeds))
