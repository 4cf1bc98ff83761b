"""The API: authenticates, authorises, validates and commits; the gateway to the nodes."""
