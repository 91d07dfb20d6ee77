"""Simulated phones: their typing, their logs, their training, and fleets of them."""
