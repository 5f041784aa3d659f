"""Write model cards, and publish models with them on the Hugging Face Hub."""

from ..hub_errors import HubError
from .cards import REFERENCES_FILE, CardConfig, CardError, CardFacts, build_model_card, make_card
from .push import HubConfig, PublishConfig, prepare_push, publish, push_model_folder, push_results

__all__ = [
    "REFERENCES_FILE",
    "CardConfig",
    "CardError",
    "CardFacts",
    "HubConfig",
    "HubError",
    "PublishConfig",
    "build_model_card",
    "make_card",
    "prepare_push",
    "publish",
    "push_model_folder",
    "push_results",
]
