"""Mixtures of experts: the router and the linear of the chosen experts."""
