"""Wording of counts in messages and reports."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as "1 view" and "12,000 views"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
