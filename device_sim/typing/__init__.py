"""Who types what, when, and with which keystrokes."""
