"""Processes that take leased work of studies, here or on a Ray cluster."""
