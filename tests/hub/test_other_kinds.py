"""Data sets and Spaces on the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.conftest import draw_category

from . import actions
from .client import ActionFailed

SPACE_CARD = "---\ntitle: Nuts\nsdk: gradio\napp_file: app.py\n---\n"


@pytest.fixture
def space_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "space"
    (folder / "pictures").mkdir(parents=True)
    (folder / "__pycache__").mkdir()
    (folder / "README.md").write_text(SPACE_CARD)
    (folder / "app.py").write_text("print('nuts')\n")
    (folder / "pictures" / "nut.png").write_bytes(b"picture")
    (folder / "__pycache__" / "app.pyc").write_bytes(b"")
    (folder / ".env").write_text("HF_TOKEN=hf_secret")
    return folder


def test_space(hub, client, new_name, space_folder, cache):
    name = new_name()
    client(actions.push_space, str(space_folder), name)
    assert hub.repository(name, "space").sdk == "gradio"
    expected = {"README.md": SPACE_CARD.encode(), "app.py": b"print('nuts')\n", "pictures/nut.png": b"picture"}
    assert hub.files(name, "space") == expected
    assert client(actions.download, name, "space", cache_dir=cache) == expected
    with pytest.raises(ActionFailed, match=r"HubError.*does not accept the token"):
        client(actions.push_space, str(space_folder), new_name(), token="hf_mistyped")
    (space_folder / "app.py").unlink()
    with pytest.raises(ActionFailed, match=r"CardError.*has no app.py"):
        client(actions.push_space, str(space_folder), new_name())


def test_dataset(hub, client, new_name, tmp_path):
    folder = draw_category(tmp_path / "own", "plate", good=2, defects={"dent": 1}, test_good=1)
    name = new_name()
    client(actions.push_dataset, str(folder), name)
    files = hub.files(name, "dataset")
    assert {Path(path).suffix for path in files} == {".md", ".parquet"}
    assert "| plate | dent | 0 | 1 |" in files["README.md"].decode()
    rows = client(actions.pull_dataset, name, "plate", str(tmp_path / "cache2"))
    assert [row.split()[0] for row in rows["train"]] == ["train/good/000.png", "train/good/001.png"]
    whites = {row.split()[0]: int(row.split()[1]) for row in rows["test"]}
    assert whites["test/good/000.png"] == 0
    assert whites["test/dent/000.png"] > 20
    with pytest.raises(ActionFailed, match=r"HTTPError.*401"):
        client(actions.push_dataset, str(folder), new_name(), token="hf_mistyped")
