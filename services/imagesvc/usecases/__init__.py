"""One request, one transaction: what clients ask of images and datastores."""
