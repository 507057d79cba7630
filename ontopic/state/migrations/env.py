"""What Alembic runs: the revisions in ``versions``, on the connection that is handed over."""

from ontopic.state.database import run_revisions

run_revisions()
