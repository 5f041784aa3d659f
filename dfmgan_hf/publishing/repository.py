"""Repositories on the Hub: one commit a push, and errors that say what to do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.utils import httpx

from ..hub_errors import clear_errors
from .model_folder import CARD_FILE

RepositoryType = Literal["model", "dataset", "space"]

# A commit is all or nothing, so that sending it again is safe. The client itself retries the files, not the commit.
COMMIT_ATTEMPTS = 3


@dataclass(frozen=True)
class Repository:
    """A repository on the Hub that can be written to.

    Args:
        name: "org/name".
        kind: what it holds.
        revision: branch to write to; None for main.
        token: access token; None for HF_TOKEN or that of `hf auth login`.
    """

    name: str
    kind: RepositoryType = "model"
    revision: str | None = None
    token: str | None = None

    @property
    def _api(self) -> HfApi:
        return HfApi(token=self.token, library_name="dfmgan-hf")

    @classmethod
    def open(
        cls,
        name: str,
        *,
        kind: RepositoryType = "model",
        revision: str | None = None,
        private: bool = False,
        token: str | None = None,
    ) -> Repository:
        """The repository `name`, made if it does not exist, and its branch likewise.

        Args:
            name: "org/name", or a name in your own namespace.
            kind, revision, token: see `Repository`.
            private: visibility of a new repository; one that exists stays as it is.

        Raises:
            HubError: no connection, or a token that may not write there.
        """
        api = HfApi(token=token, library_name="dfmgan-hf")
        sdk = "gradio" if kind == "space" else None
        with clear_errors(f"{name} cannot be written to", name, revision):
            url = api.create_repo(
                name, repo_type=kind, private=True if private else None, exist_ok=True, space_sdk=sdk
            )
            if revision is not None:
                api.create_branch(url.repo_id, repo_type=kind, branch=revision, exist_ok=True)
        return cls(url.repo_id, kind, revision, token)

    def check_write(self) -> None:
        """Find out whether the token may write here; `open` lets one pass that may only read a repository.

        Raises:
            HubError: no connection, or a token that may not.
        """
        with clear_errors(f"{self.name} cannot be written to", self.name):
            self._api.auth_check(self.name, repo_type=self.kind, write=True)

    def file_names(self) -> list[str]:
        """Paths of the files in the branch."""
        with clear_errors(f"{self.name} cannot be listed", self.name, self.revision):
            return self._api.list_repo_files(self.name, repo_type=self.kind, revision=self.revision)

    def push(
        self,
        files: Mapping[str, Path],
        message: str,
        *,
        replaced_folders: Sequence[str] = (),
        create_pr: bool = False,
    ) -> str:
        """Send files in one commit: whoever pulls gets the files from before or those from after, never a mixture.

        (`upload_folder` splits what it sends into several commits where hf_xet is installed.)

        Args:
            files: where each file lies, by its path in the repository. A card goes first.
            message: of the commit.
            replaced_folders: folders that afterwards hold what is in `files` and nothing else: shards or an index of
                an earlier push would be loaded instead of the new weights.
            create_pr: open a pull request instead of writing to the branch.

        Returns:
            Address of the commit, or of the pull request.

        Raises:
            HubError: it was not sent. The branch is as it was.
        """
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, files[name]) for name in sorted(files, key=lambda name: (name != CARD_FILE, name))
        ]
        if replaced_folders:
            operations += [
                CommitOperationDelete(name)
                for name in self.file_names()
                if name not in files and name.startswith(tuple(f"{folder}/" for folder in replaced_folders))
            ]
        with clear_errors(f"Nothing was published in {self.name}", self.name, self.revision):
            for attempt in range(COMMIT_ATTEMPTS):
                try:
                    commit = self._api.create_commit(
                        self.name,
                        operations,
                        commit_message=message,
                        repo_type=self.kind,
                        revision=self.revision,
                        create_pr=create_pr,
                    )
                    break
                except httpx.TransportError:
                    if attempt == COMMIT_ATTEMPTS - 1:
                        raise
                    time.sleep(2**attempt)
        return commit.pr_url or commit.commit_url
