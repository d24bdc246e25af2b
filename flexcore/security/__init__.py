"""Who is asking, and what must never be seen: authentication and secrets."""
