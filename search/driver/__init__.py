"""A run from beginning to end: a study is created or continued, worked on and written."""
