"""Which model a checkpoint holds: its config, its weights under our names, and the program of one step."""

from lacewing.models.opening import ModelSpec, known_architectures, open_model

__all__ = ["ModelSpec", "known_architectures", "open_model"]
