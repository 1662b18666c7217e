"""Keys and values on the device."""
