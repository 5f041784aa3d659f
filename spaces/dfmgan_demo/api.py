"""The named endpoints: what the page does, for `gradio_client` and any HTTP client, with the original pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
from cache_files import new_download
from drawing import Recipe
from pictures import save_animation
from studio import Studio
from take_away import LAYOUTS, write_archive


def add_endpoints(studio: Studio) -> None:
    """Add the endpoints to the page that is being built. Values are checked by `studio`, not by widgets."""
    # The browser loads what a component needs unless it is itself invisible; a group around it does not help.
    with gr.Group(visible=False):
        model = gr.Dropdown(studio.catalog.names, value=studio.catalog.names[0], label="Model", visible=False)
        num_images = gr.Number(4, precision=0, label="How many")
        seed = gr.Number(0, precision=0, label="Seed")
        second_seed = gr.Number(1, precision=0, label="Second seed")
        truncation_psi = gr.Number(1.0, label="Variety (truncation)")
        mask_threshold = gr.Number(0.0, label="Mask threshold")
        varied = gr.Dropdown(["defect", "part"], value="defect", label="What changes", visible=False)
        layout = gr.Dropdown(list(LAYOUTS), value=next(iter(LAYOUTS)), label="Layout", visible=False)
        galleries = [
            gr.Gallery(label=name, format="png", visible=False) for name in ("Images", "Masks", "Defect-free images")
        ]
        details = gr.JSON(label="Seeds and areas", visible=False)
        file = gr.File(label="File", visible=False)

    def drawn(recipe: Recipe) -> tuple[list[Any], list[Any], list[Any], list[dict[str, Any]]]:
        triplets = studio.drawer.draw(recipe)
        facts = [
            {
                "part_seed": triplet.part_seed,
                "defect_seed": triplet.defect_seed,
                "defect_area_percent": triplet.defect_percent,
            }
            for triplet in triplets
        ]
        return [t.image for t in triplets], [t.mask for t in triplets], [t.defect_free for t in triplets], facts

    def draw(model, num_images, seed, truncation_psi, mask_threshold):
        """Draw triplets from consecutive seeds.

        Returns the images with defects, their masks (0 and 255) and their defect-free twins as PNG files, and the
        seeds and defect areas.
        """
        return drawn(studio.new_parts(studio.settings(model, truncation_psi, mask_threshold), num_images, seed))

    def same_part(model, num_images, part_seed, first_defect_seed, truncation_psi, mask_threshold):
        """Draw one part with many defects. Returns as /draw."""
        settings = studio.settings(model, truncation_psi, mask_threshold)
        return drawn(studio.same_part(settings, num_images, part_seed, first_defect_seed))

    def same_defect(model, num_images, defect_seed, first_part_seed, truncation_psi, mask_threshold):
        """Draw one defect on many parts. Returns as /draw."""
        settings = studio.settings(model, truncation_psi, mask_threshold)
        return drawn(studio.same_defect(settings, num_images, defect_seed, first_part_seed))

    def walk(model, varied, from_seed, to_seed, truncation_psi, mask_threshold):
        """Animate the way from one seed's defect (or part) to another's. Returns an animated WebP file."""
        settings = studio.settings(model, truncation_psi, mask_threshold)
        ends = (studio.seed(from_seed, "From seed"), studio.seed(to_seed, "To seed"))
        with new_download(file, "walk.webp") as path:
            save_animation(studio.walk(settings.recipe(ends, ends), varied), path)
        return str(path)

    def export(model, num_images, seed, layout, truncation_psi, mask_threshold) -> Iterator[str | None]:
        """Write triplets with a defect to a ZIP file. Yields None while it grows, at last the file."""
        settings = studio.settings(model, truncation_psi, mask_threshold)
        config = studio.export(settings, num_images, seed, layout)
        with new_download(file, f"{config.category}_{config.num_images}.zip") as path:
            for _ in write_archive(path, studio.drawer, settings.model, config, studio.facts[settings.model]):
                yield None
        yield str(path)

    def models() -> list[dict[str, Any]]:
        """The models that can be chosen."""
        configs = {name: studio.catalog[name].pipe.generator.config for name in studio.catalog.names}
        named = ("resolution", "aspect", "image_channels")
        return [{"name": name, **{field: config[field] for field in named}} for name, config in configs.items()]

    how = [truncation_psi, mask_threshold]
    endpoints = (
        (draw, [model, num_images, seed, *how], [*galleries, details], "draw"),
        (same_part, [model, num_images, seed, second_seed, *how], [*galleries, details], "draw"),
        (same_defect, [model, num_images, seed, second_seed, *how], [*galleries, details], "draw"),
        (walk, [model, varied, seed, second_seed, *how], [file], "draw"),
        (export, [model, num_images, seed, layout, *how], [file], "export"),
        (models, [], [details], "draw"),
    )
    for function, inputs, outputs, concurrency_id in endpoints:
        gr.Button(visible=False).click(
            function,
            inputs,
            outputs,
            api_name=function.__name__,
            concurrency_id=concurrency_id,
            concurrency_limit=1,
            preprocess=False,
        )
