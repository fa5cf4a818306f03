"""The tour of all tasks that `unrender demo` runs on generated data."""
