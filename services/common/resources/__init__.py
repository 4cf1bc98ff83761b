"""What several servicers need to serve resources: pages, masks, etags, names, repeated requests. Knows no resource."""
