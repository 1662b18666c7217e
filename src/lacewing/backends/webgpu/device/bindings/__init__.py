"""The libraries through which a GPU is used: what they have in common, one file each, and which is taken."""
