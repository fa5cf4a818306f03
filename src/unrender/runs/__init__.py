"""Run folders: what a command writes, and how it is read back."""
