"""Sessions of people: by a password, through an identity provider, by an authenticating proxy."""
