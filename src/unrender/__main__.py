"""python -m unrender: the command line."""

from unrender.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
