"""Publish a trained model, what was measured of it, or a Space on the Hugging Face Hub.

    hf auth login
    python examples/push_to_hub.py --folder runs/hazelnut_crack --hub_model_id org/dfmgan-hazelnut-crack --push_to_hub
    python examples/push_to_hub.py --folder spaces/dfmgan_demo --kind space --hub_model_id org/demo --push_to_hub

Checkpoints, logs and photographs stay where they are. Make the card first: examples/make_model_card.py.
"""

from __future__ import annotations

import tyro

from dfmgan_hf.hub import PublishConfig, publish
from dfmgan_hf.training.run import end_in_words

if __name__ == "__main__":
    with end_in_words():
        for line in publish(tyro.cli(PublishConfig, config=(tyro.conf.OmitArgPrefixes,))):
            print(line)
