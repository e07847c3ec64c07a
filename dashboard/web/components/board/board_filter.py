"""The board's filter and page number: parsed from the query string, and as links.

Invalid parameters are ignored with a warning.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from django.http import QueryDict
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from dashboard.runs.search import fold
from dashboard.texts.rich_text import Message, MessageTable
from dashboard.web.components import my_pipelines
from dashboard.web.components.lists import parameters as list_parameters
from dashboard.web.http import keys

# What the board may be reduced to: pipelines with at least one such run.
CHOICES: dict[str, str | Promise] = {
    "": gettext_lazy("All"),
    "flight": gettext_lazy("In flight"),
    "attention": gettext_lazy("Needs attention"),
}
_text = MessageTable(
    {
        "unknown_filter": gettext_lazy("Unknown filter “%(show)s” ignored; showing all pipelines."),
    }
)


@dataclass
class BoardFilter:
    """The filter in a query string: a search text, a key of CHOICES, and the page's number.

    `mine` are the keys of the only pipelines to list; None: all of them.
    """

    q: str = ""
    show: str = ""
    page: int = 1
    mine: frozenset[int] | None = None
    warnings: list[Message] = field(default_factory=list)  # about ignored parameters, for the user

    def __bool__(self) -> bool:
        return bool(self.q or self.show)

    @property
    def is_mine(self) -> bool:
        """Whether it is for the user's own pipelines only."""
        return self.mine is not None

    @property
    def mine_url(self) -> str:
        """The address with the user's own pipelines or, if it has these, with all."""
        other = replace(self, page=1, mine=None if self.is_mine else frozenset())
        return f"?{other.address_query}"

    def choices(self, counts: Mapping[str, int]) -> list[dict[str, Any]]:
        """Return the links of CHOICES; `counts` are the pipelines of each that match the text."""
        return [
            {
                "url": self._url(show=key, page=1),
                "label": label,
                "count": counts[key],
                "is_current": key == self.show,
            }
            for key, label in CHOICES.items()
        ]

    def matches_text(self, *names: str) -> bool:
        """Return whether each word of the text is in one of the names, as on the search page."""
        text = fold(" ".join(names))
        return all(word in text for word in fold(self.q).split())

    def page_url(self, page: int) -> str:
        """Return the relative address of another page with the same filter."""
        return self._url(show=self.show, page=page)

    @property
    def query(self) -> str:
        """The filter as a page's own query; empty for the first page of all pipelines."""
        return urlencode(self._parameters | my_pipelines.parameters(self.mine))

    @property
    def address_query(self) -> str:
        """The filter as the query string of an address."""
        return urlencode(self._parameters | ({"mine": "1"} if self.is_mine else {}))

    @property
    def _parameters(self) -> dict[str, str]:
        page = str(self.page) if self.page > 1 else ""
        parameters = {"q": self.q, "show": self.show, "page": page}
        return {name: value for name, value in parameters.items() if value}

    def _url(self, *, show: str, page: int) -> str:
        return f"?{replace(self, show=show, page=page).address_query}"


def parse(parameters: QueryDict) -> BoardFilter:
    """Return the filter in the query string; ignore invalid parameters and add warnings."""
    show = parameters.get("show", "")
    warnings: list[Message] = []
    q = list_parameters.cut_text(parameters.get("q", ""), warnings)
    if show not in CHOICES:
        warnings.append(_text("unknown_filter", show=show[:80]))
    return BoardFilter(
        q,
        show if show in CHOICES else "",
        keys.parse_pk(parameters.get("page", "")) or 1,
        my_pipelines.of_query(parameters),
        warnings,
    )
