"""Speed and memory, each beside the time that the convolutions alone need and beside the same work done naively."""
