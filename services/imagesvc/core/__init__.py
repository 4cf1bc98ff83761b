"""What imagesvc decides: which images may be made, what they amount to, where disks come from. Pure."""
