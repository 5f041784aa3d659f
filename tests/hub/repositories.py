"""What a Hub keeps: repositories with their commits, large files by hash, and who may do what."""

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
    """Files by commit; the branch main is the last one."""

    commits: dict[str, Files] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.commit({}, "initial commit")

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def resolve(self, revision: str) -> str:
        """The commit that main, or a commit, stands for."""
        commit = self.head if revision == "main" else revision
        if commit not in self.commits:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def files(self, revision: str = "main") -> Files:
        return self.commits[self.resolve(revision)]

    def commit(self, files: Files, message: str) -> str:
        sha = hashlib.sha1(f"{len(self.commits)} {message} {sorted(files)}".encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.messages.append(message)
        return sha


@dataclass
class Repositories:
    """Everything on the Hub."""

    of: dict[tuple[str, str], Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def find(self, kind: str, name: str, token: str | None) -> Repository:
        self.check_token(token)
        repository = self.of.get((kind, name))
        if repository is None:
            raise Refused(401 if token is None else 404, "RepoNotFound", "Repository not found")
        return repository

    def create(self, kind: str, name: str, token: str | None) -> None:
        self.check_write(token)
        if (kind, name) in self.of:
            raise Refused(409, None, "You already created this repo")
        self.of[kind, name] = Repository()

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
