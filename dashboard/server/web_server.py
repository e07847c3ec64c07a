"""The configuration of the web server, which keeps the address of each connection's peer."""

from typing import Any

import uvicorn


class Config(uvicorn.Config):
    """uvicorn's; the scope of each request also has `peer`: the address that has connected.

    uvicorn replaces `client` by what a proxy says in X-Forwarded-For, which proves nothing about
    who has sent the request. Served without this, nobody is trusted (accounts/auth_proxy.py).
    """

    def load(self) -> None:
        super().load()
        application: Any = self.loaded_app

        async def keep_peer(scope: Any, receive: Any, send: Any) -> None:
            if client := scope.get("client"):
                scope["peer"] = client[0]
            await application(scope, receive, send)

        self.loaded_app = keep_peer
