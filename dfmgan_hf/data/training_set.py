"""From what the user names to the set that a trainer reads."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

from ..files import tensors_sha256, whole_file
from .duplicates import exact_duplicates, find_duplicates
from .findings import judge, judge_duplicates, judge_folder, judge_number
from .partitions import select_listed, shuffled
from .patches import read_table, same_view_in_train_and_test
from .preparation import Inspection, Size, height_and_width, inspect_all, prepare_example
from .reading import Array
from .records import (
    GOOD,
    WHERE_GOOD,
    DataError,
    DataWarning,
    ImageRecord,
    Listing,
    Split,
    fingerprint,
    shorten,
)
from .sources import FittedSource, find_listing

# Near copies among more photographs take minutes to find, which is the doctor's business.
_MOST_COMPARED = 1000


class ImageMaskDataset(Dataset[dict[str, torch.Tensor]]):
    """Photographs and masks, ready to train on.

    An item is `{"image": uint8 (C, H, W), "mask": uint8 (1, H, W)}`, mask values 0 and 255; without masks
    (defect-free photographs) it has no `mask`.

    Args:
        images: uint8 `(N, C, H, W)`.
        masks: uint8 `(N, 1, H, W)`, values 0 and 255, or None.
        file_names: N names within the data set.
        labels: Number of each photograph's kind of defect, int64 `(N,)`, or None if all are of one kind.
        kinds: Names of the kinds that `labels` numbers.
    """

    def __init__(
        self,
        images: torch.Tensor,
        masks: torch.Tensor | None,
        file_names: Sequence[str],
        *,
        labels: torch.Tensor | None = None,
        kinds: Sequence[str] = (),
    ) -> None:
        if len(images) != len(file_names) or (masks is not None and len(masks) != len(images)):
            raise ValueError(
                f"images ({len(images)}), masks ({'None' if masks is None else len(masks)}) and "
                f"file_names ({len(file_names)}) must have the same length."
            )
        self.images = images
        self.masks = masks
        self.file_names = list(file_names)
        self.labels = labels
        self.kinds = tuple(kinds)

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        item = {"image": self.images[index]}
        if self.masks is not None:
            item["mask"] = self.masks[index]
        return item


@dataclass(frozen=True)
class DataConfig(FittedSource):
    """Photographs: `data_dir`, or `good_dir`, `defect_dir` and `mask_dir`.

    Attributes:
        shots: Use only this many defect photographs, drawn at random.
        shots_seed: Seed of that draw.
        file_list: Text file with the names of the photographs to use, one a line. If it names no defect-free
            photograph, it does not restrict them.
    """

    shots: int | None = None
    shots_seed: int = 0
    file_list: Path | None = None

    def listing(self, defect: str | None = None) -> Listing:
        """List all files of the category, before any choice; see `find_listing`."""
        return find_listing(self, defect)

    def patch_size(self) -> int | None:
        """Return the side of the patches that `cut_patches` cut, in pixels of photographs; None of other folders."""
        sizes = {row.get("patch_size") or "" for row in read_table(self.listing().root)}
        size = sizes.pop() if len(sizes) == 1 else ""
        return int(size) if size.isdecimal() else None

    def load_good(
        self, *, resolution: Size = 256, image_channels: int = 3, split: Split = "train"
    ) -> ImageMaskDataset:
        """Load the defect-free photographs for training, or for testing; see `load_training_set`."""
        return load_training_set(self, resolution=resolution, image_channels=image_channels, split=split)

    def load_defects(
        self, defect: str | None = None, *, resolution: Size = 256, image_channels: int = 3
    ) -> ImageMaskDataset:
        """Load the photographs of one kind of defect with their masks; see `load_training_set`.

        Raises:
            DataError: also (`unknown_defect`) if `defect` is None and there are several.
        """
        if defect is None:
            listing = self.listing()
            if len(listing.defects) != 1:
                raise DataError(
                    "unknown_defect",
                    listing.root,
                    found=f"{len(listing.defects)} kinds of defect and none was chosen",
                    expected=f"one of {shorten(listing.defects)}",
                    advice="Say which with --defect.",
                )
            defect = listing.defects[0]
        return load_training_set(self, defect, resolution=resolution, image_channels=image_channels)

    def load_kinds(
        self, defects: Sequence[str] = (), *, resolution: Size = 256, image_channels: int = 3
    ) -> ImageMaskDataset:
        """Load these kinds of defect, or all, as one set that `labels` numbers in this order; `shots` of each kind.

        Raises:
            DataError: see `load_training_set`; (`one_kind`) if that is one kind alone.
        """
        listing = self.listing()
        kinds = tuple(dict.fromkeys(defects or listing.defects))
        if len(kinds) < 2:
            raise DataError(
                "one_kind",
                listing.root,
                found=f"a single kind of defect to learn ({shorten(kinds)})",
                expected="at least two, to be learnt jointly",
                advice=f"Name more of {shorten(listing.defects)} with --defect, or leave --joint out.",
            )
        sets = [self.load_defects(kind, resolution=resolution, image_channels=image_channels) for kind in kinds]
        masks = [each.masks for each in sets if each.masks is not None]
        return ImageMaskDataset(
            torch.cat([each.images for each in sets]),
            torch.cat(masks) if len(masks) == len(sets) else None,
            [name for each in sets for name in each.file_names],
            labels=torch.cat([torch.full((len(each),), number) for number, each in enumerate(sets)]),
            kinds=kinds,
        )


def load_training_set(
    data: DataConfig,
    defect: str | None = None,
    *,
    resolution: Size = 256,
    image_channels: int = 3,
    split: Split | None = None,
) -> ImageMaskDataset:
    """Load the photographs of one kind, with their masks if they show defects.

    Args:
        data: Where they are and how they are read; `shots` holds for defects alone.
        defect: Kind of defect; None for the defect-free photographs.
        resolution: Side of square images in pixels, or height and width.
        image_channels: 3, or 1 for grey.
        split: `train` or `test`; None for `train` if `defect` is None, else for both.

    Returns:
        The set, sorted by name.

    Raises:
        DataError: that names the first file with a problem, or says what the folder lacks.
        ValueError: if options contradict each other, or one is not possible.

    Example:
        >>> load_training_set(DataConfig(Path("mvtec_ad"), "hazelnut", shots=5), "crack", resolution=256)
    """
    shots = None if defect is None else data.shots
    if shots is not None and shots < 1:
        raise ValueError(f"`shots` must be at least 1, but is {shots}.")
    listing = data.listing(defect)
    split = split or (None if defect else "train")
    candidates = listing.select(defect, split)
    if not candidates:
        kind = "defect-free photographs" if defect is None else f"photographs with the defect '{defect}'"
        raise DataError(
            "no_images",
            listing.root,
            found=f"no {kind}{f' in {split}' if split else ''}",
            expected=f"{split or 'test'}/{defect or GOOD}/*.png",
            advice=f"{listing.account()} {WHERE_GOOD}"
            if defect is None
            else f"Defects in this folder: {shorten(repr(name) for name in listing.defects)}.",
        )
    if data.file_list is not None:
        candidates = select_listed(candidates, listing.records, data.file_list)
    if shots is not None:
        candidates = shuffled(candidates, data.shots_seed)

    is_main = os.environ.get("RANK", "0") == "0"
    # What is trained on is compared with all other photographs, as the doctor does.
    chosen = {record.name for record in candidates}
    others = [record for record in listing.records if record.name not in chosen]
    if shots or len(listing.records) > _MOST_COMPARED or not (is_main or data.cache_dir):
        others = []
    path = None
    if data.cache_dir is not None:
        height, width = height_and_width(resolution)
        size = height if height == width else f"{width}x{height}"
        limit = Image.MAX_IMAGE_PIXELS  # --max_megapixels, which decides what is left out
        settings = [size, image_channels, data.fit, data.bit_depth, shots, data.skip_bad_files, limit]
        key = fingerprint((*candidates, *others), {"settings": settings})
        path = Path(data.cache_dir) / f"{listing.category}-{defect or GOOD}-{size}-{key[:16]}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
    # Of several processes that need a set, one prepares it and the others wait.
    with nullcontext() if path is None else FileLock(path.with_name(f".{path.name}.lock")):
        prepared = None if path is None else _read(path)
        if prepared is None:
            prepared = _prepare(candidates, others, data, resolution, image_channels, shots, listing)
            try:
                if path is not None:
                    _write(path, *prepared)
            except (OSError, SafetensorError) as error:
                text = f"The prepared photographs could not be kept: {error}. Make room in {data.cache_dir} for them."
                prepared[1].append(("warning", text))
    dataset, notes = prepared
    few = judge_number(defect or GOOD, len(dataset)) if shots is None and split != "test" else ()
    for finding in (*judge_folder(listing), *few):
        notes.append((finding.severity, finding.to_line()))
    if is_main:  # one of the processes of a training says it
        used = f"{listing.account()} Loaded of '{defect or GOOD}': {len(dataset)}."
        print(used, *(text for severity, text in notes if severity == "note"), sep="\n", file=sys.stderr)
        for severity, text in notes:
            if severity != "note":
                warnings.warn(text, DataWarning, stacklevel=2)
    needed = shots or (2 if defect is None else 1)
    if len(dataset) < needed:
        raise DataError(
            "too_few",
            listing.root,
            found=f"{len(dataset)} usable photographs of '{defect or GOOD}'",
            expected=f"{needed}, the shots asked for" if shots else f"at least {needed}",
            advice="Ask for fewer shots." if shots else "Add photographs; `dfmgan check` says how many are advised.",
        )
    return dataset


def _prepare(
    candidates: Sequence[ImageRecord],
    others: Sequence[ImageRecord],
    data: DataConfig,
    resolution: Size,
    image_channels: int,
    shots: int | None,
    listing: Listing,
) -> tuple[ImageMaskDataset, list[tuple[str, str]]]:
    """Decode records, keep those without problems (the first `shots` of them), and say what is odd about them.

    `others` are compared with them only.
    """

    def prepare(record: ImageRecord) -> tuple[Array, Array | None, Inspection] | DataError:
        try:
            return prepare_example(record, resolution, image_channels, data.fit, data.bit_depth)
        except DataError as error:
            return error

    limit = len(candidates) if shots is None else min(shots, len(candidates))
    # Allocated once: a list of arrays and their stack would take twice the memory.
    size = height_and_width(resolution)
    images = torch.zeros((limit, image_channels, *size), dtype=torch.uint8)
    masks = torch.zeros((limit, 1, *size), dtype=torch.uint8)
    names: list[str] = []
    inspections: list[Inspection] = []
    skipped: list[DataError] = []
    has_masks = False
    # Pillow decodes and resizes outside the interpreter's lock, so threads do run beside each other. Shots are decoded
    # one by one, only as many as it takes.
    with ThreadPoolExecutor() as pool:
        results = map(prepare, candidates) if shots else pool.map(prepare, candidates)
        for record, result in zip(candidates, results, strict=False):
            if isinstance(result, DataError):
                if not data.skip_bad_files:
                    pool.shutdown(cancel_futures=True)
                    raise result
                skipped.append(result)
                continue
            image, mask, inspection = result
            images[len(names)] = torch.from_numpy(image)
            if mask is not None:
                has_masks = True
                masks[len(names)] = torch.from_numpy(mask)
            inspections.append(inspection)
            names.append(record.name)
            if len(names) == shots:
                break
    compared = [*inspections, *inspect_all(others, data.bit_depth)]
    places = {record.name: place for place, record in enumerate(listing.records)}
    compared.sort(key=lambda inspection: places[inspection.record.name])
    images, masks = images[: len(names)], masks[: len(names)]
    if names != sorted(names):  # as with shots; otherwise a copy would only take memory
        order = sorted(range(len(names)), key=names.__getitem__)
        images, masks, names = images[order], masks[order], sorted(names)
    dataset = ImageMaskDataset(images, masks if has_masks else None, names)
    notes = []
    if skipped:
        listed = "\n".join(f"  {error}" for error in skipped)
        notes.append(("warning", f"{len(skipped)} of {len(candidates)} files were left out:\n{listed}"))
    inspections.sort(key=lambda inspection: inspection.record.name)
    findings = judge(
        inspections, resolution=resolution, fit=data.fit, bit_depth=data.bit_depth, image_channels=image_channels
    )
    digests = [inspection.digest for inspection in compared]
    if len(compared) > _MOST_COMPARED:
        pairs = exact_duplicates(digests)
        text = f"Of more than {_MOST_COMPARED} photographs, only equal files are told; `dfmgan check` compares all."
        notes.append(("note", text))
    else:
        pairs = find_duplicates([inspection.small for inspection in compared], digests)
    known = same_view_in_train_and_test(listing)
    findings += judge_duplicates([inspection.record for inspection in compared], pairs, known)
    return dataset, notes + [(finding.severity, finding.to_line()) for finding in findings]


def _write(path: Path, dataset: ImageMaskDataset, notes: Sequence[tuple[str, str]]) -> None:
    tensors = {"images": dataset.images} | ({} if dataset.masks is None else {"masks": dataset.masks})
    header = json.dumps({"file_names": dataset.file_names, "notes": notes})
    with whole_file(path) as aside:
        save_file(tensors, aside, metadata={"header": f"{_digest(header, tensors)} {header}"})


def _digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(f"{header} {tensors_sha256(tensors)}".encode()).hexdigest()


def _read(path: Path) -> tuple[ImageMaskDataset, list[tuple[str, str]]] | None:
    """Read what `_write` wrote; None if there is no such file, or, with a warning, if it is damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            digest, _, text = (file.metadata() or {})["header"].partition(" ")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if digest != _digest(text, tensors):
            raise ValueError("it is not what was written")
        header = json.loads(text)
        dataset = ImageMaskDataset(tensors["images"], tensors.get("masks"), header["file_names"])
        return dataset, [(severity, text) for severity, text in header["notes"]]
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        warnings.warn(
            f"{path} is damaged, or of an earlier version ({error}): photographs are prepared anew.",
            DataWarning,
            stacklevel=3,
        )
        return None
