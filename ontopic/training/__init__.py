"""From judged traffic to a tuned model."""
