"""A Hub on this machine: as much of its protocol as the real client uses to push and pull, and broken connections."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.repositories import Files, Refused, Repositories, Repository, blob_id, entries, is_large

_REPO = r"(?P<name>[^/]+/[^/]+)"
_API = re.compile(rf"/api/(?P<kind>model|dataset)s/{_REPO}(?:/(?P<verb>[a-z-]+)(?:/(?P<rest>.*))?)?")
_RESOLVE = re.compile(rf"/(?:(?P<kind>dataset)s/)?{_REPO}/resolve/(?P<rest>.+)")
_BATCH = re.compile(rf"/(?:(?P<kind>dataset)s/)?{_REPO}\.git/info/lfs/objects/batch")


@dataclass
class Fault:
    """Requests that are cut off.

    Args:
        method: their method.
        path: regular expression that their path matches.
        after_bytes: of the body, sent or received, after which the connection breaks.
        times: how many of them break; later ones go through.
    """

    method: str
    path: str
    after_bytes: int
    times: int


@dataclass
class LocalHub:
    """A running Hub.

    Args:
        address: what HF_ENDPOINT must be.
        repositories: what it holds.
        faults: requests that will break; add to it.
        requests: method and path of what was asked, in order.
        resumed: from which byte on files were asked for.
    """

    address: str = ""
    repositories: Repositories = field(default_factory=Repositories)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)

    @property
    def storage_address(self) -> str:
        """Where large files lie."""
        return self.address.replace("127.0.0.1", "localhost")

    def repository(self, name: str, kind: str = "model") -> Repository:
        return self.repositories.of[kind, name]

    def files(self, name: str, kind: str = "model") -> Files:
        """Contents by path."""
        return self.repository(name, kind).files()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LocalHub

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""

    def _handle(self) -> None:
        url = urlsplit(self.path)
        self.route, self.query = unquote(url.path), parse_qs(url.query)
        self.hub.requests.append((self.command, self.route))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        try:
            body = self._body()
            self._answer(self._dispatch(token, body))
        except Refused as error:
            headers = {"X-Error-Message": error.message} | ({"X-Error-Code": error.code} if error.code else {})
            self._send(error.status, json.dumps({"error": error.message}).encode(), headers)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _dispatch(self, token: str | None, body: bytes) -> Any:
        repositories = self.hub.repositories
        if match := _RESOLVE.fullmatch(self.route):
            repository = repositories.find(match["kind"] or "model", match["name"], token)
            revision, _, path = match["rest"].partition("/")
            return self._resolve(repository, revision, path)
        if match := _BATCH.fullmatch(self.route):
            repositories.check_write(token)
            return self._batch(json.loads(body)["objects"])
        if match := re.fullmatch(r"/objects/([0-9a-f]{64})", self.route):
            if self.command == "PUT":
                if hashlib.sha256(body).hexdigest() != match[1]:
                    raise Refused(400, None, "The content does not have this hash")
                repositories.objects[match[1]] = body
                return {}
            return self._send_content(repositories.objects[match[1]], {})
        if self.route == "/api/repos/create":
            return self._create(json.loads(body), token)
        if self.route == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if self.route == "/api/whoami-v2":
            repositories.check_write(token)
            return {"name": "user", "type": "user", "auth": {"accessToken": {"role": "write"}}}
        if match := _API.fullmatch(self.route):
            repository = repositories.find(match["kind"], match["name"], token)
            if match["verb"] == "auth-check":
                if match["rest"] == "write":
                    repositories.check_write(token)
                return {}
            if self.command == "GET":
                return self._read(repository, match["name"], match["verb"], match["rest"] or "")
            if match["verb"] not in ("paths-info", "preupload"):
                repositories.check_write(token)
            return self._write(repository, match["kind"], match["name"], match["verb"], match["rest"] or "", body)
        raise Refused(404, None, f"The local Hub has no {self.command} {self.route}")

    def _create(self, asked: dict, token: str | None) -> Any:
        kind, name = asked.get("type") or "model", f"{asked.get('organization') or 'user'}/{asked['name']}"
        answer = {
            "url": f"{self.hub.address}/{'' if kind == 'model' else kind + 's/'}{name}",
            "name": name,
            "id": name,
        }
        try:
            self.hub.repositories.create(kind, name, token)
        except Refused as error:
            if error.status != 409:
                raise
            self._send(409, json.dumps({**answer, "error": error.message}).encode(), {})
            return None
        return answer

    def _read(self, repository: Repository, name: str, verb: str | None, rest: str) -> Any:
        if verb == "refs":
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.head}
            return {"branches": [main], "tags": [], "converts": []}
        if verb == "tree":
            revision, _, folder = rest.partition("/")
            found = entries(
                repository.files(revision), folder, self.query.get("recursive", [""])[0].lower() in ("1", "true")
            )
            if not found and folder:
                raise Refused(404, "EntryNotFound", f"There is no {folder}")
            return found
        if verb not in (None, "revision"):
            raise Refused(404, "EntryNotFound", f"There is no {verb}")
        sha = repository.resolve(rest or "main")
        siblings = [{"rfilename": path} for path in sorted(repository.commits[sha])]
        return {"id": name, "sha": sha, "siblings": siblings, "private": False, "tags": []}

    def _write(self, repository: Repository, kind: str, name: str, verb: str, rest: str, body: bytes) -> Any:
        files = repository.files(rest)
        if verb == "preupload":
            asked = [file["path"] for file in json.loads(body)["files"]]
            oids = {path: {"oid": blob_id(files[path])} for path in asked if path in files and not is_large(path)}
            modes = [(path, "lfs" if is_large(path) else "regular") for path in asked]
            return {
                "files": [{"path": p, "uploadMode": m, "shouldIgnore": False, **oids.get(p, {})} for p, m in modes]
            }
        if verb == "paths-info":
            is_json = self.headers["Content-Type"].startswith("application/json")
            paths = json.loads(body)["paths"] if is_json else parse_qs(body.decode())["paths"]
            listed = {entry["path"]: entry for entry in entries(files)}
            return [listed[path] for path in ([paths] if isinstance(paths, str) else paths) if path in listed]
        if verb == "commit":
            sha = repository.commit(*self._changed(files, body))
            prefix = "" if kind == "model" else f"{kind}s/"
            url = f"{self.hub.address}/{prefix}{name}/commit/{sha}"
            return {"success": True, "commitOid": sha, "commitUrl": url}
        raise Refused(404, "EntryNotFound", f"There is no {verb}")

    def _changed(self, files: Files, body: bytes) -> tuple[Files, str]:
        """The files after a commit, and its message; all or nothing."""
        changed, message = dict(files), ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                changed[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                changed[value["path"]] = self.hub.repositories.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del changed[value["path"]]
        return changed, message

    def _batch(self, objects: list[dict]) -> Any:
        answers = []
        for item in objects:
            answer = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.repositories.objects:
                answer["actions"] = {"upload": {"href": f"{self.hub.address}/objects/{item['oid']}"}}
            answers.append(answer)
        return {"transfer": "basic", "objects": answers}

    def _resolve(self, repository: Repository, revision: str, path: str) -> None:
        sha = repository.resolve(revision)
        content = repository.commits[sha].get(path)
        if content is None:
            headers = {"X-Repo-Commit": sha, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return self._send(404, b"", headers)
        headers = {"X-Repo-Commit": sha, "ETag": f'"{blob_id(content)}"'}
        if not is_large(path):
            return self._send_content(content, headers)
        sha256 = hashlib.sha256(content).hexdigest()
        self.hub.repositories.objects[sha256] = content
        headers |= {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        # Another host, as the Hub's storage is: the client takes size and hash from this answer then.
        return self._send(302, b"", headers | {"Location": f"{self.hub.storage_address}/objects/{sha256}"})

    def _send_content(self, content: bytes, headers: dict[str, str]) -> None:
        status = 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            self.hub.resumed.append(int(asked[1]))
            first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            headers = headers | {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            content, status = content[first : last + 1], 206
        self._send(status, content, headers)

    def _fault(self) -> Fault | None:
        """The fault that this request runs into, counted down."""
        for fault in self.hub.faults:
            if fault.times and fault.method == self.command and re.search(fault.path, self.route):
                fault.times -= 1
                return fault
        return None

    def _body(self) -> bytes:
        if self.command in ("GET", "HEAD"):
            return b""
        if fault := self._fault():
            self.rfile.read(min(fault.after_bytes, int(self.headers.get("Content-Length") or 0)))
            self._break()
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, value: Any) -> None:
        if value is not None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.command == "GET" and content and (fault := self._fault()):
            self.wfile.write(content[: fault.after_bytes])
            self._break()
        self.wfile.write(content)

    def _break(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError


@contextmanager
def local_hub() -> Iterator[LocalHub]:
    """A Hub on a free port, until the block ends."""
    hub = LocalHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
