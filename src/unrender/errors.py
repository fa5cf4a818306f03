"""The errors that unrender raises; each message says what was wrong, where, and what to do."""


class UnrenderError(Exception):
    """Root of every error that unrender raises on purpose."""


class ShapeError(UnrenderError, ValueError):
    """A tensor argument has the wrong shape or dtype."""


class InputError(UnrenderError, ValueError):
    """An argument has the right shape but a value that cannot be used."""


class FileFormatError(UnrenderError, ValueError):
    """A file is damaged, or not what its name says."""


class KernelError(UnrenderError, RuntimeError):
    """No implementation of a kernel fits, or a kernel could not run."""
