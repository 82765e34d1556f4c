"""What a study is (spec, presets) and what it leaves behind (store, export): rows, no tensors."""
