"""Losses as functions of tensors: adversarial terms and gradient penalties."""

from .adversarial import discriminator_fake_loss, discriminator_real_loss, generator_loss
from .change_outside import change_outside
from .dual_discriminator import D2GANLoss, D2LSGANLoss, DualDiscriminatorLoss
from .regularizers import PATH_LENGTH_DECAY, path_lengths, r1_gamma, r1_penalty
from .wasserstein import critic_loss, gradient_penalty

__all__ = [
    "PATH_LENGTH_DECAY",
    "D2GANLoss",
    "D2LSGANLoss",
    "DualDiscriminatorLoss",
    "change_outside",
    "critic_loss",
    "discriminator_fake_loss",
    "discriminator_real_loss",
    "generator_loss",
    "gradient_penalty",
    "path_lengths",
    "r1_gamma",
    "r1_penalty",
]
