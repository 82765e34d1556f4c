"""A study in its database: rows, leases and transactions."""
