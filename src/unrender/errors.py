"""Exceptions raised by unrender. Each message says what is wrong, where, and how to fix it."""


class UnrenderError(Exception):
    """Base class of all exceptions that unrender raises deliberately."""


class ShapeError(UnrenderError, ValueError):
    """A tensor argument has the wrong shape or dtype."""


class InputError(UnrenderError, ValueError):
    """An argument has a valid shape but an invalid value."""


class FileFormatError(UnrenderError, ValueError):
    """A file is damaged, or its content does not match its format."""


class FileAccessError(InputError, OSError):
    """A path cannot be read or written."""


class KernelError(UnrenderError, RuntimeError):
    """No implementation of a kernel is available for the inputs, or a kernel failed to run."""


class WorkerError(UnrenderError, RuntimeError):
    """Another worker of a distributed computation failed, or cannot be reached."""
