"""Weights: where their bytes are (store), and what memory the machine has (machine)."""

from lacewing.weights.machine import Machine, this_machine
from lacewing.weights.store import WeightStore
from lacewing.weights.weight import Weight

__all__ = ["Machine", "Weight", "WeightStore", "this_machine"]
