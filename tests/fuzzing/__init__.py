"""Fuzzer of everything that is read: valid files of each kind, damaged at random, and what their readers answer.

`python -m fuzzing run` from the folder tests damages 10,000 files; `python -m fuzzing replay KIND SEED` reads one of
them again.
"""
