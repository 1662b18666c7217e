"""The GPU itself: adapters, memory, buffers, pipelines, the clock, and what can go wrong."""
