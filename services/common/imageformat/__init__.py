"""What an image file is: format, size, and whether it may be used at all."""

from services.common.imageformat.facts import ImageFacts, info

__all__ = ["ImageFacts", "info"]
