"""Pictures, animations and PLY files of maps and instances."""
