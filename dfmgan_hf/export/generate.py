"""Draw data sets of triplets in bulk, resumable, in the forms that others read."""

from __future__ import annotations

import contextlib
import io
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from .. import __version__
from ..arguments import check_device, check_effect
from ..data.reading import Array
from ..files import (
    TRAINING_FILE,
    check_folder,
    keep_settings,
    lock_folder,
    module_sha256,
    to_json,
    write_json,
    write_text,
)
from ..gate import REASONS, Judgement, QualityGate
from ..hub.cards import read_record, without_local_paths
from ..hub.push import Repository, scratch_folder
from ..models.base import image_size
from ..painting import trained_fit
from ..pipeline import DFMGANPipeline
from ..processes import ProcessGroup
from ..sheets import contact_sheet, save_sheet
from .writers import (
    DATA_DIR,
    RECORD_DIR,
    SETTINGS_FILE,
    DatasetConfig,
    ExportConfig,
    ExportError,
    Record,
    Sample,
    Writer,
    dataset_card,
    make_writer,
)

SUMMARY_FILE = f"{RECORD_DIR}/summary.json"
# Options that change how the work is done, not what comes of it.
_FREE = ("output_dir", "gate", "gate_groups", "batch_size", "max_attempts", "max_megapixels", "device")
# For the reader; the same model may lie elsewhere, and another release may draw the same.
_NOT_COMPARED = ("model", "trained_on", "dfmgan-hf", "gate_thresholds")
_SHEET_SIZE = 16
# A gate that lets less than this share pass says that the model is not good enough, not which of its draws are.
_LEAST_PASSED, _JUDGED_FIRST = 0.05, 200

# How `draw` calls a twin, and what it calls the pictures of a triplet.
_TWIN = re.compile(r"[0-9]{5,10}_defect_free\.png")
_OF_TRIPLET = ("mask", "defect", "defect_free")

T = TypeVar("T")
Draw = Callable[[list[int]], Iterator[Sample]]
Triplet = tuple[Image.Image, Image.Image, Image.Image]
Drawn = tuple[Record, Image.Image, Image.Image, Image.Image]


@dataclass(frozen=True)
class DrawConfig:
    """Draw a few triplets and a contact sheet of them.

    Attributes:
        model: A folder that save_pretrained or a training wrote, or a repository on the Hub.
        output_dir: Folder for the pictures; those of an earlier drawing in it go.
        num_images: Triplets to draw.
        first_seed: Triplet i is drawn from seed first_seed + i, and looks the same on every run.
        truncation_psi: 1 is the full variety; less is more typical.
        device: Where to compute; CUDA if there is a GPU for it.
    """

    model: str
    output_dir: Path = Path("demo_output")
    num_images: int = 16
    first_seed: int = 0
    truncation_psi: float = 1.0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


def draw(config: DrawConfig) -> list[Path]:
    """Draw triplets into a folder, three PNG files each, named after the seed: what `dfmgan draw` does.

    A backbone of stage 1 draws defect-free images alone. The folder holds one drawing: the triplets of an earlier one
    are removed, since a mixture would be measured and looked at as one model's; other files stay.

    Returns:
        The files, contact_sheet.png first.
    """
    check_device(config.device)
    pipe = DFMGANPipeline.from_pretrained(config.model).to(config.device)
    check_folder(config.output_dir)
    pipe.set_progress_bar_config(desc="Drawing", unit="sample")
    seeds = range(config.first_seed, config.first_seed + config.num_images)
    start = time.perf_counter()
    output: Any = pipe(config.num_images, seeds=seeds, truncation_psi=config.truncation_psi)
    seconds = time.perf_counter() - start
    columns = {"defect-free": output.defect_free_images}
    if pipe.has_defects:
        columns |= {"mask": output.masks, "defect": output.images}
    width, height = output.images[0].size
    title = f"{Path(config.model).name}: {config.num_images} samples at {width} x {height}"
    samples = list(zip(*columns.values(), strict=True))
    captions = [
        f"seed {seed}" if kind is None else f"seed {seed}, {kind}"
        for seed, kind in zip(seeds, output.defects or [None] * config.num_images, strict=True)
    ]
    files = {"contact_sheet.png": contact_sheet(samples, title=title, headings=tuple(columns), captions=captions)}
    for name, pictures in columns.items():
        files |= {f"{s:05d}_{name.replace('-', '_')}.png": p for s, p in zip(seeds, pictures, strict=True)}
    earlier = [path for path in _drawn_before(config.output_dir) if path.name not in files]
    for path in earlier:
        path.unlink()
    for name, picture in files.items():
        save_sheet(picture, config.output_dir / name)
    if earlier:
        print(f"Removed {len(earlier)} pictures of an earlier drawing from {config.output_dir.resolve()}")
    print(
        f"Drew {config.num_images} samples ({', '.join(columns)}) of {width} x {height} pixels in {seconds:.1f} s on "
        f"{config.device}: {config.output_dir.resolve() / 'contact_sheet.png'} and {len(files) - 1} pictures beside it"
    )
    return [config.output_dir / name for name in files]


def _drawn_before(folder: Path) -> list[Path]:
    """Return the pictures of triplets that `draw` wrote.

    Each triplet has a twin: a mask without one is somebody's own. The twin comes last, so that a removal that was cut
    short can be taken up.
    """
    twins = [path for path in folder.glob("*_defect_free.png") if _TWIN.fullmatch(path.name)]
    triplets = ([twin.with_name(twin.name.replace("defect_free", kind)) for kind in _OF_TRIPLET] for twin in twins)
    return [path for triplet in triplets for path in triplet if path.is_file()]


@dataclass(frozen=True)
class GenerateConfig:
    """Draw a data set of triplets in bulk, in a layout that other tools read.

    Attributes:
        model: Model to draw from: a folder, or the name of a repository on the Hub.
        revision: Revision of the Hub repository.
        push_to_hub: Data set repository user/name to upload to; needs the format parquet.
        private: Make a new repository private.
        gate: Data set with the real defects (`defect`, or the only kind): draw again what is not visible, not where
            the mask says, off the product, a copy or unlike these, until there are num_images good ones.
        gate_groups: CSV of the parts that its photographs show, where several show the same: see `dfmgan split`.
        gate_bit_depth: Significant bits of its 16-bit photographs (12 for the raw values of many cameras).
    """

    model: str
    export: ExportConfig
    revision: str | None = None
    push_to_hub: str | None = None
    private: bool = False
    gate: Path | None = None
    gate_groups: Path | None = None
    gate_bit_depth: int = 16

    def __post_init__(self) -> None:
        if self.gate is None:
            check_effect(self, ["gate_groups", "gate_bit_depth"], "`gate`")
        if self.push_to_hub is None:
            check_effect(self, ["private"], "`push_to_hub`")


def generate(config: GenerateConfig, processes: ProcessGroup | None = None, draw: Draw | None = None) -> None:
    """Load a model, draw a data set from it, summarise and publish it: what `dfmgan generate` does.

    Args:
        config: what to draw.
        processes: of a launch.
        draw: draws the samples of these numbers, in this order; None draws them here.
    """
    processes = processes or ProcessGroup()
    if config.push_to_hub is not None and processes.is_main:
        check_push(config.export, config.push_to_hub, private=config.private or None)
    pipe = DFMGANPipeline.from_pretrained(config.model, revision=config.revision).to(processes.device)
    gate = open_gate(config.gate, config.export, pipe, config.gate_groups, config.gate_bit_depth)
    summary = generate_dataset(pipe, config.export, model_name=config.model, processes=processes, gate=gate, draw=draw)
    if summary is not None:
        print(f"{config.export.output_dir}:\n{summary}")
        if config.push_to_hub is not None:
            address = push_to_hub(config.export.output_dir, config.push_to_hub, private=config.private or None)
            print(f"  pushed  {address}")


def open_gate(
    data_dir: Path | None,
    export: DatasetConfig,
    pipe: DFMGANPipeline,
    groups: Path | None = None,
    bit_depth: int = 16,
) -> QualityGate | None:
    """Measure a gate's thresholds for an export at the size of a model, on its device; None without real defects.

    These are brought to the shape of the model's images as in its training.

    Args:
        data_dir: the real defects.
        export: names the kind of defect.
        pipe: the model.
        groups: CSV of the parts that the real defects are on.
        bit_depth: significant bits of 16-bit photographs of real defects.

    Raises:
        DataError, GateError, MissingWeightsError, ImportError: as `QualityGate.from_data`.
    """
    if data_dir is None:
        return None
    config = pipe.generator.config
    return QualityGate.from_data(
        data_dir,
        export.defect,
        image_size(config),
        config["image_channels"],
        category=export.category,
        groups=groups,
        fit=trained_fit(pipe.unwrapped_generator),
        bit_depth=bit_depth,
        device=pipe.device,
    )


def describe_model(pipe: DFMGANPipeline, source: str) -> dict[str, Any]:
    """Return what an export records of a model: its name, its hash and, if known, the photographs it learnt from.

    Args:
        pipe: loaded from `source`.
        source: a folder, whose name alone is recorded (a path says nothing to others), or a repository on the Hub.
    """
    folder = Path(source)
    model: dict[str, Any] = {"model": folder.resolve().name if folder.is_dir() else source}
    model["model_sha256"] = module_sha256(pipe.unwrapped_generator)
    names = (read_record(folder / TRAINING_FILE) or {}).get("training_file_names")
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        model["trained_on"] = names
    return model


@dataclass(frozen=True)
class ExportSummary:
    """What came of an export.

    Attributes:
        num_images: triplets in the folder, of which this run drew `num_drawn` in `seconds`.
        dropped: draws that were dropped since the export was begun, by reason.
        refused: draws that the gate refused since, by the first check that did; None without a gate.
        mask_area: min, mean and max of the share of the image that masks cover.
    """

    num_images: int
    dropped: dict[str, int]
    mask_area: dict[str, float]
    num_drawn: int
    seconds: float
    refused: dict[str, int] | None = None

    def __str__(self) -> str:
        gate = ""
        if self.refused is not None:
            reasons = ", ".join(f"{count:,} {REASONS[name]}" for name, count in self.refused.items())
            total = self.num_images + sum(self.refused.values())
            gate = f"\n  gate    drew {total:,}, kept {self.num_images:,}: {reasons or 'none refused'}"
        dropped = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in self.dropped.items())
        return (
            f"  drew    {self.num_drawn:,} of {self.num_images:,} triplets in {self.seconds:.1f} s, "
            f"{self.num_drawn / self.seconds:.1f} a second; {self.num_images - self.num_drawn:,} were there before\n"
            f"  dropped {sum(self.dropped.values()):,} draws by their masks: {dropped}\n"
            f"  masks   cover {self.mask_area['min']:.2%} to {self.mask_area['max']:.2%} of the image, "
            f"{self.mask_area['mean']:.2%} on average{gate}"
        )


def generate_dataset(
    pipe: DFMGANPipeline,
    config: ExportConfig,
    *,
    model_name: str,
    processes: ProcessGroup | None = None,
    gate: QualityGate | None = None,
    draw: Draw | None = None,
) -> ExportSummary | None:
    """Fill a folder with triplets, or resume an earlier run with the same settings.

    Image i depends on the settings and i alone, however many processes share the work and however often it was
    stopped. Memory does not grow with the number of images.

    Args:
        pipe: with defects, on the device that draws.
        config: what to draw and where to.
        model_name: what the model is called, for the card and the record: its folder, or its repository on the Hub.
        processes: of a launch, which share the work: every one calls this, and all but the main one get None.
        gate: judges each draw; what it refuses is drawn again.
        draw: as for `generate`.

    Raises:
        ExportError: the folder or the model are not usable, or the bounds of the mask's area are too strict for the
            model. What was written stays.
        ValueError: an option that this model cannot be drawn with. Nothing is written then.
        BlockingIOError: another run is writing to the folder.

    Example:
        >>> generate_dataset(pipe, ExportConfig(Path("cracks"), num_images=500), model_name="hazelnut-crack")
    """

    def redraw(_: int, seed: int) -> Triplet:
        output: Any = _draw(pipe.silent(), config, [seed])
        return output.defect_free_images[0], output.masks[0], output.images[0]

    # A rehearsal: what is wrong with the options is said before the folder is begun, which would bind it to them.
    redraw(0, 0)
    draw = draw or partial(draw_samples, pipe, config, gate=gate)
    return export_dataset(config, describe_model(pipe, model_name), draw, processes, redraw, gate)


def export_dataset(
    config: DatasetConfig,
    model: dict[str, Any],
    draw: Draw,
    processes: ProcessGroup | None,
    redraw: Callable[[int, int], Triplet],
    gate: QualityGate | None,
    kinds: Sequence[str] = ("defect-free", "mask", "defect"),
) -> ExportSummary | None:
    """Fill a folder with what `draw` makes of the numbers that are missing in it; see `generate_dataset`.

    Args:
        config: what goes where; with the model and the gate it must be the same to resume.
        model: what it is called, and its hash.
        draw: yields the samples of these numbers, in this order.
        processes: of a launch.
        redraw: draws once more, by number and seed, what the gate refused, for the sheet of that.
        gate: that `draw` asks.
        kinds: how contact sheets call the three pictures.
    """
    processes = processes or ProcessGroup()
    start = time.perf_counter()
    if gate is not None:
        model = {**model, "gate_sha256": gate.sha256, "gate_thresholds": gate.thresholds}
    with contextlib.ExitStack() as stack:
        settings: dict[str, Any] = {}
        if processes.is_main:
            _check_folder(config.output_dir)
            stack.enter_context(lock_folder(config.output_dir / RECORD_DIR, title=config.output_dir))
            settings = _begin_or_resume(config, model)
        processes.wait()
        writer = make_writer(config)
        missing = list(writer.missing(processes.rank, processes.count))
        quiet = not processes.is_main or not missing
        samples = tqdm(draw(missing), "Generating", len(missing), unit="img", disable=quiet)
        drawn = sum(1 for _ in writer.write(samples))
        # The sum also waits for the files of the other processes.
        num_drawn = int(processes.sum(torch.tensor(drawn)))
        if not processes.is_main:
            return None
        return _finish(writer, config, settings, num_drawn, start, kinds, redraw if gate else None)


def _begin_or_resume(config: DatasetConfig, model: dict[str, Any]) -> dict[str, Any]:
    """Store and return the settings in a new folder, or return those that it was begun with if they are the same."""
    options = {name: to_json(value) for name, value in asdict(config).items() if name not in _FREE}
    settings = {**model, **{k: v for k, v in options.items() if k not in model}, "dfmgan-hf": __version__}
    begun, different = keep_settings(config.output_dir / SETTINGS_FILE, settings)
    differences = [
        f"{name} was {begun.get(name)} and is {settings.get(name)} now"
        for name in different
        if name not in _NOT_COMPARED
    ]
    if differences:
        raise ExportError(
            f"{config.output_dir} was begun with other settings: {'; '.join(differences)}. Repeat them to resume, "
            "or give another folder."
        )
    return begun


def _check_folder(folder: Path) -> None:
    """Keep every export out of a folder that holds other things."""
    is_begun = (folder / SETTINGS_FILE).is_file()
    if not is_begun and folder.is_dir() and any(not e.name.startswith((".", RECORD_DIR)) for e in folder.iterdir()):
        raise ExportError(f"{folder} holds other things and no {SETTINGS_FILE}. Give a new or empty folder.")


def _finish(
    writer: Writer,
    config: DatasetConfig,
    settings: dict[str, Any],
    num_drawn: int,
    start: float,
    kinds: Sequence[str],
    redraw: Callable[[int, int], Triplet] | None,
) -> ExportSummary:
    """Write the table, the contact sheets, the card and the summary; `redraw` is None without a gate."""
    dropped: Counter[str] = Counter(empty=0, too_small=0, too_large=0)
    refused: Counter[str] = Counter()
    shown: list[tuple[int, int, list[str]]] = []
    smallest, total, largest = 1.0, 0.0, 0.0
    for record in writer.finish():
        smallest, largest = min(smallest, record.mask_area), max(largest, record.mask_area)
        total += record.mask_area
        for reason in dropped:
            dropped[reason] += getattr(record, f"dropped_{reason}")
        for seed, failed in json.loads(record.gate)["refused"] if record.gate else ():
            refused[failed[0]] += 1
            if len(shown) < _SHEET_SIZE:
                shown.append((record.index, seed, failed))
    area = {"min": smallest, "mean": total / config.num_images, "max": largest}
    in_order = {name: refused[name] for name in REASONS if refused[name]}
    summary = ExportSummary(
        config.num_images,
        dict(dropped),
        area,
        num_drawn,
        time.perf_counter() - start,
        refused=None if redraw is None else in_order,
    )
    of_all = {k: v for k, v in asdict(summary).items() if k not in ("num_drawn", "seconds") and v is not None}
    if redraw is not None and shown:
        sheet = contact_sheet(
            [redraw(index, seed) for index, seed, _ in shown],
            title=f"{config.category}: {config.defect}, the first {len(shown)} of {sum(refused.values()):,} "
            "that the gate refused",
            headings=kinds,
            captions=[f"{', '.join(REASONS[name] for name in failed)} (seed {seed})" for _, seed, failed in shown],
        )
        save_sheet(sheet, config.output_dir / RECORD_DIR / "refused.png")
    samples = writer.read(min(_SHEET_SIZE, config.num_images))
    sheet = contact_sheet(
        [_shown(sample) for sample in samples],
        title=f"{config.category}: {config.defect}, the first {len(samples)} of {config.num_images:,}",
        headings=kinds,
        captions=[str(sample.record.index) for sample in samples],
    )
    save_sheet(sheet, config.output_dir / RECORD_DIR / "contact_sheet.png")
    if config.format == "parquet":
        write_text(config.output_dir / "README.md", dataset_card(settings, of_all))
    write_json(config.output_dir / SUMMARY_FILE, of_all)
    return summary


def _shown(sample: Sample) -> list[Image.Image]:
    """Return twin, mask and image for a contact sheet.

    Of a painted photograph the window of its first defect: in the whole, it may be too small to see.
    """
    contents = sample.defect_free, sample.mask, sample.image
    if not sample.record.photograph:
        return [Image.open(io.BytesIO(content)) for content in contents]
    import imagecodecs

    window = json.loads(sample.record.photograph)["defects"][0]["window"]
    return crop_shown([imagecodecs.png_decode(content) for content in contents], window)


def crop_shown(pictures: Iterable[Image.Image | Array], window: Sequence[int]) -> list[Image.Image]:
    """Return a window of pictures for a contact sheet, with 8 bits; those of 16 bits stay as bright as each other."""
    left, top, right, bottom = window

    def without_alpha(x: Array) -> Array:  # which has 16 bits where a camera has 12
        return x if x.dtype == np.uint8 or x.ndim == 2 else x[:, :, :3] if x.shape[2] > 2 else x[:, :, 0]

    every = [without_alpha(np.asarray(picture)) for picture in pictures]
    highest = max((int(x.max()) for x in every if x.dtype == np.uint16), default=0)
    shift = max(highest.bit_length() - 8, 0)
    eight_bits = (x if x.dtype == np.uint8 else (x >> shift).astype(np.uint8) for x in every)
    return [Image.fromarray(x).crop((left, top, right, bottom)) for x in eight_bits]


def kind_of(pipe: DFMGANPipeline, defect: str) -> str | None:
    """Return the kind of defect to draw: this one of a model that draws several, which has to be among them.

    Raises:
        ExportError: it is not, or the pipeline has a backbone only.
    """
    if not pipe.has_defects:
        raise ExportError(
            "The model is a backbone of stage 1, which draws no defects. Expected a model of stage 2: train it on "
            "this one (`dfmgan train stage2`) and give its output folder."
        )
    if pipe.defect_names and defect not in pipe.defect_names:
        raise ExportError(
            f"The model draws the defects {', '.join(pipe.defect_names)}, but not {defect!r}: say which with --defect."
        )
    return defect if pipe.defect_names else None


def draw_samples(
    pipe: DFMGANPipeline, config: ExportConfig, indices: Iterable[int], gate: QualityGate | None = None
) -> Iterator[Sample]:
    """Draw the triplets of these numbers, in this order; `batch_size` of them at a time.

    Image i is the first of the draws `candidate_seed(config.seed, i, 0)`, `(..., i, 1)` and so on whose mask has an
    area within the bounds and that passes the gate. Other batch sizes and other devices round
    differently: a few pixels may differ by one.

    Raises:
        ExportError: as `kind_of`; an image has used up its attempts, or fewer than one draw in twenty passes the
            gate.
    """
    kind_of(pipe, config.defect)
    encode = partial(Sample.encode, model_sha256=module_sha256(pipe.unwrapped_generator))
    pipe = pipe.silent()
    pipe.enable_cuda_graphs()
    numbers = iter(indices)
    parts = iter(lambda: list(islice(numbers, config.batch_size)), [])
    guard = None if gate is None else Guard(gate)
    batches: Iterator[list[Drawn]] = (_draw_batch(pipe, config, part, guard) for part in parts)
    # A CPU has no time to spare for it, and its libraries keep memory for each thread that has drawn.
    if pipe.device.type != "cpu":
        batches = one_ahead(batches)
    # A GPU draws faster than one core compresses; threads do, because Pillow compresses without Python's lock.
    with ThreadPoolExecutor() as pool:
        for batch in batches:
            yield from pool.map(encode, *zip(*batch, strict=True))


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the items, each of which is computed in a thread while the one before it is used."""
    end: Any = object()
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, items, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, items, end)
            yield item


@dataclass
class Guard:
    """A gate that stops an export when hardly anything passes."""

    gate: QualityGate
    passed: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def count(self, judgement: Judgement) -> Judgement:
        """Take a judgement into account, and return it.

        Raises:
            ExportError: of at least 200 fewer than one in twenty passed.
        """
        self.passed += judgement.passed
        self.refused.update(judgement.failed[:1])
        judged = self.passed + sum(self.refused.values())
        if judged >= _JUDGED_FIRST and self.passed < _LEAST_PASSED * judged:
            reasons = ", ".join(f"{count} {REASONS[name]}" for name, count in self.refused.most_common())
            raise ExportError(
                f"Of {judged} draws the gate let {self.passed} pass ({reasons}): fewer than one in twenty. Train the "
                "model longer, check that --gate holds photographs at the scale that it learnt from, or leave it out."
            )
        return judgement


def judge_triplet(triplet: Sequence[Image.Image], gate: QualityGate) -> Judgement:
    """Judge image, mask and twin, of 8 bits, as a model drew them."""
    pixels = (np.asarray(picture) for picture in triplet)
    return gate.judge(*(torch.from_numpy(x.reshape(*x.shape[:2], -1).transpose(2, 0, 1).copy()) for x in pixels))


@dataclass
class Attempts:
    """The draws for one image: which were dropped by their masks or refused by the gate, and the one that stays.

    Attributes:
        index: number of the image.
        config: bounds of the mask's area.
        guard: None without a gate.
        dropped: draws by reason.
        refused: seeds, each with the checks that refused it.
    """

    index: int
    config: DatasetConfig
    guard: Guard | None
    dropped: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)

    def accept(self, seed: int, mask: Image.Image, judge: Callable[[QualityGate], Judgement]) -> Record | None:
        """Return the record of a draw that is good, or None; `judge` asks the gate about it.

        Raises:
            ExportError: hardly anything passes the gate.
        """
        area = float((np.asarray(mask) != 0).mean())
        reason = why_dropped(area, self.config)
        if reason is not None:
            self.dropped[reason] += 1
            return None
        gate = ""
        if self.guard is not None:
            judgement = self.guard.count(judge(self.guard.gate))
            if not judgement.passed:
                self.refused.append((seed, judgement.failed))
                return None
            gate = json.dumps({"numbers": judgement.numbers, "refused": self.refused})
        counts: dict[str, Any] = {f"dropped_{name}": count for name, count in self.dropped.items()}
        return Record(self.index, seed, area, **counts, gate=gate)


def _draw(pipe: DFMGANPipeline, config: ExportConfig, seeds: list[int]) -> Any:
    return pipe(
        seeds=seeds,
        truncation_psi=config.truncation_psi,
        noise_mode=config.noise_mode,
        mask_threshold=config.mask_threshold,
        batch_size=len(seeds),
        defect=kind_of(pipe, config.defect),
    )


def _draw_batch(
    pipe: DFMGANPipeline, config: ExportConfig, batch: list[int], guard: Guard | None = None
) -> list[Drawn]:
    attempts = {index: Attempts(index, config, guard) for index in batch}
    kept: dict[int, Drawn] = {}
    for attempt in range(config.max_attempts):
        wanted = [index for index in batch if index not in kept]
        if not wanted:
            break
        seeds = [candidate_seed(config.seed, index, attempt) for index in wanted]
        output: Any = _draw(pipe, config, seeds)
        drawn = zip(wanted, seeds, output.images, output.masks, output.defect_free_images, strict=True)
        for index, seed, *triplet in drawn:
            image, mask, defect_free = triplet
            record = attempts[index].accept(seed, mask, partial(judge_triplet, triplet))
            if record is not None:
                kept[index] = (record, image, mask, defect_free)
    for index in batch:
        if index not in kept:
            counted = {name.replace("_", " "): count for name, count in attempts[index].dropped.items()}
            counted |= Counter(REASONS[failed[0]] for _, failed in attempts[index].refused)
            reasons = ", ".join(f"{count} {name}" for name, count in counted.items())
            passes = "" if guard is None else " and passes the gate"
            raise ExportError(
                f"None of the first {config.max_attempts} draws of image {index} has a mask of the wanted area{passes}"
                f" ({reasons}). Widen min_mask_area and max_mask_area in a new folder, raise max_attempts to "
                "resume this one, or train the model longer."
            )
    return [kept[index] for index in batch]


def candidate_seed(seed: int, index: int, attempt: int) -> int:
    """Return the seed of draw number `attempt` for image number `index` of an export with the seed `seed`.

    From 0 to 2^32 - 1. Sets of different seeds share images only by rare coincidence, unlike with `seed + i`.

    Example:
        >>> candidate_seed(0, 1, 0)
        3964924996
    """
    return int(np.random.SeedSequence([seed, index, attempt]).generate_state(1)[0])


def why_dropped(area: float, config: DatasetConfig) -> str | None:
    """Return why a mask that covers the share `area` of the image is dropped; None if it is kept."""
    if area == 0 and config.min_mask_area != 0:
        return "empty"
    if area < (config.min_mask_area or 0):
        return "too_small"
    return "too_large" if area > config.max_mask_area else None


def check_push(config: ExportConfig, repo_id: str, *, private: bool | None = None) -> None:
    """Find out whether an export can be pushed to the repository "user/name": before hours are spent on drawing it.

    The repository is made if there is none, `private` or not; None leaves that to its owner's settings.

    Raises:
        ExportError: the format is not one for the Hub.
        HubError: no connection, no such name, or a token that may not write there.
    """
    if config.format != "parquet":
        raise ExportError(
            f"The format {config.format} is thousands of small files, for which the Hub is not made: push parquet."
        )
    Repository(repo_id, "dataset", private=private).check_write()


def push_to_hub(output_dir: Path, repo_id: str, *, private: bool | None = None) -> str:
    """Send a finished parquet export to the data set repository "user/name" in one commit; return its address.

    The repository is made as for `check_push`. The same commit removes the shards of an earlier export. Local paths
    and the names of photographs that the model learnt from are not sent.

    Raises:
        ExportError: the export is not finished, or is in another format.
        HubError: nothing was sent.
    """
    patterns = ("README.md", f"{DATA_DIR}/train-*.parquet", f"{RECORD_DIR}/[!.]*")
    files = {
        path.relative_to(output_dir).as_posix(): path for pattern in patterns for path in output_dir.glob(pattern)
    }
    if not files.keys() >= {"README.md", SUMMARY_FILE}:
        raise ExportError(
            f"{output_dir} holds no finished export in parquet. Give the command that began it again: it resumes."
        )
    repository = Repository(repo_id, "dataset", private=private)
    with scratch_folder() as aside:
        files[SETTINGS_FILE] = aside / SETTINGS_FILE
        write_json(files[SETTINGS_FILE], without_local_paths(read_record(output_dir / SETTINGS_FILE)))
        return repository.push(files, "Upload generated triplets", replaced_folders=[DATA_DIR, RECORD_DIR])
