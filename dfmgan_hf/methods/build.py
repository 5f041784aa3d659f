"""What builds the tasks of both stages, in one place to import from."""

from .method import Target
from .stage1 import build_stage1
from .stage2 import Stage2Options, build_stage2

__all__ = ["Stage2Options", "Target", "build_stage1", "build_stage2"]
