"""A database as such: opened, waited for, and what its driver says; no table is known here."""
