"""Errors of the Hub as messages that say what to do, for loading from it and publishing there."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx


class HubError(OSError):
    """The Hub cannot be reached or does not do what was asked; the message says why and what to do."""


@contextmanager
def clear_errors(what: str, name: str, revision: str | None = None) -> Iterator[None]:
    """Turn what the client raises inside into a `HubError`.

    Args:
        what: what did not work, as a clause.
        name: the repository.
        revision: branch, tag or commit that was asked for.

    Raises:
        HubError: for an error of the Hub or of the connection. Others pass.
    """
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        reason = _reason(error, name, revision)
        if reason is None:
            raise
        raise HubError(f"{what}: {reason}") from error


def check_source(source: str) -> None:
    """Raise `HubError`, without asking the Hub, if `source` is neither a folder here nor like "org/name"."""
    if not Path(source).is_dir() and not re.fullmatch(r"\w[\w.-]*/[\w.-]+", source):
        raise HubError(f"There is no folder {source} here, and a repository on the Hub would be named org/name.")


@contextmanager
def clear_loading_errors(source: str, revision: str | None = None) -> Iterator[None]:
    """Do as `check_source` and `clear_errors` for what loads a model from the folder or repository `source`."""
    check_source(source)
    missing = f"There is no folder {source} here (check the path if you meant one), and the Hub did not give it either"
    with clear_errors(missing, source, revision):
        yield


def _reason(error: BaseException, name: str, revision: str | None) -> str | None:
    """Why, and what to do; None for an error that is not of the Hub."""
    # The libraries wrap what the Hub said in errors of their own: the innermost one knows.
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for link in reversed(chain):
        status = getattr(getattr(link, "response", None), "status_code", None)
        if isinstance(link, RevisionNotFoundError):
            return f"it has no revision {revision!r}. Give a branch, a tag or a commit that exists."
        if isinstance(link, GatedRepoError):
            return f"access to it must be asked for on its page. Do so, then log in with `hf auth login`.\n{link}"
        if isinstance(link, RepositoryNotFoundError):
            return (
                f"there is no repository {name} on the Hub, or it is private and you may not see it. Check the name; "
                "for a private one log in with `hf auth login` or set HF_TOKEN."
            )
        if isinstance(link, LocalEntryNotFoundError):
            continue
        if isinstance(link, EntryNotFoundError):
            return f"a file is missing in it.\n{link}"
        if isinstance(link, HfHubHTTPError) and status in (401, 403):
            unknown = "the Hub does not accept the token" if status == 401 else "the token has no right to do this"
            return f"{unknown}. Log in with `hf auth login`, or set HF_TOKEN to one with write access to it.\n{link}"
        if isinstance(link, HfHubHTTPError):
            return f"the Hub answered with an error.\n{link}"
        if isinstance(link, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set, so that the Hub is not asked. Unset it."
        if isinstance(link, HFValidationError):
            return f"{name!r} is not the name of a repository. Expected org/name.\n{link}"
        if isinstance(link, httpx.TransportError):
            return f"the connection to the Hub failed ({link}). Run it again; what has arrived is not sent twice."
    # The client and hf_xet below it also raise plain RuntimeErrors; those of others, such as torch, are no transfer's.
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    is_transfer = isinstance(error, RuntimeError) and innermost.f_globals["__name__"].startswith("huggingface_hub")
    return f"the transfer failed ({error}). Run it again." if is_transfer else None
