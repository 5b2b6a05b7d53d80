"""What another site's page can do to the daemon in the same browser: nothing."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from tests.support.http_daemon import HttpDaemon

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_CALLS = """
async ([url, token]) => {
  const headers = { "Content-Type": "application/json", Authorization: `Bearer ${token}` };
  const attempts = {
    simple: { method: "POST", body: '{"input": "x"}' },
    json: { method: "POST", body: '{"input": "x"}', headers },
    opaque: { method: "POST", mode: "no-cors", body: '{"input": "x"}' },
    read: { headers },
  };
  const got = {};
  for (const [name, options] of Object.entries(attempts)) {
    try {
      const response = await fetch(url + (options.method ? "/classify" : "/info"), options);
      got[name] = `${response.type} ${response.status}`;
    } catch (error) {
      got[name] = "refused";
    }
  }
  return got;
}
"""


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Another site</title><p>Another site</p>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """A web site of somebody else."""
    server = HTTPServer(("127.0.0.1", 0), _Site)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


@pytest.fixture
def foreign(browser: Browser, site: str) -> Iterator[Page]:
    """Its page."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(site)
    yield page
    context.close()


def calls(daemon: HttpDaemon) -> float:
    """Number of answers of /classify that are no refusals."""
    with daemon.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("sealign_http_texts_total"))


def test_another_sites_page_reads_nothing_and_starts_nothing(foreign: Page, daemon: HttpDaemon) -> None:
    before = calls(daemon)
    got = foreign.evaluate(_CALLS, [daemon.url, daemon.token])
    assert {name: got[name] for name in ("simple", "json", "read")} == dict.fromkeys(
        ("simple", "json", "read"), "refused"
    )
    assert got["opaque"] in ("refused", "opaque 0")  # sent, refused with 403, and not readable
    assert calls(daemon) == before


def test_a_name_that_was_rebound_to_this_computer_is_refused(browser: Browser, daemon: HttpDaemon) -> None:
    context = browser.new_context()
    page = context.new_page()
    rebound = daemon.url.replace("127.0.0.1", "rebound.example")
    response = page.goto(rebound)
    assert response is not None
    assert response.status == 403
    assert "Host" in response.text()
    context.close()


def test_the_page_cannot_be_framed(foreign: Page, daemon: HttpDaemon) -> None:
    foreign.evaluate(
        "url => { const frame = document.createElement('iframe'); frame.src = url; document.body.append(frame); }",
        daemon.url,
    )
    foreign.wait_for_timeout(1000)
    framed = foreign.frames[-1]
    assert not framed.url.startswith(daemon.url) or framed.locator("h1").count() == 0


def test_a_link_on_another_site_opens_a_locked_page(foreign: Page, daemon: HttpDaemon) -> None:
    foreign.evaluate("url => { location = url; }", daemon.url)
    foreign.wait_for_selector("#unlock", state="visible")
    assert foreign.is_hidden("#answer")
