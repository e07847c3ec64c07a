"""What is saved of a failed test in a browser."""

from pathlib import Path

import pytest

from tests.support.browser import OpenPage, save_page

pytestmark = pytest.mark.browser


@pytest.mark.usefixtures("viewer")
def test_open_page_is_saved_with_its_address_and_text(sign_in: OpenPage, tmp_path: Path) -> None:
    page = sign_in("viewer", "/board/")
    save_page(page, tmp_path, "1-page")
    assert (tmp_path / "1-page.png").stat().st_size
    assert (tmp_path / "1-page.txt").read_text().startswith(page.url)


@pytest.mark.usefixtures("viewer")
def test_closed_page_is_refused(sign_in: OpenPage, tmp_path: Path) -> None:
    page = sign_in("viewer")
    page.close()
    with pytest.raises(AssertionError, match="the page is closed"):
        save_page(page, tmp_path, "1-page")
