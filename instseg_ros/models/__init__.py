"""Backbones, heads and weights files."""
