"""Pages about the rights of accounts and groups, for administrators."""
