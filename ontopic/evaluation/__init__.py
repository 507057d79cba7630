"""What a model's answers are worth, and the gate."""
