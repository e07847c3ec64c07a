"""Northflank's webhook: which stages an event concerns, and whether it works."""
