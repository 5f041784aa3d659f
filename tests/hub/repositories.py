"""What a Hub keeps: repositories with branches and commits, large files by hash, and who may do what."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

Files = dict[str, bytes]

# The Hub stores files of these kinds apart (LFS): they are uploaded one by one, before the commit that names them.
LARGE = (".safetensors", ".parquet", ".bin", ".pkl", ".pt", ".png")
WRITE_TOKEN, READ_TOKEN = "hf_writer", "hf_reader"


class Refused(Exception):
    """A request that the Hub answers with an error.

    Args:
        status: HTTP status.
        code: what the client tells the cases apart by; None for none.
        message: for the user.
    """

    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class Repository:
    """Files by commit, and the branches' latest commits."""

    private: bool = False
    sdk: str | None = None
    commits: dict[str, Files] = field(default_factory=dict)
    messages: dict[str, list[str]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit("main", {}, "initial commit")

    def resolve(self, revision: str) -> str:
        """The commit that a branch, or a commit, stands for."""
        commit = self.branches.get(revision, revision)
        if commit not in self.commits:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def files(self, revision: str = "main") -> Files:
        return self.commits[self.resolve(revision)]

    def commit(self, branch: str, files: Files, message: str) -> str:
        parent = self.branches.get(branch, "")
        text = parent + message + "".join(name + blob_id(content) for name, content in sorted(files.items()))
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        self.messages.setdefault(branch, []).append(message)
        return sha


@dataclass
class Repositories:
    """Everything on the Hub."""

    of: dict[tuple[str, str], Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def find(self, kind: str, name: str, token: str | None) -> Repository:
        """A repository that the owner of `token` may see; those that they may not see do not exist for them."""
        self.check_token(token)
        repository = self.of.get((kind, name))
        if repository is None or (repository.private and token is None):
            raise Refused(401 if token is None else 404, "RepoNotFound", "Repository not found")
        return repository

    def create(self, kind: str, name: str, private: bool, sdk: str | None, token: str | None) -> None:
        self.check_write(token)
        if (kind, name) in self.of:
            raise Refused(409, None, "You already created this repo")
        self.of[kind, name] = Repository(private, sdk)

    def check_token(self, token: str | None) -> None:
        if token not in (None, WRITE_TOKEN, READ_TOKEN):
            raise Refused(401, None, "Invalid credentials in Authorization header")

    def check_write(self, token: str | None) -> None:
        self.check_token(token)
        if token is None:
            raise Refused(401, None, "Invalid username or password.")
        if token != WRITE_TOKEN:
            raise Refused(403, None, "You don't have the rights to create or change this repository")


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(name: str) -> bool:
    return name.endswith(LARGE)


def entries(files: Files, folder: str = "", recursive: bool = True) -> list[dict]:
    """Files and folders as the Hub lists them."""
    prefix = f"{folder}/" if folder else ""
    found: dict[str, dict] = {}
    for name, content in sorted(files.items()):
        if not name.startswith(prefix):
            continue
        parts = name[len(prefix) :].split("/")
        for depth in range(1, len(parts)):
            path = prefix + "/".join(parts[:depth])
            if recursive or depth == 1:
                found[path] = {"type": "directory", "path": path, "size": 0, "oid": blob_id(path.encode())}
        if recursive or len(parts) == 1:
            found[name] = {"type": "file", "path": name, "size": len(content), "oid": blob_id(content)}
            if is_large(name):
                sha256 = hashlib.sha256(content).hexdigest()
                found[name]["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
    return list(found.values())
