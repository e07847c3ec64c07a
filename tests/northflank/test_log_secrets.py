"""What is removed of the lines of a log, and what stays."""

import base64

import pytest

from dashboard.northflank import SecretValues, secret_values
from dashboard.northflank.secrets_in_texts import redact_line, redact_lines
from dashboard.northflank.values import Json

NONE = SecretValues()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        # URLs keep what is no secret.
        ("https://app:pw@api.io/v1/x?page=2", "https://[redacted]@api.io/v1/x?page=2"),
        ("clone https://token123@git.io/a.git", "clone https://[redacted]@git.io/a.git"),
        ("postgres://u:p/w@db:5432/x", "postgres://[redacted]@db:5432/x"),
        ("postgres://u:p@w@db/x", "postgres://[redacted]@db/x"),
        ("postgres://u%40x:pw@db/x", "postgres://[redacted]@db/x"),
        ("redis://:pw@cache:6379/0", "redis://[redacted]@cache:6379/0"),
        ("GET /x?token=pw HTTP/1.1", "GET /x?token=[redacted] HTTP/1.1"),
        ("POST https://hooks.slack.com/services/T/B/x", "POST https://[redacted]"),
        ("dial app:pw@tcp(db:3306)/x", "dial app:[redacted]@tcp(db:3306)/x"),
        # By name.
        ("DB_PASSWORD=pw PORT=80", "DB_PASSWORD=[redacted] PORT=80"),
        ("DB_PASS=pw1", "DB_PASS=[redacted]"),
        ("API_TOKEN: pw", "API_TOKEN: [redacted]"),
        ("auth_token: pw", "auth_token: [redacted]"),
        ("TOKEN: pw", "TOKEN: [redacted]"),
        ("SECRET_KEY_BASE: pw1 A: 1", "SECRET_KEY_BASE: [redacted] A: 1"),
        ("token: pw1", "token: [redacted]"),
        ("a\n  - secret: pw1\nb: c", "a\n  - secret: [redacted]\nb: c"),
        (
            "2026-12-02T10:00:00.1Z [INFO] token: pw1",
            "2026-12-02T10:00:00.1Z [INFO] token: [redacted]",
        ),
        ("12:00:01 warning: token: pw1", "12:00:01 warning: token: [redacted]"),
        ("using db_pass: pw1 as a", "using db_pass: [redacted] as a"),
        ("using SMTP_PASS: pw1", "using SMTP_PASS: [redacted]"),
        ("api_key: pw", "api_key: [redacted]"),
        ('{"reg.io":{"auth":"pw"}}', '{"reg.io":{"auth":[redacted]}}'),
        ("SIGNING_KEY=pw", "SIGNING_KEY=[redacted]"),
        ('{"level":"info","api_key":"pw","a":1}', '{"level":"info","api_key":[redacted],"a":1}'),
        ("Authorization: Bearer pw", "Authorization: [redacted]"),
        ("sent bearer pw to it", "sent bearer [redacted] to it"),
        ("+ psql --password pw -h db", "+ psql --password [redacted] -h db"),
        ("+ curl -u app:pw http://h", "+ curl -u app:[redacted] http://h"),
        ('{"name": "DB_PASSWORD", "value": "pw"}', '{"name": "DB_PASSWORD", "value": [redacted]}'),
        ('{"password": {"value": "pw"}}', '{"password": {"value": [redacted]}}'),
        ("<password>pw</password><a>1</a>", "<password>[redacted]</password><a>1</a>"),
        ("Array ( [password] => pw [a] => 1 )", "Array ( [password] => [redacted] [a] => 1 )"),
        ("ALTER USER a PASSWORD 'pw' VALID", "ALTER USER a PASSWORD [redacted] VALID"),
        ("CREATE USER a IDENTIFIED BY 'pw';", "CREATE USER a IDENTIFIED BY [redacted];"),
        ("GET /cb?code=pw&state=1 HTTP/1.1", "GET /cb?code=[redacted]&state=1 HTTP/1.1"),
        ('{"kty":"oct","k":"pw","kid":"1"}', '{"kty":"oct","k":[redacted],"kid":"1"}'),
        # By its own form.
        ("key AKIAIOSFODNN7EXAMPLE is", "key [redacted] is"),
        ("ghp_0123456789abcdefghijABCDEFGHIJ012345", "[redacted]"),
        ("X_github_pat_0123456789abcdefghijABCDEFGHIJ", "X_[redacted]"),
        ("got xoxb-123456789012-abcdef", "got [redacted]"),
        ("AIzaSyA1234567890abcdefghijklmnopqrstuv,", "[redacted],"),
        ("sk_live_0123456789abcdef", "[redacted]"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.ab-_ end", "jwt [redacted] end"),
        (
            r'{"k":"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----","a":1}',
            '{"k":"[redacted]","a":1}',
        ),
        ("-----BEGIN OPENSSH PRIVATE KEY----- b3BlbnNzaC1r", "[redacted]"),
    ],
)
def test_lines_lose_secrets_and_say_so(line: str, shown: str) -> None:
    assert redact_line(line, NONE) == (shown, True)


@pytest.mark.parametrize(
    "line",
    [
        "tokens=1500 processed",
        "key: value",
        "invalid token: expired",
        "token: invalid",
        "ERROR token: expired",
        "2026-12-02 10:00:00 INFO token: refreshed",
        "Secret: the server has none",
        "the token: swordfish is only a word",
        "db_pass: null",
        "PASS: test_login",
        "max_tokens: 4096",
        "token_count: 12",
        "token_type: bearer",
        "pass: 12 fail: 3",
        "tests: pass=12, fail=3",
        "bypass=yes compass=north",
        "INFO token-service:8080/healthz is up",
        "token.go:42: parse error",
        "at Object.<anonymous> (/app/secret-store.js:12:5)",
        "Commit 0a1b2c3d4e5f60718293a4b5c6d7e8f901234567 built",
        "run 9d0f4b62-64a8-4a0b-8a65-1f7f3c0f7b77 done in /srv/app/releases/20261202",
        "sha256:0a1b2c3d4e5f60718293a4b5c6d7e8f9012345670a1b2c3d4e5f607182930a1b",
        "GET https://api.io/v1/orders/7?page=2 200",
        "npm http fetch GET 200 https://registry.npmjs.org/@acme/ui 45ms",
        "npm http fetch GET 200 https://registry.npmjs.org/@acme%2fui 45ms",
        "open http://localhost:8080/@vite/client",
        '{"level":"info","user":"ops@acme.io","msg":"signed in at http://h/x"}',
        "image reg.io:5000/acme/api:1.2@sha256:0a1b",
        "email:ops@acme.io left at 10:15:00",
        "--token-file /run/x",
        "docker run -u 1000:1000 -v /a:/b",
        "API_TOKEN: not set",
        "Migrating 0042_add_user_token... OK",
        "Secret db-creds created from secret/db",
        "task-0123456789abcdefghijABCDEFGHIJ",
        "-----BEGIN CERTIFICATE-----",
    ],
)
def test_ordinary_lines_stay_as_they_are(line: str) -> None:
    assert redact_line(line, NONE) == (line, False)


_BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
_BEGIN, _END = "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (["a", f"k: {_BEGIN}", "Proc-Type: 4", "Qw==", _END, "b"], "a|k: *|*|*|*|b"),
        ([_BODY, "Qw==", f"{_END} b", "c"], "*|*|*|c"),
        (["a", _END], "*|*"),
        ([_BEGIN, f"12:00 {_BODY}", _BODY, "b", _BODY], f"*|*|*|b|{_BODY}"),
        (["a", _BODY, "b"], f"a|{_BODY}|b"),
        ([_BEGIN, *["b"] * 400, "c", _END], "*|" + "b|" * 400 + "*|*"),
        # Its end is not written yet.
        (["a", _BEGIN, _BODY, "Qw=="], "a|*|*|*"),
        ([_BEGIN, "Proc-Type: 4,ENCRYPTED", "DEK-Info: AES,0A", "", _BODY, "Qw"], "*|*|*|*|*|*"),
        ([_BEGIN, _BODY, "Server started"], "*|*|Server started"),
        # PuTTY's
        (["Public-Lines: 1", _BODY, "Private-Lines: 1", "Qw==", "Private-MAC: 0a", "b"],
         f"Public-Lines: 1|{_BODY}|*|*|*|b"),
    ],
)  # fmt: skip
def test_private_keys_over_several_lines_are_removed(lines: list[str], shown: str) -> None:
    texts = [text for text, _is_redacted in redact_lines(lines, NONE)]
    assert "|".join(texts) == shown.replace("*", "[redacted]")


def test_values_are_removed_wherever_they_occur() -> None:
    values = SecretValues(["hunter2/hunter", 'p"w ä-12345', "postgres://u:s3cr%24etpw@db/x"])
    for line in (
        "xhunter2/hunterx",
        r'{"v":"p\"w \u00e4-12345"}',
        "p%22w%20%C3%A4-12345",
        "x?p%22w+%C3%A4-12345",
        "aHVudGVyMi9odW50ZXI=",
        "with s3cr%24etpw",
        "with s3cr$etpw",
    ):
        text, is_redacted = redact_line(line, values)
        assert is_redacted, line
        assert "[redacted]" in text
        assert not any(part in text for part in ("hunter", "345", "etpw", "aHV"))


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("a HUNTER2/HUNTER b", "a [redacted] b"),
        (f"a {b'hunter2/hunter'.hex()} b", "a [redacted] b"),
        (f"a {b'app:hunter2/hunter'.hex().upper()} b", "a [redacted] b"),
        ("a hunt\u200ber2/\u2060hunter b", "a [redacted] b"),
        *(
            (f"a {base64.b64encode(user + b':hunter2/hunter' + end).decode()} b", "a [redacted] b")
            for user in (b"a", b"ab", b"app")
            for end in (b"", b"\n", b"??")
        ),
        (base64.urlsafe_b64encode(b"??>:hunter2/hunter").decode(), "[redacted]"),
        ("a\u200b b", "a\u200b b"),
    ],
)
def test_values_are_removed_in_other_writings_of_them(line: str, shown: str) -> None:
    [(text, is_redacted)] = redact_lines([line], SecretValues(["hunter2/hunter"]))
    assert (text, is_redacted) == (shown, "[redacted]" in shown)


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (["- name: A_TOKEN", "  value: pw", "- name: B"], "- name: A_TOKEN|  value: *|- name: B"),
        (["- name: DB_HOST", "  value: db"], "- name: DB_HOST|  value: db"),
        (["password: |", "  pw", "a: 1"], "password: *|  *|a: 1"),
        (["done >", "value"], "done >|value"),
    ],
)  # fmt: skip
def test_values_on_the_line_after_their_name_are_removed(lines: list[str], shown: str) -> None:
    texts = [text for text, _is_redacted in redact_lines(lines, NONE)]
    assert "|".join(texts) == shown.replace("*", "[redacted]")


def test_of_values_that_contain_each_other_nothing_remains() -> None:
    values = SecretValues(["redacted", "redacted-and-more"])
    assert redact_line("a redacted-and-more b redacted", values) == (
        "a [redacted] b [redacted]",
        True,
    )


def test_values_are_those_of_arguments_environments_and_secrets() -> None:
    detail: Json = {
        "id": "not-secret-id",
        "arguments": {"A": "argument-1", "B": "short", "C": "${refs.build.id}", "D": 123456789},
        "argumentOverrides": {"A": "argument-2"},
        "triggers": [{"kind": "webhook-kind", "token": "trigger-token"}],
        "refs": {"group": {"id": "not-secret-ref", "data": {"secrets": {"X": "group-secret"}}}},
        "spec": {
            "kind": "Workflow",
            "spec": {
                "steps": [
                    {
                        "kind": "JobRun",
                        "spec": {
                            "jobId": "not-secret-job",
                            "runtimeEnvironment": {"X": "step-value\nsecond-line"},
                            "runtimeFiles": {"/not/secret": {"data": "file-content"}},
                            "arguments": {
                                "variables": [{"key": "NOT_SECRET_KEY", "value": "variable-1"}]
                            },
                        },
                        "response": {"data": {"connectionString": "output-secret"}},
                    }
                ]
            },
        },
    }
    values = secret_values(detail)
    secret = (
        "argument-1 argument-2 123456789 trigger-token group-secret step-value second-line "
        "file-content variable-1 output-secret"
    )
    assert redact_line(secret, values)[0] == " ".join(["[redacted]"] * 10)
    public = "short not-secret-id not-secret-ref not-secret-job webhook-kind NOT_SECRET_KEY"
    assert redact_line(public, values) == (public, False)


@pytest.mark.parametrize("detail", [{}, {"arguments": None}, {"arguments": "text", "spec": [1]}])
def test_odd_details_have_no_values(detail: Json) -> None:
    assert repr(secret_values(detail)) == "<0 secret values>"


def test_deep_details_are_read() -> None:
    detail: Json = {"arguments": "deep-value"}
    for _ in range(10_000):
        detail = {"spec": detail}
    assert redact_line("deep-value", secret_values(detail))[1]


def test_values_do_not_show_in_their_own_text() -> None:
    values = secret_values({"arguments": {"A": "argument-1"}})
    assert "argument" not in f"{values} {values!r}"


@pytest.mark.parametrize(
    "part",
    [
        "eyJ", "eyJaaaaaaaa-", "eyJaaaaaaaa.", "eyJ-" * 130 + ".", _BEGIN, _END, "-----BEGIN",
        "-----BEGIN " + "A" * 40, "sk-", "a:", "a.", "a%", "a:b@a", "u:" + "p" * 256, "--", "--a",
        "--password ", "--password '", "--a-token", "-u a:", "_token: ", "SG.",
        "a_", "A_", "_pass", "token", "token_key", "a_pass: ", "1 ", "\n1 ", "\n- ", "\ntoken: ",
        "\n" + "a" * 70 + ": ", "a_" * 30 + "token: ",
        "SG." + "a" * 16 + ".", "ghp_" + "a" * 29, "hooks.slack.com/", "://a:b@",
        "://a:b", "://", "://a@/", "pass=", "pass=1 ", "token.a:1", "token-aaa:80/", "token-",
        "a-b", "\ufdd0", "pypi-", "\\", '"d"', '"d": ', "token.", "tokenper", "token{",
        "token,", "key", "_key", "api_key", "value", "<", "<a ", "<token>", "('token',", "=a(",
        "password ", "password is ", "identified by ", "?code=", "mysql ", "mysql -", "AKIA",
        "68756e7465723268", "aHVudGVy", "{{", "${", "name: token,",
    ],
)  # fmt: skip
def test_redaction_time_of_a_line_is_linear_in_its_length(part: str) -> None:
    # With quadratic time, each of these would take minutes.
    redact_line(part * (100_000 // len(part)), SecretValues(["hunter2hunter"]))
