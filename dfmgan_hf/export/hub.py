"""The way of a parquet export to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from .config import RECORD_DIR, ExportConfig
from .errors import ExportError
from .parquet import DATA_DIR


def check_push(config: ExportConfig, repo_id: str) -> None:
    """Raise ExportError if an export could not be pushed to `repo_id`: before hours are spent on drawing it."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if config.format != "parquet":
        raise ExportError(
            "--push_to_hub",
            found=f"--format {config.format}, thousands of small files, for which the Hub is not made",
            expected="--format parquet",
            advice="Nothing was written.",
        )
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ExportError(
            "--push_to_hub",
            found=f"{repo_id!r}, which is no name of a repository ({error})",
            expected="user/name",
            advice="Nothing was written.",
        ) from error


def push_to_hub(output_dir: Path, repo_id: str, *, private: bool | None = None) -> str:
    """Upload a finished parquet export to a data set repository, which is made if there is none.

    Shards of an earlier export in that repository are removed by the same commit.

    Args:
        output_dir: folder of the export.
        repo_id: `user/name`.
        private: whether a new repository is private; None for the account's default.

    Returns:
        Address of the commit.

    Raises:
        ExportError: the Hub cannot be reached or refuses the upload.
    """
    import httpx
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=output_dir,
            allow_patterns=["README.md", f"{DATA_DIR}/*.parquet", f"{RECORD_DIR}/*"],
            delete_patterns=f"{DATA_DIR}/*.parquet",
            commit_message="Upload generated triplets",
        )
    except (httpx.HTTPError, OSError) as error:
        raise ExportError(
            f"--push_to_hub {repo_id}",
            found=f"an upload that failed ({error})",
            expected="a repository that your token may write to (hf auth login)",
            advice=f"All images are in {output_dir}: give the same command again, and only the upload is repeated.",
        ) from error
    return str(commit.commit_url)
