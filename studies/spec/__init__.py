"""What a study is: its specification, read from YAML, checked and made concrete."""
