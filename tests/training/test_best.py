"""The best model stays beside the last one, whatever happens in between."""

from __future__ import annotations

import json

import pytest
import torch

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.training.checkpointing import BestModel, ScoreConfig, list_checkpoints, read_checkpoint
from tests.training import tiny


def better(best: BestModel, first: dict, second: dict) -> bool:
    return best.rank(first) > best.rank(second)


def test_rule_by_kid(tmp_path):
    best = BestModel(tmp_path, ScoreConfig(eval_every_kimg=10))
    assert better(best, {"kid": 0.01}, {"kid": 0.02})
    assert better(best, {"kid": 0.02}, {"kid": None})
    assert better(best, {"kid": 0.5, "mask_empty_rate": 0.5}, {"kid": 0.01, "mask_empty_rate": 0.6})
    assert better(best, {"kid": 0.5, "mask_large_rate": 0.1}, {"kid": 0.01, "mask_large_rate": 0.9})
    assert not better(best, {"kid": 0.01, "mask_empty_rate": None}, {"kid": 0.01})
    assert "lowest KID" in best.rule()


def test_rule_by_clustered_lpips(tmp_path):
    best = BestModel(tmp_path, ScoreConfig(eval_every_kimg=2.5, best_by="clustered_lpips"))
    assert better(best, {"clustered_lpips": 0.2, "kid": 9.0}, {"clustered_lpips": 0.1, "kid": 0.0})
    assert "every 2.5 kimg" in best.rule()


class Export:
    def __init__(self, text: str, fail: bool = False) -> None:
        self.text, self.fail = text, fail

    def __call__(self, folder) -> None:
        (folder / "model").write_text(self.text)
        if self.fail:
            raise OSError("No space left on device")


def test_only_better_models_replace_the_best(tmp_path):
    best = BestModel(tmp_path / "best", ScoreConfig())
    assert best.offer(10, {"kid": 0.3}, Export("a"))
    assert not best.offer(20, {"kid": 0.4}, Export("b"))
    assert best.offer(30, {"kid": 0.2}, Export("c"))
    assert (tmp_path / "best" / "model").read_text() == "c"
    assert json.loads((tmp_path / "best" / "score.json").read_text()) == {"images_seen": 30, "kid": 0.2}
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    other = BestModel(tmp_path / "best", ScoreConfig())
    other.load_state_dict(json.loads(json.dumps(best.state_dict())))
    assert not other.offer(40, {"kid": 0.25}, Export("d"))
    assert "after 0.03 kimg, kid 0.2000" in other.summary()


def test_failing_export_keeps_the_best(tmp_path):
    best = BestModel(tmp_path / "best", ScoreConfig())
    best.offer(10, {"kid": 0.3}, Export("a"))
    with pytest.raises(OSError, match="No space left"):
        best.offer(20, {"kid": 0.1}, Export("b", fail=True))
    assert (tmp_path / "best" / "model").read_text() == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert best.score == {"kid": 0.3}


def scored_run(folder, steps: int = 5, resume: str | None = None):
    """KID is lowest after the second of the scores, and each score draws random numbers."""
    task = tiny.make_stage1()
    kids = {4: 0.5, 8: 0.1, 12: 0.3, 16: 0.2, 20: 0.4}
    calls = []

    def scorer():
        torch.randn(3)
        calls.append(trainer.images_seen)
        return {"kid": kids[trainer.images_seen], "num_images": 2, "kid_features": "none"}

    trainer = tiny.make_trainer(task, folder, steps=steps, scorer=scorer, eval_steps=1, checkpoint_steps=1)
    trainer.train(resume)
    return trainer, calls


def test_best_of_a_run_is_kept_and_loads(tmp_path):
    trainer, calls = scored_run(tmp_path)
    assert calls == [4, 8, 12, 16, 20]
    assert (trainer.best.images_seen, trainer.best.score["kid"]) == (8, 0.1)
    assert not DFMGANPipeline.from_pretrained(str(tmp_path / "best")).has_defects
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["score/kid"] for row in rows if "score/kid" in row] == [0.5, 0.1, 0.3, 0.2, 0.4]
    assert all("score/kid_features" not in row for row in rows)


def test_scores_survive_a_resume_and_change_nothing(tmp_path):
    scored_run(tmp_path / "parts", steps=3)
    trainer, calls = scored_run(tmp_path / "parts", resume="latest")
    assert calls == [16, 20]
    assert trainer.best.images_seen == 8
    tiny.run("stage1", tmp_path / "unscored", steps=5)
    ends = [list_checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("parts", "unscored")]
    (scored, _), (unscored, _) = (read_checkpoint(path) for path in ends)
    for name, tensors in unscored.items():
        tiny.assert_same_tensors(scored[name], tensors, f"{name}: ")


def test_a_best_model_that_is_gone_is_not_to_be_beaten(tmp_path):
    best = BestModel(tmp_path / "best", ScoreConfig())
    best.load_state_dict({"images_seen": 10, "score": {"kid": 0.1}})
    assert best.offer(20, {"kid": 0.2}, Export("a"))
