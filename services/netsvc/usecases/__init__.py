"""One request, one transaction: what clients ask of networks."""
