"""An OpenID provider, for a process of its own: django-oauth-toolkit, with claims and faults.

tests/support/oidc.py starts it and chooses them.
"""

CLIENT_ID, CLIENT_SECRET = "dashboard", "a-secret-of-the-client"
