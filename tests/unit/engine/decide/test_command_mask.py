"""Tests of what is hidden in the text of a command, and of what keeps a command on its machine."""

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from termite.engine.decide.environment import Environment
from termite.engine.decide.logic import command_mask
from termite.engine.decide.logic.command_mask import mask_command
from termite.engine.decide.logic.commands import without_definitions
from tests.unit.tables import each_row

TOKEN = "Zm9vYmFyYmF6"
WITH_CREDENTIALS = [
    f"az storage 'DefaultEndpointsProtocol=https;AccountName=x;AccountKey={TOKEN}=='",
    f"curl 'https://x.blob.core.windows.net/c?sv=1&sig={TOKEN}'",
    f"curl -H 'Authorization: Bearer {TOKEN}' https://example.com/x.tar",
    f"curl -u me --password {TOKEN} https://example.com",
    f"deploy --api-key={TOKEN} now",
    f"MY_SECRET={TOKEN} ./run",
    f"export GITHUB_TOKEN='{TOKEN} x'; make",
    f'env DB_PASSWORD="{TOKEN}" ./run',
    f"git clone https://me:{TOKEN}@example.com/x.git",
    f"echo ghp_{TOKEN}{TOKEN} | gh auth login",
    f"aws s3 cp x s3://y # AKIA{TOKEN.upper()}",
    f"curl -d 'access_token: {TOKEN}' x",
    f"echo eyJhbGciOiJIUzI1NiJ9.{TOKEN}.{TOKEN}",
    f"DB_PASS={TOKEN} ./run",
    f"./run --pass {TOKEN} --db-pwd={TOKEN} -DB_PWD={TOKEN}",
    f"mount.cifs --pwd={TOKEN}",
    f"openssl enc -passin pass:{TOKEN}",
    f"SIGN_KEY={TOKEN} make; STRIPE_KEY='{TOKEN}' make",
    f"deploy --signing-key {TOKEN} now",
    f"curl -H 'Authorization: token {TOKEN}' https://example.com",
    f'curl -H "authorization: Other {TOKEN}" x',
    f"curl -u user:{TOKEN} x",
    f"curl -fsSu 'user:{TOKEN}' x",
    f"curl -uuser:{TOKEN} x",
    f"curl --user user:{TOKEN} --proxy-user=user:{TOKEN} x",
    f"sshpass -p {TOKEN} ssh host",
    f"sshpass -v -p'{TOKEN}' ssh host",
    f"mysqldump -u root -p{TOKEN} db",
    f"docker login -u me -p {TOKEN} example.com",
    f"git clone https://{TOKEN}@example.com/x.git",
    f"git clone HTTPS://{TOKEN}:x-oauth-basic@example.com/x.git",
    f"echo '-----BEGIN RSA PRIVATE KEY-----{TOKEN}'",
]


@each_row("text", [*WITH_CREDENTIALS, *(text.swapcase() for text in WITH_CREDENTIALS)])
def test_texts_that_are_looked_for_first_hide_no_credential(text: str) -> None:
    with patch.object(command_mask, "_has_any", lambda text, parts: True):
        searched = mask_command(text, {}, ())
    assert mask_command(text, {}, ()) == searched


@each_row("text", WITH_CREDENTIALS)
def test_what_looks_like_a_credential_is_masked_and_the_rest_stays(text: str) -> None:
    masked = mask_command(text, {}, ())
    assert "***" in masked
    assert TOKEN.lower() not in masked.lower()
    assert masked.split()[0] == text.split()[0] or "***" in masked.split()[0]


@each_row(
    "text",
    [
        "gcc -c -o x.o x.c -DSIZE=4 -Iinclude",
        "python3 tokenize.py --passes 3 a.c",
        "cc -c secret.c token.c && ar r libkeyring.a secret.o",
        "wget https://example.com:8080/x@y",
        "touch Basic.o",
        "PWD=/x make OLDPWD=/y bypass=1 key=x",
        "gcc -Iinclude/mysql -pthread -pipe -c pass.c -o keys_pwd.o",
        "curl -fsSL -o x.tar -A agent:2 https://example.com:8080/x.tar",
        "git clone ssh://git@example.com/x.git; test -p login",
    ],
)
def test_a_usual_command_stays_as_it_is(text: str) -> None:
    assert mask_command(text, {}, ()) == text


def test_the_value_of_a_variable_that_stays_here_is_masked_whatever_it_looks_like() -> None:
    env = {"DEPLOY": "correct horse", "OTHER": "battery staple", "DEPLOY_SHORT": "abc", "DEPLOY_DIR": "/usr/include"}
    text = "send 'correct horse' 'battery staple' abc /usr/include"
    assert mask_command(text, env, ("DEPLOY*",)) == "send '***' 'battery staple' abc /usr/include"


def test_a_command_that_contains_the_value_of_such_a_variable_stays_on_its_machine() -> None:
    env = Environment({"MY_TOKEN": "0123456789", "SHORT_TOKEN": "1", "PATH": "/usr/bin"})
    assert env.reveals_missing(["curl -H 0123456789 x"], ("*_TOKEN",))
    assert env.reveals_missing(["sh", "-c", "curl $1 x", "-", "0123456789"], ("*_TOKEN",))
    assert env.reveals_missing(["echo $SHORT_TOKEN"], ("*_TOKEN",))
    assert not env.reveals_missing(["echo 1"], ("*_TOKEN",))
    assert not env.reveals_missing(["curl -H 0123456789 x"], ())


def test_so_does_one_whose_other_variables_contain_it() -> None:
    env = Environment({"MY_TOKEN": "0123456789", "CURL_OPTIONS": "-H 0123456789"})
    assert env.reveals_missing(["true"], ("MY_TOKEN",))


def test_definitions_on_the_command_line_of_make_are_not_sent_either() -> None:
    flags = r"w -j4 -- MY_TOKEN=0123456789\ x CC=gcc MY_TOKEN:=y"
    env = Environment({"MY_TOKEN": "0123456789 x", "MAKEFLAGS": flags, "MAKEOVERRIDES": "MY_TOKEN=0123456789"})
    assert env.without(("*_TOKEN",)).remote["MAKEFLAGS"] == "w -- CC=gcc"
    assert env.without(("*_TOKEN",)).remote["MAKEOVERRIDES"] == ""
    assert not env.reveals_missing(["true"], ("*_TOKEN",))


@given(st.text("ab=\\ :-\n", max_size=30))
def test_flags_of_make_without_hidden_definitions_stay_as_they_are(flags: str) -> None:
    assert without_definitions(flags, lambda name: False) == flags
