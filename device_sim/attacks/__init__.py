"""Attacks that play phones: what a server, or one who breaks into it, would have seen of people who are made up."""
