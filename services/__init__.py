"""The services of moln and what they share. Services never import each other."""
