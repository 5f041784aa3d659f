"""A Hub on this machine, as far as the real client needs one to push and load data sets."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

_API = re.compile(
    r"/api/datasets/(?P<repo>[^/]+/[^/]+)(?:/(?P<verb>[a-z-]+)(?:/(?P<revision>[^/]+)(?:/(?P<path>.*))?)?)?"
)
_RESOLVE = re.compile(r"/datasets/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repositories: dict[str, dict[str, bytes]]
    objects: dict[str, bytes]

    def log_message(self, *arguments) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        if match := _RESOLVE.fullmatch(path):
            self._resolve(match["repo"], match["path"])
        elif match := _API.fullmatch(path):
            files = self.repositories.get(match["repo"])
            if files is None:
                self._fail(404, "RepoNotFound")
            elif match["verb"] == "tree":
                recursive = parse_qs(url.query).get("recursive", ["false"])[0].lower() == "true"
                self._tree(files, match["path"] or "", recursive)
            elif match["verb"] == "refs":
                main = {"name": "main", "ref": "refs/heads/main", "targetCommit": _sha(files)}
                self._answer({"branches": [main], "tags": [], "converts": []})
            elif match["verb"] in (None, "revision"):
                siblings = [{"rfilename": name} for name in sorted(files)]
                self._answer(
                    {"id": match["repo"], "sha": _sha(files), "siblings": siblings, "private": False, "tags": []}
                )
            else:
                self._fail(404, "EntryNotFound")
        else:
            self._fail(404, "RepoNotFound")

    def do_POST(self) -> None:
        body = self._body()
        path = unquote(urlsplit(self.path).path)
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'user'}/{asked['name']}"
            self.repositories.setdefault(repo, {})
            self._answer({"url": f"http://{self.headers['Host']}/datasets/{repo}", "name": repo, "id": repo})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path.endswith(".git/info/lfs/objects/batch"):
            address = f"http://{self.headers['Host']}/objects"
            asked = [{"oid": item["oid"], "size": item["size"]} for item in json.loads(body)["objects"]]
            objects = [item | {"actions": {"upload": {"href": f"{address}/{item['oid']}"}}} for item in asked]
            self._answer({"transfer": "basic", "objects": objects})
        elif match := _API.fullmatch(path):
            self._post(match, body)
        else:
            self._fail(404, "RepoNotFound")

    def do_PUT(self) -> None:
        self.objects[self.path.rpartition("/")[2]] = self._body()
        self._answer({})

    def _post(self, match: re.Match[str], body: bytes) -> None:
        files = self.repositories[match["repo"]]
        if match["verb"] == "preupload":
            asked = [file["path"] for file in json.loads(body)["files"]]
            modes = {path: "lfs" if path.endswith(".parquet") else "regular" for path in asked}
            self._answer(
                {"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes.items()]}
            )
        elif match["verb"] == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    files[line["value"]["path"]] = self.objects[line["value"]["oid"]]
                elif line["key"] == "deletedFile":
                    files.pop(line["value"]["path"], None)
            sha = _sha(files)
            url = f"http://{self.headers['Host']}/datasets/{match['repo']}/commit/{sha}"
            self._answer({"success": True, "commitOid": sha, "commitUrl": url})
        elif match["verb"] == "paths-info":
            if self.headers["Content-Type"].startswith("application/json"):
                asked = json.loads(body)["paths"]
            else:
                asked = parse_qs(body.decode())["paths"]
            asked = [asked] if isinstance(asked, str) else asked
            entries = {entry["path"]: entry for entry in _entries(files, "", True)}
            self._answer([entries[path] for path in asked if path in entries])
        else:
            self._fail(404, "EntryNotFound")

    def _resolve(self, repo: str, path: str) -> None:
        files = self.repositories.get(repo)
        if files is None:
            self._fail(404, "RepoNotFound")
        elif path not in files:
            self._fail(404, "EntryNotFound", _sha(files))
        else:
            content, status = files[path], 200
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": _sha(files)}
            if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
                first, last = int(asked[1]), int(asked[2]) if asked[2] else len(content) - 1
                headers["Content-Range"] = f"bytes {first}-{min(last, len(content) - 1)}/{len(content)}"
                content, status = content[first : last + 1], 206
            self._send(status, content, headers)

    def _tree(self, files: dict[str, bytes], folder: str, recursive: bool) -> None:
        entries = _entries(files, folder, recursive)
        self._answer(entries) if entries or not folder else self._fail(404, "EntryNotFound", _sha(files))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _fail(self, status: int, code: str, sha: str | None = None) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": code}
        self._send(status, b"{}", headers | ({"X-Repo-Commit": sha} if sha else {}))

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _sha(files: dict[str, bytes]) -> str:
    return hashlib.sha1(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()


def _entries(files: dict[str, bytes], folder: str, recursive: bool) -> list[dict]:
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict] = {}
    for name, content in sorted(files.items()):
        if name.startswith(prefix):
            parts = name[len(prefix) :].split("/")
            for depth in range(1, len(parts)):
                path = prefix + "/".join(parts[:depth])
                if recursive or depth == 1:
                    entries[path] = {
                        "type": "directory",
                        "path": path,
                        "size": 0,
                        "oid": hashlib.sha1(path.encode()).hexdigest(),
                    }
            if recursive or len(parts) == 1:
                entries[name] = {
                    "type": "file",
                    "path": name,
                    "size": len(content),
                    "oid": hashlib.sha1(content).hexdigest(),
                }
    return list(entries.values())


@contextmanager
def local_hub():
    """Yields the address of a Hub and its repositories, `{repository: {path: content}}`."""
    handler = type("Handler", (_Handler,), {"repositories": {}, "objects": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.repositories
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
