"""Write model cards, and publish models with them on the Hugging Face Hub."""

from ..hub_errors import HubError
from .cards import (
    REFERENCES_FILE,
    CardConfig,
    CardError,
    CardFacts,
    add_results,
    build_model_card,
    make_card,
    read_facts,
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
    "make_card",
    "prepare_push",
    "publish",
    "push_model_folder",
    "push_results",
    "push_space_folder",
    "push_trained",
    "read_facts",
]
