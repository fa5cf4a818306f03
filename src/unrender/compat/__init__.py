"""Other libraries' names on top of ours, for code that was written for them."""
