"""The trained model in use: images in, codes or images out, in batches."""
