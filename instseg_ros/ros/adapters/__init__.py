"""Maps as other mappers publish them, turned into map updates (docs/mappers.md)."""
