"""Starting stage 2, or more training, from a folder or Hub repository that stage 1 wrote."""

from __future__ import annotations

from dataclasses import fields, replace

from ..models import StyleGAN2Discriminator, StyleGAN2Generator
from .presets import RecipeOverrides

FROM_BACKBONE = ("resolution", "image_channels", "z_dim", "w_dim", "mapping_layers", "channel_base", "channel_max")


def load_backbone(source: str) -> tuple[StyleGAN2Generator, StyleGAN2Discriminator]:
    """The averaged generator and the discriminator of stage 1.

    Args:
        source: the output folder of stage 1, of a converted snapshot, or the Hub id of one.

    Raises:
        OSError: `source` has no generator/ or no discriminator/.
        ValueError: its generator draws defects already.
    """
    config = StyleGAN2Generator.load_config(source, subfolder="generator")
    if config["_class_name"] != "StyleGAN2Generator":
        raise ValueError(
            f"`pretrained_backbone` {source} holds a {config['_class_name']}; stage 2 starts from the output of "
            "stage 1, a StyleGAN2Generator."
        )
    generator = StyleGAN2Generator.from_pretrained(source, subfolder="generator")
    discriminator = StyleGAN2Discriminator.from_pretrained(source, subfolder="discriminator")
    return generator, discriminator


def recipe_from_backbone(overrides: RecipeOverrides, backbone: StyleGAN2Generator) -> RecipeOverrides:
    """`overrides` with the network sizes of the backbone.

    Raises:
        ValueError: a size is overridden with another value than the backbone's.
    """
    sizes = {name: backbone.config[name] for name in FROM_BACKBONE}
    for field in fields(overrides):
        wanted = getattr(overrides, field.name)
        if field.name in sizes and wanted is not None and wanted != sizes[field.name]:
            raise ValueError(
                f"`{field.name}` is {sizes[field.name]} in the pretrained backbone and cannot be {wanted}; "
                "leave it out."
            )
    return replace(overrides, **{name: value for name, value in sizes.items() if value is not None})
