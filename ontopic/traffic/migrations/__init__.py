"""The traffic store's schema, a file a revision, for Alembic: the store runs them when it opens."""
