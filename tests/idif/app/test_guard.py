"""Strangers and the page: guessed passwords, other hosts and pages, quotas, and what a visit leaves."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from idif.app import guard
from idif.app.guard import Guard, Tries
from idif.app.uploads import Upload, UploadError, discard
from idif.app.visits import FairLock, Visits
from tests.idif.app.test_app import photo, zipped

OWN = {"host": "127.0.0.1:7860"}


class Answers:
    """An application that answers every request with one status, behind a guard."""

    def __init__(self, uploads: Path, *, password: bool = False, status: int = 200) -> None:
        self.status, self.clock = status, 0.0
        self.body: list[bytes] = []
        """Pieces of the next request's body; the client stalls behind them unless the last is empty."""
        self.guard = Guard(
            self, host="127.0.0.1", uploads=uploads, has_password=password, tries=Tries(lambda: self.clock)
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def ask(self, method: str, path: str, headers: dict[str, str], client: str = "10.0.0.1") -> int:
        sent: list[dict[str, Any]] = []
        self.body = self.body or [b""]

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            if not self.body:
                await asyncio.sleep(60)
            piece = self.body.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(piece)}

        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": pairs, "client": (client, 1)}
        asyncio.run(self.guard(scope, receive, send))
        if sent[0]["status"] >= 400 and sent[0]["status"] != self.status:
            assert b'"detail": "' in sent[1]["body"], "a refusal is a sentence"
        return int(sent[0]["status"])


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7860", "localhost", "LOCALHOST:7860", "[::1]:7860", "127.0.0.1."]
)
def test_the_machines_own_names_are_answered(tmp_path: Path, host: str) -> None:
    assert Answers(tmp_path).ask("GET", "/", {"host": host}) == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:7860", "", "[::1", "10.0.0.5:7860"])
def test_another_host_name_is_refused_where_nobody_signs_in(tmp_path: Path, host: str) -> None:
    assert Answers(tmp_path).ask("GET", "/", {"host": host}) == 421
    assert Answers(tmp_path, password=True).ask("GET", "/", {"host": host}) == 200


@pytest.mark.parametrize(
    "more", [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
@pytest.mark.parametrize("password", [False, True])
def test_what_another_page_sends_is_refused(tmp_path: Path, more: dict[str, str], password: bool) -> None:
    page = Answers(tmp_path, password=password)
    assert page.ask("POST", "/gradio_api/upload", OWN | {"content-length": "9"} | more) == 403
    own = OWN | {"content-length": "9", "origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}
    assert page.ask("POST", "/gradio_api/upload", own) == 200


def test_bodies_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Answers(tmp_path)
    assert page.ask("POST", "/gradio_api/queue/join", OWN | {"content-length": "50000000"}) == 413
    assert page.ask("POST", "/gradio_api/queue/join", OWN) == 411
    monkeypatch.setattr(guard, "TOTAL_MB", 1)
    upload = OWN | {"content-length": "600000"}
    assert page.ask("POST", "/gradio_api/upload", upload) == 200
    (tmp_path / "visit").mkdir()
    (tmp_path / "visit" / "a.png").write_bytes(bytes(600_000))
    assert page.ask("POST", "/gradio_api/upload", upload) == 507


@pytest.mark.parametrize("length", [{"content-length": "8"}, {"transfer-encoding": "chunked"}])
def test_a_refused_body_is_read_to_its_end(tmp_path: Path, length: dict[str, str]) -> None:
    page = Answers(tmp_path)
    page.body = [b"1234", b"5678", b"", b"the next request"]
    foreign = OWN | {"origin": "https://evil.example"} | length
    assert page.ask("POST", "/gradio_api/upload", foreign) == 403
    assert page.body == [b"the next request"]


def test_a_body_that_the_application_refuses_is_read_to_its_end(tmp_path: Path) -> None:
    page = Answers(tmp_path, status=413)
    page.body = [b"1234", b""]
    assert page.ask("POST", "/gradio_api/upload", OWN | {"content-length": "4"}) == 413
    assert page.body == []


def test_nobody_holds_a_refused_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "DISCARD_SECONDS", 0.05)
    page, foreign = Answers(tmp_path), OWN | {"origin": "https://evil.example"}
    page.body = [b"and then nothing"]
    assert page.ask("POST", "/gradio_api/upload", foreign | {"content-length": "999"}) == 403
    monkeypatch.setattr(guard, "DISCARD_MB", 5e-6)
    page.body = [b"1234"] * 3
    assert page.ask("POST", "/gradio_api/upload", foreign | {"content-length": "12"}) == 403
    assert len(page.body) == 3, "known to be too long: not read at all"
    assert page.ask("POST", "/gradio_api/upload", foreign | {"transfer-encoding": "chunked"}) == 403
    assert len(page.body) == 1, "read until it was too long"


def test_an_upload_is_refused_by_its_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "UNPACKED_MB", 1)
    page = Answers(tmp_path)
    assert page.ask("POST", "/gradio_api/upload", OWN | {"content-length": "1000000"}) == 200
    assert page.ask("POST", "/gradio_api/upload", OWN | {"content-length": "1000001"}) == 413


def test_a_refused_websocket_is_closed(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        raise AssertionError("a websocket has no body")

    scope = {"type": "websocket", "path": "/ws", "headers": [(b"host", b"evil.example")]}
    asyncio.run(Answers(tmp_path).guard(scope, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_passwords_cannot_be_guessed_quickly(tmp_path: Path) -> None:
    page = Answers(tmp_path, password=True, status=400)
    sign_in = OWN | {"content-length": "9"}
    assert [page.ask("POST", "/login", sign_in) for _ in range(7)] == [400] * 5 + [429] * 2
    assert page.ask("POST", "/login/", sign_in) == 429
    assert page.ask("POST", "/login", sign_in, "10.0.0.2") == 400, "others may still sign in"
    page.clock = 61.0
    page.status = 302
    assert page.ask("POST", "/login", sign_in) == 302
    page.status = 400
    assert [page.ask("POST", "/login", sign_in) for _ in range(5)] == [400] * 5
    assert sum(page.ask("POST", "/login", sign_in, f"10.1.0.{n}") == 400 for n in range(99)) < 50


def test_a_visit_leaves_nothing_behind(tmp_path: Path) -> None:
    visits, made = Visits(2), [Upload.make(tmp_path) for _ in range(4)]
    assert all(upload.folder.is_relative_to(tmp_path) for upload in made)
    visits.hold("a", made[0])
    visits.hold("a", made[1])
    assert [upload.folder.exists() for upload in made[:2]] == [False, True], "the earlier part of a visit"
    visits.hold("b", made[2])
    visits.hold("c", made[3])
    assert [upload.folder.exists() for upload in made] == [False, False, True, True], "the oldest visit"
    visits.end("b")
    visits.end("b")
    visits.end("c")
    assert list(tmp_path.iterdir()) == []


def test_the_servers_own_copies_are_deleted(tmp_path: Path) -> None:
    uploads, own = tmp_path / "uploads", tmp_path / "own.png"
    (uploads / "hash").mkdir(parents=True)
    copy = photo(uploads / "hash" / "a.png")
    photo(own)
    discard([str(copy), str(own)], uploads)
    assert list(uploads.iterdir()) == []
    assert own.exists(), "only what lies in the folder of uploads"


def test_a_closed_page_deletes_its_photographs(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    from idif.app.handlers import Handlers

    session: Any = SimpleNamespace(view_numbers=(1,), cameras={})
    handlers, upload = Handlers(session), Upload.make(tmp_path)
    handlers.visits.hold("abc", upload)
    request: Any = SimpleNamespace(session_hash="abc")
    handlers.leave(request)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", [["a.png", "a.png/b.png"], ["a.png/b.png", "a.png"]])
def test_a_photograph_that_is_also_a_folder_is_refused(tmp_path: Path, names: list[str]) -> None:
    upload = Upload.make(tmp_path)
    with pytest.raises(UploadError, match=r"x\.zip: a\.png is both a photograph and a folder"):
        upload.add([str(zipped(tmp_path / "x.zip", names))])


def test_an_archive_of_macos_holds_no_more_photographs(tmp_path: Path) -> None:
    upload = Upload.make(tmp_path)
    names = ["p/1.png", "__MACOSX/p/._1.png", "p/._1.png", ".hidden/2.png"]
    upload.add([str(zipped(tmp_path / "x.zip", names))])
    assert [path.name for path in upload.folder.rglob("*.png")] == ["1.png"]
    with pytest.raises(UploadError, match=r"2\.heic: expected a photograph"):
        upload.add([str(zipped(tmp_path / "y.zip", ["1.png", "2.heic"]))])


def test_a_lock_is_got_in_the_order_of_asking() -> None:
    lock, order = FairLock(), list[str]()
    asked, held = threading.Event(), threading.Event()

    def greedy() -> None:
        for turn in range(3):
            with lock:
                order.append(f"greedy {turn}")
                held.set()
                asked.wait(5)

    def patient() -> None:
        held.wait(5)
        with lock:
            order.append("patient")

    threads = [threading.Thread(target=greedy), threading.Thread(target=patient)]
    for thread in threads:
        thread.start()
    held.wait(5)
    while len(lock._waiting) < 2:
        pass
    asked.set()
    for thread in threads:
        thread.join(5)
    assert order == ["greedy 0", "patient", "greedy 1", "greedy 2"]


def test_no_lock_is_held_while_a_visitor_takes_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    from idif.app import session as module

    monkeypatch.setattr(module, "predict", lambda scorer, encoders, parts, rebuild: iter(parts))
    scorer = SimpleNamespace(config=SimpleNamespace(batch_size=2))
    loaded: Any = SimpleNamespace(scorer=scorer)
    none: Any = None
    session = module.AppSession(none, (1,), ("cup",), none, lambda *_: loaded, None, None)
    parts: list[Any] = [SimpleNamespace(category="cup", name=str(n)) for n in range(5)]
    results = session.predict(parts)
    seen = [next(results)]
    assert not session._lock._waiting, "another visitor may have its turn"
    assert [*seen, *results] == parts


def test_messages_of_gradio_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio")
    from idif.app.page import _ShortTraceback

    try:
        raise ValueError("\x1b[2J" + "x" * 50_000_000)
    except ValueError:
        _ShortTraceback().print_exc()
    printed = capsys.readouterr().err
    assert len(printed) < 1000
    assert "\x1b" not in printed
