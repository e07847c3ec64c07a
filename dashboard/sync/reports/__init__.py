"""How much of Northflank the mirror has, and how up to date it is."""
