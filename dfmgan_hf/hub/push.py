"""Publish a model's folder, or what was measured of it: one commit each, and errors that say what to do."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.utils import httpx

from ..arguments import check_effect
from ..files import BEST_FOLDER, SCORE_FILE, file_sha256, lock_folder, whole_folder, write_json, write_text
from ..hub_errors import HubError, clear_errors
from ..models.base import refuse_pickles
from .cards import (
    CARD_FILE,
    INDEX_FILE,
    RECORD_FILES,
    REFERENCES_FILE,
    RESULTS_FILE,
    SAMPLES_FILE,
    CardError,
    CardFacts,
    add_results,
    build_model_card,
    check_measured,
    facts_from_folder,
    full_precision_weights,
    is_full_precision,
    loaded_from,
    read_card,
    read_record,
    same_photographs,
    without_local_paths,
)

# A commit is all or nothing, so that sending it again is safe. The client itself retries the files, not the commit.
COMMIT_ATTEMPTS = 3

_CARD_PICTURE = re.compile(r"!\[[^\]]*\]\(([^):]+)\)")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a folder for what is sent; those of pushes that were killed, which may hold whole models, go first."""
    prefix = f"dfmgan-push-{getattr(os, 'getuid', int)()}-"
    for litter in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError), lock_folder(litter):  # which another push still has
            shutil.rmtree(litter)
    with tempfile.TemporaryDirectory(prefix=prefix) as folder, lock_folder(folder):
        yield Path(folder)


@dataclass(frozen=True)
class HubConfig:
    """Publishing on the Hugging Face Hub. The token is that of `hf auth login`, or HF_TOKEN.

    Args:
        push_to_hub: Publish the result in a repository on the Hub.
        hub_model_id: The repository, org/name. None: a name in your own namespace, that of the folder; or the
            repository of a model that came from the Hub.
        hub_private_repo: Make a new repository private.
        hub_revision: Branch to write to, made if it does not exist. None: main.
        hub_commit_message: Message of the commit.
        hub_training_networks: Also publish the discriminators, from which others can train further.

    Raises:
        ValueError: options without push_to_hub.
    """

    push_to_hub: bool = False
    hub_model_id: str | None = None
    hub_private_repo: bool = False
    hub_revision: str | None = None
    hub_commit_message: str | None = None
    hub_training_networks: bool = False

    def __post_init__(self) -> None:
        if not self.push_to_hub:
            check_effect(self, [field.name for field in fields(self)], "`push_to_hub`")

    def for_part(self, part: str, run_dir: Path | str) -> HubConfig:
        """Return the options for one of several models of a run: the part's name ends the repository's."""
        if not self.push_to_hub:
            return self
        suffix = re.sub(r"[^A-Za-z0-9_.]+", "-", part).strip("-.")
        return replace(self, hub_model_id=f"{self._name(run_dir)}-{suffix}")

    def for_model(self, model: Path | str) -> HubConfig:
        """Return the options for what was measured of a model: by default its own repository if it came from there."""
        if not self.push_to_hub or self.hub_model_id is not None or Path(model).is_dir():
            return self
        return replace(self, hub_model_id=str(model))

    def advice(self, folder: Path | str, *more: str) -> str:
        """Return the command that publishes `folder` with these options and `more`, for who could not do so yet."""
        named = replace(self, hub_model_id=self._name(folder))
        given = {f.name: getattr(named, f.name) for f in fields(named) if getattr(named, f.name) != f.default}
        options = ([f"--{name}"] if value is True else [f"--{name}", str(value)] for name, value in given.items())
        command = shlex.join(["--folder", str(folder), *more, *(part for option in options for part in option)])
        return f"To publish it once that is fixed: dfmgan push {command}"

    def open_repository(
        self, folder: Path | str, *, private: bool | None = None, token: str | None = None
    ) -> Repository:
        """Open the repository that these options name; `private` says more than `hub_private_repo` if it is given."""
        private = self.hub_private_repo or None if private is None else private
        return Repository(self._name(folder), revision=self.hub_revision, private=private, token=token)

    def _name(self, folder: Path | str) -> str:
        """The repository: if nobody names it, as the folder, or as the run whose best model the folder is."""
        path = Path(folder).resolve()
        return self.hub_model_id or (path.parent.name if path.name == BEST_FOLDER else path.name)


class Repository:
    """A repository on the Hub that can be written to, made if it does not exist, and its branch likewise.

    Args:
        name: "org/name", or a name in your own namespace.
        kind: what it holds: "model" or "dataset".
        revision: branch to write to; None for main.
        private: visibility of a new repository, None for its owner's default; one that exists stays as it is.
        token: access token; None for HF_TOKEN or that of `hf auth login`.

    Raises:
        HubError: no connection, or a token that may not write there.
    """

    def __init__(
        self,
        name: str,
        kind: str = "model",
        *,
        revision: str | None = None,
        private: bool | None = None,
        token: str | None = None,
    ) -> None:
        self.kind, self.revision = kind, revision
        self.api = HfApi(token=token, library_name="dfmgan-hf")
        with clear_errors(f"{name} cannot be written to", name, revision):
            url = self.api.create_repo(name, repo_type=kind, private=private, exist_ok=True)
            self.name = url.repo_id
            if revision is not None:
                self.api.create_branch(self.name, repo_type=kind, branch=revision, exist_ok=True)

    def check_write(self) -> None:
        """Raise `HubError` if the token may not write here; opening lets one pass that may only read."""
        with clear_errors(f"{self.name} cannot be written to", self.name):
            self.api.auth_check(self.name, repo_type=self.kind, write=True)

    def file_names(self) -> list[str]:
        """Return the paths of the files in the branch."""
        with clear_errors(f"{self.name} cannot be listed", self.name, self.revision):
            return self.api.list_repo_files(self.name, repo_type=self.kind, revision=self.revision)

    def download(self, name: str) -> Path:
        """Return where a file of the branch lies here, once it is in the client's cache."""
        with clear_errors(f"{self.name} cannot be read", self.name, self.revision):
            return Path(self.api.hf_hub_download(self.name, name, repo_type=self.kind, revision=self.revision))

    def holds(self, files: Mapping[str, Path]) -> bool:
        """Return whether the branch's generator is in the same files; the others of `files` are not looked at.

        The Hub hashes large files, so that none is downloaded. Variants in half precision are not looked at either.
        """
        weights = _generator_weights(files)
        if set(_generator_weights(self.file_names())) != set(weights):
            return False
        with clear_errors(f"{self.name} cannot be read", self.name, self.revision):
            found = self.api.get_paths_info(self.name, weights, repo_type=self.kind, revision=self.revision)
        large = {file.path: getattr(file, "lfs", None) for file in found}
        return all(entry is None or entry.sha256 == file_sha256(files[name]) for name, entry in large.items())

    def push(
        self,
        files: Mapping[str, Path],
        message: str,
        *,
        replaced_folders: Sequence[str] = (),
        removed: Collection[str] = (),
        create_pr: bool = False,
    ) -> str:
        """Send files in one commit, and return its address or that of the pull request; nobody pulls a mixture.

        (`upload_folder` splits what it sends into several commits where hf_xet is installed.)

        Args:
            files: where each file lies, by its path in the repository. A card goes first.
            message: of the commit.
            replaced_folders: folders that afterwards hold what is in `files` and nothing else: shards or an index of
                an earlier push would be loaded instead of the new weights.
            removed: files that go if the branch has them and `files` has not.
            create_pr: open a pull request instead of writing to the branch.

        Raises:
            HubError: it was not sent. The branch is as it was.
        """
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, files[name]) for name in sorted(files, key=lambda name: (name != CARD_FILE, name))
        ]
        if replaced_folders or removed:
            folders = tuple(f"{folder}/" for folder in replaced_folders)
            old = (name for name in self.file_names() if name.startswith(folders) or name in removed)
            operations += [CommitOperationDelete(name) for name in old if name not in files]
        with clear_errors(f"Nothing was published in {self.name}", self.name, self.revision):
            for attempt in range(COMMIT_ATTEMPTS):
                try:
                    commit = self.api.create_commit(
                        self.name,
                        operations,
                        commit_message=message,
                        repo_type=self.kind,
                        revision=self.revision,
                        create_pr=create_pr,
                    )
                    break
                except httpx.TransportError:
                    if attempt == COMMIT_ATTEMPTS - 1:
                        raise
                    time.sleep(2**attempt)
        return commit.pr_url or commit.commit_url


def published_files(
    model_dir: Path, aside: Path, hub: HubConfig, results: dict[str, Any] | None = None
) -> dict[str, Path]:
    """Return which files of a model's folder are published, by their path in the repository.

    These are the pipeline's networks, the card with the pictures that it shows, and the records without local paths;
    no checkpoints, logs or photographs. Records that are cut for this go to `aside`. `results` are published in the
    place of those in the folder.

    Raises:
        CardError: the folder is no pipeline's, or not whole, or the results are those of other weights.
        PickledWeightsError: a network's folder holds pickles.
    """
    components = component_names(model_dir)
    files = {INDEX_FILE: model_dir / INDEX_FILE}
    for name in components:
        if not full_precision_weights(model_dir / name):
            raise CardError(f"{model_dir / name} holds no weights as safetensors; save the pipeline again.")
        files |= _network_files(model_dir / name)
    training_files: dict[str, Path] = {}
    if hub.hub_training_networks:
        for config in sorted(model_dir.glob("*/config.json")):
            if config.parent.name not in components and full_precision_weights(config.parent):
                training_files |= _network_files(config.parent)
    check_measured(results or read_record(model_dir / RESULTS_FILE) or {}, model_dir)
    files |= training_files | companion_files(model_dir)
    for name in files:
        if name.endswith(".json"):
            record = without_local_paths(read_record(files[name]))
            if name == INDEX_FILE and training_files:
                # Those who draw need not download what those who train need.
                record["_ignore_files"] = sorted(training_files)
            files[name] = aside / name
            write_json(files[name], record)
    return files


def component_names(model_dir: Path) -> list[str]:
    """Return the folders of the networks that a pipeline is made of; CardError if no pipeline was saved there."""
    index = read_record(model_dir / INDEX_FILE)
    if index is None:
        raise CardError(f"{model_dir} has no {INDEX_FILE}; give a folder that DFMGANPipeline or a training has saved.")
    return [name for name, value in index.items() if isinstance(value, list) and not name.startswith("_") and value[0]]


def companion_files(model_dir: Path, *, with_card: bool = True) -> dict[str, Path]:
    """Return a model's other files: its licence, records, and the card with the pictures that it shows."""
    files = {name: model_dir / name for name in ("LICENSE", *RECORD_FILES) if (model_dir / name).exists()}
    card = model_dir / CARD_FILE
    if with_card and card.exists():
        files[card.name] = card
        model_dir = Path(os.path.normpath(model_dir))
        for name in _CARD_PICTURE.findall(card.read_text(encoding="utf-8")):
            picture = Path(os.path.normpath(model_dir / name.strip()))
            if model_dir in picture.parents and picture.is_file():
                files[picture.relative_to(model_dir).as_posix()] = picture
    return files


def _network_files(folder: Path) -> dict[str, Path]:
    refuse_pickles(str(folder), (path.name for path in folder.iterdir()))
    wanted = [folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("*.safetensors.index*.json")]
    return {f"{folder.name}/{path.name}": path for path in wanted}


def _generator_weights(names: Iterable[str]) -> list[str]:
    """Return those of a repository's files that hold the generator in full precision."""
    return [n for n in names if n.startswith("generator/") and is_full_precision(n.removeprefix("generator/"))]


def _of_last_model(repository: Repository, published: Collection[str], files: Mapping[str, Path]) -> set[str]:
    """Return what an earlier push left in the repository that would be taken for the model's in `files`.

    These are discriminators, which the published index names, and records, unless the generator is the same. All
    else may have been added by hand.
    """
    left: set[str] = set() if repository.holds(files) else set(RECORD_FILES)
    if INDEX_FILE in published:
        with suppress(CardError):  # a push may well replace what cannot be read
            left |= set((read_record(repository.download(INDEX_FILE)) or {}).get("_ignore_files", ()))
    return left & set(published) - set(files)


def prepare_push(models: Mapping[Path, HubConfig]) -> None:
    """Find out before a training, rather than after it, that its results can be published.

    `models` are the options by folder, which need not exist yet; without `push_to_hub` they are left alone.

    Raises:
        HubError: no connection, or a token that may not write there.
    """
    for folder, hub in models.items():
        if hub.push_to_hub:
            hub.open_repository(folder).check_write()
            if (folder / RESULTS_FILE).is_file():
                warnings.warn(
                    f"{folder / RESULTS_FILE} has numbers of an earlier model, beside which no other is published: "
                    "remove it unless nothing is left to train.",
                    stacklevel=2,
                )


def push_model_folder(
    model_dir: Path | str,
    hub: HubConfig,
    facts: CardFacts | None = None,
    *,
    private: bool | None = None,
    token: str | None = None,
    create_pr: bool = False,
) -> str:
    """Publish a pipeline's folder in one commit (card, safetensors and JSON), and return the commit's address.

    The card is the folder's README.md. If it has none, the one on the Hub stays; if there is none either, one is made
    from the facts and the folder's records, with the last sample sheet of the training. Discriminators and, with
    another generator, records of an earlier push are removed; files that were added by hand stay.

    Args:
        model_dir: folder of a pipeline that was saved or trained; it stays as it is.
        hub: options; `push_to_hub` is not looked at.
        facts: for the card; those of the folder's last card and of the training's record fill its gaps.
        private: visibility of a new repository; None for that of the options.
        token: access token; None for HF_TOKEN or that of `hf auth login`.
        create_pr: open a pull request instead of writing to the branch.

    Raises:
        HubError: nothing was published.
        CardError: the folder is no whole pipeline, a record cannot be read, or the results are those of other weights.
        PickledWeightsError: a network's folder holds pickles.
    """
    model_dir = Path(model_dir)
    components = component_names(model_dir)
    with scratch_folder() as aside:
        files = published_files(model_dir, aside, hub)
        repository = hub.open_repository(model_dir, private=private, token=token)  # makes it, so after all checks
        published = repository.file_names()
        removed = _of_last_model(repository, published, files)
        if CARD_FILE in files:
            text = files[CARD_FILE].read_text(encoding="utf-8")
            files[CARD_FILE] = aside / CARD_FILE
            write_text(files[CARD_FILE], loaded_from(text, repository.name))
        elif CARD_FILE not in published:
            card, pictures = _new_card(model_dir, facts or CardFacts(), repository.name)
            files |= {CARD_FILE: aside / CARD_FILE, **pictures}
            card.save(files[CARD_FILE])
        elif RESULTS_FILE in removed:
            warnings.warn(
                f"The card in {repository.name} keeps the numbers of an earlier model; measure this one: "
                "`dfmgan evaluate --push_to_hub`.",
                stacklevel=2,
            )
        message = hub.hub_commit_message or "Upload DFMGAN pipeline"
        return repository.push(files, message, replaced_folders=components, removed=removed, create_pr=create_pr)


def _new_card(model_dir: Path, facts: CardFacts, name: str) -> tuple[ModelCard, dict[str, Path]]:
    """A card for a model that has none, and the picture in it by its path in the repository."""
    facts = replace(facts, model_name=name).filled_from(facts_from_folder(model_dir))
    sheet = _last_sample_sheet(model_dir)
    if sheet is not None:
        facts = replace(facts, picture_caption=f"Samples after {int(sheet.stem) / 1000:g} kimg of training.")
    card = build_model_card(model_dir, facts, with_picture=sheet is not None)
    return card, {} if sheet is None else {SAMPLES_FILE: sheet}


def _last_sample_sheet(model_dir: Path) -> Path | None:
    """The sheet that a training drew last, or for its best model the nearest to that model; None if there is none."""
    score = read_record(model_dir / SCORE_FILE)
    folder = model_dir / "samples" if score is None else model_dir.parent / "samples"
    # Trainings name their sheets after the number of images seen.
    sheets = sorted((sheet for sheet in folder.glob("*.png") if sheet.stem.isdecimal()), reverse=True)
    if score is None:
        return next(iter(sheets), None)
    return min(sheets, key=lambda sheet: abs(int(sheet.stem) - score["images_seen"]), default=None)


def push_trained(runs: Mapping[Path, HubConfig]) -> list[str]:
    """Publish what trainings left behind: of each its best model if it was scored, otherwise its last.

    `runs` are the options by output folder. The addresses of the commits are returned.

    Raises:
        HubError: some were not published; the others were. The message says how to publish them again.
    """
    addresses, failures = [], []
    for run_dir, hub in runs.items():
        if hub.push_to_hub:
            best = run_dir / BEST_FOLDER
            folder = best if (best / INDEX_FILE).is_file() else run_dir
            try:
                addresses.append(push_model_folder(folder, hub))
            except (OSError, CardError) as error:
                failures.append(f"The model is in {folder}, but was not published. {error}\n{hub.advice(folder)}")
    if failures:
        raise HubError("\n".join([*(f"Published: {address}" for address in addresses), *failures]))
    return addresses


def push_results(model: str, results_dir: Path | str, hub: HubConfig, *, revision: str | None = None) -> str:
    """Publish measured numbers with their model (results.json, the card's section, its metadata); return the address.

    The page of nearest images stays here: it shows the photographs. If the repository does not hold the model yet,
    and `model` is a folder, the model is published as well.

    Args:
        model: what was measured: folder of a pipeline, or its repository.
        results_dir: folder with the evaluation's results.json, and reference_results.json if there are references;
            otherwise the model's own stand beside the new numbers, if they are of the same photographs.
        hub: options; without `hub_model_id`, the measured repository.
        revision: of the repository that was measured.

    Raises:
        HubError, CardError: nothing was published: no connection, or the repository holds another model than the one
            that was measured.
    """
    results = read_record(Path(results_dir) / RESULTS_FILE)
    if results is None:
        raise CardError(f"{results_dir} has no {RESULTS_FILE}; measure the model first.")
    repository = hub.for_model(model).open_repository(model)
    published = repository.file_names()
    model_dir = Path(model)
    if not model_dir.is_dir():
        if INDEX_FILE not in published:
            raise HubError(
                f"{repository.name} holds no model that was measured. Leave hub_model_id out, or push the model."
            )
        # What a card is made from; the weights are in the cache already when the model has just been measured.
        patterns = [INDEX_FILE, *RECORD_FILES, "generator/*.json", "generator/*.safetensors"]
        with clear_errors(f"{model} cannot be read", model, revision):
            model_dir = Path(repository.api.snapshot_download(model, revision=revision, allow_patterns=patterns))
    check_measured(results, model_dir)
    weights = {f"generator/{path.name}": path for path in full_precision_weights(model_dir / "generator")}
    if INDEX_FILE in published and not repository.holds(weights):  # that of an earlier training, perhaps
        raise CardError(
            f"{repository.name} holds another generator than {model_dir}, or the same one in shards of another size: "
            "publish that one first, or measure the one that is published: "
            f"`dfmgan evaluate --model {repository.name}`."
        )
    references = read_record(Path(results_dir) / REFERENCES_FILE)
    with scratch_folder() as aside:
        files: dict[str, Path] = {}
        replaced: list[str] = []
        if INDEX_FILE not in published:
            files, replaced = published_files(model_dir, aside, hub, results), component_names(model_dir)
        if CARD_FILE in published:
            card = read_card(repository.download(CARD_FILE))
        elif (model_dir / CARD_FILE).exists():
            card = read_card(model_dir / CARD_FILE)
            card.text = loaded_from(card.text, repository.name)
        else:
            card, pictures = _new_card(model_dir, CardFacts(), repository.name)
            files |= pictures
        own = read_record(model_dir / REFERENCES_FILE) or {}
        comparable = {name: each for name, each in own.items() if same_photographs(results, each)}
        add_results(card, results, comparable if references is None else references, repository.name)
        files[CARD_FILE] = aside / CARD_FILE
        card.save(files[CARD_FILE])
        for name, record in ((RESULTS_FILE, results), (REFERENCES_FILE, references)):
            if record is not None:
                files[name] = aside / name
                write_json(files[name], without_local_paths(record))
        return repository.push(files, hub.hub_commit_message or "Add measured results", replaced_folders=replaced)


@dataclass(frozen=True)
class PublishConfig:
    """Publish a folder on the Hub, or look at what would be published.

    Args:
        folder: The model's folder; with results, a model on the Hub can be named as well.
        output_dir: New folder for the model's files that are published: to look at before a push, or to copy.
        results: Folder of an evaluation: publish its numbers with the model, rather than the model alone.

    Raises:
        ValueError: options that do not go together.
    """

    folder: Path
    output_dir: Path | None = None
    results: Path | None = None
    hub: HubConfig = field(default_factory=HubConfig)

    def __post_init__(self) -> None:
        if self.output_dir is None and not self.hub.push_to_hub:
            raise ValueError("Nothing to do: give `push_to_hub`, or `output_dir` to write the files to look at.")
        if not self.hub.push_to_hub:
            check_effect(self, ["results"], "`push_to_hub`")


def publish(config: PublishConfig) -> None:
    """Write and push what was asked for: what `dfmgan push` does."""
    if config.output_dir is not None:
        with whole_folder(config.output_dir) as whole, scratch_folder() as aside:
            for name, path in published_files(config.folder, aside, config.hub).items():
                (whole / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, whole / name)
        print(f"Wrote {config.output_dir}")
    if config.hub.push_to_hub:
        if config.results is not None:
            address = push_results(str(config.folder), config.results, config.hub)
        else:
            address = push_model_folder(config.folder, config.hub)
        print(f"Published: {address}")
