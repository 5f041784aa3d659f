"""Model cards, and the way to the Hub."""

from ..hub_errors import HubError
from .card import add_results, build_model_card
from .card_facts import CardFacts, read_facts
from .folder_card import CardConfig, make_card, write_model_card
from .hub import (
    HubConfig,
    PublishConfig,
    prepare_push,
    publish,
    push_model_folder,
    push_results,
    push_space_folder,
    push_trained,
)
from .model_folder import companion_files, copy_published
from .records import REFERENCES_FILE, CardError, origin

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
