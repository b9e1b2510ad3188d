"""`shelfwise serve` as a process: its doors, its signals, and its end."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from shelfwise import artifact
from shelfwise.pipelines.predict import predict
from support.evaluations import lay_out, rows, write_catalogue
from support.serving import Live, live, wait_for

DOCS = Path(__file__).resolve().parents[2] / "docs" / "http-api.md"
NAMES = [row[0] for row in rows()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    return lay_out(folder / "shelves", write_catalogue(folder / "catalogue.csv"))


@pytest.fixture(scope="module")
def service(run: Path) -> Iterator[Live]:
    with live([run, "--drain-delay", "0"]) as found:
        found.wait_until_ready()
        yield found


def test_an_answer_over_http_is_that_of_shelfwise_predict(service, run, tmp_path):
    out = tmp_path / "predictions.parquet"  # with all digits of a confidence
    predict(run, write_catalogue(tmp_path / "new.csv"), out)
    of_file = {row["product"]: row for row in parquet.read_table(out).to_pylist()}
    status, answer = service.post("/v1/classify", {"products": NAMES})
    assert status == 200
    assert len(answer["predictions"]) == len(of_file)
    for found in answer["predictions"]:
        row = of_file[found["product"]]
        assert found["type"] == row["predicted_type"]
        for column in ("confidence", "decision", "level", "top_k"):
            assert found[column] == row[column], column


def test_the_python_example_of_the_documentation_runs(service):
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert "http://127.0.0.1:8000" in example
    code = example.replace("http://127.0.0.1:8000", service.address)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Basmati Rice 1 kg" in done.stdout


def test_the_bodies_of_the_curl_examples_are_answered(service):
    examples = re.findall(r"curl \S+ http://127\.0\.0\.1:8000(/\S+) .*?-d '(.*?)'", DOCS.read_text(encoding="utf-8"))
    assert len(examples) >= 3
    for path, body in examples:
        status, answer = service.post(path, json.loads(body))
        assert status == 200, answer


def send(service: Live, sent: bytes, timeout_s: float = 20) -> bytes:
    """What comes back until the other side closes."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=timeout_s) as connection:
        connection.sendall(sent)
        received = b""
        try:
            while part := connection.recv(65_536):
                received += part
        except ConnectionResetError:
            pass
        return received


def test_headers_without_an_end_are_not_read_for_ever(service):
    assert b"200" not in send(service, b"GET /livez HTTP/1.1\r\n" + b"x-filler: y\r\n" * 20_000)
    assert service.get("/livez")[0] == 200


def test_a_body_of_a_hundred_megabytes_is_refused_with_an_answer(service):
    head = (
        b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 104857600\r\n\r\n"
    )
    answer = send(service, head + b"[" * (1 << 20))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"too_large" in answer


@pytest.mark.parametrize(
    "sent", [b"\0\0\0\0\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\0" * 9, b"GET\r\n\r\n"]
)
def test_what_is_no_http_is_refused(service, sent):
    assert b" 200 " not in send(service, sent)
    assert service.get("/livez")[0] == 200


def test_sigterm_answers_what_is_in_flight_and_ends_well(run):
    with live([run, "--drain-delay", "0.5", "--max-wait-ms", "1500"]) as service:
        service.wait_until_ready()
        answers: list[tuple[int, object]] = []
        asking = threading.Thread(target=lambda: answers.append(service.post("/v1/classify", {"products": "Rice"})))
        asking.start()
        in_flight = "shelfwise_requests_in_flight 2.0"  # with the one that asks for the metrics
        wait_for(lambda: in_flight in service.get("/metrics")[1], "a request in flight")
        service.process.send_signal(signal.SIGTERM)
        wait_for(lambda: service.get("/readyz")[0] == 503, "it is not ready any more")
        assert service.process.wait(30) == 0
        asking.join(30)
        assert answers[0][0] == 200
    assert service.told("draining")


@pytest.mark.parametrize("asked", [False, True], ids=["idle", "a request in flight"])
def test_ctrl_c_twice_ends_it_at_once_without_a_traceback(asked, run):
    answers: list[tuple[int, Any]] = []
    # The service is ready when it has answered a name itself, which waits as long as a request does.
    with live([run, "--max-wait-ms", "8000" if asked else "2"]) as service:
        service.wait_until_ready()
        if asked:
            asking = threading.Thread(target=lambda: answers.append(service.post("/v1/classify", {"products": "Rice"})))
            asking.start()
            wait_for(lambda: "shelfwise_requests_in_flight 2.0" in service.get("/metrics")[1], "a request in flight")
        service.process.send_signal(signal.SIGINT)
        wait_for(lambda: service.told("leaving"), "the first signal")
        assert service.end(signal.SIGINT) == 0
        if asked:
            asking.join(30)
            assert [(status, told["error"]["code"]) for status, told in answers] == [(503, "draining")]
    assert "Traceback" not in "".join(service.log)
    assert sum("ended at once" in line for line in service.log) == 1


def test_sighup_loads_a_new_version(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "shelves"))
    with live([copy, "--drain-delay", "0"]) as service:
        service.wait_until_ready()
        before = service.get("/v1/models")[1]["data"][0]["version"]
        found = json.loads((copy / artifact.CALIBRATION).read_text())
        found["baseline"]["promise"] = 0.75
        artifact.write_json(copy / artifact.CALIBRATION, found)
        artifact.write_manifest(copy, {})
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: service.get("/v1/models")[1]["data"][0]["version"] != before, "the new version")
        assert service.get("/v1/models")[1]["data"][0]["promise"] == 0.75
        assert service.end() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: there is no such run folder"),
        (["a", "b=a", "c/a"], "Two runs are called 'a'"),
        (["a", "--api-keys", "nowhere"], "can't be read"),
    ],
)
def test_a_wrong_call_ends_with_status_2_and_a_sentence(tmp_path, arguments, message):
    command = [sys.executable, "-m", "shelfwise", "serve", *arguments, "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)  # nothing is said to be served


def test_a_port_that_is_taken_is_told(service, run):
    command = [sys.executable, "-m", "shelfwise", "serve", str(run), "--port", str(service.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "can't listen there" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["head", "completion"])
def test_a_language_model_answers_alike_over_http_alone_and_in_a_batch(tmp_path, objective):
    from shelfwise.classifier import Classifier
    from support import runs

    catalogue = runs.write_catalogue(tmp_path / "catalogue.csv")
    run = tmp_path / objective
    runs.train_small(catalogue, run, model="tiny-llama", method="full", objective=objective)
    names = [f"{text} no {number}" for number, (text, _) in enumerate(runs.EXAMPLES[:40])]
    right = Classifier.load(run).predict(names)
    with live([run, "--drain-delay", "0", "--max-wait-ms", "50"]) as service:
        service.wait_until_ready()
        status, together = service.post("/v1/classify", {"products": names})
        assert status == 200
        for name, one, expected in zip(names, together["predictions"], right, strict=True):
            alone = service.post("/v1/classify", {"products": name})[1]["predictions"][0]
            for found in (one, alone):
                assert (found["product"], found["type"]) == (name, expected.label)
                # The shape of a batch changes the last digits of its products.
                assert found["confidence"] == pytest.approx(expected.confidence, abs=1e-4)


def test_a_full_service_refuses_at_once_and_the_connection_can_be_used_again(run):
    body = json.dumps({"products": "Rice"}).encode()
    head = b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    asked = head % len(body) + b"\r\n"
    with live([run, "--drain-delay", "0", "--max-in-flight", "1", "--max-wait-ms", "1500"]) as service:
        service.wait_until_ready()
        answers: list[tuple[int, object]] = []
        asking = threading.Thread(target=lambda: answers.append(service.post("/v1/classify", {"products": "Rice"})))
        asking.start()
        wait_for(lambda: "shelfwise_requests_in_flight 2.0" in service.get("/metrics")[1], "a request in flight")
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
            for part in (asked[:40], asked[40:], body[:5], body[5:], asked + body):  # in parts, then whole
                connection.sendall(part)
                time.sleep(0.02)
            assert _answered(connection) == _answered(connection) == (429, "queue_full")
            asking.join(30)
            connection.sendall(asked + body)
            assert _answered(connection)[0] == 200
            connection.sendall(asked + body + asked + body)  # a second one, while the first is under way
            assert [_answered(connection)[0] for _ in range(2)] == [200, 200]
        assert answers[0][0] == 200
        assert 'requests_total{method="POST",route="/v1/classify",status="429"} 2.0' in service.get("/metrics")[1]
        assert service.end() == 0


def _answered(connection: socket.socket) -> tuple[int, str]:
    """The next answer of a connection: its status, and the code of its error."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(1)
    length = int(re.findall(rb"content-length: (\d+)", received)[0])
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return int(received[9:12]), json.loads(body).get("error", {}).get("code", "")


def test_answers_over_one_connection_do_not_wait_for_the_clients_confirmation(service):
    body = json.dumps({"products": "Rice"}).encode()
    head = b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    took_s = []
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        for _ in range(40):
            began_s = time.perf_counter()
            connection.sendall(head % len(body) + body)
            assert _answered(connection)[0] == 200
            took_s.append(time.perf_counter() - began_s)
    assert sorted(took_s)[len(took_s) // 2] < 0.035  # Linux confirms late by 40 ms


def test_a_log_that_nobody_reads_keeps_no_answer_waiting(run):
    unread, log = os.pipe()  # 64 KiB until it is full: some 240 lines
    command = [sys.executable, "-m", "shelfwise", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        os.close(log)
        try:
            announced = re.search(r"http://[^:]+:(\d+)", process.stdout.readline())
            connection = http.client.HTTPConnection("127.0.0.1", int(announced[1]), timeout=20)
            for _ in range(600):
                connection.request("GET", "/v1/models")
                answer = connection.getresponse()
                answer.read()
                assert answer.status in (200, 503)  # the models may still be loading
            connection.close()
        finally:
            process.kill()
            os.close(unread)
