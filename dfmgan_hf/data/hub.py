"""Data sets on the Hugging Face Hub, in this package's form or in that of a known mirror of MVTec AD."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import datasets
from huggingface_hub.errors import RepositoryNotFoundError

from .errors import DataError
from .mvtec_layout import MVTEC_AD_DEFECTS
from .reading import mask_to_array
from .records import GOOD, shorten
from .rows import encode_mask, make_features

# Columns of TheoM55/mvtec_all_objects_split; its splits are named `bottle.train`, `bottle.test`, ...
_MIRROR_COLUMNS = frozenset({"image_path", "mask_path", "defect", "label"})


def load_from_hub(
    repo_id: str,
    category: str | None = None,
    *,
    streaming: bool = False,
    cache_dir: str | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> datasets.DatasetDict | datasets.IterableDatasetDict:
    """Load a category from the Hub, in the form of `rows.make_features`.

    Args:
        repo_id: Repository that `DefectDatasetDict.push_to_hub` wrote, or one with the columns of the mirror
            TheoM55/mvtec_all_objects_split.
        category: Category; None if there is only one.
        streaming: Read rows over the network as they are asked for.
        cache_dir: As in `datasets.load_dataset`.
        revision: Commit, branch or tag.
        token: Access token for private repositories.

    Raises:
        DataError: (`hub`) if there is no such repository or no connection, (`unknown_category`) that lists the right
            names, (`columns`) if the columns are of neither form.
    """
    hub = {"revision": revision, "token": token}
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
    options = {**hub, "streaming": streaming, "cache_dir": cache_dir}
    if category in configs or (category is None and len(configs) == 1 and configs != ["default"]):
        return _checked(datasets.load_dataset(repo_id, category or configs[0], **options), repo_id)

    splits = datasets.get_dataset_split_names(repo_id, configs[0], **hub) if configs == ["default"] else []
    categories = sorted({name.partition(".")[0] for name in splits if "." in name})
    if category in categories:
        # By file name, or else all categories would be downloaded.
        files = {split: f"data/{category}.{split}-*.parquet" for split in ("train", "test")}
        loaded = datasets.load_dataset(repo_id, data_files=files, verification_mode="no_checks", **options)
        return from_mirror(loaded, str(category), repo_id)
    if not categories and configs == ["default"]:
        loaded = _checked(datasets.load_dataset(repo_id, **options), repo_id)
        return loaded if category is None else _one_category(loaded, category, repo_id)
    raise _unknown_category(repo_id, category, categories or configs)


def from_mirror(
    dataset: Mapping[str, Any], category: str, source: str = "data set"
) -> datasets.DatasetDict | datasets.IterableDatasetDict:
    """Bring one category in the columns of the mirror to the form of `rows.make_features`.

    Args:
        dataset: Splits `train` and `test` with image_path (image), mask_path (image or None), defect (name) and label.
        category: The category.
        source: Named in errors.

    Raises:
        DataError: (`columns`) if columns are missing.
    """
    converted = {}
    for split, rows in dataset.items():
        columns = set(rows.column_names or [])
        if not columns >= _MIRROR_COLUMNS:
            raise _wrong_columns(source, columns)
        for column in ("image_path", "mask_path"):
            rows = rows.cast_column(column, datasets.Image(decode=False))
        features = make_features([category], _mirror_defects(rows, category))
        is_streaming = isinstance(rows, datasets.IterableDataset)
        rows = rows.map(
            _convert_mirror_row,
            fn_kwargs={"category": category, "split": split, "features": features},
            remove_columns=list(columns),
            **({} if is_streaming else {"features": features}),
        )
        # A stream takes features given to map as a promise and would leave the images undecoded.
        converted[split] = rows.cast(features) if is_streaming else rows
    is_streaming = any(isinstance(rows, datasets.IterableDataset) for rows in converted.values())
    return datasets.IterableDatasetDict(converted) if is_streaming else datasets.DatasetDict(converted)


def _mirror_defects(rows: Any, category: str) -> tuple[str, ...]:
    if category in MVTEC_AD_DEFECTS:
        return MVTEC_AD_DEFECTS[category]
    names = rows.unique("defect") if isinstance(rows, datasets.Dataset) else {row["defect"] for row in rows}
    return tuple(sorted(set(names) - {GOOD}))


def _convert_mirror_row(row: dict[str, Any], category: str, split: str, features: Any) -> dict[str, Any]:
    mask, defect = row["mask_path"], row["defect"]
    if mask is not None:
        mask = encode_mask(mask_to_array(datasets.Image().decode_example(mask)).defect)
    return {
        "image": row["image_path"],
        "mask": mask if defect != GOOD else None,
        "label": int(defect != GOOD),
        "defect": features["defect"].str2int(defect),
        "category": features["category"].str2int(category),
        "file_name": f"{split}/{defect}/{PurePosixPath(row['image_path']['path'] or '').name}",
    }


def _checked(dataset: Any, repo_id: str) -> Any:
    for rows in dataset.values():
        columns = set(rows.column_names or [])
        if not columns >= set(make_features([], [])):
            raise _wrong_columns(repo_id, columns)
    return dataset


def _one_category(dataset: Any, category: str, repo_id: str) -> Any:
    names = next(iter(dataset.values())).features["category"].names
    if category not in names:
        raise _unknown_category(repo_id, category, names)
    wanted = names.index(category)
    return dataset.filter(lambda value: value == wanted, input_columns="category")


def _unknown_category(repo_id: str, category: str | None, names: list[str]) -> DataError:
    return DataError(
        "unknown_category",
        repo_id,
        found="several categories and none was chosen" if category is None else f"no category '{category}'",
        expected=f"one of {shorten(sorted(names), 20)}",
        advice="Give one of these as the category.",
    )


def _wrong_columns(source: str, columns: set[str]) -> DataError:
    return DataError(
        "columns",
        source,
        found=f"the columns {shorten(sorted(columns))}",
        expected=f"{', '.join(make_features([], []))}, or {', '.join(sorted(_MIRROR_COLUMNS))}",
        advice="Save the photographs in the folder layout of MVTec AD and give that folder.",
    )
