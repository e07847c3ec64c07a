"""One walk through all features, over real HTTP."""

from selectolax.lexbor import LexborHTMLParser

from dashboard.models import Abort, Run
from tests.support.live import Live, token


def test_a_run_is_aborted_and_seen_to_end(live: Live, manager: object) -> None:
    live.sandbox.choices["abort-seconds"] = "0.2"
    live.sync()
    run = Run.objects.in_flight().exclude(status="aborting").with_stage().first()
    assert run is not None
    person = live.person("manager")
    page = LexborHTMLParser(person.get("/").text)
    assert page.css_first(f'[data-run="{run.run_id}"] [data-abort]') is not None
    path = person.get(f"/runs/{run.run_id}/").headers["location"]
    form = {"csrfmiddlewaretoken": token(person), "pick": "Stuck"}
    answer = person.post(f"{path}abort/", data=form)
    assert answer.status_code == 302
    assert Abort.objects.get().state == "accepted"
    assert live.sandbox.abort_request_counts[run.run_id] == 1
