"""Model cards, and the way to the Hub."""

from .card import add_results, build_model_card
from .card_facts import CardFacts, read_facts
from .hub import HubConfig, prepare_push, push_model_folder, push_results, push_space_folder
from .hub_pipeline import HubPipeline
from .records import CardError
from .repository import HubError

__all__ = [
    "CardError",
    "CardFacts",
    "HubConfig",
    "HubError",
    "HubPipeline",
    "add_results",
    "build_model_card",
    "prepare_push",
    "push_model_folder",
    "push_results",
    "push_space_folder",
    "read_facts",
]
