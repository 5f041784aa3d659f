"""Model cards, and the way to the Hub."""

from __future__ import annotations

from ..hub_errors import HubError
from .cards import (
    REFERENCES_FILE,
    CardConfig,
    CardError,
    CardFacts,
    add_results,
    build_model_card,
    companion_files,
    copy_published,
    make_card,
    origin,
    read_facts,
    write_model_card,
)
from .push import (
    HubConfig,
    PublishConfig,
    prepare_push,
    publish,
    push_model_folder,
    push_results,
    push_space_folder,
    push_trained,
)

__all__ = [
    "REFERENCES_FILE",
    "CardConfig",
    "CardError",
    "CardFacts",
    "HubConfig",
    "HubError",
    "PublishConfig",
    "add_results",
    "build_model_card",
    "companion_files",
    "copy_published",
    "make_card",
    "origin",
    "prepare_push",
    "publish",
    "push_model_folder",
    "push_results",
    "push_space_folder",
    "push_trained",
    "read_facts",
    "write_model_card",
]
