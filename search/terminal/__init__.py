"""What a person sees in a terminal: progress, tables, and how Ctrl-C ends it."""
