"""What stands before gradio: only what the page and its named endpoints ask for gets through, in bounds.

Gradio fetches an address for whoever sends one, keeps whatever is uploaded, waits for ever for the rest of a request,
and answers what it did not expect with a traceback in the log. A visitor of this page needs none of that.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import gradio as gr
import uvicorn.config
from cache_files import MAX_UPLOADS, sweep_uploads
from gradio.utils import get_upload_folder
from limits import MAX_UPLOAD_BYTES
from starlette.formparsers import MultiPartException
from starlette.middleware.gzip import GZipMiddleware
from uvicorn.protocols.http.auto import AutoHTTPProtocol

MAX_BODY_BYTES = 64 * 2**10
# A browser sends the layers of its canvas one by one or all at once.
MAX_FILES_AT_ONCE, MAX_UPLOADED_BYTES = 4, 2 * MAX_UPLOAD_BYTES
HEAD_SECONDS, BODY_SECONDS, UPLOAD_SECONDS = 10, 10, 60
# Whoever asks for something and does not come to fetch it loses the place.
FETCH_SECONDS = 15
MAX_DEPTH = 16

READ = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/pwa_icon(/\d+)?|/(assets|static|svelte)/[\w./-]+"
    r"|/gradio_api/(info|openapi\.json|theme\.css|startup-events|queue/(data|status)|upload_progress)/?"
    r"|/gradio_api/(heartbeat/[\w-]{1,64}|call/\w{1,40}/[\w-]{1,64}|file=(?!https?:)[^\x00-\x1f]{1,1000})"
)
TEXT = re.compile(r"/|/config|/gradio_api/(info/?|openapi\.json|run/.+)")
ASKED = re.compile(r"/gradio_api/(queue/join|(?:call|run)/(?P<name>\w{1,40})|cancel|reset)/?")
UPLOAD = re.compile(r"/gradio_api/upload/?")
NAME = re.compile(r"[\w-]{1,64}")
PART = re.compile(rb"content-disposition:\s*form-data", re.IGNORECASE)

# Gradio's page makes functions out of text and styles out of nothing; all else comes from here.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'self' https://huggingface.co https://*.huggingface.co"
)
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": POLICY.encode(),
    b"referrer-policy": b"same-origin",
}
# Their names change with what is in them.
FOR_EVER = b"public, max-age=31536000, immutable"
log = logging.getLogger("dfmgan_demo")


class Refused(Exception):
    """A request that is not answered: a status and one sentence for whoever sent it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Gate:
    """ASGI middleware in front of a page.

    Args:
        app: gradio's.
        page: says which functions there are, and which of them take files.
    """

    def __init__(self, app: Callable[..., Any], page: gr.Blocks) -> None:
        self.app, self.page = app, page
        self.compressed = GZipMiddleware(
            app, compresslevel=5
        )  # gradio compresses what has a known ending, and no more
        self.functions = page.fns
        self.names = {fn.api_name: number for number, fn in self.functions.items() if fn.api_visibility == "public"}
        self.listening: Counter[str] = Counter()
        self.leaving: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1003})
        has_begun = False
        answer = bytearray()

        async def reply(message: dict[str, Any]) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message = {**message, "headers": _headers(scope["path"], message["status"], message["headers"])}
            elif scope["method"] == "POST" and len(answer) < 200:
                answer.extend(message.get("body", b""))
            await send(message)

        session = self._listener(scope)
        self.listening[session] += 1
        try:
            admitted = await self._admitted(scope, receive)
            await (self.compressed if TEXT.fullmatch(scope["path"]) else self.app)(*admitted, reply)
            self._expect_listener(answer)
        except Exception as error:
            refused = error if isinstance(error, Refused) else Refused(500, "This cannot be answered.")
            if refused is not error:
                log.warning("%s %.80s: %s", scope["method"], scope["path"], type(error).__name__)
            if has_begun:
                await send({"type": "http.response.body"})
            else:
                await _say(refused, reply)
        finally:
            self.listening[session] -= 1
            self.listening += Counter()  # forgets those at zero

    async def _admitted(
        self, scope: dict[str, Any], receive: Callable[..., Any]
    ) -> tuple[dict[str, Any], Callable[..., Any]]:
        """The request as gradio gets it, if it is one that the page makes."""
        method, path = scope["method"], scope["path"]
        if method in ("GET", "HEAD") and READ.fullmatch(path):
            # A browser asks for one range of a file; gradio fails on several.
            return {**scope, "headers": [h for h in scope["headers"] if h[0] != b"range" or b"," not in h[1]]}, receive
        if method == "POST" and UPLOAD.fullmatch(path):
            if len(self.page.upload_file_set) > MAX_UPLOADS:
                await asyncio.to_thread(sweep_uploads, self.page)
            return scope, _bounded(receive)
        asked = ASKED.fullmatch(path) if method == "POST" else None
        if asked is None:
            raise Refused(404, "There is nothing at this address.")
        body = _parsed(await _whole(receive))
        if asked[1] == "reset" or asked[1] == "cancel":
            checked = {name: _name(body.get(name), name) for name in ("session_hash", "event_id") if name in body}
            number = body.get("fn_index", 0)
            checked["fn_index"] = number if number in self.functions else -1
        else:
            checked = self._checked(body, asked[1], asked["name"])
        content = json.dumps(checked).encode()
        headers = [header for header in scope["headers"] if header[0] not in (b"content-length", b"transfer-encoding")]
        headers.append((b"content-length", str(len(content)).encode()))
        return {**scope, "headers": headers}, _replayed(content, receive)

    def _checked(self, body: dict[str, Any], how: str, name: str | None) -> dict[str, Any]:
        """What a caller asks for, without what only gradio's own servers send."""
        number = self.names.get(name) if how.startswith("call/") else body.get("fn_index", self.names.get(name))
        function = self.functions.get(number) if isinstance(number, int) else None
        if function is None or (how.startswith("run/") and function.queue):
            raise Refused(404, "There is no such function: “Use via API” at the foot of the page lists all.")
        data, event = body.get("data"), body.get("event_data")
        if not isinstance(data, list) or len(data) != len(function.inputs):
            raise Refused(422, f"`data` must be a list of {len(function.inputs)} values.")
        if not (event is None or isinstance(event, dict)):
            raise Refused(422, "`event_data` must be an object.")
        if event is not None:
            _check_files(event, None)
        takes_files = [isinstance(block, (gr.UploadButton, gr.ImageEditor)) for block in function.inputs]
        for value, takes in zip(data, takes_files, strict=True):
            _check_files(value, self.page if takes else None)
        for value, block in zip(data, function.inputs, strict=True):
            model = getattr(block, "data_model", None)
            try:
                if model is not None and value is not None:
                    model.model_validate(value, context={"validate_meta": True})
            except ValueError as error:
                raise Refused(422, "A value is not of the kind that this function takes.") from error
        checked = {"data": data, "event_data": event}
        if not how.startswith("call/"):
            checked["fn_index"] = number
            if how == "queue/join" or body.get("session_hash") is not None:
                checked["session_hash"] = _name(body.get("session_hash"), "session_hash")
            if isinstance(trigger := body.get("trigger_id"), int) and trigger in self.page.blocks:
                checked["trigger_id"] = trigger
        return checked

    def _listener(self, scope: dict[str, Any]) -> str:
        """The session that a request listens for; empty if for none."""
        path = scope["path"].rstrip("/")
        if path == "/gradio_api/queue/data":
            return parse_qs(scope["query_string"].decode("ascii", "replace")).get("session_hash", [""])[0]
        if scope["method"] == "GET" and path.startswith("/gradio_api/call/"):
            event = self.page._queue.event_ids_to_events.get(path.rpartition("/")[2])
            return event.session_hash if event is not None else path.rpartition("/")[2]
        return ""

    def _expect_listener(self, answer: bytearray) -> None:
        """Give the place of an event back if nobody comes to listen for it."""
        found = re.fullmatch(rb'\{"event_id":"(\w+)"\}', bytes(answer))
        event = self.page._queue.event_ids_to_events.get(found[1].decode()) if found else None
        if event is None:
            return

        async def leave() -> None:
            await asyncio.sleep(FETCH_SECONDS)
            if event._id in self.page._queue.event_ids_to_events and not self.listening[event.session_hash]:
                await self.page._queue.clean_events(event_id=event._id)

        task = asyncio.create_task(leave())
        self.leaving.add(task)
        task.add_done_callback(self.leaving.discard)


class ImpatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """HTTP connections that are closed if the head of a request does not arrive in time."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head is not None:
            self._head.cancel()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            if self._head is not None:
                self._head.cancel()
            self._head = None
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._head = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def be_impatient() -> None:
    """Have the servers of this process close connections that send no request; uvicorn has no option for it."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{ImpatientProtocol.__name__}"


def _headers(path: str, status: int, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    ours = dict(HEADERS)
    if status == 200 and path.startswith(("/assets/", "/svelte/")):
        ours[b"cache-control"] = FOR_EVER
    return [header for header in headers if header[0].lower() not in ours] + list(ours.items())


async def _say(refused: Refused, send: Callable[..., Any]) -> None:
    content = json.dumps({"detail": refused.sentence}, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _next(receive: Callable[..., Any], deadline: float) -> dict[str, Any]:
    try:
        return await asyncio.wait_for(receive(), deadline - asyncio.get_running_loop().time())
    except (TimeoutError, asyncio.TimeoutError):
        raise Refused(408, "The request did not arrive in time.") from None


async def _whole(receive: Callable[..., Any]) -> bytes:
    """The body of a request."""
    body, deadline = bytearray(), asyncio.get_running_loop().time() + BODY_SECONDS
    while True:
        message = await _next(receive, deadline)
        if message["type"] == "http.disconnect":
            raise Refused(400, "The request is not whole.")
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise Refused(413, f"A request may have {MAX_BODY_BYTES >> 10} KiB.")
        if not message.get("more_body"):
            return bytes(body)


def _replayed(body: bytes, receive: Callable[..., Any]) -> Callable[..., Any]:
    """A `receive` that gives `body` first, and then what comes after it."""
    is_given = False

    async def receive_it() -> dict[str, Any]:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_it


def _bounded(receive: Callable[..., Any]) -> Callable[..., Any]:
    """A `receive` of uploaded files that ends at the bounds of bytes, files and time.

    Gradio removes what has arrived of an upload on this one kind of error, and answers 413 if it says
    "maximum allowed size".
    """
    deadline = asyncio.get_running_loop().time() + UPLOAD_SECONDS
    num_bytes, parts, tail, is_over = 0, 0, b"", False

    async def receive_within() -> dict[str, Any]:
        nonlocal num_bytes, parts, tail, is_over
        if is_over:
            return await receive()
        try:
            message = await _next(receive, deadline)
        except Refused as late:
            raise MultiPartException(late.sentence) from late
        if message["type"] == "http.disconnect":
            raise MultiPartException("The upload is not whole.")
        chunk = message.get("body", b"")
        num_bytes += len(chunk)
        # A heading may be cut in two by the network.
        parts += len(PART.findall(tail + chunk)) - len(PART.findall(tail))
        tail = (tail + chunk)[-64:]
        if num_bytes > MAX_UPLOADED_BYTES:
            raise MultiPartException(f"An upload has the maximum allowed size of {MAX_UPLOADED_BYTES >> 20} MB.")
        if parts > MAX_FILES_AT_ONCE:
            raise MultiPartException(f"An upload has the maximum allowed size of {MAX_FILES_AT_ONCE} files.")
        is_over = not message.get("more_body")
        return message

    return receive_within


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "The request must be a JSON object.") from error
    if not isinstance(parsed, dict):
        raise Refused(422, "The request must be a JSON object.")
    return parsed


def _name(value: Any, what: str) -> str:
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    raise Refused(422, f"`{what}` must have 1 to 64 letters, digits, _ or -.")


def _check_files(value: Any, page: gr.Blocks | None) -> None:
    """Refuse objects that gradio would take for files, or with `page` all but those that it was sent or has made.

    An address in one is removed: gradio would fetch it.
    """
    waiting = [(value, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise Refused(422, "The request is nested too deeply.")
        if isinstance(value, list):
            waiting += [(entry, depth + 1) for entry in value]
        if not isinstance(value, dict):
            continue
        if {"path", "url", "meta"} & value.keys():
            if page is None:
                raise Refused(422, "This function takes no files.")
            value.pop("url", None)
            if not _is_here(value.get("path"), page):
                raise Refused(422, "The file did not arrive, or it is no longer here: choose it again.")
        waiting += [(entry, depth + 1) for entry in value.values()]


def _is_here(path: Any, page: gr.Blocks) -> bool:
    if not isinstance(path, str) or len(path) > 1000 or not path.isprintable():
        return False
    cache = Path(get_upload_folder()).resolve()
    return path in page.upload_file_set or (Path(path).resolve().is_relative_to(cache) and Path(path).is_file())
