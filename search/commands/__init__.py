"""The commands of the command line, one module each; what they do is done elsewhere."""
