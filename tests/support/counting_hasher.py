"""A password hasher that counts how often it hashes: what a real one spends half a second on."""

from django.contrib.auth.hashers import MD5PasswordHasher

hashed: list[str] = []  # the salts, in the order of the calls


class CountingHasher(MD5PasswordHasher):
    def encode(self, password: str, salt: str) -> str:
        hashed.append(salt)
        return super().encode(password, salt)
