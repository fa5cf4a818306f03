"""What users come for: each a frozen config and an iterator of steps."""
