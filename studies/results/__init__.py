"""What a study found: trials compared, chosen and told in tables and words; no database."""
