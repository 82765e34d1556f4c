"""Images in: by name, by path or as an array, always one uint8 array with a fingerprint."""
