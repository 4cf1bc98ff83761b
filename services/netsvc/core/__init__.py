"""What netsvc decides: which networks may stand, which address an interface gets. Pure."""
