"""Speed and memory, each beside the time that the convolutions alone need and beside the same work done naively."""

import os

# Whether there is a GPU is found out without touching it: processes that are forked later could not use it any more.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
