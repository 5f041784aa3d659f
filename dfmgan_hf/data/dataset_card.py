"""A `DatasetDict` that brings a card along when it is pushed to the Hub."""

from __future__ import annotations

from collections import Counter
from typing import Any

import datasets
from huggingface_hub import DatasetCard, HfApi
from huggingface_hub.errors import EntryNotFoundError

from .mvtec_layout import MVTEC_AD_DEFECTS

_MVTEC_AD_LICENSE = "cc-by-nc-sa-4.0"
_COUNTS_HEADER = """| category | defect | train | test |
|---|---|---|---|
"""
_MVTEC_AD_NOTES = """
The photographs are those of [MVTec AD](https://www.mvtec.com/company/research/datasets/mvtec-ad), under
[CC BY-NC-SA 4.0](https://creativecommons.org/licenses/by-nc-sa/4.0/): no commercial use, and what is derived from them
is shared alike.

> Paul Bergmann, Michael Fauser, David Sattlegger, Carsten Steger: MVTec AD - A Comprehensive Real-World Dataset for
> Unsupervised Anomaly Detection. CVPR 2019.
"""


class DefectDatasetDict(datasets.DatasetDict):
    """A `datasets.DatasetDict` with the features of `rows.make_features`; pushing it writes a data set card."""

    def push_to_hub(self, repo_id: str, config_name: str | None = None, **options: Any) -> Any:
        """Push the set as parquet, photographs and masks included, with a card.

        A card that the repository already has is kept; only the counts of these categories are added to its table.

        Args:
            repo_id: `user/name`.
            config_name: Name of the configuration; None for the category if there is one, else `default`.
            options: `license` for the card (default: that of MVTec AD for its categories, else `unknown`), and
                whatever `datasets.DatasetDict.push_to_hub` takes, such as `private` and `token`.

        Returns:
            The commit, as `datasets` returns it.
        """
        licence = options.pop("license", None)
        token, revision = options.get("token"), options.get("revision")
        api = HfApi(token=token)
        # The card goes first: datasets keeps the text of the README that it finds, and adds sizes and file names.
        api.create_repo(repo_id, repo_type="dataset", private=options.get("private"), exist_ok=True)
        try:
            card = DatasetCard.load(repo_id, token=token)
            card.text = _with_counts(card.text, self)
        except EntryNotFoundError:
            card = make_dataset_card(self, repo_id, licence)
        # Not card.push_to_hub: before huggingface_hub 2 it asks huggingface.co, whatever Hub HF_ENDPOINT names.
        api.upload_file(
            path_or_fileobj=str(card).encode(),
            path_in_repo="README.md",
            repo_id=repo_id,
            repo_type="dataset",
            revision=revision,
            commit_message="Upload the card",
        )
        categories = present_categories(self)
        name = config_name or (categories[0] if len(categories) == 1 else "default")
        return super().push_to_hub(repo_id, config_name=name, **options)


def present_categories(dataset: datasets.DatasetDict) -> list[str]:
    """Return the names of the categories that occur, in the order of the class label."""
    names: set[str] = set()
    for split in dataset.values():
        names.update(map(split.features["category"].int2str, split.unique("category")))
    feature = next(iter(dataset.values())).features["category"]
    return [name for name in feature.names if name in names]


def make_dataset_card(dataset: datasets.DatasetDict, repo_id: str, license: str | None = None) -> DatasetCard:
    """Write the card of a set: licence, counts, columns, how to load it, and whom to cite.

    Args:
        dataset: With the features of `rows.make_features`.
        repo_id: Where it will lie.
        license: Licence as the Hub spells it; None for that of MVTec AD if all categories are its own, else `unknown`.
    """
    categories = present_categories(dataset)
    is_mvtec_ad = set(categories) <= set(MVTEC_AD_DEFECTS)
    licence = license or (_MVTEC_AD_LICENSE if is_mvtec_ad else "unknown")
    title = repo_id.split("/")[-1]
    name = f', "{categories[0]}"' if len(categories) == 1 else ""
    card = DatasetCard(
        f"""---
license: {licence}
pretty_name: "{title}"
task_categories:
- image-segmentation
- unconditional-image-generation
tags:
- anomaly-detection
- industrial-inspection
- dfmgan
---
# {title}

Photographs of defect-free and defective objects, with a pixel-exact mask of each defect.

{_COUNTS_HEADER}

| column | content |
|---|---|
| `image` | photograph, RGB |
| `mask` | 8-bit grey, 255 on the defect and 0 elsewhere; none for defect-free photographs |
| `label` | `normal` or `anomalous` |
| `defect` | kind of defect, `good` for none |
| `category` | object or texture |
| `file_name` | name in the folder layout of MVTec AD |

```python
from datasets import load_dataset

dataset = load_dataset("{repo_id}"{name})
```
{_MVTEC_AD_NOTES if is_mvtec_ad else ""}
Written by dfmgan-hf, which trains defect generators on sets of this form.
"""
    )
    card.text = _with_counts(card.text, dataset)
    return card


def _with_counts(text: str, dataset: datasets.DatasetDict) -> str:
    """Write one row for each kind of defect of the set's categories into the card's table of counts, if it has one."""
    before, header, after = text.partition(_COUNTS_HEADER)
    if not header:
        return text
    features = next(iter(dataset.values())).features
    counts = {split: Counter(zip(rows["category"], rows["defect"], strict=True)) for split, rows in dataset.items()}
    train, test = (counts.get(split, Counter()) for split in ("train", "test"))
    rows = [
        f"| {features['category'].int2str(kind[0])} | {features['defect'].int2str(kind[1])} "
        f"| {train[kind]} | {test[kind]} |"
        for kind in sorted(train | test)
    ]
    old = after.split("\n\n", 1)[0]
    present = tuple(f"| {category} |" for category in present_categories(dataset))
    kept = [row for row in old.splitlines() if row and not row.startswith(present)]
    return before + header + "\n".join([*kept, *rows]) + after[len(old) :]
