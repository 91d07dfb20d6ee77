"""Arithmetic at C speed on plain arrays; this package knows nothing of federated learning."""
