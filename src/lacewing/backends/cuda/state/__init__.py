"""Keys, values and recurrent units on the device."""
