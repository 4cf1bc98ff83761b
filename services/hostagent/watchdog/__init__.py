"""The machine's own watchdog: what proves to the cloud that a host which is cut off has reset itself."""
