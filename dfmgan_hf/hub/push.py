"""Publish a model's folder, what was measured of it, or a Space."""

from __future__ import annotations

import re
import shlex
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.utils import httpx

from ..files import write_json, write_text
from ..hub_errors import HubError, clear_errors
from ..models.base import VARIANTS
from .cards import (
    BEST_FOLDER,
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
    component_names,
    copy_published,
    facts_from_folder,
    last_sample_sheet,
    loaded_from,
    published_files,
    read_facts,
    read_record,
    without_local_paths,
)

# --- Repositories on the Hub: one commit a push, and errors that say what to do.

RepositoryType = Literal["model", "dataset", "space"]

# A commit is all or nothing, so that sending it again is safe. The client itself retries the files, not the commit.
COMMIT_ATTEMPTS = 3


@dataclass(frozen=True)
class Repository:
    """A repository on the Hub that can be written to.

    Args:
        name: "org/name".
        kind: what it holds.
        revision: branch to write to; None for main.
        token: access token; None for HF_TOKEN or that of `hf auth login`.
    """

    name: str
    kind: RepositoryType = "model"
    revision: str | None = None
    token: str | None = None

    @property
    def _api(self) -> HfApi:
        return HfApi(token=self.token, library_name="dfmgan-hf")

    @classmethod
    def open(
        cls,
        name: str,
        *,
        kind: RepositoryType = "model",
        revision: str | None = None,
        private: bool = False,
        token: str | None = None,
    ) -> Repository:
        """The repository `name`, made if it does not exist, and its branch likewise.

        Args:
            name: "org/name", or a name in your own namespace.
            kind, revision, token: see `Repository`.
            private: visibility of a new repository; one that exists stays as it is.

        Raises:
            HubError: no connection, or a token that may not write there.
        """
        api = HfApi(token=token, library_name="dfmgan-hf")
        sdk = "gradio" if kind == "space" else None
        with clear_errors(f"{name} cannot be written to", name, revision):
            url = api.create_repo(
                name, repo_type=kind, private=True if private else None, exist_ok=True, space_sdk=sdk
            )
            if revision is not None:
                api.create_branch(url.repo_id, repo_type=kind, branch=revision, exist_ok=True)
        return cls(url.repo_id, kind, revision, token)

    def check_write(self) -> None:
        """Find out whether the token may write here; `open` lets one pass that may only read a repository.

        Raises:
            HubError: no connection, or a token that may not.
        """
        with clear_errors(f"{self.name} cannot be written to", self.name):
            self._api.auth_check(self.name, repo_type=self.kind, write=True)

    def file_names(self) -> list[str]:
        """Paths of the files in the branch."""
        with clear_errors(f"{self.name} cannot be listed", self.name, self.revision):
            return self._api.list_repo_files(self.name, repo_type=self.kind, revision=self.revision)

    def push(
        self,
        files: Mapping[str, Path],
        message: str,
        *,
        replaced_folders: Sequence[str] = (),
        create_pr: bool = False,
    ) -> str:
        """Send files in one commit: whoever pulls gets the files from before or those from after, never a mixture.

        (`upload_folder` splits what it sends into several commits where hf_xet is installed.)

        Args:
            files: where each file lies, by its path in the repository. A card goes first.
            message: of the commit.
            replaced_folders: folders that afterwards hold what is in `files` and nothing else: shards or an index of
                an earlier push would be loaded instead of the new weights.
            create_pr: open a pull request instead of writing to the branch.

        Returns:
            Address of the commit, or of the pull request.

        Raises:
            HubError: it was not sent. The branch is as it was.
        """
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, files[name]) for name in sorted(files, key=lambda name: (name != CARD_FILE, name))
        ]
        if replaced_folders:
            operations += [
                CommitOperationDelete(name)
                for name in self.file_names()
                if name not in files and name.startswith(tuple(f"{folder}/" for folder in replaced_folders))
            ]
        with clear_errors(f"Nothing was published in {self.name}", self.name, self.revision):
            for attempt in range(COMMIT_ATTEMPTS):
                try:
                    commit = self._api.create_commit(
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


# --- Publishing a model's folder, what was measured of it, or a Space: what `--push_to_hub` does.


@dataclass(frozen=True)
class HubConfig:
    """Options of scripts that publish what they made on the Hugging Face Hub. The token is that of `hf auth login`,
    or HF_TOKEN.

    Args:
        push_to_hub: Publish the result in a repository on the Hub.
        hub_model_id: The repository, org/name. None: a name in your own namespace, that of the folder; or the
            repository of a model that came from the Hub.
        hub_private_repo: Make a new repository private.
        hub_revision: Branch to write to, made if it does not exist. None: main.
        hub_commit_message: Message of the commit.
        hub_variant: Also publish the generator in half precision: fp16 or bf16.
        hub_max_shard_size: Split the generator's weights into files of at most this size, such as 5GB.
        hub_training_networks: Also publish the discriminators, from which others can train further.
        hub_card: JSON file with facts for the model card: title, product, license and the other fields of CardFacts.

    Raises:
        ValueError: options without push_to_hub, an unknown variant.
    """

    push_to_hub: bool = False
    hub_model_id: str | None = None
    hub_private_repo: bool = False
    hub_revision: str | None = None
    hub_commit_message: str | None = None
    hub_variant: str | None = None
    hub_max_shard_size: int | str | None = None
    hub_training_networks: bool = False
    hub_card: Path | None = None

    def __post_init__(self) -> None:
        given = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        if given and not self.push_to_hub:
            raise ValueError(f"`{given[0]}` has no effect without `push_to_hub`; give both or neither.")
        if self.hub_variant is not None and self.hub_variant not in VARIANTS:
            raise ValueError(f"`hub_variant` must be one of {', '.join(VARIANTS)}, but is {self.hub_variant!r}.")

    def for_part(self, part: str, run_dir: Path | str) -> HubConfig:
        """Options for one of several models of a run: the repository gets the part's name at its end."""
        if not self.push_to_hub:
            return self
        suffix = re.sub(r"[^A-Za-z0-9_.]+", "-", part).strip("-.")
        return replace(self, hub_model_id=f"{self.hub_model_id or _default_name(run_dir)}-{suffix}")

    def for_model(self, model: Path | str) -> HubConfig:
        """Options for what was measured of a model: without another name, its own repository if it came from there."""
        if not self.push_to_hub or self.hub_model_id is not None or Path(model).is_dir():
            return self
        return replace(self, hub_model_id=str(model))

    def arguments(self, folder: Path | str) -> list[str]:
        """These options on a command line that publishes `folder`, the repository named."""
        named = replace(self, hub_model_id=self.hub_model_id or _default_name(folder))
        given = {f.name: getattr(named, f.name) for f in fields(named) if getattr(named, f.name) != f.default}
        options = ([f"--{name}"] if value is True else [f"--{name}", str(value)] for name, value in given.items())
        return [part for option in options for part in option]

    def open_repository(
        self, folder: Path | str, token: str | None = None, kind: RepositoryType = "model"
    ) -> Repository:
        """The repository that these options name, made if need be.

        Raises:
            HubError: no connection, or a token that may not write there.
        """
        name = self.hub_model_id or _default_name(folder)
        return Repository.open(name, kind=kind, revision=self.hub_revision, private=self.hub_private_repo, token=token)


def prepare_push(models: Mapping[Path, HubConfig]) -> None:
    """Find out before a training, rather than after it, that its results can be published.

    Args:
        models: options by folder, which need not exist yet; those that do not say `push_to_hub` are left alone.

    Raises:
        HubError: no connection, or a token that may not write there.
        CardError: the file with facts for the card cannot be used.
    """
    for folder, hub in models.items():
        if hub.push_to_hub:
            if hub.hub_card is not None:
                read_facts(hub.hub_card)
            hub.open_repository(folder).check_write()


def push_model_folder(
    model_dir: Path | str,
    hub: HubConfig,
    facts: CardFacts | None = None,
    *,
    token: str | None = None,
    create_pr: bool = False,
) -> str:
    """Publish a pipeline's folder in one commit: card, safetensors and JSON.

    The card is the folder's README.md. If it has none, the one on the Hub stays; if there is none either, one is made
    from the facts and the folder's records, with the last sample sheet of the training.

    Args:
        model_dir: folder of a pipeline that was saved or trained; it stays as it is.
        hub: options; `push_to_hub` is not looked at.
        facts: for the card; those of `hub.hub_card` and of the training's record fill its gaps.
        token: access token; None for HF_TOKEN or that of `hf auth login`.
        create_pr: open a pull request instead of writing to the branch.

    Returns:
        Address of the commit.

    Raises:
        HubError: nothing was published.
        CardError: the folder is no whole pipeline, or a record or the facts cannot be read.
        PickledWeightsError: a network's folder holds pickles.
    """
    model_dir = Path(model_dir)
    components = component_names(model_dir)
    repository = hub.open_repository(model_dir, token)
    with tempfile.TemporaryDirectory() as aside:
        files = _model_files(model_dir, Path(aside), hub)
        published = repository.file_names()
        if CARD_FILE not in files and CARD_FILE not in published:
            card, pictures = _new_card(model_dir, hub, facts, repository.name)
            files |= {CARD_FILE: Path(aside, CARD_FILE), **pictures}
            card.save(files[CARD_FILE])
        elif CARD_FILE in files:
            text = files[CARD_FILE].read_text(encoding="utf-8")
            files[CARD_FILE] = Path(aside, CARD_FILE)
            write_text(files[CARD_FILE], loaded_from(text, repository.name))
        elif RESULTS_FILE in published and RESULTS_FILE not in files:
            warnings.warn(
                f"The card in {repository.name} keeps the numbers of an earlier model; measure this one: "
                "examples/evaluate.py --push_to_hub.",
                stacklevel=2,
            )
        message = hub.hub_commit_message or "Upload DFMGAN pipeline"
        return repository.push(files, message, replaced_folders=components, create_pr=create_pr)


def push_trained(runs: Mapping[Path, HubConfig]) -> list[str]:
    """Publish what trainings left behind: of each its best model if it was scored, otherwise its last.

    Args:
        runs: options by output folder; folders whose options do not say `push_to_hub` are left out.

    Returns:
        Addresses of the commits.

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
                again = shlex.join(["--folder", str(folder), *hub.arguments(folder)])
                failures.append(
                    f"The model is in {folder}, but was not published. {error}\n"
                    f"Once that is mended: python examples/push_to_hub.py {again}"
                )
    if failures:
        raise HubError("\n".join([*(f"Published: {address}" for address in addresses), *failures]))
    return addresses


def push_results(
    model: str, results_dir: Path | str, hub: HubConfig, *, revision: str | None = None, token: str | None = None
) -> str:
    """Publish measured numbers with their model: results.json, the card's section and its metadata.

    The page of nearest images stays here: it shows the photographs. If the repository does not hold the model yet,
    and `model` is a folder, the model is published as well.

    Args:
        model: what was measured: folder of a pipeline, or its repository.
        results_dir: folder with the evaluation's results.json, and reference_results.json if there are references;
            otherwise the model's own stand beside the new numbers.
        hub: options; without `hub_model_id`, the measured repository.
        revision: of the repository that was measured.
        token: access token; None for HF_TOKEN or that of `hf auth login`.

    Returns:
        Address of the commit.

    Raises:
        HubError, CardError: nothing was published.
    """
    results = read_record(Path(results_dir) / RESULTS_FILE)
    if results is None:
        raise CardError(f"{results_dir} has no {RESULTS_FILE}; measure the model first.")
    is_folder = Path(model).is_dir()
    repository = hub.for_model(model).open_repository(model, token)
    published = repository.file_names()
    if INDEX_FILE not in published and not is_folder:
        raise HubError(
            f"{repository.name} holds no model that was measured. Leave hub_model_id out, or push the model."
        )
    model_dir = Path(model) if is_folder else _download_for_card(model, revision, token)
    check_measured(results, model_dir)
    with tempfile.TemporaryDirectory() as aside:
        files: dict[str, Path] = {}
        replaced: list[str] = []
        if INDEX_FILE not in published:
            files, replaced = _model_files(model_dir, Path(aside), hub), component_names(model_dir)
        references = read_record(Path(results_dir) / REFERENCES_FILE)
        if references is not None:
            files[REFERENCES_FILE] = Path(aside, REFERENCES_FILE)
            write_json(files[REFERENCES_FILE], without_local_paths(references))
        else:
            references = read_record(model_dir / REFERENCES_FILE) or {}
        if CARD_FILE in published:
            with clear_errors(f"{repository.name} cannot be read", repository.name, repository.revision):
                card = ModelCard.load(
                    hf_hub_download(repository.name, CARD_FILE, revision=repository.revision, token=token)
                )
        elif (model_dir / CARD_FILE).exists():
            card = ModelCard.load(model_dir / CARD_FILE)
            card.text = loaded_from(card.text, repository.name)
        else:
            card, pictures = _new_card(model_dir, hub, None, repository.name)
            files |= pictures
        add_results(card, results, references, repository.name)
        files |= {CARD_FILE: Path(aside, CARD_FILE), RESULTS_FILE: Path(aside, RESULTS_FILE)}
        card.save(files[CARD_FILE])
        write_json(files[RESULTS_FILE], without_local_paths(results))
        return repository.push(files, hub.hub_commit_message or "Add measured results", replaced_folders=replaced)


def push_space_folder(space_dir: Path | str, hub: HubConfig, *, token: str | None = None) -> str:
    """Publish the folder of a Gradio Space in one commit, without hidden files and caches.

    Args:
        space_dir: folder with app.py and a README.md that begins with the Space's settings.
        hub: options; `hub_model_id` names the Space.
        token: access token; None for HF_TOKEN or that of `hf auth login`.

    Returns:
        Address of the commit.

    Raises:
        HubError: nothing was published.
        CardError: the folder is no Space's.
    """
    files = _all_files(Path(space_dir), (CARD_FILE, "app.py"), "a Gradio Space")
    repository = hub.open_repository(space_dir, token, kind="space")
    return repository.push(files, hub.hub_commit_message or "Upload Space")


def _all_files(folder: Path, needed: tuple[str, ...], what: str) -> dict[str, Path]:
    for name in needed:
        if not (folder / name).is_file():
            raise CardError(f"{folder} has no {name}; give the folder of {what}.")
    found = ((path.relative_to(folder), path) for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        name.as_posix(): path
        for name, path in found
        if not any(part.startswith(".") or part == "__pycache__" for part in name.parts)
    }


def _default_name(folder: Path | str) -> str:
    """What a model's repository is called if nobody says: as its folder, or as the run whose best model it is."""
    path = Path(folder).resolve()
    return path.parent.name if path.name == BEST_FOLDER else path.name


def _model_files(model_dir: Path, aside: Path, hub: HubConfig) -> dict[str, Path]:
    return published_files(
        model_dir,
        aside,
        variant=hub.hub_variant,
        max_shard_size=hub.hub_max_shard_size,
        with_training_networks=hub.hub_training_networks,
    )


def _new_card(
    model_dir: Path, hub: HubConfig, facts: CardFacts | None, model_name: str
) -> tuple[ModelCard, dict[str, Path]]:
    """A card for a model that has none, and the picture in it by its path in the repository."""
    sheet = last_sample_sheet(model_dir)
    card = build_model_card(
        model_dir,
        _all_facts(model_dir, hub, facts, model_name),
        grid_file=None if sheet is None else SAMPLES_FILE,
        grid_caption="" if sheet is None else _sheet_caption(sheet),
    )
    return card, {} if sheet is None else {SAMPLES_FILE: sheet}


def _sheet_caption(sheet: Path) -> str:
    """Trainings name their sheets after the number of images seen."""
    return f"Samples after {int(sheet.stem) / 1000:g} kimg of training." if sheet.stem.isdecimal() else ""


def _download_for_card(name: str, revision: str | None, token: str | None) -> Path:
    """What a card is made from; the weights are in the cache already when the model has just been measured."""
    patterns = [INDEX_FILE, *RECORD_FILES, "generator/*.json", "generator/*.safetensors"]
    with clear_errors(f"{name} cannot be read", name, revision):
        return Path(snapshot_download(name, revision=revision, token=token, allow_patterns=patterns))


def _all_facts(model_dir: Path, hub: HubConfig, facts: CardFacts | None, model_name: str) -> CardFacts:
    known = replace(facts or CardFacts(), model_name=model_name)
    if hub.hub_card is not None:
        known = known.filled_from(read_facts(hub.hub_card))
    return known.filled_from(facts_from_folder(model_dir))


@dataclass(frozen=True)
class PublishConfig:
    """Publish a folder on the Hub, or look at what would be published.

    Args:
        folder: The model's folder, or the Space's; with results, a model on the Hub can be named as well.
        kind: What the folder holds.
        output_dir: New folder for the model's files that are published: to look at before a push, or to copy.
        results: Folder of an evaluation: publish its numbers with the model, rather than the model alone.

    Raises:
        ValueError: options that do not go together.
    """

    folder: Path
    kind: Literal["model", "space"] = "model"
    output_dir: Path | None = None
    results: Path | None = None
    hub: HubConfig = field(default_factory=HubConfig)

    def __post_init__(self) -> None:
        if self.output_dir is None and not self.hub.push_to_hub:
            raise ValueError("Nothing to do: give `push_to_hub`, or `output_dir` to write the files to look at.")
        if self.kind == "space" and (self.output_dir, self.results) != (None, None):
            raise ValueError("`output_dir` and `results` have no effect on a Space: its folder is published as it is.")


def publish(config: PublishConfig) -> None:
    """Write and push what was asked for, and say so.

    Raises:
        HubError, CardError, FileExistsError: what was not done, and why.
    """
    if config.output_dir is not None:
        print(f"Wrote {copy_published(config.folder, config.output_dir)}")
    if config.hub.push_to_hub:
        if config.kind == "space":
            address = push_space_folder(config.folder, config.hub)
        elif config.results is not None:
            address = push_results(str(config.folder), config.results, config.hub)
        else:
            address = push_model_folder(config.folder, config.hub)
        print(f"Published: {address}")
