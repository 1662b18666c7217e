"""What a checkpoint is (info), how much memory a model takes (plan), and on which devices it goes (place)."""
