"""What tests of all kinds share. Nothing here knows a service."""
