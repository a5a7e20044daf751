"""The offline training entry point."""
