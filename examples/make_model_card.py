"""Write a model's card: README.md of its folder, with a picture of what it draws and the numbers measured of it.

    python examples/make_model_card.py --model runs/hazelnut_crack --model_name org/dfmgan-hazelnut-crack \\
        --product hazelnuts --defect "cracks in the shell" --results evaluation/results.json \\
        --reference "real images of holes=evaluation_holes/results.json"

Facts that nobody gives are left out. The folder keeps them as card_facts.json; edit that file, or give an option
again, to change them.
"""

from dfmgan_hf.cli import run
from dfmgan_hf.hub import make_card

if __name__ == "__main__":
    run(make_card)
