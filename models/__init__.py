"""Autoencoders, and how a population of them trains: torch only, flat arguments, no rows."""
