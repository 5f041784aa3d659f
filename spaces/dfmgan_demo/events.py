"""What the page's own events have in common."""

from __future__ import annotations

from typing import Any

# Raw values, which `Studio` checks; one drawing at a time; no place among the named endpoints.
OWN_EVENT: dict[str, Any] = {
    "preprocess": False,
    "concurrency_id": "draw",
    "concurrency_limit": 1,
    "api_visibility": "private",
}
# What needs no drawing waits in no queue.
QUICK_EVENT: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
# What runs in the browser alone.
BROWSER_EVENT: dict[str, Any] = {"api_visibility": "private"}
