"""What a model computes, as data: kinds of op, the program of one step, and its checker."""
