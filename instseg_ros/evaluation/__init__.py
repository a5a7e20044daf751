"""Instance average precision and what uses it."""
