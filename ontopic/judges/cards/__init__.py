"""Judge cards: how good a judge is."""
