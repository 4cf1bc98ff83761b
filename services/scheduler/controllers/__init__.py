"""Loops of the scheduler: place what waits, say why the rest waits, give back what is terminated. Leader only."""
