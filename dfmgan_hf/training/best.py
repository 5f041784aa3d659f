"""The best model of a run: scored every so often, kept beside the last one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..files import recover_folder, whole_folder, write_json

Score = dict[str, Any]
Scorer = Callable[[], Score]
"""Draws from the averaged generator and measures it; every process calls it. It must leave the global random
generators alone."""

BestBy = Literal["kid", "clustered_lpips"]
BEST_FOLDER = "best"
SCORE_FILE = "score.json"
MOST_BAD_MASKS = 0.5


@dataclass(frozen=True)
class ScoreConfig:
    """Scores while training, to keep the best model beside the last one.

    Args:
        eval_every_kimg: Interval of scores, which need the weights of AlexNet and LPIPS; 0 for none.
        eval_images: Generated images of a score.
        best_by: What decides: the lowest KID or the highest clustered LPIPS.
        lpips_weights: File with AlexNet's weights; None: environment DFMGAN_LPIPS_WEIGHTS, cache or download.

    Raises:
        ValueError: a negative interval.
    """

    eval_every_kimg: float = 0.0
    eval_images: int = 500
    best_by: BestBy = "kid"
    lpips_weights: Path | None = None

    def __post_init__(self) -> None:
        if self.eval_every_kimg < 0:
            raise ValueError(f"`eval_every_kimg` must be at least 0, but is {self.eval_every_kimg}.")


@dataclass(frozen=True)
class BestRule:
    """Which of two scores is better.

    Models whose masks are mostly empty or mostly cover over half of the image lose against all others: their images
    can score well, since they are hardly more than the backbone's.

    Args:
        by: "kid", the lowest wins; "clustered_lpips", the highest.
    """

    by: BestBy = "kid"

    def key(self, score: Score) -> tuple[bool, bool, float]:
        """Sorts scores: the larger the better."""
        value = score.get(self.by)
        bad_masks = max(score.get("mask_empty_rate") or 0.0, score.get("mask_large_rate") or 0.0)
        number = 0.0 if value is None else -value if self.by == "kid" else value
        return bad_masks <= MOST_BAD_MASKS, value is not None, number

    def describe(self, every_kimg: float, num_images: int) -> str:
        """The rule in words, for the record and the model card."""
        what = "lowest KID on AlexNet features" if self.by == "kid" else "highest clustered LPIPS"
        return (
            f"{what} of {num_images} generated images against the training photographs, measured every {every_kimg:g} "
            "kimg; models with over half of the masks empty, or covering over half of the image, come last"
        )


class BestModel:
    """Remembers the best score and keeps the model that had it in `folder`.

    Args:
        folder: holds the exported model and score.json.
        rule: which score is better.
    """

    def __init__(self, folder: Path, rule: BestRule) -> None:
        self.folder = folder
        self.rule = rule
        self.images_seen = 0
        self.score: Score | None = None

    def offer(self, images_seen: int, score: Score, export: Callable[[Path], None]) -> bool:
        """Keep the model if its score is the best so far; returns whether it is.

        Args:
            images_seen: how far the run is.
            score: of the model.
            export: writes the model into a folder.
        """
        if self.score is not None and self.rule.key(score) <= self.rule.key(self.score):
            return False
        with whole_folder(self.folder, replace=True) as aside:
            export(aside)
            write_json(aside / SCORE_FILE, {"images_seen": images_seen, **score})
        self.images_seen, self.score = images_seen, score
        return True

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint's JSON."""
        return {"images_seen": self.images_seen, "score": self.score}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`. A score whose model is no longer in the folder is not to be beaten."""
        recover_folder(self.folder)
        if self.folder.is_dir():
            self.images_seen, self.score = state["images_seen"], state["score"]

    def summary(self) -> str:
        """One line for people."""
        if self.score is None:
            return "none scored"
        value = self.score.get(self.rule.by)
        shown = "not measurable" if value is None else f"{value:.4f}"
        return f"after {self.images_seen / 1000:.2f} kimg, {self.rule.by} {shown}, in {self.folder.name}/"
