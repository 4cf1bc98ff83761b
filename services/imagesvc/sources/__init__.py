"""Where the bytes of images come from: a URL, a file of the server, nothing at all."""
