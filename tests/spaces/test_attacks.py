"""What strangers send: refused in one sentence, in bounds, without a traceback, while visitors are served."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
import time

import httpx
import pytest

REQUEST_SECONDS = 60
GOOD = ["Blobs", 1, 0, 1.0, 0.0]


@pytest.fixture(autouse=True)
def quiet_and_alive(server):
    """After every attack a visitor is served, and the log has not been written full."""
    before = len(server.log.read_text())
    yield
    asked = httpx.post(f"{server.url}/gradio_api/call/draw", json={"data": GOOD}, timeout=REQUEST_SECONDS)
    answer = httpx.get(f"{server.url}/gradio_api/call/draw/{asked.json()['event_id']}", timeout=REQUEST_SECONDS)
    assert "event: complete" in answer.text
    assert "Traceback" not in server.log.read_text()[before:]


@pytest.fixture
def listener():
    """A server that counts who comes to fetch something."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.asked = asked
    yield server
    server.shutdown()
    server.server_close()


def _post(server, path: str, **body) -> httpx.Response:
    return httpx.post(f"{server.url}/gradio_api/{path}", timeout=REQUEST_SECONDS, **body)


def _is_one_sentence(answer: httpx.Response) -> bool:
    sentence = answer.json()["detail"]
    return len(sentence) < 120 and "/" not in sentence and "Error" not in sentence and "object at" not in sentence


def test_no_address_is_fetched_for_anybody(server, listener):
    url = f"http://127.0.0.1:{listener.server_port}/large.png"
    before = server.files()
    file = {"path": url, "url": url, "meta": {"_type": "gradio.FileData"}}
    for value in (file, {"path": url}, {"url": url, "path": "x"}, [[file]], {"a": {"b": file}}):
        for endpoint, place in (("draw", 0), ("draw", 3), ("walk", 1), ("export", 3)):
            values = [*GOOD, 0.0] if endpoint != "draw" else [*GOOD]
            values[place] = value
            answer = _post(server, f"call/{endpoint}", json={"data": values})
            assert answer.status_code == 422
            assert _is_one_sentence(answer)
    config = httpx.get(f"{server.url}/config").json()
    for function in config["dependencies"]:
        values = [file] * len(function["inputs"])
        if not values:
            continue
        for how in ("queue/join", "run/predict"):
            body = {"data": values, "fn_index": function["id"], "session_hash": "abc", "event_data": {"a": file}}
            assert _post(server, how, json=body).status_code in (404, 422)
    assert httpx.get(f"{server.url}/gradio_api/file={url}").status_code == 404
    assert httpx.get(f"{server.url}/gradio_api/proxy={url}").status_code == 404
    time.sleep(0.5)
    assert listener.asked == []
    assert server.files() <= before


def test_bodies_have_bounds(server):
    before = server.files()
    for path in ("call/draw", "queue/join", "run/predict", "cancel", "reset", "component_server"):
        answer = _post(server, path, json={"data": ["x" * 2**17]})
        assert answer.status_code in (404, 413), path
    many = [("files", (f"{i}.png", b"")) for i in range(200)]
    assert _post(server, "upload", files=many).status_code == 413
    assert _post(server, "upload", files={"files": ("a.png", b"0" * (21 * 2**20))}).status_code == 413
    # One that breaks off leaves nothing behind either.
    with socket.create_connection((httpx.URL(server.url).host, httpx.URL(server.url).port)) as connection:
        head = "POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n"
        part = '--b\r\nContent-Disposition: form-data; name="files"; filename="half.png"\r\n\r\n' + "x" * 5000
        connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n{part}".encode())
        time.sleep(0.5)
    deep = b'{"data": [' + b"[" * 20_000 + b"]" * 20_000 + b"]}"
    assert _post(server, "call/draw", content=deep).status_code in (400, 422)
    deadline = time.monotonic() + REQUEST_SECONDS
    while not server.files() <= before:
        assert time.monotonic() < deadline, server.files() - before
        time.sleep(0.1)


def test_uploads_do_not_pile_up(server):
    from cache_files import MAX_UPLOADS

    async def upload_all() -> None:
        async with httpx.AsyncClient(base_url=f"{server.url}/gradio_api", timeout=REQUEST_SECONDS) as http:
            one_after_another = asyncio.Semaphore(8)

            async def upload(i: int) -> None:
                async with one_after_another:
                    await http.post("/upload", files=[("files", (f"pile_{i}_{j}.png", b"")) for j in range(4)])

            await asyncio.gather(*(upload(i) for i in range(MAX_UPLOADS // 4 + 60)))

    asyncio.run(upload_all())
    assert 0 < sum(file.name.startswith("pile_") for file in server.files()) <= MAX_UPLOADS + 40


UNKNOWN = [
    ("GET", "/gradio_api/deep_link?session_hash=a"),
    ("GET", "/gradio_api/call/draw/../../etc"),
    ("GET", "/gradio_api/file=/etc/passwd%00.png"),
    ("GET", "/monitoring"),
    ("GET", "/gradio_api/runs"),
    ("GET", "/gradio_api/vibe-code"),
    ("GET", "/gradio_api/custom_component/a/client/b/c.js"),
    ("GET", "/gradio_api/stream/a/b/1/playlist.m3u8"),
    ("POST", "/gradio_api/call/nothing"),
    ("POST", "/gradio_api/call/v2/nothing"),
    ("POST", "/gradio_api/api/draw"),
    ("POST", "/gradio_api/run/draw"),
    ("POST", "/gradio_api/component_server"),
    ("POST", "/gradio_api/process_recording"),
    ("PUT", "/gradio_api/upload"),
    ("DELETE", "/"),
]


@pytest.mark.parametrize(("method", "path"), UNKNOWN)
def test_what_the_page_does_not_use_is_not_there(server, method, path):
    body = {"data": GOOD} if method == "POST" else None
    answer = httpx.request(method, server.url + path, json=body, timeout=REQUEST_SECONDS)
    assert answer.status_code in (403, 404), answer.text
    assert _is_one_sentence(answer)


@pytest.mark.parametrize(
    "body",
    [
        {"data": GOOD, "fn_index": 99_999, "session_hash": "a"},
        {"data": GOOD, "fn_index": "draw", "session_hash": "a"},
        {"data": GOOD, "fn_index": -1, "session_hash": "a"},
        {"data": GOOD, "fn_index": 0},
        {"data": GOOD, "fn_index": 0, "session_hash": "../../a"},
        {"data": GOOD, "fn_index": 0, "session_hash": "a" * 9999},
        {"data": GOOD[:2], "fn_index": 0, "session_hash": "a"},
        {"data": GOOD * 9, "fn_index": 0, "session_hash": "a"},
        {"data": None, "fn_index": 0, "session_hash": "a"},
        {"data": GOOD, "fn_index": 0, "session_hash": "a", "event_data": [1]},
        [],
        "draw",
        None,
    ],
)
def test_wrong_calls_are_refused_in_one_sentence(server, body):
    answer = _post(server, "queue/join", json=body)
    assert answer.status_code in (400, 404, 422)
    assert _is_one_sentence(answer)
    assert _post(server, "cancel", json=body).status_code in (200, 400, 422)


def test_several_ranges_of_a_file_are_one_file(server):
    asked = _post(server, "call/draw", json={"data": GOOD}).json()["event_id"]
    text = httpx.get(f"{server.url}/gradio_api/call/draw/{asked}", timeout=REQUEST_SECONDS).text
    path = text.split('"path": "')[1].split('"')[0]
    for ranges in ("bytes=0-1,3-4", "bytes=0-0", "bytes=9999999-", "bytes=a-b", "junk"):
        answer = httpx.get(f"{server.url}/gradio_api/file={path}", headers={"Range": ranges})
        assert answer.status_code in (200, 206, 400, 416), ranges


def test_headers_protect_and_assets_are_kept_and_compressed(server):
    page = httpx.get(server.url)
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "object-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["content-encoding"] in ("br", "gzip")
    script = page.text.split('src="./assets/')[1].split('"')[0]
    asset = httpx.get(f"{server.url}/assets/{script}")
    assert "immutable" in asset.headers["cache-control"]
    assert asset.headers["content-encoding"] in ("br", "gzip")
    assert "immutable" not in httpx.get(f"{server.url}/assets/no.js").headers.get("cache-control", "")


def test_nobody_is_waited_for_who_does_not_come_back(server):
    """Neither for the rest of a head or of a body, nor for who fetches nothing; visitors are served meanwhile."""
    from gate import BODY_SECONDS, FETCH_SECONDS, HEAD_SECONDS

    # Thirty exports that nobody fetches would draw for minutes.
    body = {"data": ["Blobs", 200, 0, "MVTec AD", 1.0, 0.0]}
    for _ in range(30):
        _post(server, "call/export", json=body).raise_for_status()
    unfetched_until = time.monotonic() + FETCH_SECONDS + 30
    address = (httpx.URL(server.url).host, httpx.URL(server.url).port)
    heads, bodies = ([socket.create_connection(address) for _ in range(50)] for _ in range(2))
    for connection in heads:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
    for connection in bodies:
        connection.sendall(b"POST /gradio_api/call/draw HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n{")
    begun = time.monotonic()
    _draw_one(server)
    for connection in (*heads, *bodies):
        connection.settimeout(2 * max(BODY_SECONDS, HEAD_SECONDS) + 10)
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
        assert answer == b"" or b"408" in answer.split(b"\r\n")[0]
        connection.close()
    assert time.monotonic() - begun < 2 * max(BODY_SECONDS, HEAD_SECONDS) + 10
    while httpx.get(f"{server.url}/gradio_api/queue/status", timeout=REQUEST_SECONDS).json()["queue_size"]:
        assert time.monotonic() < unfetched_until, "the places were not given back"
        time.sleep(0.2)


def _draw_one(server) -> None:
    asked = _post(server, "call/draw", json={"data": GOOD}).json()["event_id"]
    text = httpx.get(f"{server.url}/gradio_api/call/draw/{asked}", timeout=REQUEST_SECONDS).text
    assert "event: complete" in text


ODD = [
    ("POST", "/gradio_api/upload?upload_id=../../a", {}, b"not a form"),
    ("POST", "/gradio_api/upload", {"Content-Type": "multipart/form-data"}, b"--b"),
    ("POST", "/gradio_api/upload", {"Content-Type": "multipart/form-data; boundary=b"}, b"--b\r\n\r\n--b--"),
    ("GET", "/gradio_api/upload_progress?upload_id=nobody", {}, b""),
    ("GET", "/gradio_api/upload_progress", {}, b""),
    ("GET", "/gradio_api/queue/data", {}, b""),
    ("GET", "/gradio_api/call/draw/nobody", {}, b""),
    ("GET", "/?deep_link=../../etc/passwd", {}, b""),
    ("GET", "/config?deep_link=abc", {}, b""),
    ("GET", "/?__theme=%00&view=" + "x" * 4000, {}, b""),
    ("GET", "/gradio_api/file=" + "../" * 40 + "etc/passwd", {}, b""),
    ("GET", "/gradio_api/file=", {}, b""),
    ("GET", "/assets/../../../etc/passwd", {"Range": "bytes=0-" + "9" * 400}, b""),
    ("GET", "/", {"Range": "bytes=5-1", "If-Range": "x", "Accept-Encoding": "gzip;q=x"}, b""),
    ("HEAD", "/config", {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}, b""),
]


@pytest.mark.parametrize(("method", "path", "headers", "content"), ODD, ids=[f"{m} {p[:40]}" for m, p, _, _ in ODD])
def test_odd_requests_are_answered_briefly(server, method, path, headers, content):
    """No failure of the server, no path of the machine; a stream for nobody may stay silent, but not for long."""
    try:
        with httpx.stream(method, server.url + path, headers=headers, content=content, timeout=5) as answer:
            text = answer.read().decode(errors="replace")
    except httpx.ReadTimeout:
        assert "upload_progress" in path or "queue/data" in path
        return
    assert answer.status_code < 500, text[:200]
    assert "root:" not in text
    if path != "/":
        assert "Traceback" not in text
        assert str(server.cache) not in text


def test_files_are_refused_however_they_are_wrapped_and_huge_numbers_too(server):
    file = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    for depth in (1, 5, 15, 40):
        wrapped = file
        for i in range(depth):
            wrapped = [wrapped] if i % 2 else {"data": wrapped}
        answer = _post(server, "call/draw", json={"data": [*GOOD[:4], wrapped]})
        assert answer.status_code == 422
        assert _is_one_sentence(answer)
    for content in (b'{"data": [' + b"9" * 60_000 + b"]}", b'{"data": ["\\ud800", 1, 0, 1.0, 0.0]}', b"\xff\xfe{"):
        answer = _post(server, "call/draw", content=content)
        assert answer.status_code in (200, 400, 422), answer.text
        if answer.status_code == 200:
            event = answer.json()["event_id"]
            got = httpx.get(f"{server.url}/gradio_api/call/draw/{event}", timeout=REQUEST_SECONDS)
            assert "event: error" in got.text
