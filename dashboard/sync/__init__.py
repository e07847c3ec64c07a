"""The sync: reads Northflank within the rate budget and mirrors it in the database."""
