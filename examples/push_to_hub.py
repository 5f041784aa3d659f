"""Publish a trained model, or what was measured of it, on the Hugging Face Hub.

    hf auth login
    python examples/push_to_hub.py --folder runs/hazelnut_crack --hub_model_id org/dfmgan-hazelnut-crack --push_to_hub

Checkpoints, logs and photographs stay where they are. Make the card first: examples/make_model_card.py.
"""

from dfmgan_hf.cli import run
from dfmgan_hf.hub import publish

if __name__ == "__main__":
    run(publish)
