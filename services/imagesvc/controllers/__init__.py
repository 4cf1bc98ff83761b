"""The loops of imagesvc's leader."""
