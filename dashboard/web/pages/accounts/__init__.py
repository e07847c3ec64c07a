"""Pages about accounts, rights and signing in."""
