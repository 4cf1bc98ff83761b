"""The one error of the image builder. Must not know how any step works."""


class GuestImageError(Exception):
    """The guest image cannot be built; the message names what is missing and the remedy."""
