"""The sync: reads Northflank within the budget and mirrors what it says."""
