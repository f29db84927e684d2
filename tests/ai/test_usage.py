"""What went through the gateway by day, over a crash and a clean stop; and alerts about services."""

import datetime
import sqlite3

from ai_farm import Farm, FarmProcess, eventually
from doubles import OllamaDouble

MODEL = "llama3.2:1b"


class Again(Farm):
    """On the port that one before it had; its workers come back to it."""

    def __init__(self, folder, before):
        self.workers = before.workers
        FarmProcess.__init__(self, folder, command="server", port=before.url.rsplit(":", 1)[1])


def chat(farm, model=MODEL):
    body = {"model": model, "messages": [{"role": "user", "content": "say something nice"}]}
    return farm.ask("/v1/chat/completions", body)


def usage(farm, more=""):
    return farm.ask("/api/gateway/usage" + more)


def test_usage_by_day_is_there_after_a_crash_and_after_a_stop(tmp_path):
    today = datetime.datetime.now(datetime.timezone.utc).date()
    with OllamaDouble(tokens=5) as double:
        farm = Farm(tmp_path)
        try:
            farm.worker("a", f"ollama={double.url}")
            farm.offers(MODEL)
            assert usage(farm)["days"] == []
            answers = [chat(farm) for _ in range(3)]
            tokens = sum(a["usage"]["completion_tokens"] for a in answers)
            (row,) = usage(farm)["days"]
            assert (row["principal"], row["model"], row["requests"], row["failed"]) == ("local", MODEL, 3, 0)
            assert row["tokens_out"] == tokens and row["tokens_in"] > 0 and row["bytes"] > 0
            assert datetime.date.fromisoformat(row["day"]) >= today

            def written():
                with sqlite3.connect(f"file:{tmp_path}/data/farm.db?mode=ro", uri=True) as db:
                    return [r for (r,) in db.execute("SELECT figures FROM usage") if '"requests":3' in r]

            eventually(written, what="a write every few seconds")
            farm.process.kill()
            farm.process.wait()
            farm.process.stdout.close()
            farm = Again(tmp_path, farm)
            assert usage(farm)["days"][0]["requests"] == 3
            assert farm.ask("/api/gateway")["usage"] == [], "these count since the start"
            farm.offers(MODEL)
            chat(farm)
            FarmProcess.stop(farm)  # at once: a clean stop writes what is left
            farm = Again(tmp_path, farm)
            whole = usage(farm, "?days=2")
            assert sum(d["requests"] for d in whole["days"]) == whole["totals"]["requests"] == 4
            assert usage(farm, "?principal=local&model=" + MODEL)["totals"]["requests"] == 4
            assert usage(farm, "?principal=somebody")["days"] == []
            first = datetime.datetime.fromtimestamp(usage(farm, "?days=7")["since_ms"] / 1000, datetime.timezone.utc)
            assert (first.hour, first.minute) == (0, 0) and (today - first.date()).days in (5, 6)
            said = farm("usage", "--days", "1000", code=None)
            assert said.returncode == 2
            table = farm("usage").stdout.splitlines()
            assert table[0].split() == ["PRINCIPAL", "REQUESTS", "FAILED", "TOKENS", "IN", "TOKENS", "OUT", "BYTES"]
            assert table[1].split()[:3] == ["local", "4", "0"]
            assert MODEL in farm("usage", "--by", "model").stdout
            assert row["day"] in farm("usage", "--by", "day", "--days", "7").stdout
            assert "Nothing went" in farm("usage", "--principal", "somebody").stdout
        finally:
            farm.stop()


def test_a_service_that_goes_down_is_an_alert_and_one_that_never_was_up_is_none(own_farm):
    farm = own_farm
    farm.ask("/api/alerts/rules/service_down", {"for_s": 0}, "PUT")
    with OllamaDouble(tokens=5) as double:
        farm.worker("a", f"ollama={double.url},llamacpp=http://127.0.0.1:9", ready=False)
        farm.offers(MODEL)
        eventually(lambda: farm.services("a", "down") == 1, what="the service that is not there")
    eventually(lambda: farm.services("a", "down") == 2, 60, "the service that went")
    (alert,) = eventually(lambda: farm.ask("/api/alerts")["open"], 20, "the alert")
    assert alert["kind"] == "service_down"
    worker = farm.seen("a")["id"]
    assert alert["worker_id"] == worker and alert["subject"].startswith(worker + "/ollama")
    assert alert["subject_name"].endswith(" on a")
    shown = eventually(lambda: [a for a in farm.ask("/api/overview")["attention"] if a["kind"] == "service_down"])
    assert shown[0]["worker_id"] == worker
