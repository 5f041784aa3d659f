"""MVTec AD, and everything in its folder layout, as a Hugging Face data set."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import datasets

from .archive import unpacked
from .dataset_card import DefectDatasetDict
from .errors import DataError
from .hub import load_from_hub
from .imagefolder import list_data_dir, metadata_files
from .mvtec_layout import MVTEC_AD_DEFECTS, category_folders
from .records import Listing, fingerprint, is_hub_id
from .rows import generate_rows, make_features


def load_mvtec_ad(
    source: Path | str,
    category: str | None = None,
    *,
    streaming: bool = False,
    skip_bad_files: bool = False,
    bit_depth: int = 16,
    cache_dir: Path | str | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> datasets.DatasetDict | datasets.IterableDatasetDict:
    """Load one category, or all of them, as `train` and `test`.

    Columns: image (RGB), mask (8-bit grey with 0 and 255, None for defect-free photographs), label (normal or
    anomalous), defect (good, ...), category, file_name.

    Args:
        source: Root of an extracted MVTec AD, one of its category folders, the downloaded archive, or the id of a set
            on the Hub (see `hub.load_from_hub`). Other categories in the same layout work as well.
        category: Category; None for all of those in a folder or archive, or for the only one on the Hub.
        streaming: Make rows as they are asked for, instead of all of them beforehand.
        skip_bad_files: Leave files with problems out and warn with their list, instead of stopping at the first.
        bit_depth: Significant bits of 16-bit photographs.
        cache_dir: Where rows are cached and an archive is extracted; None for the cache of `datasets`. A changed
            folder is noticed, by the names, sizes and times of its files.
        revision: Commit, branch or tag of a set on the Hub.
        token: Access token for private sets on the Hub.

    Returns:
        A `datasets.DatasetDict` whose `push_to_hub` writes a card, or an `IterableDatasetDict` if `streaming`.

    Raises:
        DataError: that names the first file with a problem, or lists the right categories.
    """
    if is_hub_id(source):
        cache = None if cache_dir is None else str(cache_dir)
        loaded = load_from_hub(
            Path(source).as_posix(), category, streaming=streaming, cache_dir=cache, revision=revision, token=token
        )
        return loaded if streaming else DefectDatasetDict(loaded)
    root = unpacked(Path(source), cache_dir)
    present = category_folders(root) if category is None and not metadata_files(root) else []
    listings = [list_data_dir(root, name) for name in present] if len(present) > 1 else [list_data_dir(root, category)]
    splits = {
        split: _make_split(listings, split, streaming, skip_bad_files, bit_depth, cache_dir)
        for split in ("train", "test")
    }
    return datasets.IterableDatasetDict(splits) if streaming else DefectDatasetDict(splits)


def _make_split(
    listings: list[Listing],
    split: str,
    streaming: bool,
    skip_bad_files: bool,
    bit_depth: int,
    cache_dir: Path | str | None,
) -> Any:
    features = make_features([listing.category for listing in listings], _known_defects(listings))
    records = [
        (listing.category, record) for listing in listings for record in listing.records if record.split == split
    ]
    if not records and not streaming:
        return datasets.Dataset.from_dict({name: [] for name in features}, features=features, split=split)
    generate = partial(generate_rows, records, bit_depth, skip_bad_files)
    if streaming:
        return datasets.IterableDataset.from_generator(generate, features=features, split=split)
    # Left to itself, datasets fingerprints the code and arguments and would serve the rows of files long changed.
    settings = {"split": split, "skip_bad_files": skip_bad_files, "bit_depth": bit_depth, "features": str(features)}
    try:
        return datasets.Dataset.from_generator(
            generate,
            features=features,
            cache_dir=None if cache_dir is None else str(cache_dir),
            split=split,
            fingerprint=fingerprint((record for _, record in records), settings)[:32],
        )
    except datasets.exceptions.DatasetGenerationError as error:
        if isinstance(error.__cause__, DataError):
            raise error.__cause__ from None
        raise


def _known_defects(listings: list[Listing]) -> list[str]:
    """List the kinds of defect: those of MVTec AD in its order where the category is its own, then any others."""
    names: list[str] = []
    for listing in listings:
        names += [name for name in MVTEC_AD_DEFECTS.get(listing.category, ()) if name not in names]
    return names + sorted({name for listing in listings for name in listing.defects} - set(names))
