"""Pages about one's own account, signing in, and the access log."""
