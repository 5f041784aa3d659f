"""The comparisons as commands: options carry the names of their parts, and mistakes end with status 2 and words."""

from __future__ import annotations

import pytest

from benchmarks.paper import classification, generation, localization
from dfmgan_hf.cli import run

pytest.importorskip("torchvision", reason="the metrics extra is not installed")
pytest.importorskip("segmentation_models_pytorch", reason="the benchmarks extra is not installed")


@pytest.mark.parametrize(
    ("module", "options", "words"),
    [
        (
            generation,
            ("--recipe.batch_size=4", "--batch_size=8", "--kid_features=alexnet", "--lpips_weights=nowhere.pth"),
            "nowhere.pth: there is no such file",
        ),
        (classification, ("--classifier.steps=1",), "nowhere: there is no such folder"),
        (localization, ("--segmenter.steps=1",), "nowhere: there is no such folder"),
        (classification, ("--shots=2",), "`shots`: the benchmark makes its own lists"),
        (classification, ("--shots_seed=1",), "`shots_seed`: the benchmark makes its own lists"),
        (localization, ("--file_list=names.txt",), "`file_list`: the benchmark makes its own lists"),
    ],
)
def test_mistakes_end_with_words(module, options, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run(module.main, [f"--output_dir={tmp_path / 'out'}", f"--data_dir={tmp_path / 'nowhere'}", *options])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
