"""Data sets as Hugging Face `datasets`: from folders, from the Hub, and to the Hub with a card."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
from huggingface_hub import DatasetCard, HfApi
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError
from PIL import Image
from PIL.ExifTags import Base as Tag

from .archives import unpacked
from .findings import judge_folder
from .layouts import MVTEC_AD_DEFECTS, category_folders, list_data_dir, metadata_files, unknown_category
from .preparation import read_pair
from .reading import Array, is_deep_colour
from .records import GOOD, DataError, DataWarning, ImageRecord, Listing, content_of, fingerprint, is_hub_id, shorten

LABELS = ("normal", "anomalous")


def load_mvtec_ad(
    source: Path | str,
    category: str | None = None,
    *,
    skip_bad_files: bool = False,
    bit_depth: int = 16,
    cache_dir: Path | str | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> datasets.DatasetDict:
    """Load one category of MVTec AD or of a set in its layout, or all of them, as `train` and `test`.

    Columns: image (RGB), mask (8-bit grey with 0 and 255, None for defect-free photographs), label (normal or
    anomalous), defect (good, ...), category, file_name.

    Args:
        source: Root of an extracted MVTec AD, one of its category folders, the downloaded archive, or the id of a set
            on the Hub with these columns, as `push_to_hub` writes it.
        category: Category; None for all of those in a folder or archive, or for the only one on the Hub.
        skip_bad_files: Leave files with problems out and warn with their list, instead of stopping at the first.
        bit_depth: Significant bits of 16-bit photographs.
        cache_dir: Where rows are cached and an archive is extracted; None for the cache of `datasets`. A changed
            folder is noticed, by the names, sizes and times of its files.
        revision: Commit, branch or tag of a set on the Hub.
        token: Access token for private sets on the Hub.

    Returns:
        A `datasets.DatasetDict` whose `push_to_hub` writes a card.

    Raises:
        DataError: that names the first file with a problem, or lists the right categories; of the Hub (`hub`) if there
            is no such repository or no connection, (`columns`) if it lacks columns.

    Example:
        >>> load_mvtec_ad("mvtec_anomaly_detection.tar.xz", "hazelnut")["test"][0]["mask"]
    """
    if is_hub_id(source):
        cache = None if cache_dir is None else str(cache_dir)
        hub = {"revision": revision, "token": token}
        return DefectDatasetDict(_load_from_hub(Path(source).as_posix(), category, hub, cache))
    root = unpacked(Path(source), cache_dir)
    present = category_folders(root) if category is None and not metadata_files(root) else []
    listings = [list_data_dir(root, name) for name in present] if len(present) > 1 else [list_data_dir(root, category)]
    for finding in (finding for listing in listings for finding in judge_folder(listing)):
        if finding.severity != "note":
            warnings.warn(finding.to_line(), DataWarning, stacklevel=2)
    features = make_features([listing.category for listing in listings], _known_defects(listings))

    def make_split(split: str) -> datasets.Dataset:
        records = [(each.category, record) for each in listings for record in each.records if record.split == split]
        generate = partial(_generate_rows, records, bit_depth, skip_bad_files)
        if not records:
            return datasets.Dataset.from_dict({name: [] for name in features}, features=features, split=split)
        # Left to itself, datasets fingerprints the code and arguments and would serve the rows of files long changed.
        settings = {
            "split": split, "skip_bad_files": skip_bad_files, "bit_depth": bit_depth, "features": str(features),
            "max_pixels": Image.MAX_IMAGE_PIXELS,
        }  # fmt: skip
        return datasets.Dataset.from_generator(
            generate,
            features=features,
            cache_dir=None if cache_dir is None else str(cache_dir),
            split=split,
            fingerprint=fingerprint((record for _, record in records), settings)[:32],
        )

    try:
        splits = {split: make_split(split) for split in ("train", "test")}
    except datasets.exceptions.DatasetGenerationError as error:
        if isinstance(error.__cause__, DataError):
            raise error.__cause__ from None
        raise
    return DefectDatasetDict(splits)


def make_features(categories: Sequence[str], defects: Sequence[str]) -> datasets.Features:
    """Return the features of a set of these categories and kinds of defect; see `load_mvtec_ad` for the columns.

    If all are categories of MVTec AD, its 15 become names of the class label, so that sets of different ones can be
    joined.
    """
    known = list(MVTEC_AD_DEFECTS)
    return datasets.Features(
        {
            "image": datasets.Image(mode="RGB"),
            "mask": datasets.Image(mode="L"),
            "label": datasets.ClassLabel(names=list(LABELS)),
            "defect": datasets.ClassLabel(names=[GOOD, *defects]),
            "category": datasets.ClassLabel(names=known if set(categories) <= set(known) else list(categories)),
            "file_name": datasets.Value("string"),
        }
    )


def _known_defects(listings: list[Listing]) -> list[str]:
    """List the kinds of defect: those of MVTec AD in its order where the category is its own, then any others."""
    names: list[str] = []
    for listing in listings:
        names += [name for name in MVTEC_AD_DEFECTS.get(listing.category, ()) if name not in names]
    return names + sorted({name for listing in listings for name in listing.defects} - set(names))


def _generate_rows(
    records: Sequence[tuple[str, ImageRecord]], bit_depth: int, skip_bad_files: bool
) -> Iterator[dict[str, Any]]:
    """Read, check and yield rows in the form of `make_features`, from categories and records."""
    skipped: list[DataError] = []
    for category, record in records:
        try:
            photograph, mask = read_pair(record, 3, bit_depth)
        except DataError as problem:
            if not skip_bad_files:
                raise
            skipped.append(problem)
            continue
        # Others than plain ones are stored as 8-bit PNG, since `datasets` would clip 16-bit samples and forget what
        # is transparent.
        is_plain = _is_plain(record.image_path)
        yield {
            "image": {"path": str(record.image_path.resolve()), "bytes": None} if is_plain else _encode(photograph),
            "mask": None if mask is None else _encode(np.where(mask.defect, 255, 0).astype(np.uint8)),
            "label": LABELS[record.defect != GOOD],
            "defect": record.defect,
            "category": category,
            "file_name": record.name,
        }
    if skipped:
        listed = "\n".join(f"  {error}" for error in skipped)
        warnings.warn(f"{len(skipped)} of {len(records)} files were left out:\n{listed}", DataWarning, stacklevel=2)


def _is_plain(path: Path) -> bool:
    """Tell whether `datasets` would decode the file as this package does, see `reading.decode`."""
    with Image.open(path) as image:
        is_eight_bit = image.mode in ("L", "RGB") and "transparency" not in image.info and not is_deep_colour(image)
        return is_eight_bit and (image.format != "TIFF" or image.getexif().get(Tag.Orientation, 1) == 1)


def _encode(pixels: Array) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return {"path": None, "bytes": stream.getvalue()}


def _load_from_hub(repo_id: str, category: str | None, hub: dict[str, Any], cache_dir: str | None) -> Any:
    try:
        configs = datasets.get_dataset_config_names(repo_id, **hub)
    except (datasets.exceptions.DatasetNotFoundError, RepositoryNotFoundError) as error:
        raise DataError(
            "hub",
            repo_id,
            found="neither a folder or archive here nor a data set on the Hub that can be read",
            expected="a path, or the id of a data set",
            advice="Check the spelling; private and gated sets need a token (hf auth login).",
        ) from error
    except ConnectionError as error:
        raise DataError(
            "hub",
            repo_id,
            found=f"neither a folder nor an archive here, and no connection to the Hub ({error})",
            expected="a path, or the id of a data set and a connection",
            advice="Check the spelling of the path, or the network (HF_ENDPOINT, proxies).",
        ) from error
    load = partial(datasets.load_dataset, repo_id, cache_dir=cache_dir, **hub)
    if category in configs or (category is None and len(configs) == 1 and configs != ["default"]):
        return _own_form(load(category or configs[0]), repo_id)
    if configs != ["default"]:
        raise unknown_category(repo_id, category, sorted(configs))
    loaded = _own_form(load(), repo_id)
    if category is None:
        return loaded
    if category not in (present := _present_categories(loaded)):  # the class label may name more
        raise unknown_category(repo_id, category, sorted(present))
    wanted = next(iter(loaded.values())).features["category"].str2int(category)
    return loaded.filter(lambda value: value == wanted, input_columns="category")


def _own_form(loaded: Any, repo_id: str) -> Any:
    """Keep the columns of `make_features`.

    Raises:
        DataError: they are not there, or no row is, or one names a path, see `content_of`.
    """
    expected = list(make_features([], []))
    for rows in loaded.values():
        if not set(rows.column_names) >= set(expected):
            raise DataError(
                "columns",
                repo_id,
                found=f"the columns {shorten(sorted(rows.column_names))}",
                expected=", ".join(expected),
                advice="Save the photographs in the folder layout of MVTec AD and give that folder.",
            )
    if not any(len(rows) for rows in loaded.values()):
        advice = "Ask its authors, or give another data set."
        raise DataError("no_images", repo_id, "a data set without a row", "photographs", advice)
    loaded = loaded.select_columns(expected)
    for rows in loaded.values():
        start = 0
        for column in ("image", "mask"):
            rows = rows.cast_column(column, datasets.Image(decode=False))
        for batch in rows.with_format("arrow").iter(batch_size=256):
            for column in ("image", "mask"):  # whether there are bytes is known without reading them
                images = batch[column].combine_chunks()
                is_path = pc.and_(images.is_valid(), pc.struct_field(images, "bytes").is_null())
                if pc.any(is_path).as_py():
                    row = rows[start + pc.index(is_path, True).as_py()]
                    content_of(row[column], str(row["file_name"]))
            start += len(batch)
    return loaded


class DefectDatasetDict(datasets.DatasetDict):
    """A `datasets.DatasetDict` with the features of `make_features`; pushing it writes a data set card."""

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
        revision = options.get("revision")
        api = HfApi(token=options.get("token"))
        # The card goes first: datasets keeps the text of the README that it finds, and adds sizes and file names.
        api.create_repo(repo_id, repo_type="dataset", private=options.get("private"), exist_ok=True)
        if revision is not None and not revision.startswith("refs/pr/"):
            api.create_branch(repo_id, branch=revision, repo_type="dataset", exist_ok=True)
        try:
            path = api.hf_hub_download(repo_id, "README.md", repo_type="dataset", revision=revision)
            card = DatasetCard.load(path)
            card.text = _with_counts(card.text, self)
        except LocalEntryNotFoundError:  # no answer from the Hub, which may well have a card
            raise
        except EntryNotFoundError:
            card = make_dataset_card(self, repo_id, licence)
        # Not card.push_to_hub: before huggingface_hub 2 it asks huggingface.co, whatever Hub HF_ENDPOINT names.
        commit = api.upload_file(
            path_or_fileobj=str(card).encode(),
            path_in_repo="README.md",
            repo_id=repo_id,
            repo_type="dataset",
            revision=revision,
            commit_message="Upload the card",
            create_pr=options.pop("create_pr", False),
        )
        if commit.pr_revision:
            options["revision"] = commit.pr_revision
        categories = _present_categories(self)
        name = config_name or (categories[0] if len(categories) == 1 else "default")
        return super().push_to_hub(repo_id, config_name=name, **options)


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


def _present_categories(dataset: datasets.DatasetDict) -> list[str]:
    """Return the names of the categories that occur, in the order of the class label."""
    names: set[str] = set()
    for split in dataset.values():
        names.update(map(split.features["category"].int2str, split.unique("category")))
    feature = next(iter(dataset.values())).features["category"]
    return [name for name in feature.names if name in names]


def make_dataset_card(dataset: datasets.DatasetDict, repo_id: str, license: str | None = None) -> DatasetCard:
    """Write the card of a set: licence, counts, columns, how to load it, and whom to cite.

    Args:
        dataset: With the features of `make_features`.
        repo_id: Where it will lie.
        license: Licence as the Hub spells it; None for that of MVTec AD if all categories are its own, else `unknown`.
    """
    categories = _present_categories(dataset)
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
    present = tuple(f"| {category} |" for category in _present_categories(dataset))
    kept = [row for row in old.splitlines() if row and not row.startswith(present)]
    return before + header + "\n".join([*kept, *rows]) + after[len(old) :]
