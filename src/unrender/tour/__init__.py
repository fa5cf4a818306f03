"""The guided tour of all jobs that `unrender demo` runs."""
