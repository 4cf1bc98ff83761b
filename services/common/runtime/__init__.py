"""What runs a service: settings, loops, signals, clocks."""
