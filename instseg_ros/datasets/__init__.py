"""Scenes and sequences: simulated rooms, the house, RGB-D recordings, clouds; augmentation."""
