"""What a generation tries and whom it prunes: pure functions of seed and finished results."""
