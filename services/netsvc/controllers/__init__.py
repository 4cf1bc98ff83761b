"""The loops of netsvc's leader."""
