"""What two services need and none owns. It imports no service."""
