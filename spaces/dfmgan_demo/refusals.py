"""What was refused is said on the page, in its place, where all else stays as it is."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from typing import Any

import gradio as gr
from events import BROWSER_EVENT
from words import BUSY, CANCELLED, status


def in_words(function: Callable[..., Any], where: gr.HTML) -> Callable[..., Any]:
    """`function`, which answers or yields answers, with a `gr.Error` said at `where` instead of raised."""

    def said(refused: gr.Error) -> dict[gr.HTML, str]:
        return {where: status(str(refused.message), refused=True)}

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def answers(*values: Any) -> Any:
            try:
                yield from function(*values)
            except gr.Error as refused:
                yield said(refused)

        return answers

    @functools.wraps(function)
    def answer(*values: Any) -> Any:
        try:
            return function(*values)
        except gr.Error as refused:
            return said(refused)

    return answer


def say_at_once(trigger: Any, message: str, where: gr.HTML) -> None:
    """Says at `where` what has begun, so that nothing old stands there meanwhile."""
    trigger(None, None, where, js=f"() => {json.dumps(status(message))}", **BROWSER_EVENT)


def say_if_busy(event: Any, where: gr.HTML) -> None:
    """Says at `where` that the queue is full; it refuses before any function of ours runs, so the browser says it.

    Gradio calls what was cancelled a failure too.
    """
    busy, cancelled = (json.dumps(text) for text in (status(BUSY, refused=True), status(CANCELLED)))
    js = f"() => window.dfmgan.cancelled ? {cancelled} : {busy}"
    event.failure(None, None, where, js=js, **BROWSER_EVENT)
