"""Weights: where their bytes are (store), where they should be (plan), and what the machine has (machine)."""

from lacewing.weights.machine import Machine, this_machine
from lacewing.weights.plan import Needs, Plan, Row, plan, plan_on_device, plan_or_reason
from lacewing.weights.store import Weight, WeightStore

__all__ = ["Machine", "Needs", "Plan", "Row", "Weight", "WeightStore", "plan", "plan_on_device", "plan_or_reason", "this_machine"]
