"""User names that would be read as another account's, and honest ones in ten scripts."""

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from dashboard.accounts import usernames
from dashboard.accounts.authentication.auth_proxy import ProxyUser, read_user
from dashboard.accounts.authentication.oidc_claims import Claims
from dashboard.web.components.rights.account_form import NewAccountForm

EXISTING = ["admin", "alice", "modern", "corner", "arnold", "Barney", "Ian", "Åsa", "coco"]

# Latin, Cyrillic, Greek, Arabic, Hebrew, Armenian, Georgian, Indic, Thai, Chinese, Japanese, Korean
# and Ethiopic.
HONEST = """
    modem comer amold Bamey lan Lan asa åda ada-2 admin2 admin.2@example.org a1ice alice.b Zoé
    José François Müller Jürgen Søren Łukasz Ngọc dev-Ω team+Ω@example.com ops_Δ
    Иван Ольга-2 Наталья Пётр Сергей иван@example.com анна.k@example.com Юлія Ђорђе Володимир
    αλέξης@example.gr Νίκος Ελένη Γιώργος μαρία.p@example.gr Χρήστος
    محمد@example.com علي فاطمة יוסי@example.com דוד שרה Արամ Անի გიორგი ნინო
    कमल@example.com नमन সজল สมชาย มานพ 山田たろう 田中@example.jp 李雷 王芳-2 김-ada 김민수
    박지영@example.kr አበበ ሳራ
"""

# Letters that are not ASCII are Cyrillic, Greek or Armenian.
IMITATIONS = """
    аlice aliсe alicе аliсе alісе αlice alιce aliϲe ALIСE Аlice аӏісе АӀІСЕ аlice@example.org
    admіn аdmin аdmіn αdmin admιn ADΜIN АDMIN adΜin Αdmin
    alic\u0435\u0301 \u0430dmin.2 \u0430-admi\u043f admi\u03b7 \u0441\u043e\u0441\u043e СОСО
    ADMIN Alice åsa c\u0585c\u0585
"""


@pytest.fixture(autouse=True)
def accounts(db: None) -> None:
    for username in EXISTING:
        User.objects.create_user(username)


def test_tables_are_large_enough() -> None:
    assert len(HONEST.split()) >= 60
    assert len(IMITATIONS.split()) >= 30


@pytest.mark.parametrize("name", HONEST.split())
def test_honest_name_is_accepted_by_form_provider_and_proxy(name: str, settings: Settings) -> None:
    settings.AUTH_PROXY_HEADER, settings.AUTH_PROXY_GROUPS_HEADER = "X-User", ""
    assert usernames.problem(name) is None
    assert "username" not in NewAccountForm({"username": name}).errors
    assert Claims({"sub": "1", "preferred_username": name}, {}).username == name
    assert read_user([(b"x-user", name.encode())]) == ProxyUser(name)


@pytest.mark.parametrize("name", IMITATIONS.split())
def test_imitation_is_refused(name: str) -> None:
    assert usernames.problem(name) is not None


def test_latin_name_that_imitates_an_account_in_cyrillic_is_refused() -> None:
    User.objects.create_user("\u0440\u043e\u0440\u0430")
    assert usernames.is_taken("popa")
