"""Language models and the sentence encoder."""
