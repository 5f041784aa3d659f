"""Square patches of large photographs, at their own scale, so that small defects keep their pixels."""

from __future__ import annotations

import csv
import math
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro
from PIL import Image, ImageFilter
from tqdm import tqdm

from ..arguments import check_effect, check_numbers
from ..files import whole_folder
from .duplicates import find_duplicates, group_duplicates
from .findings import count, found_in, judge_duplicates, judge_folder
from .partitions import select_listed
from .parts import bounding_box
from .preparation import Inspection, inspect, inspect_all
from .reading import Array, Mask, opened
from .records import DataError, DataWarning, ImageRecord, Listing, printable, read_csv
from .sources import DataSource, check_place, find_listing

TABLE_FILE = "patches.csv"

# A background is plain if 95 % of the rim differ from its median by at most so much, of 255; the product differs more.
_PLAIN, _DIFFERS = 20, 24
_LEAST_PRODUCT, _MOST_PRODUCT = 0.02, 0.9


@dataclass(frozen=True)
class PatchConfig(DataSource):
    """Cut photographs and their masks into patches.

    Attributes:
        output_dir: Folder for the patches; made if missing, otherwise it must be empty.
        patch_size: Side of a patch in pixels of the photograph. A defect should be between a tenth and half of it;
            None chooses it from the masks.
        region: Where patches of defect-free photographs lie: left, top, right and bottom, as shares of width and
            height from 0 to 1. None finds the product on a plain background; elsewhere all is product.
        good_patches: Patches of a defect-free photograph: this many of those that cover the product. 0 takes all.
        defect_patches: Patches of a photograph with a defect, each at a place of its own around the defect.
        max_defect_area: Largest part of a patch that should be defect, from 0 to 1: of a defect larger than the patch,
            patches show the rim and not only its inside.
        seed: Seed of the places.
        image_channels: 3, or 1 for grey.
        file_list: Text file with the names of the photographs to cut, one a line, such as what `dfmgan split` wrote
            to train on. If it names no defect-free photograph, it does not restrict them. None cuts all.
        defect: What to call the kind of defect in `defect_dir`; None: like the folder.
    """

    data_dir: Annotated[Path | None, tyro.conf.Positional] = None
    output_dir: Path = field(kw_only=True)
    patch_size: int | None = None
    region: tuple[float, float, float, float] | None = None
    good_patches: int = 4
    defect_patches: int = 1
    max_defect_area: float = 0.5
    seed: int = 0
    image_channels: int = 3
    file_list: Path | None = None
    defect: str | None = None

    def __post_init__(self) -> None:
        if self.defect_dir is None:
            check_effect(self, ["defect"], "`defect_dir`")
        check_numbers(self, patch_size=8, good_patches=0, defect_patches=1, seed=0)
        if self.region is not None:
            left, top, right, bottom = self.region
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise ValueError(f"`region` must be left, top, right and bottom from 0 to 1, but is {self.region}.")
        if not 0 < self.max_defect_area <= 1:
            raise ValueError(f"`max_defect_area` must be above 0 and at most 1, but is {self.max_defect_area}.")


def cut_dataset(config: PatchConfig) -> None:
    """Cut a data set into patches and print how many there are of each kind; see `cut_patches`."""
    patches, skipped = cut_patches(config)
    for problem in skipped:
        print(f"LEFT OUT {problem}", file=sys.stderr)
    for kind, number in sorted(patches.items()):
        print(f"{number:7d} patches in {printable(kind)}")
    print(f"{config.output_dir / TABLE_FILE} says where they were.")


def cut_patches(config: PatchConfig) -> tuple[dict[str, int], list[DataError]]:
    """Cut every photograph of a data set into patches and write them as a data set in the layout of MVTec AD.

    All patches of a photograph stay in its split and kind. The folder gets a table (`patches.csv`) that says where in
    which photograph each patch was. The places depend on the seed and the photograph's name alone.

    Returns:
        Number of patches by split and kind, such as `train/good`; what was wrong with the photographs left out.

    Warns:
        DataWarning: entries of the folder are not used, nothing was cut of a photograph, or the same view is in train
            and in test: then patches of it are too, which their pixels no longer show. The table keeps it, and the
            doctor reads it there.

    Raises:
        FileExistsError: there is something in `output_dir` already.
        BlockingIOError: another run is cutting into `output_dir`.
        ValueError: `output_dir` lies among the photographs.
        DataError: (`too_small`) a photograph is smaller than a patch; (`file_list`) the list names others than are
            here; (`no_patches`) there is nothing to cut; else as `read_pair`. Nothing is written then.

    Example:
        >>> cut_patches(PatchConfig(Path("steel"), output_dir=Path("steel_patches"), patch_size=256))
    """
    check_place(config.output_dir, config)
    listing = find_listing(config, config.defect)
    if not listing.records:
        advice = f"{listing.account()} Check the path."
        raise DataError("no_images", listing.root, "no photographs", "photographs to cut", advice)
    stems = patch_stems(listing.records)
    if config.file_list is not None:
        named = select_listed(listing.records, listing.records, config.file_list, must_name=True)
        listing = replace(listing, records=named)
    if config.patch_size is None:
        config = replace(config, patch_size=_size_from_masks(listing, config))
    inspections: list[Inspection] = []  # of those that were cut
    torn: list[str] = []  # of these, those whose masks go on outside a patch
    blank: list[str] = []  # and those that have nothing to see where a patch would lie
    patches: Counter[str] = Counter()
    skipped: list[DataError] = []
    rows: list[tuple[str, str, Place]] = []
    with whole_folder(config.output_dir) as folder:
        for record in tqdm(listing.records, desc="Cutting", disable=None):
            try:
                found, photograph, defect = inspect(record, config.image_channels, config.bit_depth)
                if found.errors or photograph is None:
                    raise found.errors[0]
                cut = list(_cut(record, photograph, defect, config))
                torn += [record.name] if defect is not None and _is_torn(defect.defect, cut) else []
            except DataError as error:
                if not config.skip_bad_files:
                    raise
                skipped.append(error)
                continue
            inspections.append(found)
            blank += [] if cut else [record.name]
            for place, image, mask in cut:
                kind = f"{record.split}/{record.defect}"
                stem = f"{stems[record.name]}_x{place.x:05d}_y{place.y:05d}"
                _save(image, folder / kind / f"{stem}.png")
                if mask is not None:
                    _save(mask, folder / "ground_truth" / record.defect / f"{stem}_mask.png")
                rows.append((f"{kind}/{stem}.png", record.name, place))
                patches[kind] += 1
        if not (rows or blank):
            raise skipped[0]
        if not rows:
            left_out = f", {len(skipped)} left out, the first for {skipped[0].found}" if skipped else ""
            raise DataError(
                "no_patches",
                listing.root,
                found=f"no patch in {count(len(listing.records), 'photograph')}: {len(blank)} blank{left_out}",
                expected=f"something to see in patches of {config.patch_size} pixels",
                advice="Choose a smaller --patch_size, or another --region.",
            )
        records = [each.record for each in inspections]
        pairs = find_duplicates([each.small for each in inspections], [each.digest for each in inspections])
        groups = {records[i].name: number for number, same in enumerate(group_duplicates(pairs), 1) for i in same}
        with (folder / TABLE_FILE).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["file", "photograph", "x", "y", "patch_size", "same_view"])
            for name, photograph_name, place in rows:
                group = groups.get(photograph_name, "")
                table.writerow([name, photograph_name, place.x, place.y, config.patch_size, group])
    num_masks = sum(bool(record.masks) for record in records)
    torn_masks = found_in(
        torn,
        "warning",
        "torn_mask",
        f"{len(torn)} of {count(num_masks, 'mask')} go on beyond the edge of a patch of {config.patch_size} pixels.",
        "Give a larger --patch_size if the whole of a defect matters.",
    )
    blanks = found_in(
        blank,
        "warning",
        "blank_patches",
        f"{count(len(blank), 'photograph')} without a patch: where patches would lie, all pixels are alike.",
        "Choose another --region if they show more.",
    )
    for finding in (*judge_folder(listing), *torn_masks, *blanks, *judge_duplicates(records, pairs)):
        if finding.severity != "note":
            warnings.warn(finding.to_line(), DataWarning, stacklevel=2)
    return dict(patches), skipped


def same_view_in_train_and_test(listing: Listing) -> list[str]:
    """Name pairs of photographs of the same view in train and in test whose patches are listed, as `a = b`."""
    rows = read_table(listing.root)
    present = {record.name: record.split for record in listing.records}
    sides: dict[str, dict[str, str]] = {}  # a photograph of each group in each split
    for row in rows:
        if row.get("same_view") and row.get("file") in present:
            side = sides.setdefault(row["same_view"], {})
            side.setdefault(present[row["file"]], row.get("photograph") or "")
    return [f"{side['train']} = {side['test']}" for side in sides.values() if len(side) == 2]


def read_table(folder: Path) -> list[dict[str, str]]:
    """Read what `cut_patches` wrote beside its patches; no rows if there is no table.

    Raises:
        DataError: (`table`) it is no table in UTF-8.
    """
    table = folder / TABLE_FILE
    if not table.is_file():
        return []
    try:
        return read_csv(table)
    except ValueError as error:
        expected = "the table that dfmgan cut-patches wrote"
        raise DataError("table", table, str(error), expected, "Cut the patches again.") from error


class Place(NamedTuple):
    """Upper left corner of a patch in its photograph, in pixels."""

    x: int
    y: int


def covering_places(height: int, width: int, patch_size: int) -> list[Place]:
    """Return places of the fewest evenly spaced patches that cover a photograph of at least a patch's size."""
    rows, columns = (
        np.linspace(0, side - patch_size, math.ceil(side / patch_size)).round().astype(int) for side in (height, width)
    )
    return [Place(int(x), int(y)) for y in rows for x in columns]


def product_places(
    image: Array, patch_size: int, region: tuple[float, float, float, float] | None = None
) -> list[Place]:
    """Return places that cover the product: those that show at least half as much of it as the best one does.

    Args:
        image: uint8 `(H, W, C)`.
        patch_size: Side of a patch, at most H and W.
        region: See `PatchConfig`.
    """
    height, width = image.shape[:2]
    if region is None:
        product = find_product(image)
    else:
        left, top, right, bottom = region
        rows = slice(math.floor(top * height), math.ceil(bottom * height))
        product = np.zeros((height, width), dtype=bool)
        product[rows, math.floor(left * width) : math.ceil(right * width)] = True
    box = bounding_box(product)
    # A box that is smaller than a patch is widened, and one at the rim moved.
    starts, lengths = [], []
    for near, far, side in ((box[1], box[3], height), (box[0], box[2], width)):
        length = max(far - near, patch_size)
        starts.append(min(max((near + far - length) // 2, 0), side - length))
        lengths.append(length)
    places = [Place(x + starts[1], y + starts[0]) for x, y in covering_places(lengths[0], lengths[1], patch_size)]
    windows = [np.s_[p.y : p.y + patch_size, p.x : p.x + patch_size] for p in places]
    shares = [float(product[window].mean()) for window in windows]
    # Where nothing is to be seen (a background without noise), there is nothing to learn.
    return [
        place
        for place, window, share in zip(places, windows, shares, strict=True)
        if 2 * share >= max(shares) and np.ptp(image[window])
    ]


def find_product(image: Array) -> Array:
    """Find the product on a plain background, bool `(H, W)`; True everywhere if the background is not plain.

    The background has the colour of the rim, in which the product differs from it. A rim that varies, or that the
    product has nearly all or nothing of, is no background.
    """
    height, width = image.shape[:2]
    rim = max(2, min(height, width) // 50)
    inner = np.zeros((height, width), dtype=bool)
    inner[rim:-rim, rim:-rim] = True
    colour = np.median(image[~inner], axis=0)
    channels = (np.abs(image[:, :, c] - np.int16(colour[c])) for c in range(image.shape[2]))
    difference = reduce(np.maximum, channels)  # of one channel at a time, which takes less memory
    spread = float(np.quantile(difference[~inner], 0.95))
    product: Array = difference > max(_DIFFERS, 2 * spread)
    # Specks of dust are no product: what is lonely goes.
    product = np.asarray(Image.fromarray(product.astype(np.uint8) * 255).filter(ImageFilter.MedianFilter(5))) > 0
    is_plain = spread <= _PLAIN and _LEAST_PRODUCT < product.mean() < _MOST_PRODUCT
    return product if is_plain else np.ones((height, width), dtype=bool)


def defect_length(inspection: Inspection) -> int:
    """Return the longer side of the box around all that is defect, in pixels."""
    left, top, right, bottom = inspection.mask_box or (0, 0, 0, 0)
    return max(right - left, bottom - top)


def propose_patch_size(inspections: Sequence[Inspection]) -> int:
    """Propose a size, in steps of 16 pixels, of which the median defect is a quarter; no photograph is smaller."""
    wanted = 4 * float(np.median([defect_length(i) for i in inspections]))
    return min(max(32, 16 * round(wanted / 16)), min(min(i.width, i.height) for i in inspections))


def propose_region(inspections: Sequence[Inspection]) -> tuple[float, float, float, float]:
    """Return the box, as shares of width and height, in which all defects lie, rounded outwards to hundredths."""
    boxes = [i.mask_box or (0, 0, 0, 0) for i in inspections]
    sides = np.array([(i.width, i.height) for i in inspections])
    near, far = (np.array([box[k : k + 2] for box in boxes]) / sides * 100 for k in (0, 2))
    left, top = (np.floor(near.min(axis=0).round(6)) / 100).tolist()
    right, bottom = (np.ceil(far.max(axis=0).round(6)) / 100).tolist()
    return left, top, right, bottom


def defect_places(mask: Array, patch_size: int, count: int, max_area: float, rng: np.random.Generator) -> list[Place]:
    """Draw random places of patches that show a defect.

    Of all places whose patch is defect to at most `max_area`, those are drawn from that hold (nearly) the most defect:
    around a small defect all that contain the whole of it, so that it is not always in the middle of the patch.

    Args:
        mask: bool `(H, W)` with at least one True.
        patch_size: Side of a patch, at most H and W.
        count: Number of places; fewer come back where there are fewer.
        max_area: Largest part of a patch that may be defect; where every patch that shows any has more, those with the
            least are taken.
        rng: Source of randomness.
    """
    height, width = mask.shape
    sums = np.zeros((height + 1, width + 1), dtype=np.int32 if mask.size < 2**31 else np.int64)
    np.cumsum(mask, axis=0, out=sums[1:, 1:])
    np.cumsum(sums, axis=1, out=sums)
    size = patch_size
    pixels = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    allowed = max(max_area * size**2, pixels[pixels > 0].min())
    most = pixels[pixels <= allowed].max()
    # What fits into a patch is never cut; of what does not, nearly the most is as good.
    least = most if most == sums[-1, -1] else max(0.95 * most, 1)
    ys, xs = np.nonzero((pixels <= allowed) & (pixels >= least))
    chosen = rng.permutation(len(ys))[:count]
    return [Place(int(xs[i]), int(ys[i])) for i in chosen]


def patch_stems(records: Iterable[ImageRecord]) -> dict[str, str]:
    """Name the patches of each photograph: its stem, numbered where another has taken it already.

    `000.jpg` and `000.png` have one stem, and so have photographs of one kind in several folders of an imagefolder.
    """
    stems: dict[str, str] = {}
    taken: set[tuple[str, str, str]] = set()
    for record in records:
        plain = stem = Path(record.name).stem
        side = "" if record.masks else record.split  # the masks of both splits lie in one folder
        number = 2
        while (side, record.defect, stem) in taken:
            stem = f"{plain}_{number}"
            number += 1
        taken.add((side, record.defect, stem))
        stems[record.name] = stem
    return stems


def _cut(
    record: ImageRecord, image: Array, mask: Mask | None, config: PatchConfig
) -> Iterator[tuple[Place, Array, Array | None]]:
    size = config.patch_size
    assert size is not None  # chosen by now
    height, width = image.shape[:2]
    if min(height, width) < size:
        raise DataError(
            "too_small",
            record.image_path,
            found=f"{width}x{height} pixels",
            expected=f"at least {size}x{size}, the size of a patch",
            advice="Ask for a smaller --patch_size, or leave the photograph out with --skip_bad_files.",
        )
    rng = np.random.default_rng([config.seed, *record.name.encode()])
    if mask is None:  # a good photograph
        places = product_places(image, size, config.region)
        if config.good_patches:
            places = [places[i] for i in sorted(rng.permutation(len(places))[: config.good_patches])]
    else:
        places = defect_places(mask.defect, size, config.defect_patches, config.max_defect_area, rng)
    for place in places:
        window = np.s_[place.y : place.y + size, place.x : place.x + size]
        yield place, image[window], None if mask is None else np.where(mask.defect[window], 255, 0).astype(np.uint8)


def _size_from_masks(listing: Listing, config: PatchConfig) -> int:
    """Choose a size for all kinds of defect, and say so.

    Raises:
        DataError: (`no_images`) there are no masks to choose it by.
    """
    found = inspect_all([record for record in listing.records if record.masks], config.bit_depth)
    usable = [inspection for inspection in found if not inspection.errors]
    if not usable:
        expected = "masks of defects, whose size says how large patches should be"
        raise DataError("no_images", listing.root, "no usable mask", expected, "Give --patch_size.")
    size = propose_patch_size(usable)
    for record in listing.records:
        with suppress(DataError), opened(record.image_path) as photograph:
            size = min(size, *photograph.size)
    print(f"Patches of {size} pixels (--patch_size), as the masks are large.", file=sys.stderr)
    return size


def _is_torn(defect: Array, cut: Iterable[tuple[Place, Array, Array | None]]) -> bool:
    """Tell whether a defect goes on beyond the edge of one of the patches."""
    around = np.pad(defect, 1)
    for place, image, _ in cut:
        window = around[place.y : place.y + image.shape[0] + 2, place.x : place.x + image.shape[1] + 2]
        # On each side in turn: the row outside of the patch, and the one inside, without the corners.
        if any(np.rot90(window, turn)[:2, 1:-1].all(axis=0).any() for turn in range(4)):
            return True
    return False


def _save(pixels: Array, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze()).save(path)
