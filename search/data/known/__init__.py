"""Data sets that are known by name: fetched, checked and read."""
