"""Differentiable augmentation of what a discriminator sees: ADA's pipeline and controller, and DiffAugment."""

from .ada import AUGMENTATION_SETS, TRANSFORMS, AugmentPipe
from .controller import AdaController
from .diffaugment import DiffAugment

__all__ = ["AUGMENTATION_SETS", "TRANSFORMS", "AdaController", "AugmentPipe", "DiffAugment"]
