"""Experts that are streamed: some are in slots of RAM, the others are read from the files when a router chooses them."""

from lacewing.weights.experts.cache import ExpertCache
from lacewing.weights.experts.source import LayerSlots, SlotCount, layer_slots, least_slots, slots_within, stacks_of

__all__ = ["ExpertCache", "LayerSlots", "SlotCount", "layer_slots", "least_slots", "slots_within", "stacks_of"]
