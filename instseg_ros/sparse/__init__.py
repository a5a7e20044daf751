"""Sparse convolution: pyramid of levels, neighbour tables, kernels and the runner that keeps outputs current."""
