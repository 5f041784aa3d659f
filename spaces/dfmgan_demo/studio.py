"""From what came over the wire to a checked recipe: the one place where a visitor's values are believed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from card import facts
from catalog import Catalog
from drawing import Drawer, Drawn, Recipe, Triplet
from limits import (
    MAX_EXPORTED,
    MAX_MASK_THRESHOLD,
    MAX_SEED,
    MAX_SHOWN,
    MAX_SIZE,
    MAX_STRENGTH,
    MAX_TRUNCATION_PSI,
    MAX_WINDOW,
    MIN_STRENGTH,
    MIN_VARIETY,
    check_choice,
    check_number,
    check_whole_number,
    refusal,
    seeds_from,
)
from take_away import LAYOUTS, export_config

from dfmgan_hf.export import ExportConfig
from dfmgan_hf.painting import PaintConfig

FIRST_COUNT, FIRST_SEED = 6, 0
WALK_FRAMES = 24
# And what holds where it is missing.
IN_THE_ADDRESS = (("variety", 1), ("size", 0), ("strength", 1))


@dataclass(frozen=True)
class Settings:
    """How everything of a request is drawn; checked."""

    model: str
    truncation_psi: float
    mask_threshold: float
    strength: float = 1.0

    def recipe(self, part_seeds: tuple[int, ...], defect_seeds: tuple[int, ...]) -> Recipe:
        """The recipe of these pictures."""
        return Recipe(self.model, part_seeds, defect_seeds, self.truncation_psi, self.mask_threshold, self.strength)


class Studio:
    """The catalog, what draws with it, and the checks before it does.

    Every method raises `gr.Error` in words for a value that is not allowed.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.drawer = Drawer(catalog)
        self.facts = {name: facts(catalog[name]) for name in catalog.names}

    def settings(self, model: Any, truncation_psi: Any, mask_threshold: Any, strength: Any = 1.0) -> Settings:
        """Checked settings."""
        return Settings(
            check_choice(model, "Model", self.catalog.names),
            check_number(truncation_psi, "Variety (truncation)", 0.0, MAX_TRUNCATION_PSI),
            check_number(mask_threshold, "Mask threshold", -MAX_MASK_THRESHOLD, MAX_MASK_THRESHOLD),
            self.strength(strength),
        )

    def worded(self, model: Any, variety: Any, size: Any, strength: Any) -> Settings:
        """Checked settings in the page's words."""
        size = check_number(size, "Size of the defect", -MAX_SIZE, MAX_SIZE)
        variety = check_number(variety, "Variety", MIN_VARIETY, MAX_TRUNCATION_PSI)
        return self.settings(model, variety, 0.0 - size, strength)

    def strength(self, value: Any) -> float:
        """A checked strength, of a drawn or a painted defect."""
        return check_number(value, "Strength", MIN_STRENGTH, MAX_STRENGTH)

    def layout(self, layout: Any) -> str:
        """A checked name of a layout."""
        return check_choice(layout, "Layout", list(LAYOUTS))

    def new_parts(self, settings: Settings, num_images: Any, seed: Any) -> Recipe:
        """Every part with a defect of its own."""
        seeds = seeds_from(self.seed(seed), self.count(num_images))
        return settings.recipe(seeds, seeds)

    def opening(self, model: Any) -> Drawn:
        """What is seen first of a model."""
        return self.drawer.opening(self.new_parts(self.settings(model, 1.0, 0.0), FIRST_COUNT, FIRST_SEED))

    def same_part(self, settings: Settings, num_images: Any, part_seed: Any, first_defect_seed: Any) -> Recipe:
        """One part with many defects."""
        count = self.count(num_images)
        part, first = self.seed(part_seed, "Part seed"), self.seed(first_defect_seed, "First defect seed")
        return settings.recipe((part,) * count, seeds_from(first, count))

    def same_defect(self, settings: Settings, num_images: Any, defect_seed: Any, first_part_seed: Any) -> Recipe:
        """One defect on many parts."""
        count = self.count(num_images)
        defect, first = self.seed(defect_seed, "Defect seed"), self.seed(first_part_seed, "First part seed")
        return settings.recipe(seeds_from(first, count), (defect,) * count)

    def walk(self, recipe: Recipe, varied: Any) -> list[Triplet]:
        """Frames from the first of a recipe's two entries to the second, whose parts (or defects) must differ."""
        which = check_choice(varied, "What changes", ["defect", "part"])
        start, end = recipe.defect_seeds if which == "defect" else recipe.part_seeds
        if start == end:
            raise refusal(
                f"Both ends have the same {which}, so nothing would move: choose another end or what changes."
            )
        return self.drawer.walk(recipe, "defect" if which == "defect" else "part", WALK_FRAMES)

    def export(self, settings: Settings, num_images: Any, seed: Any, layout: Any) -> ExportConfig:
        """Triplets with a defect, as files."""
        return export_config(
            self.catalog[settings.model],
            check_whole_number(num_images, "How many", 1, MAX_EXPORTED),
            self.layout(layout),
            self.seed(seed),
            settings.truncation_psi,
            settings.mask_threshold,
        )

    def painting(self, strength: Any, window: Any, any_product: Any) -> PaintConfig:
        """How a defect is painted into a photograph."""
        return PaintConfig(
            strength=self.strength(strength),
            window=check_whole_number(window, "Scale", 0, MAX_WINDOW),
            any_product=any_product is True,
        )

    def scale(self, model: Any) -> int:
        """Shorter side in pixels of the part of a photograph that one image of a model shows; 0 for all of it."""
        network = self.catalog[check_choice(model, "Model", self.catalog.names)].pipe.unwrapped_generator
        window = network.config.get("window")
        return network.config["resolution"] if window is None else window

    def count(self, value: Any) -> int:
        """A checked number of pictures to show."""
        return check_whole_number(value, "How many", 1, MAX_SHOWN)

    def seed(self, value: Any, name: str = "Seed") -> int:
        """A checked seed."""
        return check_whole_number(value, name, 0, MAX_SEED)

    def shown(self, shown: Any) -> Recipe:
        """The recipe of what a page shows: the fields of a `Recipe`, as it got them and sends them back."""
        if not isinstance(shown, dict) or set(shown) != {field.name for field in fields(Recipe)}:
            raise refusal("Nothing is drawn yet: press “Draw defects” first.")
        parts, defects = shown["part_seeds"], shown["defect_seeds"]
        if not isinstance(parts, list) or not isinstance(defects, list):
            raise refusal("Seeds must be lists of whole numbers.")
        if not 1 <= len(parts) == len(defects) <= MAX_SHOWN:
            raise refusal(f"There must be as many part seeds as defect seeds, from 1 to {MAX_SHOWN}.")
        how = (shown["model"], shown["truncation_psi"], shown["mask_threshold"], shown["strength"])
        return self.settings(*how).recipe(
            tuple(self.seed(seed, "Part seed") for seed in parts),
            tuple(self.seed(seed, "Defect seed") for seed in defects),
        )

    def chosen(self, shown: Any, index: Any) -> Recipe:
        """The recipe of one of the pictures that a page shows, by its place from 0."""
        recipe = self.shown(shown)
        i = check_whole_number(index, "Picture", 0, len(recipe.part_seeds) - 1)
        return recipe.of(recipe.part_seeds[i : i + 1], recipe.defect_seeds[i : i + 1])

    def ticked(self, shown: Any, indices: Any) -> Recipe:
        """The recipe of some of the pictures that a page shows; of all without any index."""
        recipe = self.shown(shown)
        if not isinstance(indices, list):
            raise refusal("What is ticked must be a list of whole numbers.")
        places = [check_whole_number(i, "Picture", 0, len(recipe.part_seeds) - 1) for i in indices]
        return recipe.of(
            *(tuple(seeds[i] for i in places) or seeds for seeds in (recipe.part_seeds, recipe.defect_seeds))
        )

    def addressed(self, address: Any) -> Recipe:
        """The recipe that the page's address says, as `remember` in `page.js` writes it."""
        if not isinstance(address, dict) or not all(isinstance(value, str) for value in address.values()):
            raise refusal("The address of this page is not one that it has given.")
        try:
            parts = [int(seed) for seed in address["parts"].split(".")]
            defects = [int(seed) for seed in address.get("defects", address["parts"]).split(".")]
            variety, size, strength = (float(address.get(*named)) for named in IN_THE_ADDRESS)
        except (KeyError, ValueError):
            raise refusal("The address of this page is not whole: copy it again.") from None
        how = {"truncation_psi": variety, "mask_threshold": -size, "strength": strength}
        return self.shown({"model": address.get("model"), "part_seeds": parts, "defect_seeds": defects, **how})
