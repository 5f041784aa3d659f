"""A diffusers pipeline that reads safetensors only and publishes itself with a card."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from huggingface_hub import get_cached_repo_tree
from huggingface_hub.errors import CachedRepoTreeNotFoundError

from ..models.safetensors_only import refuse_pickles
from .card_facts import CardFacts
from .hub import HubConfig, push_model_folder
from .model_folder import VARIANTS, companion_files
from .repository import clear_errors

_Pipeline = TypeVar("_Pipeline", bound="HubPipeline")


class HubPipeline(DiffusionPipeline):
    """`DiffusionPipeline` with safe loading, real half-precision variants and whole pushes."""

    @classmethod
    def from_pretrained(
        cls: type[_Pipeline], pretrained_model_name_or_path: str | os.PathLike[Any], **kwargs: Any
    ) -> _Pipeline:
        """Load a pipeline from a folder, or from a repository on the Hub; what was loaded before is in the cache.

        Args:
            pretrained_model_name_or_path: folder, or "org/name".
            kwargs: those of `diffusers.DiffusionPipeline.from_pretrained`: `revision`, `variant`, `dtype`, `token`,
                `local_files_only`, `cache_dir`, ...

        Raises:
            HubError: no such repository or revision, no right to see it, or no connection. (An `OSError`.)
            PickledWeightsError: the folder or repository holds pickles. Nothing in them was run. (An `OSError`.)
            ValueError: no such variant, or `use_safetensors=False`.
        """
        if kwargs.get("use_safetensors") is False:
            raise ValueError("`use_safetensors` must be True: weights in other formats are pickles.")
        folder = pretrained_model_name_or_path
        if os.path.isdir(folder):
            refuse_pickles(str(folder), os.listdir(folder))
        return super().from_pretrained(folder, **{**kwargs, "use_safetensors": True})

    @classmethod
    def download(cls, pretrained_model_name: str | os.PathLike[Any], **kwargs: Any) -> str | os.PathLike[Any]:
        """Bring a repository's pipeline into the cache; arguments and errors as for `from_pretrained`.

        Returns:
            The folder in the cache.
        """
        name, revision = str(pretrained_model_name), kwargs.get("revision")
        with clear_errors(f"{name} is no folder here, and was not loaded from the Hub", name, revision):
            folder = super().download(pretrained_model_name, **{**kwargs, "use_safetensors": True})
        try:
            tree = get_cached_repo_tree(name, revision=Path(folder).name, cache_dir=kwargs.get("cache_dir"))
        except CachedRepoTreeNotFoundError:
            tree = []
        refuse_pickles(name, (file.path for file in tree))
        return folder

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | os.PathLike[str],
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save the pipeline to a folder.

        Args:
            save_directory: folder, made if need be.
            safe_serialization: True; pickles are neither read nor written.
            variant: "fp16" or "bf16": save in this precision, under the name with which
                `from_pretrained(variant=...)` finds it beside the full one.
            max_shard_size: split the weights into files of at most this size, such as "5GB".
            push_to_hub: also publish it, as `push_to_hub` does with `repo_id` (default: the folder's name) and the
                other `kwargs`.

        Raises:
            ValueError: `safe_serialization=False`, or an unknown variant.
            HubError: it was saved but not published.
        """
        if not safe_serialization:
            raise ValueError("`safe_serialization` must be True: weights in other formats are pickles.")
        DiffusionPipeline.save_pretrained(
            self._in_precision_of(variant), str(save_directory), variant=variant, max_shard_size=max_shard_size
        )
        if push_to_hub:
            options = {"repo_id": Path(save_directory).resolve().name, "max_shard_size": max_shard_size, **kwargs}
            self.push_to_hub(variant=variant, **options)

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        *,
        revision: str | None = None,
        max_shard_size: int | str | None = None,
        facts: CardFacts | None = None,
    ) -> str:
        """Publish the pipeline on the Hub, in one commit: card, safetensors and JSON.

        A pipeline that was loaded from a folder takes its card along, with the pictures and numbers that it shows.
        Otherwise a card that the repository has stays, or one is made from `facts` and the networks.

        Args:
            repo_id: "org/name", or a name in your own namespace; made if need be.
            commit_message: of the commit.
            private: visibility of a new repository.
            token: access token; None for HF_TOKEN or that of `hf auth login`.
            create_pr: open a pull request instead of writing to the branch.
            safe_serialization: True.
            variant: "fp16" or "bf16": publish the weights in this precision as well.
            revision: branch to write to, made if need be.
            max_shard_size: split the weights into files of at most this size, such as "5GB".
            facts: for the card: what the images show, the data, licences.

        Returns:
            Address of the commit, or of the pull request.

        Raises:
            HubError: nothing was published.
            ValueError: `safe_serialization=False`, or an unknown variant.
        """
        origin = self.config.get("_name_or_path") or ""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, safe_serialization)
            if os.path.isdir(origin):
                for name, path in companion_files(Path(origin), with_card=facts is None).items():
                    Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, Path(folder, name))
            elif origin:
                facts = (facts or CardFacts(repo_id)).filled_from(CardFacts(repo_id, base_model=origin))
            options = HubConfig(
                push_to_hub=True,
                hub_model_id=repo_id,
                hub_private_repo=bool(private),
                hub_revision=revision,
                hub_commit_message=commit_message,
                hub_variant=variant,
                hub_max_shard_size=max_shard_size,
            )
            return push_model_folder(folder, options, facts, token=token, create_pr=create_pr)

    def _in_precision_of(self, variant: str | None) -> DiffusionPipeline:
        """This pipeline, or a copy in the precision that a variant's name promises: saving alone only renames."""
        if variant is None:
            return self
        if variant not in VARIANTS:
            raise ValueError(f"`variant` must be one of {', '.join(VARIANTS)}, but is {variant!r}.")
        networks = {name: VARIANTS[variant](copy.deepcopy(network)) for name, network in self.components.items()}
        return type(self)(**networks)
