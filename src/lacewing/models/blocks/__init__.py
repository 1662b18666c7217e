"""The parts of a layer, each a function that writes its ops with a `Builder`."""
