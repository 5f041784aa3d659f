"""Scores while training: the quick score of the averaged generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dfmgan_hf.data import ImageMaskDataset

from ..processes import ProcessGroup
from .quick_score import load_quick_networks, quick_score
from .sampler import PipelineSampler, Sampler

if TYPE_CHECKING:
    from accelerate import Accelerator

    from dfmgan_hf.training.best import ScoreConfig, Scorer
    from dfmgan_hf.training.task import Task


def sample_generator(task: Task) -> Sampler:
    """Draw from the averaged generator of a task."""
    from dfmgan_hf.pipelines import DFMGANPipeline

    return PipelineSampler(DFMGANPipeline(generator=task.generator_ema))


def prepare_scorer(
    config: ScoreConfig,
    real: ImageMaskDataset,
    accelerator: Accelerator,
    make_sampler: Callable[[Task], Sampler] = sample_generator,
) -> Callable[[Task], Scorer] | None:
    """Load the measuring networks, so that missing weights are an error before training starts and not hours later.

    Args:
        config: when and what to score.
        real: the training photographs.
        accelerator: of the run; all its processes share the measuring.
        make_sampler: draws from a task; the default does for generators that a `DFMGANPipeline` holds.

    Returns:
        What makes a scorer for a task, or None if no scores are wanted.

    Raises:
        MissingWeightsError, BadWeightsError, ImportError: see `load_quick_networks`.
    """
    if config.eval_every_kimg <= 0:
        return None
    networks = load_quick_networks(config.lpips_weights, device=accelerator.device)
    processes = ProcessGroup(accelerator)

    def make_scorer(task: Task) -> Scorer:
        sampler = make_sampler(task)
        return lambda: quick_score(
            sampler,
            real,
            networks=networks,
            num_images=config.eval_images,
            processes=processes,
            progress=accelerator.is_main_process,
        ).to_dict()

    return make_scorer
