"""One walk through all features, over real HTTP."""

from selectolax.lexbor import LexborHTMLParser

from dashboard.models import Abort, Run
from tests.support.live import Live, token


def test_run_is_aborted_and_followed_to_its_end(live: Live, manager: object) -> None:
    live.sandbox.choices["abort-seconds"] = "0.2"
    live.sync()
    run = Run.objects.in_flight().exclude(status="aborting").with_stage().first()
    assert run is not None
    client = live.sign_in("manager")
    page = LexborHTMLParser(client.get("/").text)
    assert page.css_first(f'[data-run="{run.run_id}"] [data-abort]') is not None
    path = client.get(f"/runs/{run.run_id}/").headers["location"]
    form = {"csrfmiddlewaretoken": token(client), "pick": "Stuck"}
    answer = client.post(f"{path}abort/", data=form)
    assert answer.status_code == 302
    assert Abort.objects.get().state == "accepted"
    assert live.sandbox.abort_request_counts[run.run_id] == 1
