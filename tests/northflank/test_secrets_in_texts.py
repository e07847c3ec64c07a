"""What is removed of texts for people, and what stays."""

import pytest

from dashboard.northflank.secrets_in_texts import redact_secrets


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("pull https://user:pw@reg.io/a?sig=1 failed", "pull https://reg.io/… failed"),
        ("postgres://u:p/w@db/x", "postgres://…"),
        ("see http://h", "see http://h"),
        ("GET 'https://h:8080/x': refused", "GET 'https://h:8080/…': refused"),
        ("dial http://[::1]:5432/x", "dial http://[::1]:5432/…"),
        ("postgres://u:p'w@db/x", "postgres://…"),
        ("postgres://u:p<w@db/x", "postgres://…"),
        ("postgres://u:p#w@db/x", "postgres://…"),
        ("postgres://u:p@w@db/x", "postgres://db/…"),
        ("mysql://u:pw (cut off)", "mysql://u/… (cut off)"),
        ("jdbc:sqlserver://db:1433;user=sa;password=pw", "jdbc:sqlserver://db:1433/…"),
        ("https://h,pw", "https://h/…"),
        (r"https:\/\/hooks.io\/services\/pw", r"https:\/\/hooks.io/…"),
        ("u=https%3A%2F%2Fuser%3Apw%40h%2Fx", "u=https%3A%2F%2F…"),
        ("u=https%3A%2F%2Fpw%40h%2Fx", "u=https%3A%2F%2F…"),
        ("a_very_long_scheme_of_its_own://u:p/w@h", "a_very_long_scheme_of_its_own://…"),
        ('"postgres://u:p\'w@db","x":1', '"postgres://…","x":1'),
        ('"postgres://u:p",w@db/x","y":1', '"postgres://…","y":1'),
        ('"postgres://u:p",w%40db/x","y":1', '"postgres://…","y":1'),
        ('"postgres://u@h:p",w@db/x","y":1', '"postgres://…","y":1'),
        ('"https://u@","y":1', '"https://…","y":1'),
        ('"https://u%40","y":1', '"https://…","y":1'),
        ('"https://u:p"@db","y":1', '"https://…","y":1'),
        ('https://u%40x:p",w%40db/x', "https://…"),
        ('"https://h/x?a={"b":"pw"}', '"https://h/…'),
    ],
)
def test_urls_in_text_lose_secrets(text: str, cleaned: str) -> None:
    assert redact_secrets(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("dial app:pw@tcp(db:3306)/x: refused", "dial app:…@tcp(db:3306)/x: refused"),
        ("dial (app:p@w@tcp(db)", "dial (app:…@tcp(db)"),
        ("clone //app:pw@git.io/x", "clone //app:…@git.io/x"),
        ("host=db password=pw user=app", "host=db password=… user=app"),
        ("login with 'password': 'p w', retry", "login with 'password': … retry"),
        ("DB_PASSWORD: pw", "DB_PASSWORD: …"),
        ('{"accessToken": "pw", "code": 1}', '{"accessToken": … "code": 1}'),
        ("Endpoint=x;SharedAccessKey=pw", "Endpoint=x;SharedAccessKey=…"),
        ("AWS_SECRET_ACCESS_KEY=pw", "AWS_SECRET_ACCESS_KEY=…"),
        ("Authorization: Bearer pw", "Authorization: …"),
        ("Authorization: token pw", "Authorization: …"),
        ("X-Api-Key: pw", "X-Api-Key: …"),
        ("sent Bearer pw to it", "sent Bearer … to it"),
        ("map[A:[*/*] Authorization:[Bearer pw] X:[y]]", "map[A:[*/*] Authorization:[… X:[y]]"),
        ('{"Authorization":["Bearer pw"]}', '{"Authorization":[…]}'),
        ("{ Authorization: [ 'Bearer pw' ] }", "{ Authorization: [ … ] }"),
        ("Authorization: <Bearer pw>", "Authorization: <…"),
        ("b'Bearer pw'", "b'Bearer …'"),
        ("{'Authorization': b'Bearer pw'}", "{'Authorization': …}"),
        ("Authorization: b'Bearer pw", "Authorization: …"),
        ("Authorization: ApiKey pw", "Authorization: …"),
        ("Authorization: GenieKey pw", "Authorization: …"),
        ("Authorization: Negotiate pw", "Authorization: …"),
        ("Authorization: SSWS pw", "Authorization: …"),
        ("Authorization: pw\nHost: h", "Authorization: …\nHost: h"),
        ('{"a":"Authorization: Bearer pw","b":"c"}', '{"a":"Authorization: …","b":"c"}'),
        ('{"Authorization":["pw","p w"],"a":"b"}', '{"Authorization":[…],"a":"b"}'),
        ('Authorization: Digest username="u", response="pw"\nnext', "Authorization: …\nnext"),
        ("Cookie: csrftoken=a; sessionid=pw\nnext", "Cookie: …\nnext"),
        ('{"Cookie":"a=b; c=pw","code":"E1"}', '{"Cookie":…,"code":"E1"}'),
        (r"{\"password\":\"pw\"}", r"{\"password\":…}"),
        (r"{\"token\":\"pw\",\"code\":1}", r"{\"token\":…,\"code\":1}"),
        ("{ token: 'pw', secretKey: 'pw' }", "{ token: … secretKey: … }"),
        ("Bearer tokenabc123", "Bearer …"),
        ("Bearer authkey123", "Bearer …"),
        ("Bearer token-abc", "Bearer …"),
        ("password=b'p w'", "password=…"),
        ("password=`p w`", "password=…"),
        ('token="Bearer pw (cut off)', "token=… (cut off)"),
        (r'"token="ApiKey pw\" (cut off)', '"token=… (cut off)'),
        ('{"token":"pw","error":"time out"}', '{"token":…,"error":"time out"}'),
        ('{"secrets":["pw","pw"],"a":1}', '{"secrets":[…],"a":1}'),
        ('{"secrets":["pw", "pw"],"a":1}', '{"secrets":[…],"a":1}'),
        (r'{"password":"p\",w","a":1}', '{"password":…,"a":1}'),
        ("password='p'w', retry", "password=…', retry"),
        ('{"message":"bad token=pw","code":"E12"}', '{"message":"bad token=…","code":"E12"}'),
        ('password=p"w', "password=…"),
        ("password=p,w", "password=…"),
        (r"password=p\"w", "password=…"),
        ("password=123456", "password=…"),
        ("token=123456", "token=…"),
        ("password: nothing", "password: …"),
        ("token=nullable", "token=…"),
        ("dial app:pw@10.0.0.5:3306", "dial app:…@10.0.0.5:3306"),
        ("dial 1234:pw@h", "dial 1234:…@h"),
        ("dial app:pw@db1", "dial app:…@db1"),
        ("got ghp_0123456789abcdefghijABCDEFGHIJ012345", "got …"),
    ],
)
def test_passwords_and_tokens_in_text_are_removed(text: str, cleaned: str) -> None:
    assert redact_secrets(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "connect to db:5432: connection refused",
        "clone git@github.com:acme/shop failed",
        "pull reg.io:5000/acme/api:1.2@sha256:0a1b: not found",
        "module github.com/acme/shop@v1.2.3: unknown revision",
        "Unexpected token '<' in JSON at position 0",
        "invalid token: expired",
        "secret: not found",
        "no Bearer token was sent",
        "10:15:00 exit code 1 (ops@acme.io)",
        "10:15:00,ops@acme.io left",
        '{"token":null,"error":"timeout","code":"E12"}',
        "{'password': None, 'tls': True}",
        "No matching version for npm:react@18.2.0",
        "No matching version for npm:react@18.2.0-rc.1, nor npm:@acme/ui@^4",
        "password: must not be empty",
        "Authorization: access denied",
        "DB_PASSWORD: not set",
        "Cookie: missing",
        "X-Api-Key: invalid",
        "max_tokens=4096, requested 5000",
        '{"total_tokens": 12, "token_limit": 10}',
        'WWW-Authenticate: Bearer error="invalid_token"',
        "Bearer authentication failed",
    ],
)
def test_ordinary_error_messages_stay_as_they_are(text: str) -> None:
    assert redact_secrets(text) == text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (
            '{"documentation_url":"https://docs.github.com/rest","message":"Not Found","a":"b"}',
            '{"documentation_url":"https://docs.github.com/…","message":"Not Found","a":"b"}',
        ),
        (
            '{"type":"https://httpstatuses.io/403","title":"Forbidden","status":403,"a":"used up"}',
            '{"type":"https://httpstatuses.io/…","title":"Forbidden","status":403,"a":"used up"}',
        ),
        (
            '<a href="https://h/x">Quota exceeded</a>',
            '<a href="https://h/…">Quota exceeded</a>',
        ),
        (
            '{"a":"https://u:pw@h/x","b":"https://g/y","c":"d"}',
            '{"a":"https://h/…","b":"https://g/…","c":"d"}',
        ),
        (
            r"{\"a\":\"https:\/\/h\/x\",\"b\":\"c\"}",
            r"{\"a\":\"https:\/\/h/…\",\"b\":\"c\"}",
        ),
    ],
)
def test_text_after_a_quoted_url_is_kept(text: str, cleaned: str) -> None:
    assert redact_secrets(text) == cleaned


@pytest.mark.parametrize(
    "part",
    [
        "a", ":", "a:", "@", "://", "://a:b", "a:b@", "password", "password=", "password='",
        "bearer ", " ", "token" + " " * 50, "\\", ":\\",
        '://",', '://"', "://a@", '://"@', "://',%40", "authorization:", "authorization: ",
        "authorization:[", "authorization: a ", "authorization:<'", "authorization: digest",
        "authorization='\\", "authorization" + "\\" * 50, "cookie: ", "cookie:\n", "cookie='\\\n",
        "password=\\", 'password="\\', 'password=\\"', "password=['", "password=['a',", "'a',",
        "password: ", "password:\n", "password='\n", "password=b'a' ", "password=`", "token: '",
        "token\\", "tokens=1", "tokens=1.", "tokens=1 ", "tokens=.", "tokens", ",", ",'", "}",
        "bearer", "bearer token", "bearer '", "a:@1", "a:@1-", "a:@1.", "a:@18.2.0", "1:", "12:34@",
        "a:b@1 ", "token.", "tokenper", "token{", "password ", "<token>", '"d"', "AKIA", "a_key: ",
    ],
)  # fmt: skip
def test_redaction_time_is_linear_in_the_length(part: str) -> None:
    # With quadratic time, each of these would take minutes.
    redact_secrets(part * (50_000 // len(part)))


@pytest.mark.parametrize(
    "start",
    [
        "://",
        "authorization:",
        "authorization: [",
        "cookie:",
        "password=",
        "password=['",
        "password: '",
        "tokens=1",
        "bearer ",
        "a:",
        "a:b@1",
    ],
)
@pytest.mark.parametrize("part", ["a", " ", "\\", "'", ",", "'a',", ".", "1", "@", "@1", ":", "\n"])
def test_redaction_time_is_linear_in_the_length_of_a_secret(start: str, part: str) -> None:
    redact_secrets(start + part * (50_000 // len(part)) + "\n'")
