"""A task's rounds, and the records around tasks, in PostgreSQL, where several server processes may serve one task."""
