"""Images and tables in files and folders, one reader a module."""
