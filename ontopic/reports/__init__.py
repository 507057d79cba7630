"""What Evidently draws, whatever the subject."""
