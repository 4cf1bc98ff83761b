"""Images and datastores: records and bytes."""
