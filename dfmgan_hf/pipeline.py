"""Draw defect images, masks and defect-free twins: the pipeline that users call."""

from __future__ import annotations

import copy
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, get_args

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import BaseOutput
from huggingface_hub import get_cached_repo_tree
from huggingface_hub.errors import CachedRepoTreeNotFoundError
from PIL import Image
from torch import Tensor

from .arguments import (
    as_integer,
    check_choice,
    check_generator,
    check_number,
    check_positive_integer,
    shown,
)
from .cuda_graphs import NetworkGraphs
from .hub_errors import check_source, clear_loading_errors
from .models.base import VARIANTS, MisfitError, read_config, readable_errors, refuse_pickles
from .models.dfmgan import DFMGANGenerator
from .models.stylegan2 import NOISE_MODES, LatentSpace, NoiseMode, StyleGAN2Generator, hold_weights

if TYPE_CHECKING:
    from .hub.cards import CardFacts
    from .painting import PaintConfig, PaintOutput, TwinIndex
    from .photograph import Photograph, Picture, Region

logger = logging.getLogger(__name__)

# The CPU generator (a Mersenne Twister) takes 32 bits of its seed: larger ones would repeat the pictures of smaller.
MAX_SEED = 2**32 - 1
MAX_TRUNCATION_PSI = 2.0

OutputType = Literal["pil", "np", "pt"]
ImageBatch = list[Image.Image] | np.ndarray | Tensor
# What a model_index.json may name as the generator: anything else is another model, or code of somebody else's.
LOADABLE_GENERATORS = [["dfmgan_hf", cls.__name__] for cls in (DFMGANGenerator, StyleGAN2Generator)]
_Pipeline = TypeVar("_Pipeline", bound="DFMGANPipeline")


@dataclass
class DFMGANPipelineOutput(BaseOutput):
    """Output of `DFMGANPipeline`: entry i of all three belongs together.

    Args:
        images: images with the defect. "pil": list of 8-bit RGB or grey images; "np": float32 (N, H, W, C) in [0, 1];
            "pt": float32 (N, C, H, W) in [0, 1] on the pipeline's device. A backbone-only pipeline puts its
            defect-free images here.
        masks: 255 where the defect was put and 0 elsewhere, always 8-bit. "pil": list of grey images; "np": uint8
            (N, H, W, 1); "pt": uint8 (N, 1, H, W). None from a backbone-only pipeline.
        defect_free_images: the same objects without the defect, like `images`.
        defects: names of the kinds of defect, of a model that knows several; None of others, and beside defect latents
            in w or w+, which do not tell.
    """

    images: ImageBatch
    masks: ImageBatch | None
    defect_free_images: ImageBatch
    defects: list[str] | None = None


class DFMGANPipeline(DiffusionPipeline):
    """Draw defect images with pixel-exact masks and their defect-free twins (DFMGAN, AAAI 2023).

    `to`, `from_pipe`, offloading and the progress bar are those of every diffusers pipeline; `from_pretrained`,
    `save_pretrained` and `push_to_hub` differ in that they read and write safetensors only, save half-precision
    variants in half precision, and publish with a card.

    Args:
        generator: a `DFMGANGenerator`, or a `StyleGAN2Generator` (stage 1), which makes a pipeline that draws
            defect-free images only. `torch.compile(...)` of one may take its place. Images are drawn on one device: of
            `DataParallel(...)` only the network inside is called. (In a call, `generator` is something else, as in
            every diffusers pipeline: a source of random numbers.)

    Example:
        >>> pipe = DFMGANPipeline.from_pretrained("models/dfmgan-magnetic-tile")
        >>> image, mask, twin = (entries[0] for entries in pipe(seeds=[7], return_dict=False))
    """

    model_cpu_offload_seq = "generator"  # type: ignore[assignment]
    # Offloading layer by layer would miss parameters that networks read past their layers, and save a few megabytes.
    _exclude_from_cpu_offload: ClassVar[list[str]] = ["generator"]  # type: ignore[misc]
    generator: StyleGAN2Generator

    # Both classes are named, because from_pipe takes over what is of exactly one of these types.
    def __init__(self, generator: StyleGAN2Generator | DFMGANGenerator) -> None:
        super().__init__()
        self.register_modules(generator=generator)
        self._said_no_defects = False
        self._graphs: NetworkGraphs | None = None
        self._twins: tuple[tuple[Any, ...], TwinIndex] | None = None

    def enable_cuda_graphs(self) -> None:
        """Replay the generator's passes from now on, by batch size and settings: a GPU then waits for no Python.

        It costs memory for each batch size that is drawn more than once (8 are kept). `noise_mode="random"`,
        generators that are compiled or offloaded, and other devices are drawn as without.
        """
        self._graphs = NetworkGraphs()

    def silent(self: _Pipeline) -> _Pipeline:
        """Return the same pipeline without a progress bar; this one keeps its own."""
        pipe = copy.copy(self)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @property
    def unwrapped_generator(self) -> Any:
        """Return the generator without what it is wrapped in, such as torch.compile or DataParallel."""
        return extract_model_from_parallel(self.generator, keep_torch_compile=False)

    @property
    def device(self) -> torch.device:
        """Return the device of the generator."""
        return self.unwrapped_generator.device

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the generator's parameters."""
        return self.unwrapped_generator.dtype

    @property
    def has_defects(self) -> bool:
        """Return False for a backbone alone."""
        return hasattr(self.unwrapped_generator, "num_defect_latents")

    @property
    def defect_names(self) -> list[str]:
        """Return the names of the kinds of defect that can be asked for; empty if the model knows one kind."""
        return list(self.unwrapped_generator.config.get("defect_names") or ())

    @torch.no_grad()
    def __call__(
        self,
        num_images: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        seeds: Iterable[int] | None = None,
        object_latents: Tensor | None = None,
        defect_latents: Tensor | None = None,
        truncation_psi: float = 1.0,
        noise_mode: NoiseMode = "const",
        mask_threshold: float = 0.0,
        batch_size: int = 8,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        object_latent_space: LatentSpace = "z",
        defect_latent_space: LatentSpace = "z",
        defect: str | Sequence[str] | None = None,
    ) -> DFMGANPipelineOutput | tuple[ImageBatch, ImageBatch | None, ImageBatch]:
        """Draw triplets.

        Args:
            num_images: number N of triplets, which other lengths must fit. None: the length of `seeds`, of the latents
                or of a list of generators, and 1 without any.
            generator: source of the latents and the noise, on any device: one for all images, one after the other,
                or a list of N. None draws from torch's global generator.
            seeds: N integers from 0 to 2^32 - 1 instead of `generator`. Image i depends on seeds[i] alone: its object
                z, its defect z and its noise are drawn on the CPU from `torch.Generator().manual_seed(seeds[i])`. On
                the CPU it is the same to the last bit whatever `batch_size` and the other images; an accelerator may
                round other batch sizes differently.
            object_latents: latents of N objects, or of one that all N images share; drawn if None.
            defect_latents: latents of N defects, or of one that all N images share; drawn if None.
            truncation_psi: 0 to 2: w_avg + psi (w - w_avg). 1 is the full variety, less is more typical. Acts on
                latents in space "z" only.
            noise_mode: "const" (noise that is stored, and mixed by the object if the generator has `object_noise`: the
                same picture for the same latents), "random" or "none".
            mask_threshold: the defect is put, and the mask is white, where the mask logits are at least this. 0 as
                trained; higher values shrink the defect, lower values spread it.
            batch_size: images that an accelerator computes at once. The CPU computes one at a time, which is as fast.
            output_type: "pil", "np" or "pt"; see `DFMGANPipelineOutput` for ranges.
            return_dict: False returns the tuple (images, masks, defect_free_images).
            object_latent_space, defect_latent_space: space of the given latents: "z" (N, z_dim), "w" (N, w_dim) or
                "w+" (N, L, w_dim), L being the generator's `num_latents` or `num_defect_latents`.
            defect: kind of defect, one of `defect_names`, or a list of N of them; of models that know several. None:
                each image's follows from its seed.

        Raises:
            ValueError: an argument that is not as described; the message names it, what came and what is allowed.
        """
        # 1. Check the arguments and agree on the number of images
        if num_images is not None:
            check_positive_integer(num_images, "num_images")
        check_positive_integer(batch_size, "batch_size")
        check_choice(noise_mode, "noise_mode", NOISE_MODES)
        check_choice(output_type, "output_type", get_args(OutputType))
        check_number(truncation_psi, "truncation_psi", 0.0, MAX_TRUNCATION_PSI)
        clamp = self.unwrapped_generator.config["conv_clamp"] or math.inf
        check_number(mask_threshold, "mask_threshold", -clamp, clamp)
        check_generator(generator)
        if seeds is not None:
            if generator is not None:
                raise ValueError("`seeds` and `generator` were both given, but each is the source of the latents.")
            generator = generators_from_seeds(seeds)
        spaces = [object_latent_space]
        self._check_latents("object_latents", object_latents, object_latent_space)
        if self.has_defects:
            spaces.append(defect_latent_space)
            self._check_latents("defect_latents", defect_latents, defect_latent_space)
        elif defect_latents is not None or mask_threshold != 0:
            name = "mask_threshold" if defect_latents is None else "defect_latents"
            raise ValueError(f"`{name}` was given, but this pipeline's generator is a backbone without defects.")
        elif not self._said_no_defects:
            logger.warning("The generator has no defect branch (a stage 1, or a method without masks): no masks")
            self._said_no_defects = True
        if truncation_psi != 1 and "z" not in spaces:
            raise ValueError(
                f"`truncation_psi` acts on z and must be 1 beside w or w+ latents, but is {truncation_psi}."
            )
        names = self._check_defects(defect)
        # A latent in w or w+ is of the kind that it was mapped for, which it does not tell.
        draws_kinds = bool(self.defect_names) and defect_latent_space == "z"
        if names is not None and not draws_kinds:
            raise ValueError(
                f'`defect` acts on z and must be left out beside `defect_latents` in space "{defect_latent_space}".'
            )
        num_images = resolve_num_images(
            num_images,
            {
                "defect": names,
                "generator" if seeds is None else "seeds": generator if isinstance(generator, list) else None,
                "object_latents": object_latents,
                "defect_latents": defect_latents,
            },
            shareable=("defect", "object_latents", "defect_latents"),
        )

        # 2. Draw what was not given
        sources = generator if isinstance(generator, list) else [generator] * num_images
        drawn_objects, drawn_defects, noise_seeds = draw_codes(sources, self.unwrapped_generator.config["z_dim"])
        object_latents = drawn_objects if object_latents is None else object_latents
        defect_latents = drawn_defects if defect_latents is None else defect_latents
        object_latents = object_latents.expand(num_images, *object_latents.shape[1:])
        defect_latents = defect_latents.expand(num_images, *defect_latents.shape[1:])

        kinds: Tensor | None = None
        if draws_kinds:
            if names is None:
                names = [self.defect_names[seed % len(self.defect_names)] for seed in noise_seeds]
            names = names * (num_images // len(names))
            kinds = self.unwrapped_generator.numbers_of(names)

        # 3. Generate. On the CPU one image at a time: that is as fast, and matrix products of different batch sizes
        # round differently there, which would show in a few 8-bit pixels.
        device = self._execution_device
        dtype = torch.promote_types(self.dtype, torch.float32)
        step = 1 if device.type == "cpu" else batch_size
        # While the device computes a batch, the host brings the one before it into the output's form.
        latents = [object_latents.to(device, dtype)]
        settings: dict[str, Any] = {"truncation_psi": truncation_psi, "noise_mode": noise_mode, "return_dict": False}
        if self.has_defects:
            latents.append(defect_latents.to(device, dtype))
            if kinds is not None:
                latents.append(kinds.to(device))
            settings |= {
                "return_defect_free": True,
                "object_latent_space": object_latent_space,
                "defect_latent_space": defect_latent_space,
                "mask_threshold": mask_threshold,
            }
        else:
            settings["latent_space"] = object_latent_space
        network = extract_model_from_parallel(self.generator, keep_torch_compile=True)
        graphs = self._graphs if self._can_be_captured(network, device, noise_mode) else None
        if graphs is not None and graphs.failed:
            graphs = None
        results: list[tuple[Any, ...]] = []
        last: Callable[[], tuple[Any, ...]] | None = None
        with (
            nullcontext() if graphs is not None else hold_weights(network),
            self.progress_bar(total=num_images) as progress_bar,
        ):
            for start in range(0, num_images, step):
                batch = slice(start, min(start + step, num_images))
                inputs = [codes[batch] for codes in latents]
                if graphs is not None:
                    drawn = graphs(network, *inputs, **settings)
                else:
                    drawn = network(*inputs, **settings, generator=generators_from_seeds(noise_seeds[batch]))
                pictures = [to_unit_range(x) for x in (drawn[0], *drawn[2:])]
                if self.has_defects:
                    pictures.insert(1, (drawn[1] >= mask_threshold).to(torch.uint8) * 255)
                following = begin_conversion(pictures, output_type)
                if last is not None:
                    results.append(last())
                last = following
                progress_bar.update(len(inputs[0]))
            assert last is not None
            results.append(last())
        self.maybe_free_model_hooks()

        # 4. Join the batches
        all_images, *others = (join_batches(list(batches), output_type) for batches in zip(*results, strict=True))
        all_masks, all_defect_free = others or (None, all_images)
        if not return_dict:
            return all_images, all_masks, all_defect_free
        return DFMGANPipelineOutput(all_images, all_masks, all_defect_free, names)

    def paint(
        self,
        photographs: Picture | Photograph | Sequence[Picture],
        mask: Picture | Sequence[Picture] | None = None,
        region: Region | None = None,
        forbidden: Region | None = None,
        point: tuple[float, float] | None = None,
        seeds: Iterable[int] | None = None,
        config: PaintConfig | None = None,
        defect: str | None = None,
        **options: Any,
    ) -> PaintOutput:
        """Paint defects into photographs; all pixels that are not labelled as changed stay as they were, bit for bit.

        The defect is drawn on the twin that is nearest to the photograph, and its difference to the twin is added.
        Twins are drawn once for each model and kept beside what is loaded from the Hub.

        Args:
            photographs: one or more, each a PIL image, an array uint8 or uint16 (H, W) or (H, W, 1 to 4), or a file;
                grey or colour, of any size and shape; of several frames the first. Files and PIL images are turned
                upright by EXIF and keep their colour profile and EXIF entries (of TIFF files the profile alone), which
                Pillow writes into a file if told so: `image.save(path, exif=image.getexif())`.
            mask: where the defect goes, exactly: a picture or file of the photograph's size, not zero on the defect; a
                box (left, top, right, bottom) in pixels; or a polygon, three (x, y) or more. A list has one for each
                photograph. None: the model draws a mask, and it is put where it may be.
            region: where that may be: a mask, a box or a polygon as above, or "product" for what stands out from a
                plain background. None: anywhere; a model of whole photographs leaves it where it drew it.
            forbidden: where it may not be, likewise.
            point: (x, y) to centre it on.
            seeds: integers from 0 to 2^32 - 1, one for each painting; one photograph with n seeds is painted n times.
                The same seed paints the same. None: drawn from torch's global generator.
            config: how defects are painted.
            defect: kind of defect, one of `defect_names`, of a model that knows several. None: each painting's follows
                from its seed.
            options: fields of `PaintConfig` instead: `strength`, `num_defects`, `size`, `rotation`, `flip`, `window`,
                `bit_depth`, `grain`, `any_product`.

        Returns:
            Painted photographs, their labels, the masks, and where each defect is.

        Raises:
            PaintError: the photograph, the mask or the region cannot be used, or no twin is near the photograph.
            DataError: a file cannot be read.
            ValueError: another argument that is not as described, or a pipeline without defects.

        Example:
            >>> output = pipe.paint("good.png", region=(400, 300, 900, 700), seeds=[1, 2, 3], strength=1.2)
            >>> output.images[0].save("defect.png"), output.labels[0].save("label.png")
        """
        from . import painting, photograph  # drawing does without them, and without what reads photographs

        if not self.has_defects:
            raise ValueError("This pipeline's generator is a backbone without defects: load a model of stage 2.")
        if config is not None and options:
            raise ValueError(f"Give `config` or {', '.join(options)}, but not both.")
        settings = config or painting.PaintConfig(**options)
        self._check_defects(None if defect is None else [defect])
        if mask is not None:
            settings.check_given_mask("mask", region=region, forbidden=forbidden, point=point)
        pictures = list(photographs) if isinstance(photographs, (list, tuple)) else [photographs]
        if not pictures:
            raise ValueError("`photographs` must hold at least one photograph, but is empty.")
        masks: list[Any] = list(mask) if isinstance(mask, list) and not photograph.is_box_or_polygon(mask) else [mask]
        count = max(len(pictures), len(masks))
        if seeds is None:
            seeds = torch.randint(MAX_SEED + 1, (count,)).tolist()
        sources = generators_from_seeds(seeds)
        count = max(count, len(sources))
        for name, entries in (("photographs", pictures), ("mask", masks), ("seeds", sources)):
            if len(entries) not in (1, count):
                raise ValueError(f"`{name}` must hold 1 or {count} entries, as the others do, but has {len(entries)}.")
        network, twins = self.unwrapped_generator, self._twin_index()
        opened: Photograph | None = None
        painted = []
        for i in self.progress_bar(range(count)):
            source = sources[i % len(sources)].manual_seed(sources[i % len(sources)].initial_seed())
            objects, defects, _ = draw_codes(
                [source] * (settings.num_defects + painting.TRIES), network.config["z_dim"]
            )
            chance = np.random.default_rng(source.initial_seed())
            kind = defect
            if self.defect_names and defect is None:
                kind = self.defect_names[chance.integers(len(self.defect_names))]
            codes = list(zip(objects, defects, strict=True))
            where = {"mask": masks[i % len(masks)], "region": region, "forbidden": forbidden, "point": point}
            picture = pictures[i % len(pictures)]
            try:
                if opened is None or len(pictures) > 1:
                    opened = photograph.Photograph.open(picture, settings.bit_depth)
                painted.append(painting.paint(network, opened, codes, twins, chance, settings, defect=kind, **where))
            except photograph.PaintError as error:
                if len(pictures) == 1 and not isinstance(picture, (str, Path)):
                    raise
                which = picture if isinstance(picture, (str, Path)) else f"photographs[{i % len(pictures)}]"
                raise photograph.PaintError(f"{which}: {error}") from error
        return painting.PaintOutput(*(list(column) for column in zip(*painted, strict=True)))

    def _twin_index(self) -> TwinIndex:
        """Return the index of the generator's twins, kept for as long as its weights are the same."""
        from . import painting

        network = self.unwrapped_generator
        tensors = network.state_dict().values()
        # A tensor that is changed in place counts that, unless it was made for inference alone.
        state = (
            painting.NUM_TWINS,
            *((t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype) for t in tensors),
        )
        if self._twins is None or self._twins[0] != state:
            self._twins = state, painting.TwinIndex.of(network, self.latents_from_seeds(range(painting.NUM_TWINS))[0])
        return self._twins[1]

    def latents_from_seeds(self, seeds: Iterable[int]) -> tuple[Tensor, Tensor]:
        """Return the object z and defect z that `seeds` stand for, two tensors (N, z_dim) on the CPU.

        With them one seed's object can get other seeds' defects:

            objects, _ = pipe.latents_from_seeds([1])
            pipe(seeds=range(8), object_latents=objects)
        """
        return draw_codes(generators_from_seeds(seeds), self.unwrapped_generator.config["z_dim"])[:2]

    def _can_be_captured(self, network: Any, device: torch.device, noise_mode: NoiseMode) -> bool:
        # A compiled network makes graphs of its own, a hook moves weights, and new noise is drawn on the host.
        plain = network is self.unwrapped_generator and not hasattr(network, "_hf_hook")
        return plain and device.type == "cuda" and noise_mode != "random"

    def _check_defects(self, defect: str | Sequence[str] | None) -> list[str] | None:
        """Return the names; raise ValueError unless the model draws all of these kinds of defect on demand."""
        if defect is None:
            return None
        names = [defect] if isinstance(defect, str) else list(defect) if isinstance(defect, Sequence) else [defect]
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"`defect` must be a name or a list of names, but is {shown(defect)}.")
        if not names:
            raise ValueError("`defect` must name at least one kind of defect, but is empty.")
        if not self.has_defects:
            raise ValueError("`defect` was given, but this pipeline's generator is a backbone without defects.")
        self.unwrapped_generator.numbers_of(names)
        return names

    def _check_latents(self, name: str, latents: Any, space: str) -> None:
        """Raise ValueError unless `latents` is None or a finite (N, ...) tensor of `space`."""
        check_choice(space, name.replace("latents", "latent_space"), get_args(LatentSpace))
        if latents is None:
            if space != "z":
                raise ValueError(f'`{name}` must be given in space "{space}"; what is drawn here is always z.')
            return
        network = self.unwrapped_generator
        layers = "num_latents" if name == "object_latents" else "num_defect_latents"
        expected = [network.config["z_dim"] if space == "z" else network.config["w_dim"]]
        if space == "w+":
            expected.insert(0, getattr(network, layers))
        if not isinstance(latents, Tensor):
            problem = f"is {shown(latents)}"
        elif list(latents.shape[1:]) != expected or len(latents) == 0:
            problem = f"its shape is {tuple(latents.shape)}"
        elif not latents.is_floating_point():
            problem = f"its dtype is {latents.dtype}"
        elif not torch.isfinite(latents).all():
            problem = "it holds NaN or infinity"
        else:
            return
        shape = ", ".join(map(str, expected))
        raise ValueError(
            f'`{name}` must be a finite floating-point tensor of shape (N, {shape}) in space "{space}", but {problem}.'
        )

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
            DamagedModelError: it holds another model, or one that is not whole. (An `OSError`.)
            ValueError: no such variant, `use_safetensors=False`, or code of somebody else's (`custom_pipeline`).
        """
        if kwargs.get("use_safetensors") is False:
            raise ValueError("`use_safetensors` must be True: weights in other formats are pickles.")
        if kwargs.get("custom_pipeline") is not None or kwargs.get("trust_remote_code"):
            raise ValueError("`custom_pipeline` and `trust_remote_code` must not be given: no code of models is run.")
        folder = str(pretrained_model_name_or_path)
        if os.path.isdir(folder):
            refuse_pickles(str(folder), os.listdir(folder))
        check_source(str(folder))
        with readable_errors(folder):
            return super().from_pretrained(folder, **{**kwargs, "use_safetensors": True})

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike[str]) -> dict[str, Any]:
        index = read_config(json_file)
        check_components(index)
        return index

    @classmethod
    def extract_init_dict(cls, config_dict: Any, **kwargs: Any) -> Any:
        """As diffusers; `MisfitError` for other networks, before they are loaded (by `DiffusionPipeline` too)."""
        check_components(config_dict)
        return super().extract_init_dict(config_dict, **kwargs)

    @classmethod
    def download(cls, pretrained_model_name: str | os.PathLike[Any], **kwargs: Any) -> str | os.PathLike[Any]:
        """Bring a repository's pipeline into the cache; arguments and errors as for `from_pretrained`.

        Returns:
            The folder in the cache.
        """
        name, revision = str(pretrained_model_name), kwargs.get("revision")
        with clear_loading_errors(name, revision), readable_errors(name):
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
            private: visibility of a new repository; None leaves it to its owner's settings.
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
            ValueError: `safe_serialization=False`, an unknown variant, or the numbers in the folder that it was loaded
                from are those of other weights.
        """
        # Only publishing needs these.
        from .hub.cards import CardFacts
        from .hub.push import HubConfig, companion_files, push_model_folder, scratch_folder

        origin = self.config.get("_name_or_path") or ""
        with scratch_folder() as folder:
            for precision in dict.fromkeys((None, variant)):
                self.save_pretrained(folder, safe_serialization, precision, max_shard_size)
            if os.path.isdir(origin):
                for name, path in companion_files(Path(origin), with_card=facts is None).items():
                    Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, Path(folder, name))
            elif origin:
                facts = (facts or CardFacts(repo_id)).filled_from(CardFacts(repo_id, base_model=origin))
            options = HubConfig(
                push_to_hub=True,
                hub_model_id=repo_id,
                hub_revision=revision,
                hub_commit_message=commit_message,
            )
            return push_model_folder(folder, options, facts, private=private, token=token, create_pr=create_pr)

    def _in_precision_of(self, variant: str | None) -> DiffusionPipeline:
        """Return this pipeline, unwrapped and in the precision that a variant names: saving alone only renames."""
        network = self.unwrapped_generator
        if variant is None:
            return self if network is self.generator else type(self)(network)
        if variant not in VARIANTS:
            raise ValueError(f"`variant` must be one of {', '.join(VARIANTS)}, but is {variant!r}.")
        network = copy.deepcopy(network)
        VARIANTS[variant](network)  # in place
        return type(self)(network)


def check_components(index: Mapping[str, Any]) -> None:
    """Raise `MisfitError` unless a model_index.json names one of our generators, and no other network."""
    components = {name: value for name, value in index.items() if not name.startswith("_")}
    if components.keys() != {"generator"} or components["generator"] not in LOADABLE_GENERATORS:
        raise MisfitError(
            f"its model_index.json names the networks {str(components)[:200]}; expected a generator alone, one of "
            f"{', '.join(map(str, LOADABLE_GENERATORS))}."
        )


def draw_codes(generators: Sequence[torch.Generator | None], z_dim: int) -> tuple[Tensor, Tensor, list[int]]:
    """Draw object z, defect z and a noise seed for each image, in this order and image after image.

    All three are always drawn: the defect code of a seed is then the same whether its object is given or drawn, and
    image i of a generator that serves many images does not depend on how many follow.

    Args:
        generators: one for each image; the same one may serve several; None draws from torch's global generator.
        z_dim: width of both latents.

    Returns:
        Two tensors (N, z_dim), float32 on the CPU, and N seeds of the noise that `noise_mode="random"` adds.
    """
    objects, defects, noise_seeds = [], [], []
    for generator in generators:
        device = "cpu" if generator is None else generator.device
        objects.append(torch.randn(z_dim, generator=generator, device=device, dtype=torch.float32).cpu())
        defects.append(torch.randn(z_dim, generator=generator, device=device, dtype=torch.float32).cpu())
        noise_seeds.append(int(torch.randint(MAX_SEED + 1, (), generator=generator, device=device)))
    return torch.stack(objects), torch.stack(defects), noise_seeds


def generators_from_seeds(seeds: Iterable[int]) -> list[torch.Generator]:
    """Make one CPU generator for each seed; ValueError unless they are integers from 0 to 2^32 - 1."""
    allowed = f"a sequence of integers from 0 to {MAX_SEED}, one for each image"
    try:
        entries = [] if isinstance(seeds, (str, bytes)) else list(seeds)
    except TypeError:
        entries = []
    if not entries:
        raise ValueError(f"`seeds` must be {allowed}, but is {shown(seeds)}.")
    checked = [as_integer(entry) for entry in entries]
    for i, seed in enumerate(checked):
        if seed is None or not 0 <= seed <= MAX_SEED:
            raise ValueError(f"`seeds` must be {allowed}, but seeds[{i}] is {shown(entries[i])}.")
    return [torch.Generator("cpu").manual_seed(seed) for seed in checked if seed is not None]


def to_unit_range(images: Tensor) -> Tensor:
    """Bring images around [-1, 1] to float32 in [0, 1]."""
    return (images.float() / 2 + 0.5).clamp(0, 1)


def begin_conversion(pictures: list[Tensor], output_type: OutputType) -> Callable[[], tuple[Any, ...]]:
    """Begin to turn pictures into the output's form; what is returned ends it, and waits for the device if need be.

    Args:
        pictures: (N, C, H, W), float32 in [0, 1] or uint8. On a GPU they are copied to the host beside what it
            computes next.
        output_type: "pil" for 8-bit PIL images, "np" for arrays (N, H, W, C), "pt" for the pictures themselves.
    """
    if output_type == "pt":
        return lambda: tuple(pictures)
    if output_type == "pil":
        pictures = [(x * 255).round().to(torch.uint8) if x.is_floating_point() else x for x in pictures]
    pictures = [x.permute(0, 2, 3, 1).contiguous() for x in pictures]
    device = pictures[0].device
    wait: Callable[[], object] = lambda: None  # noqa: E731
    if device.type == "cuda":
        stream: Any = _copy_stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            on_host = [torch.empty(x.shape, dtype=x.dtype, pin_memory=True) for x in pictures]
            for source, target in zip(pictures, on_host, strict=True):
                target.copy_(source, non_blocking=True)
                source.record_stream(stream)
        wait = stream.record_event().synchronize
    else:
        on_host = [x.cpu() for x in pictures]

    def end() -> tuple[Any, ...]:
        wait()
        return tuple(_to_pil(x.numpy()) if output_type == "pil" else x.numpy() for x in on_host)

    return end


@lru_cache
def _copy_stream(device: torch.device) -> Any:
    return torch.cuda.Stream(device)


def _to_pil(arrays: np.ndarray) -> list[Image.Image]:
    # Pillow copies colours itself; of grey it would keep the whole batch, in memory that is for passing through.
    return [Image.fromarray(a[:, :, 0].copy() if a.shape[2] == 1 else a) for a in arrays]


def join_batches(batches: list[Any], output_type: OutputType) -> Any:
    """Make one list, array or tensor from those of the batches."""
    if output_type == "pt":
        return torch.cat(batches)
    if output_type == "np":
        return np.concatenate(batches)
    return [image for batch in batches for image in batch]


def resolve_num_images(num_images: int | None, given: dict[str, Sized | None], shareable: tuple[str, ...]) -> int:
    """Return the number of images that `num_images` and the lengths of the other arguments agree on.

    Args:
        num_images: as given to the call; None goes with any length.
        given: the arguments that have a length; None for those that were not given.
        shareable: names of those that may hold one entry for all images.

    Raises:
        ValueError: two lengths that disagree.
    """
    agreed, said_by = num_images, "num_images"
    if agreed is None:
        several = ((len(value), name) for name, value in given.items() if value is not None and len(value) > 1)
        agreed, said_by = next(several, (1, ""))
    for name, value in given.items():
        length = agreed if value is None else len(value)
        if length != agreed and not (length == 1 and name in shareable):
            allowed = f"1 or {agreed}" if name in shareable and agreed > 1 else f"{agreed}"
            raise ValueError(f"`{name}` must hold {allowed} to go with `{said_by}`, but holds {length}.")
    return agreed
