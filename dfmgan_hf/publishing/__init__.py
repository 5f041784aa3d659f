"""Model cards."""

from .card import CardError, build_model_card
from .card_facts import CardFacts

__all__ = ["CardError", "CardFacts", "build_model_card"]
