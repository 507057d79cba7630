"""The traffic store's schema, a file a revision, for Alembic: ``ontopic.traffic`` runs them when it opens a store."""
