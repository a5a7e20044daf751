"""The benchmarks of `instseg bench`, one module each with a docstring (the help), `add_arguments(parser)` and `run(args)`."""

__all__ = ["BENCHMARKS"]

BENCHMARKS = {
    "ablations": "presets of the four papers with and without each of their ideas, trained and judged on the same scenes",
    "conv": "one sparse convolution and the whole U-Net against other libraries, 20 k to 1 M voxels",
    "full-map": "a whole map of a million points as one PointCloud2 a second: does the node keep up",
    "fuzz": "malformed, truncated and hostile messages over real topics: crashes, changes of the map, errors without a cause",
    "grouping": "regrouping touched components against grouping the whole map, every grouper",
    "incremental": "cost and error of the incremental network against full passes",
    "memory": "what a whole floor takes while a robot explores it, with a limit for what the network keeps",
    "online": "time per update and stage over the sequence of a single room",
    "resume": "SIGKILL of the segmenter node at random moments: what comes back, and under which ids",
    "soak": "the segmenter node for an hour of updates: memory, latency and what was dropped",
}
"""Name and summary; the module has the name of the benchmark, with _ for -, and is imported only when it runs."""
