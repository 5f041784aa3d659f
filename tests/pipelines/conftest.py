import pytest

from dfmgan_hf import DFMGANPipeline


@pytest.fixture
def pipe(make_generator) -> DFMGANPipeline:
    pipe = DFMGANPipeline(make_generator())
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def backbone_pipe(make_backbone) -> DFMGANPipeline:
    pipe = DFMGANPipeline(make_backbone())
    pipe.set_progress_bar_config(disable=True)
    return pipe
