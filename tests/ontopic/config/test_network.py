"""The environment's proxies and certificates: used for calls outside, and never for those to this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

from ontopic.config.network import (
    check_way_out,
    http_options,
    is_loopback_name,
    is_loopback_url,
    is_server_address,
    proxy_variable,
    reach_this_machine_directly,
)
from ontopic.errors import UserError

OUTSIDE = "https://api.openai.com/v1"
HERE = [
    "http://127.0.0.1:1/v1",
    "http://[::1]:1",
    "HTTP://LocalHost./v1",
    "http://app.localhost",
    "https://127.1:8443/v1",
]
# What the test's own environment may hold.
VARIABLES = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
)
BROKEN = [
    ("ALL_PROXY", "socks5://127.0.0.1:9", "names a SOCKS proxy"),
    ("all_proxy", "socks5h://user:s3cret@proxy", "names a SOCKS proxy"),
    ("HTTPS_PROXY", "http://[::1", "is not the address of a proxy"),
    ("https_proxy", "http://proxy:port", "is not the address of a proxy"),
    ("HTTP_PROXY", "http://proxy:99999", "is not the address of a proxy"),
    ("HTTPS_PROXY", "ftp://proxy:21", "is not the address of a proxy"),
    ("HTTPS_PROXY", "see the wiki", "is not the address of a proxy"),
    ("HTTPS_PROXY", "http://", "is not the address of a proxy"),
    ("SSL_CERT_FILE", "/nowhere/ca.pem", "names no certificates"),
    ("SSL_CERT_FILE", "/", "names no certificates"),
    ("SSL_CERT_FILE", __file__, "names no certificates"),
    ("SSL_CERT_DIR", "/nowhere", "names no certificates"),
]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(("variable", "value", "said"), BROKEN, ids=lambda value: value[:24])
def test_a_broken_setting_is_named_outside_and_is_nothing_here(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=f"^{variable} in the environment {said}") as raised:
        http_options(OUTSIDE)
    assert "s3cret" not in str(raised.value)
    for url in HERE:
        DefaultHttpxClient(**http_options(url))
        assert http_options(url)["trust_env"] is False


def test_what_requests_reads_is_named_to_its_callers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    http_options(OUTSIDE)
    with pytest.raises(UserError, match="REQUESTS_CA_BUNDLE in the environment names no"):
        check_way_out(by_requests=True)
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy:1080")
    with pytest.raises(UserError, match=r"ALL_PROXY in the environment names a SOCKS proxy.* pip install PySocks"):
        check_way_out(by_requests=True)


def test_settings_that_can_be_used_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    good = {"HTTPS_PROXY": "http://user:s3cret@proxy:3128", "http_proxy": "proxy:3128", "SSL_CERT_DIR": str(tmp_path)}
    for name, value in (good | {"NO_PROXY": "[::1],fd07:b51a:cc66:f0::/64,10.0.0.0/8, .corp"}).items():
        monkeypatch.setenv(name, value)
    assert http_options(OUTSIDE) == {}  # so that the client reads the environment
    DefaultAsyncHttpxClient(**http_options(OUTSIDE))
    assert proxy_variable(OUTSIDE) == "HTTPS_PROXY"
    assert proxy_variable("http://judge.example/v1") == "http_proxy"
    assert proxy_variable("http://judge.corp/v1") is None
    assert [proxy_variable(url) for url in HERE] == [None] * len(HERE)


def test_libraries_of_others_leave_this_machine_out_of_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    from requests.utils import get_environ_proxies

    reach_this_machine_directly()
    assert "NO_PROXY" not in os.environ  # alone it would switch off what macOS and Windows know of proxies
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    for before in ("", "corp.example", "[::1]", "*"):
        monkeypatch.setenv("NO_PROXY", before)
        monkeypatch.delenv("no_proxy", raising=False)
        for _ in range(2):
            reach_this_machine_directly()
        for url in ("http://127.0.0.1:5000", "http://localhost:5000", "http://[::1]:5000", "http://127.9.9.9/x"):
            assert get_environ_proxies(url) == {}
        assert bool(get_environ_proxies("http://mlflow.example")) == (before != "*")
        assert os.environ["NO_PROXY"] == os.environ["no_proxy"]
        assert os.environ["NO_PROXY"].startswith(before)
        assert os.environ["NO_PROXY"].count("localhost") == 2 * (before != "*")  # it is added once


LOOPBACK = [
    "127.0.0.1",
    "127.255.0.3",
    "127.1",
    "2130706433",
    "0x7f000001",
    "::1",
    "::ffff:127.0.0.1",
    "::",
    "localhost",
]
OTHERS = [
    "",
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.nip.example",
    "10.0.0.1",
    "128.0.0.1",
    "fe80::1",
    "a b",
]


@pytest.mark.parametrize("host", [*LOOPBACK, "::", "0.0.0.0", "A.LOCALHOST."])  # noqa: S104
def test_which_names_mean_this_machine(host: str) -> None:
    assert is_loopback_name(host)


@pytest.mark.parametrize("host", [*OTHERS, "a b", "notlocalhost", "ünicode", "\ud800"])
def test_which_names_do_not(host: str) -> None:
    assert not is_loopback_name(host)


def test_a_name_without_a_dot_is_looked_up() -> None:
    assert is_loopback_url("http://ip6-localhost:8000/v1") or is_loopback_url("http://localhost:8000/v1")
    assert not is_loopback_url("http://no-such-host-at-all/v1")
    assert not is_loopback_url("http://[::1")


def test_which_addresses_can_be_asked() -> None:
    assert all(map(is_server_address, ("http://h/v1", "https://h:1", "HTTP://[::1]:8000/v1")))
    wrong = ("", "h:80", "ftp://h", "http://", "http://[::1", "http://h:x", "http://h:0", "http://a b")
    assert not any(map(is_server_address, wrong))
