"""Weights in tile order, row after row in the lanes: one to eight tokens, without a tile in between."""
