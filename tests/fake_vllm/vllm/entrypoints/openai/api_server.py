"""Takes vLLM's arguments, and hands all requests on to the server of a test, which is at FAKE_VLLM_BEHIND.

It starts a process of its own, as vLLM does, which outlives it. FAKE_VLLM_FAULT says how it fails, and each start is noted
at the end of the file FAKE_VLLM_NOTES.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BASE = "the-base"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
SAID = {
    "memory": "(Worker pid=7) ERROR 11-28 18:15:20 [multiproc_executor.py:1063] ValueError: Available memory on node 0 "
    "(18.45/23.54 GiB) on kv cache allocation is less than requested memory for kv (300.0 GiB).",
    "lora": "ValueError: GPT2LMHeadModel does not support LoRA yet.",
    "architecture": "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
    "  Value error, Model architectures ['NovelForCausalLM'] are not supported for now. Supported: dict_keys([])",
}
"""What vLLM 0.32 says of a failure, before the words of its other processes."""
AFTERWARDS = (
    "(APIServer pid=5) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="api_server.py")
    for name in ("--model", "--host", "--served-model-name", "--dtype", "--generation-config", "--uvicorn-log-level"):
        parser.add_argument(name, required=True)
    parser.add_argument("--port", type=int, required=True)
    for name in ("--revision", "--tokenizer-revision", "--max-model-len", "--gpu-memory-utilization", "--max-num-seqs"):
        parser.add_argument(name)
    for name in ("--enable-lora", "--enforce-eager", "--no-enable-chunked-prefill"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--max-loras", type=int)
    parser.add_argument("--max-lora-rank", type=int, choices=RANKS)
    return parser.parse_args()


def fail(fault: str) -> None:
    """Fail as the test wants, before anything listens."""
    if fault in SAID:
        print(f"{SAID[fault]}\n{AFTERWARDS}", file=sys.stderr)
        sys.exit(1)
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "slow":
        print("Loading safetensors checkpoint shards", flush=True)
        time.sleep(60)
    if fault == "port" and starts() == 1:
        raise OSError(98, "Address already in use")
    if fault == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def starts() -> int:
    with open(os.environ["FAKE_VLLM_NOTES"]) as notes:
        return len(notes.readlines())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._hand_on(None)

    def do_POST(self) -> None:
        self._hand_on(self.rfile.read(int(self.headers["Content-Length"])))

    def _hand_on(self, body: bytes | None) -> None:
        if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            self._send(401, b'{"error": "Unauthorized"}')
            return
        if os.environ.get("FAKE_VLLM_FAULT") == "dies at work" and body and b"return_token_ids" in body:
            print(
                "(EngineCore pid=6) ERROR 11-28 18:06:24 [core.py:1512] RuntimeError: the engine is worn out",
                flush=True,
            )
            os._exit(1)
        url = os.environ["FAKE_VLLM_BEHIND"] + self.path.removeprefix("/v1")
        body = body and body.replace(TOLD.served_model_name.encode(), BASE.encode())
        request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request) as answer:
                self._send(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            self._send(error.code, error.read())

    def _send(self, status: int, body: bytes) -> None:
        body = body.replace(BASE.encode(), TOLD.served_model_name.encode())
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    TOLD = arguments()
    worker = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    note = {"arguments": sys.argv[1:], "environment": dict(os.environ), "pids": [os.getpid(), worker.pid]}
    with open(os.environ["FAKE_VLLM_NOTES"], "a") as notes:
        notes.write(json.dumps(note) + "\n")
    fail(os.environ.get("FAKE_VLLM_FAULT", ""))
    ThreadingHTTPServer((TOLD.host, TOLD.port), Handler).serve_forever()
