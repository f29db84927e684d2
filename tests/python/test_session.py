"""What the client does when the connection breaks, on a small server of ours that can break it at will."""

import threading
import time

import grange
import pytest
from fake_farm import FakeFarm
from farm_process import FarmProcess


@pytest.fixture
def fake():
    fake = FakeFarm(2)
    yield fake
    fake.close()


@pytest.fixture
def farm(fake):
    with grange.connect(fake.url) as farm:
        yield farm


def test_nothing_is_lost_or_doubled_over_breaks(fake, farm, tmp_path):
    stop = threading.Event()

    def breaker():
        while not stop.wait(0.15):
            fake.cut()

    thread = threading.Thread(target=breaker)
    thread.start()
    try:

        def work(x):
            with open(tmp_path / str(x), "a") as f:
                f.write(".")
            time.sleep(0.005)
            return x

        assert farm.map(work, range(300)) == list(range(300))
        futures = [farm.submit(work, 1000 + x) for x in range(200)]
        assert [f.result(30) for f in futures] == [1000 + x for x in range(200)]
    finally:
        stop.set()
        thread.join()
    assert [p.name for p in tmp_path.iterdir() if p.read_text() != "."] == []


def test_a_server_that_forgot_the_session(fake, farm):
    stop = threading.Event()

    def breaker():
        while not stop.wait(0.15):
            fake.forget_sessions()
            fake.cut()

    thread = threading.Thread(target=breaker)
    thread.start()
    try:

        def work(x):
            time.sleep(0.005)
            return x

        assert farm.map(work, range(300)) == list(range(300))
        assert list(farm.imap(work, range(100))) == list(range(100))
    finally:
        stop.set()
        thread.join()
    assert "follow" in fake.requests


def test_a_submit_whose_answer_was_lost_is_not_done_twice(fake, farm):
    farm.submit(abs, -1).result(30)
    fake.answer = False
    future = farm.submit(abs, -2)
    end = time.monotonic() + 20
    while fake.requests.count("submit") < 2 and time.monotonic() < end:
        time.sleep(0.01)
    fake.answer = True
    fake.forget_sessions()
    fake.cut()
    assert future.result(30) == 2
    assert fake.requests.count("submit") == 3 and len(fake.jobs) == 2


def test_submits_made_while_the_server_is_away(fake, farm):
    farm.submit(abs, -1).result(30)
    fake.cut()
    futures = [farm.submit(abs, -x) for x in range(50)]
    assert [f.result(30) for f in futures] == list(range(50))


def test_a_wrong_token():
    fake = FakeFarm(1, token="right")
    try:
        with grange.connect(fake.url, token="right") as farm:
            assert farm.map(abs, [-1]) == [1]
        for token in (None, "wrong"):
            with pytest.raises(grange.ConnectionError) as caught:
                grange.connect(fake.url, token=token)
            said = "a token is needed" if token else _wants_a_token(fake.url)
            assert (caught.value.code, str(caught.value)) == ("unauthenticated", said)
    finally:
        fake.close()


WRONG = "This is no token of this server. Compare GRANGE_TOKEN with the server's --token-file."


def _wants_a_token(url):
    return f"the server at {url} refused us: it wants a token. Set GRANGE_TOKEN or connect(token=...)"


def test_a_token_of_a_real_server(tmp_path, monkeypatch):
    monkeypatch.delenv("GRANGE_TOKEN", raising=False)
    (tmp_path / "token").write_text("correct-horse-battery-staple\n")
    (tmp_path / "token").chmod(0o600)
    server = FarmProcess(tmp_path, "--token-file", str(tmp_path / "token"), "--workers", "1", "--slots", "1")
    try:
        with grange.connect(server.url, token="correct-horse-battery-staple") as farm:
            assert farm.submit(abs, -1).result(30) == 1
            farm._http.token = "wrong"
            with pytest.raises(grange.ConnectionError) as caught:
                farm.stats()
            assert str(caught.value) == WRONG
        for token in (None, "wrong"):
            with pytest.raises(grange.ConnectionError) as caught:
                grange.connect(server.url, token=token)
            said = WRONG if token else _wants_a_token(server.url)
            assert (caught.value.code, str(caught.value)) == ("unauthenticated", said)
    finally:
        server.stop()


def test_what_the_server_refuses_is_the_futures_error(fake, farm, monkeypatch):
    monkeypatch.setattr(farm, "_connection", _Refusing(farm._connection))
    with pytest.raises(grange.GrangeError, match="full"):
        farm.submit(abs, 1).result(10)
    with pytest.raises(grange.GrangeError, match="full"):
        farm.map(abs, [1])


class _Refusing:
    def __init__(self, connection):
        self.connection = connection

    def __getattr__(self, name):
        return getattr(self.connection, name)

    def request(self, body, callback=None):
        if callback:
            callback(None, grange.GrangeError("the disk of the server is full"))


def test_more_jobs_than_a_session_follows(fake, farm, monkeypatch):
    monkeypatch.setattr("grange._connection._FOLLOWED", 3)
    futures = [farm.submit(abs, -i, name=f"n{i % 20}") for i in range(200)]
    assert [f.result(30) for f in futures] == list(range(200))


def test_a_job_that_the_server_has_lost(fake, farm):
    future = farm.submit(time.sleep, 30)
    end = time.monotonic() + 20
    while future.job_id is None and time.monotonic() < end:
        time.sleep(0.01)
    with fake.lock:
        fake.jobs.clear()
    fake.forget_sessions()
    fake.cut()
    with pytest.raises(grange.GrangeError, match="no such job"):
        future.result(20)


def test_a_server_that_is_not_up_yet(fake, farm):
    fake.unavailable = 3
    futures = [farm.submit(abs, -i) for i in range(20)]
    assert [f.result(20) for f in futures] == list(range(20))
    assert fake.unavailable == 0
