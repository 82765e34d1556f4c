"""How long a test waits for what will come: beyond it something hangs, however slow the machine."""

PATIENCE_S = 600.0
