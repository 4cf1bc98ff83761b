"""Where the bytes of images are kept. One module per kind of datastore; a directory is the only kind so far."""
