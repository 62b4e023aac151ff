"""What runs a batch on a device."""
