"""Nothing in a training step makes the host wait for the device, and what CUDA graphs need of a phase."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dfmgan_hf.augmentation import AdaController
from dfmgan_hf.training import BatchStream, Trainer
from tests.training import tiny

META = torch.device("meta")


class NoReading(TorchDispatchMode):
    """Refuses values that are read back, sizes that depend on values, and copies between host and device.

    Meta tensors stand for a GPU's. Nothing is computed, but all that is asked of the device is seen.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, given = func.overloadpacket.__name__, tree_leaves((args, kwargs))
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "equal") and any(map(is_ours, given)):
            raise AssertionError(f"{func} waits for the device.")
        if any(map(is_ours, given)) and (kwargs or {}).get("device") not in (None, META):
            raise AssertionError(f"{func} copies from the device to the host.")
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in [*given, *tree_leaves(result)] if isinstance(t, Tensor)]
        if any(map(is_ours, tensors)) and not all(map(is_ours, tensors)):
            raise AssertionError(f"{func} copies between the host and the device.")
        return result


class NoListsToTheDevice(TorchFunctionMode):
    """Refuses Python numbers that become tensors on the device, of which the dispatcher sees nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, Tensor.new_tensor) and is_ours(result) and args[0] is not result:
            raise AssertionError(f"{func.__name__} copies {args[-1]} to the device.")
        if func is Tensor.__getitem__ and any(isinstance(index, list) for index in (args[1], *as_tuple(args[1]))):
            raise AssertionError(f"The index {args[1]} is copied to the device.")
        return result


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else ()


def is_ours(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device == META


@contextmanager
def no_waiting() -> Iterator[None]:
    with NoReading(), NoListsToTheDevice():
        yield


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.to("cpu"),
        lambda x: x + torch.ones(()),
        lambda x: torch.zeros(2).to(META),
        lambda x: torch.tensor([1.0, 2.0], device=META),
        lambda x: x.new_tensor(3.0),
        lambda x: x[[0, -1]],
        lambda x: x[..., [0, -1]],
        lambda x: x.nonzero(),
        lambda x: bool(x.sum()),
    ],
)
def test_waiting_is_seen(wait):
    with pytest.raises(AssertionError, match="device"), no_waiting():
        wait(torch.empty(2, device=META))


def on_meta(stage: str, folder: Path, accumulation_steps: int) -> Trainer:
    """A trainer whose networks are on the meta device, with ADA, every phase of whose task is due in every step."""
    with META:
        task = tiny.MAKE[stage](path_length_interval=1, r1_interval=1)
    task.ada = AdaController(tiny.BATCH, interval=1, p_initial=0.3, device=META)
    assert task.augment is not None
    return tiny.make_trainer(task, folder, accumulation_steps=accumulation_steps)


@pytest.mark.parametrize(("stage", "accumulation_steps"), [("stage1", 1), ("stage2", 1), ("stage2", 2)])
def test_a_step_never_waits_for_the_device(tmp_path, stage, accumulation_steps):
    trainer = on_meta(stage, tmp_path, accumulation_steps)
    stream = BatchStream(tiny.drawn_set(), batch_size=tiny.BATCH, seed=0, device=META, mirror=True)
    trainer._train_step(stream.at(0))  # sets up constants, statistics and the order of the photographs
    with no_waiting():
        trainer._train_step(stream.at(tiny.BATCH))
