"""DFMGAN for diffusers: few-shot generation of defect images, pixel-exact masks and defect-free twins.

Importing this package makes its classes known to diffusers, so that `DiffusionPipeline.from_pretrained` finds them.
"""

import diffusers
from diffusers import ModelMixin
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES

from .models.dfmgan import DFMGANGenerator, DFMGANGeneratorOutput
from .models.discriminator import StyleGAN2Discriminator, StyleGAN2DiscriminatorOutput
from .models.projected import ProjectedDiscriminator, ProjectedDiscriminatorOutput
from .models.stylegan2 import StyleGAN2Generator, StyleGAN2GeneratorOutput
from .pipeline import DFMGANPipeline, DFMGANPipelineOutput

__version__ = "0.1.0"

# diffusers loads components from the libraries of this table only, and looks for the base class in the library's own
# namespace: that is why ModelMixin is exported here. The pipeline class is looked up in diffusers' namespace.
LOADABLE_CLASSES["dfmgan_hf"] = {"ModelMixin": ["save_pretrained", "from_pretrained"]}
diffusers.DFMGANPipeline = DFMGANPipeline  # type: ignore[attr-defined]

__all__ = [
    "DFMGANGenerator",
    "DFMGANGeneratorOutput",
    "DFMGANPipeline",
    "DFMGANPipelineOutput",
    "ModelMixin",
    "ProjectedDiscriminator",
    "ProjectedDiscriminatorOutput",
    "StyleGAN2Discriminator",
    "StyleGAN2DiscriminatorOutput",
    "StyleGAN2Generator",
    "StyleGAN2GeneratorOutput",
]
