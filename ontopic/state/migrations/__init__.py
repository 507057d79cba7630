"""The schema of the shared state, a file a revision, for Alembic: whoever opens it runs them."""
