"""What goes to a run's trackers: numbers, histograms and sheets, as each of them shows them best."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from accelerate import Accelerator
from PIL import Image

from .monitoring import RunningStatistics


def tracker_options(output_dir: str, name: str, images_seen: int) -> dict[str, dict[str, Any]]:
    """What `Accelerator.init_trackers` gives to each tracker.

    TensorBoard drops what it has of more than `images_seen` images: a run that goes on from a checkpoint trains those
    again. W&B writes below the run's folder, not into the current one.
    """
    # A fresh run has nothing to be dropped, and TensorBoard's first step is this one.
    purge = {"purge_step": images_seen + 1} if images_seen else {}
    return {"tensorboard": purge, "wandb": {"dir": output_dir, "name": name}}


def log_means(accelerator: Accelerator, means: dict[str, float], images_seen: int) -> None:
    """Numbers to all trackers; those that are not finite are left out."""
    accelerator.log({name: value for name, value in means.items() if math.isfinite(value)}, step=images_seen)


def log_histograms(
    accelerator: Accelerator, statistics: RunningStatistics, images_seen: int
) -> dict[str, list[float]]:
    """Shares of values in [0, 1] in each bin, (edges + 1,) by name, to trackers that show histograms; returns them."""
    histograms = statistics.collect_histograms()
    for tracker in accelerator.trackers if accelerator.is_main_process else ():
        for name, shares in histograms.items():
            # The lowest bin, of what is at most edges[0], gets a place left of it.
            limits = np.array([*statistics.edges[name], 1.0])
            edges = np.concatenate([[-limits[1]], limits])
            if tracker.name == "tensorboard":
                centres = (edges[:-1] + edges[1:]) / 2
                tracker.writer.add_histogram_raw(
                    f"histogram/{name}",
                    min=float(edges[0]),
                    max=1.0,
                    num=1,
                    sum=float(np.dot(shares, centres)),
                    sum_squares=float(np.dot(shares, centres**2)),
                    bucket_limits=limits.tolist(),
                    bucket_counts=shares,
                    global_step=images_seen,
                )
            elif tracker.name == "wandb":
                import wandb

                tracker.log({f"histogram/{name}": wandb.Histogram(np_histogram=(shares, edges))}, step=images_seen)
    return histograms


def log_sheet(accelerator: Accelerator, sheet: Image.Image, images_seen: int) -> None:
    """A sample sheet to all trackers that show pictures."""
    pixels = np.asarray(sheet.convert("RGB"))
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_images"):
            options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"samples": pixels[None]}, step=images_seen, **options)
