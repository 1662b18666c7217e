"""One model over several devices: what goes where (plan), the cut of its program (layers, experts, cut), its run (step, cache)."""
