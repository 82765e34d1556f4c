"""Presets: one YAML spec each, read through importlib.resources."""
