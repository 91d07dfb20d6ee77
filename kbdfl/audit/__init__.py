"""What frames and releases give away: words, who typed them, secrets, and how much privacy a mechanism has at most."""
