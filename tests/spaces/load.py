"""Many clients at once on a running Space: latency, errors and the server's memory.

python -m tests.spaces.load --url http://127.0.0.1:7860 --pid PID_OF_THE_SERVER --seconds 120 --clients 32
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

import httpx
import numpy as np
import psutil
import tyro

QUEUE_FULL = "queue full"
DRAWN = "drawn"


@dataclass
class Config:
    """What to do to which server."""

    url: str
    pid: int
    """Process of the server, whose memory is watched."""
    seconds: float = 120
    clients: int = 32
    num_images: int = 4
    model: str = "Blobs"


@dataclass
class Report:
    """What came of it.

    Args:
        outcomes: number of requests by outcome: drawn, queue full, or an error's text.
        latencies_s: of the drawn ones, from the request to the last byte of the first picture.
        memory_mib: resident memory of the server, once a second.
        seconds: how long it took.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)
    seconds: float = 0

    def percentile_s(self, percent: float) -> float:
        """Latency that `percent` of the drawn requests stay below."""
        return float(np.percentile(self.latencies_s, percent))

    def memory_growth_mib(self) -> float:
        """Memory of the last quarter of the time over that of the second quarter; the first one warms up."""
        quarter = max(1, len(self.memory_mib) // 4)
        return float(np.median(self.memory_mib[-quarter:]) - np.median(self.memory_mib[quarter : 2 * quarter]))

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.most_common())
        return (
            f"{outcomes} in {self.seconds:.0f} s ({self.outcomes[DRAWN] / self.seconds:.1f} a second)\n"
            f"latency  p50 {self.percentile_s(50):.2f} s, p95 {self.percentile_s(95):.2f} s, "
            f"max {max(self.latencies_s):.2f} s\n"
            f"memory   {self.memory_mib[0]:.0f} MiB at first, {self.memory_mib[-1]:.0f} MiB at last, "
            f"{self.memory_growth_mib():+.1f} MiB from the second quarter to the last"
        )


def put_under_load(config: Config) -> Report:
    """Every client asks, waits for its pictures, fetches one, and asks again."""
    return asyncio.run(_put_under_load(config))


async def _put_under_load(config: Config) -> Report:
    report, start = Report(), time.monotonic()
    server = psutil.Process(config.pid)
    # The server closes a connection that was idle for 5 s. A client that gives it up only then, as httpx does unless
    # told otherwise, at times asks on one that is being closed.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=config.clients, keepalive_expiry=2)
    async with httpx.AsyncClient(base_url=f"{config.url}/gradio_api", timeout=300, limits=limits) as http:
        clients = [_client(http, config, report, i, start + config.seconds) for i in range(config.clients)]
        work = asyncio.gather(*clients)
        while not work.done():
            report.memory_mib.append(server.memory_info().rss / 2**20)
            await asyncio.wait([work], timeout=1)
        await work
    report.seconds = time.monotonic() - start
    return report


async def _client(http: httpx.AsyncClient, config: Config, report: Report, number: int, deadline: float) -> None:
    seed = number * 100_000
    while time.monotonic() < deadline:
        start = time.monotonic()
        outcome = await _ask(http, [config.model, config.num_images, seed, 1.0, 0.0])
        report.outcomes[outcome] += 1
        if outcome == DRAWN:
            report.latencies_s.append(time.monotonic() - start)
        elif outcome == QUEUE_FULL:
            await asyncio.sleep(1)
        seed += config.num_images


async def _ask(http: httpx.AsyncClient, data: list) -> str:
    try:
        answer = await http.post("/call/draw", json={"data": data})
        if answer.status_code == 503 and "Queue is full" in answer.text:
            return QUEUE_FULL
        answer.raise_for_status()
        stream = await http.get(f"/call/draw/{answer.json()['event_id']}")
        event, payload = stream.text.strip().rsplit("\n\n", 1)[-1].split("\n", 1)
        if event != "event: complete":
            return f"error: {payload[:80]}"
        picture = json.loads(payload.removeprefix("data: "))[0][0]["image"]["path"]
        file = await http.get(f"/file={picture}")
        file.raise_for_status()
        return DRAWN if file.content.startswith(b"\x89PNG") else "error: no PNG"
    except httpx.HTTPError as error:
        return f"error: {type(error).__name__} {error} at {error.request.url.path}"


def main(config: Config) -> None:
    """Run and print."""
    report = put_under_load(config)
    print(report)
    print(json.dumps({**asdict(config), "p95_s": report.percentile_s(95), "outcomes": dict(report.outcomes)}))


if __name__ == "__main__":
    main(tyro.cli(Config))
