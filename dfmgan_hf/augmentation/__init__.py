"""Differentiable augmentation of what a discriminator sees: ADA's pipeline and controller, and DiffAugment."""

from .ada import AugmentPipe
from .controller import AdaController
from .diffaugment import DiffAugment
from .settings import AUGMENTATION_SETS, TRANSFORMS, AugmentSettings

__all__ = ["AUGMENTATION_SETS", "TRANSFORMS", "AdaController", "AugmentPipe", "AugmentSettings", "DiffAugment"]
