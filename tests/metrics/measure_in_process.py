"""One process of an evaluation: python measure_in_process.py FOLDER NUM_PROCESSES; writes FOLDER/RANK.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from dfmgan_hf.metrics import EvaluationConfig, Networks, evaluate, load_lpips, to_dict
from dfmgan_hf.processes import ProcessGroup
from tests.metrics.drawn import Fresh, dataset, draw_images, draw_masks, tiny_extractor, write_alexnet


def main(folder: Path, num_processes: int) -> None:
    torch.set_num_threads(1)
    processes = ProcessGroup(Accelerator(cpu=True))
    assert processes.count == num_processes
    weights = write_alexnet(folder / f"alexnet-of-process-{processes.rank}.safetensors")
    networks = Networks(tiny_extractor(), load_lpips("alex", weights))
    real = dataset(draw_images(6, seed=100), draw_masks(6))
    results = []
    # With batches of 64 the second process has no image to draw.
    for batch_size in (8, 64):
        config = EvaluationConfig(
            num_images=40, num_lpips_images=25, inception_splits=4, num_bootstrap=20, batch_size=batch_size
        )
        result = evaluate(Fresh(), real, networks, config, processes=processes, progress=False)
        assert result.nearest is not None
        kept = (result.nearest.images, result.nearest.masks, result.nearest.distances)
        results.append([to_dict(result)["metrics"], *(tensor.tolist() for tensor in kept if tensor is not None)])
    (folder / f"{processes.rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
