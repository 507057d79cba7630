"""A policy's cold start: what it says, and labelled data where there is none yet."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
