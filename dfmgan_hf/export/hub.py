"""The way of a parquet export to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from ..publishing.repository import Repository
from .config import RECORD_DIR, ExportConfig, ExportError
from .parquet import DATA_DIR


def check_push(config: ExportConfig, repo_id: str, *, private: bool = False) -> None:
    """Find out whether an export can be pushed to `repo_id`: before hours are spent on drawing it.

    The repository is made if there is none.

    Args:
        config: of the export.
        repo_id: `user/name`.
        private: visibility of a new repository.

    Raises:
        ExportError: the format is not one for the Hub.
        HubError: no connection, no such name, or a token that may not write there.
    """
    if config.format != "parquet":
        raise ExportError(
            f"The format {config.format} is thousands of small files, for which the Hub is not made: push parquet."
        )
    Repository.open(repo_id, kind="dataset", private=private).check_write()


def push_to_hub(output_dir: Path, repo_id: str, *, private: bool = False) -> str:
    """Send a finished parquet export to a data set repository, which is made if there is none, in one commit.

    The shards of an earlier export in that repository are removed by the same commit.

    Args:
        output_dir: folder of the export.
        repo_id: `user/name`.
        private: visibility of a new repository.

    Returns:
        Address of the commit.

    Raises:
        ExportError: the export is not finished, or is in another format.
        HubError: nothing was sent.
    """
    patterns = ("README.md", f"{DATA_DIR}/train-*.parquet", f"{RECORD_DIR}/[!.]*")
    files = {
        path.relative_to(output_dir).as_posix(): path for pattern in patterns for path in output_dir.glob(pattern)
    }
    if not files.keys() >= {"README.md", f"{RECORD_DIR}/summary.json"}:
        raise ExportError(
            f"{output_dir} holds no finished export in parquet. Give the command that began it again: it goes on "
            "where it stopped."
        )
    repository = Repository.open(repo_id, kind="dataset", private=private)
    return repository.push(files, "Upload generated triplets", replaced_folders=[DATA_DIR, RECORD_DIR])
