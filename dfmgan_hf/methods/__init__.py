"""All methods by name, and one way to draw from any of them.

Each method registers itself at the end of its file; a new file joins the list below.
"""

from __future__ import annotations

import importlib
from dataclasses import replace

from ..metrics.sampler import Sampler
from .method import REGISTERED, Method, SamplerRequest, generator_class

for _name in ("finetune", "cdc", "crop_paste", "sdgan", "defect_gan", "dfmgan"):
    importlib.import_module(f".{_name}", __package__)

METHODS = {name: method for name, method in REGISTERED.items() if method.learns == "defects"}
"""The methods that draw defects, in the order of the paper's Table 1."""


def get_method(name: str) -> Method:
    """Return a method by its name.

    Raises:
        ValueError: no method has this name; the message lists them.
    """
    if name not in REGISTERED:
        raise ValueError(f"`method` must be one of {', '.join([*METHODS, 'stage1'])}, but is {name!r}.")
    return REGISTERED[name]


def open_sampler(request: SamplerRequest, method: str | None = None) -> Sampler:
    """Draw from any model that a method trained, or from a method that is not trained.

    Args:
        request: the trained folder or Hub id, and the photographs for methods that draw with them.
        method: name of a method that is not trained; None to tell the method by the trained generator's class.

    Raises:
        OSError: `source` holds no generator.
        ValueError: no method draws with this generator; neither or both of source and method are given; the method
            draws with photographs and there are none.

    Example:
        >>> sampler = open_sampler(SamplerRequest("runs/hazelnut_crack"))
        >>> images, masks = sampler.sample_at(range(8), seed=0)
    """
    if (request.source is None) == (method is None):
        raise ValueError("Give either what was trained (`source`) or the name of a method that is not (`method`).")
    chosen = get_method(method) if method is not None else method_of(str(request.source), request.revision)
    if method is not None and chosen.is_trained:
        raise ValueError(f"{chosen.title} is trained: give the folder that training wrote (`source`).")
    return chosen.open_sampler(replace(request, options=request.options or chosen.drawing()))


def method_of(source: str, revision: str | None = None) -> Method:
    """Return a method whose networks `source` holds; methods with the same generator draw in the same way.

    Args:
        source: folder that training wrote, or the Hub id of one.
        revision: of the Hub repository.

    Raises:
        OSError: `source` holds no generator.
        ValueError: no method draws with this generator.
    """
    name = generator_class(source, revision)
    for method in METHODS.values():
        if method.generator == name:
            return method
    raise ValueError(f"{source} holds a {name}, which no method here draws with.")
