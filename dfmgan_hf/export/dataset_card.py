"""The data set card of a parquet export."""

from __future__ import annotations

from typing import Any

from .parquet import DATA_DIR

_SIZE_CATEGORIES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
)
_SHOWN = ("model", "model_sha256", "seed", "truncation_psi", "noise_mode", "mask_threshold")


def make_card(settings: dict[str, Any], summary: dict[str, Any]) -> str:
    """README.md of a parquet export: how to load it, what the columns are, how it was drawn and what was dropped.

    Args:
        settings: as `settings.content_settings` gives them.
        summary: as `ExportSummary.to_dict` gives it.
    """
    count = summary["num_images"]
    size = next((name for limit, name in _SIZE_CATEGORIES if count < limit), "1M<n<10M")
    title = f"{settings['category']}: {settings['defect']}"
    shown = "\n".join(f"| {name} | {settings[name]} |" for name in _SHOWN)
    dropped = summary["dropped"]
    area = summary["mask_area"]
    lowest = "one pixel" if settings["min_mask_area"] is None else f"{settings['min_mask_area']:g}"
    return f"""---
license: {settings["license"]}
pretty_name: "{title}"
size_categories:
- {size}
task_categories:
- image-segmentation
- unconditional-image-generation
tags:
- anomaly-detection
- industrial-inspection
- synthetic
- dfmgan
configs:
- config_name: default
  data_files:
  - split: train
    path: {DATA_DIR}/train-*.parquet
---
# {title}

{count:,} generated defect images, each with the pixel-exact mask of its defect and its defect-free twin: the same
object without the defect. Nothing here is a photograph.

```python
from datasets import load_dataset

dataset = load_dataset("path/or/id", split="train")
dataset[0]["image"], dataset[0]["mask"], dataset[0]["defect_free"]
```

| column | content |
|---|---|
| `image` | image with the defect |
| `mask` | 8-bit grey, 255 on the defect and 0 elsewhere |
| `defect_free` | the same object without the defect |
| `label`, `defect`, `category`, `file_name` | as in photographs that dfmgan-hf prepares |
| `index` | number of the image |
| `seed` | draws it again: `pipe(seeds=[seed])` with the settings below |
| `mask_area` | share of the image that the mask covers; here {_area(area["min"])} to {_area(area["max"])}, \
mean {_area(area["mean"])} |
| `dropped_empty`, `dropped_too_small`, `dropped_too_large` | draws before this one that were not kept |

## How it was drawn

| setting | value |
|---|---|
{shown}

Every mask covers from {lowest} to {settings["max_mask_area"]:g} of the image. {sum(dropped.values()):,} other draws
were dropped: {dropped["empty"]:,} empty, {dropped["too_small"]:,} too small, {dropped["too_large"]:,} too large.

A model inherits questions of licence from the photographs that it was trained on: MVTec AD, for one, is
CC BY-NC-SA 4.0.

Drawn with DFMGAN ([AAAI 2023](https://arxiv.org/abs/2303.02389)) by dfmgan-hf.
"""


def _area(share: float) -> str:
    return f"{share:.2%}"
