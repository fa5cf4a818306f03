"""unrender: rendering run backwards, from points and pictures to 3D.

The public names stand in `__init__.pyi`; each is imported when it is first used.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
