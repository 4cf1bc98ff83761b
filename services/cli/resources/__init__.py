"""Each kind of object as the command line sees it: how it is read, and what its table shows."""
