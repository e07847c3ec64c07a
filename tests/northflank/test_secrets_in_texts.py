"""Which secrets are hidden in logs and errors, and which ordinary lines stay as they are."""

import base64
from urllib.parse import quote

import pytest

from dashboard.northflank import SecretValues, secret_values
from dashboard.northflank.secret_tokens import TOKENS
from dashboard.northflank.secrets_in_texts import redact_lines, redact_secrets
from dashboard.northflank.values import Json

# Each «secret» is hidden, and nothing else.
SECRETS = r"""
DB_PASSWORD=«pw» PORT=80
export SECRET_KEY=«'horse staple 42'»
+ export AWS_SECRET_ACCESS_KEY=«aB3/x+7»
declare -x DB_PASS=«"horse staple 42"»
RAILS_MASTER_KEY=«0a1b» bin/rails db:migrate
SECRET_KEY_BASE: «pw1» A: 1
GITHUB_PAT=«pw»
NPM_AUTH=«pw»
  db_password: «"horse staple 42"»
password: «pw»
  - secret: «pw1»
encryption_key: «horsestaple42»
2026-12-02T10:00:00.1Z [INFO] token: «pw1»
generated password: «horsestaple42»
credentials: «app:pw»
password = «pw»
{"level":"info","api_key":«"pw"»,"a":1}
{"secretAccessKey": «"pw"», "region": "eu-west-1"}
{"msg":"login","body":"{\"password\":«\"pw\"»}"}
{"message":"bad token=«pw»","code":"E12"}
{'user': 'app', 'passwd': «'pw'»}
Config(host='db', password=«'p,w'», port=5432)
os.environ['DB_PASSWORD'] = «'pw'»
{:username=>"app", :password=>«"pw"»}
      + password         = «"pw"»
      ~ master_password  = «"old" -> "new"»
Server=db;User Id=sa;Password=«horse»;Encrypt=true
psql "host=db password=«pw» dbname=shop"
keytool -genkey -storepass «changeit» -alias a
java -Djavax.net.ssl.keyStorePassword=«pw» -jar app.jar
sshpass -p «pw» ssh deploy@host
+ psql --password «pw» -h db
["psql", "--password", «"pw"», "-h", "db"]
./deploy --api-key=«pw»
+ curl -u app:«pw» http://h
curl -H 'X-Api-Key: «pw»' https://api.io
curl -H "Authorization: «Bearer pw»" https://api.io
Authorization: «Digest username="u", response="pw"»
[("Authorization", «"Bearer pw"»), ("Accept", "*/*")]
sent bearer «abcdefg1» to it
Cookie: «theme=dark; sessionid=pw»
{"Set-Cookie":«"a=b; c=pw"»,"code":"E1"}
GET /x?token=«pw» HTTP/1.1
GET https://b.s3.amazonaws.com/a?X-Amz-Credential=«pw»&X-Amz-Signature=«pw»
https://«app:pw»@api.io/v1/x?page=2
clone https://«token123»@git.io/a.git
postgres://«u:p/w»@db:5432/x
postgres://«u:p@w»@db/x
redis://«:pw»@cache:6379/0
{"k":"«-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----»","a":1}
«-----BEGIN OPENSSH PRIVATE KEY----- b3BlbnNzaC1r»
""".strip().split("\n")

ORDINARY = r"""
Commit 0a1b2c3d4e5f60718293a4b5c6d7e8f901234567 built
run 9d0f4b62-64a8-4a0b-8a65-1f7f3c0f7b77 done in /srv/app/releases/20261202
sha256:0a1b2c3d4e5f60718293a4b5c6d7e8f9012345670a1b2c3d4e5f607182930a1b
image reg.io:5000/acme/api:1.2@sha256:0a1b
pushed acme/auth-token:1.2
GET http://auth-token:8080
INFO token-service:8080/healthz is up
GET https://api.io/v1/orders/7?page=2 200
npm http fetch GET 200 https://registry.npmjs.org/@acme/ui 45ms
open http://localhost:8080/@vite/client
git+ssh://git@github.com/acme/shop.git
connected to postgres://db.internal:5432/shop
email:ops@acme.io left at 10:15:00
{"level":"info","user":"ops@acme.io","msg":"signed in at http://h/x"}
integrity sha512-9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08==
gpg: key 7638D0442B90D010: public key "Debian Archive" imported
go: downloading github.com/golang-jwt/jwt/v5 v5.2.1
npm_lifecycle_script=node_build_everything_now
npm_config_registry=https://registry.npmjs.org/
task-0123456789abcdefghijABCDEFGHIJ012345
PRIMARY_KEY=id
cache_key=products:v3:page:1 hit=true
idempotency_key=9d0f4b62-64a8-4a0b-8a65-1f7f3c0f7b77
tokens=1500 processed
max_tokens: 4096
token_count=1532 token_type=bearer expires_in=3600
tests: pass=12, fail=3
PASS: test_login
bypass=yes compass=north
PWD=/home/app OLDPWD=/
DB_PASSWORD_FILE=/run/secrets/db_password
GOOGLE_APPLICATION_CREDENTIALS=/var/run/gcp/key.json
secretName: api-tls
API_TOKEN: not set
api_key: null
password=""
SECRET_KEY=${SECRET_KEY}
DB_PASSWORD=$DB_PASSWORD
Password: ********
password=[FILTERED]
api_token = (sensitive value)
token = getToken()
password: {{ vault_db_password }}
UPDATE users SET password = $1, token = ? WHERE id = %s
CREATE TABLE users (id serial PRIMARY KEY, password text NOT NULL, api_key uuid)
ERROR:  null value in column "password" of relation "users" violates not-null constraint
invalid token: expired
2026-12-02 10:00:00 INFO token: refreshed
Secret: the server has none
the token: swordfish is only a word
password: must contain 8 characters
errors: {"password": ["can't be blank"], "token": "is invalid"}
KeyError: 'DB_PASSWORD'
SyntaxError: Unexpected token '<', "<!DOCTYPE "... is not valid JSON
at Object.<anonymous> (/app/secret-store.js:12:5)
token.go:12: parse error
Migrating 0042_add_user_token... OK
Secret db-creds created from secret/db
docker build --secret id=npmrc,src=/root/.npmrc .
docker run -u 1000:1000 -v /a:/b
  --password string   password of the account (default "")
Usage: cli [--password-stdin] --token TOKEN --user USER
Authorization: access denied
Cookie: missing
no bearer token was sent
-----BEGIN CERTIFICATE-----
""".strip().split("\n")
BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
BEGIN, END = "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"


def show(line: str, values: SecretValues | None = None) -> str:
    [(text, is_redacted)] = redact_lines([line], values or SecretValues())
    assert is_redacted == (text != line)
    return text


@pytest.mark.parametrize("row", SECRETS)
def test_secret_is_hidden_and_nothing_else(row: str) -> None:
    parts = row.replace("»", "«").split("«")
    parts[1::2] = ["[redacted]"] * len(parts[1::2])
    assert show(row.replace("«", "").replace("»", "")) == "".join(parts)


@pytest.mark.parametrize("line", ORDINARY)
def test_ordinary_line_stays(line: str) -> None:
    assert show(line) == line


@pytest.mark.parametrize(("provider", "prefix", "length"), TOKENS)
def test_token_is_hidden_by_its_prefix(provider: str, prefix: str, length: int) -> None:
    token = prefix + "a1" * (length // 2) + "b" * (length % 2)
    assert show(f"using {token}, {provider}") == f"using [redacted], {provider}"
    assert show(f"using {token[:-1]}") != "using [redacted]"


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (["a", f"k: {BEGIN}", "Proc-Type: 4", "", "Qw==", END, "b"], "a|k: *|*|*|*|*|b"),
        ([BODY, "Qw==", f"{END} b", "c"], "*|*|*|c"),  # its begin is not among the lines
        (["a", BEGIN, BODY, "Qw=="], "a|*|*|*"),  # its end is not written yet
        ([BEGIN, BODY, "Server has started"], "*|*|Server has started"),
        (["a b", BODY, "c d"], f"a b|{BODY}|c d"),
    ],
)
def test_private_key_of_several_lines_is_hidden(lines: list[str], shown: str) -> None:
    texts = [text for text, _is_redacted in redact_lines(lines, SecretValues())]
    assert "|".join(texts) == shown.replace("*", "[redacted]")


VALUE = 'p"w ä/12345'


@pytest.mark.parametrize(
    "form",
    [
        VALUE,
        r"p\"w \u00e4/12345",
        quote(VALUE, safe=""),
        base64.b64encode(VALUE.encode()).decode().rstrip("="),
    ],
)
def test_known_value_is_hidden_plain_and_encoded(form: str) -> None:
    assert show(f"x{form}y", SecretValues([VALUE])) == "x[redacted]y"


@pytest.mark.parametrize("before", [b"u:", b"ab:", b"app:"])
def test_known_value_is_hidden_within_base64(before: bytes) -> None:
    form = base64.b64encode(before + VALUE.encode() + b"\n").decode()
    text = show(form, SecretValues([VALUE]))
    assert b"12345" not in base64.b64decode(text.partition("[redacted]")[2] + "===")
    assert "[redacted]" in text


def test_password_of_a_known_address_is_hidden() -> None:
    values = SecretValues(["postgres://u:s3cr%24etpw@db/x"])
    assert show("with s3cr%24etpw", values) == show("with s3cr$etpw", values) == "with [redacted]"


def test_longer_of_two_known_values_goes_first() -> None:
    values = SecretValues(["redacted"]) | SecretValues(["redacted-and-more"])
    assert show("a redacted-and-more b", values) == "a [redacted] b"


def test_values_of_a_run_are_those_of_arguments_environments_and_secrets() -> None:
    step = {
        "spec": {
            "jobId": "not-secret-job",
            "runtimeEnvironment": {"X": "step-value\nsecond-line"},
            "runtimeFiles": {"/not/secret": {"data": "file-content"}},
            "arguments": {"variables": [{"key": "NOT_SECRET_KEY", "value": "variable-1"}]},
        },
        "response": {"data": {"connectionString": "output-value"}},
    }
    detail: Json = {
        "id": "not-secret-id",
        "arguments": {"A": "argument-1", "B": "short", "C": "${refs.build.id}", "D": 123456789},
        "triggers": [{"kind": "webhook-kind", "token": "trigger-value"}],
        "refs": {"group": {"data": {"secrets": {"X": "group-value"}}}},
        "spec": {"kind": "Workflow", "spec": {"steps": [step]}},
    }
    values = secret_values(detail)
    secret = "argument-1 123456789 trigger-value group-value step-value second-line file-content"
    assert set(show(f"{secret} variable-1 output-value", values).split()) == {"[redacted]"}
    public = "short not-secret-id not-secret-job webhook-kind NOT_SECRET_KEY"
    assert show(public, values) == public
    assert repr(secret_values({"arguments": None, "spec": [1]})) == "<0 secret values>"


def test_deep_detail_is_searched() -> None:
    detail: Json = {"arguments": "deep-value"}
    for _ in range(10_000):
        detail = {"spec": detail}
    assert show("deep-value", secret_values(detail)) == "[redacted]"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pull https://user:pw@reg.io/a?sig=1 failed", "pull https://[redacted]@reg.io/… failed"),
        ("see http://h", "see http://h"),
        ("GET 'https://h:8080/x': refused", "GET 'https://h:8080/…': refused"),
        ("dial http://[::1]:5432/x", "dial http://[::1]:5432/…"),
        ('{"type":"https://h/403","a":"b"}', '{"type":"https://h/…","a":"b"}'),
        ("connect to db:5432: connection refused", "connect to db:5432: connection refused"),
        ("DB_PASSWORD=pw is wrong", "DB_PASSWORD=[redacted] is wrong"),
    ],
)
def test_error_keeps_of_a_url_only_scheme_and_host(text: str, shown: str) -> None:
    assert redact_secrets(text) == shown


@pytest.mark.parametrize(
    "part",
    [
        "eyJ", "sk-", "ghp_a", "SG.", "://", "://a:b@", "://a:", "a:", "password", "password=",
        "password='", 'password=\\"', "password: ", "password ", "token\\", "_pass", "--", "--a-",
        "--token ", "-u a:", "sshpass ", "bearer ", "authorization:", 'authorization="', "cookie: ",
        BEGIN, "-----BEGIN " + "A" * 40, " ", "\\", '"', ",", "x" * 99 + " ",
    ],
)  # fmt: skip
def test_time_is_linear_in_the_length_of_a_line(part: str) -> None:
    # With quadratic time, each of these would take minutes.
    line = part * (100_000 // len(part))
    redact_secrets(line)
    show(line, SecretValues(["hunter2hunter"]))
