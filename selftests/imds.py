#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A mock of EC2's instance metadata service (IMDSv2) with the Spot notices, for tests.

It binds to --bind (127.0.0.1) and --port (0: any), prints "imds: ready PORT" and serves until
--lifetime has passed or its standard input closes (with --until-eof).

State is set by options, or while it runs by PUT /control with a JSON object of the same names:
  mode            normal
                  dead          accepts, then closes without an answer
                  slow          answers after 'delay' seconds
                  garbage       200 and bytes that are no JSON, for every GET; tokens work
                  garbage-token the same for tokens only
                  garbage-all   the same for both
                  huge          200 and an endless body
                  redirect      302 to itself
                  401           the next 'times' GETs say 401, whatever the token
                  error         'status' for every request
  status, times, delay    of the modes above
  ttl             seconds a token lives at most (the answer's header says so)
  action          terminate, stop or hibernate; null: no notice
  action_after    seconds from now until the notice appears
  action_in       seconds from then to the notice's time; both are fixed when they are set
  moving          true: the time is recomputed for every request (a known slip of other mocks)
  action_body     the exact text of instance-action, instead
  rebalance       true, false, or the exact text
  skew            seconds by which this side's clock is ahead: in Date and in the times
GET /control gives the counters as JSON.
"""

import argparse
import datetime
import json
import secrets
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "X-aws-ec2-metadata-token"
TTL = TOKEN + "-ttl-seconds"
DOCUMENT = {
    "instanceId": "i-0123456789abcdef0",
    "instanceType": "c5.large",
    "availabilityZone": "eu-central-1a",
    "region": "eu-central-1",
    "imageId": "ami-0123456789abcdef0",
    "architecture": "x86_64",
}
FACTS = {
    "/latest/meta-data/instance-id": DOCUMENT["instanceId"],
    "/latest/meta-data/instance-type": DOCUMENT["instanceType"],
    "/latest/meta-data/instance-life-cycle": "spot",
    "/latest/meta-data/ami-id": DOCUMENT["imageId"],
    "/latest/meta-data/placement/availability-zone": DOCUMENT["availabilityZone"],
    "/latest/dynamic/instance-identity/document": json.dumps(DOCUMENT, indent=1),
}
MODES = ("normal", "dead", "slow", "garbage", "garbage-token", "garbage-all", "huge", "redirect",
         "401", "error")
COUNTERS = ("puts", "gets", "action_gets", "rebalance_gets", "unauthorized", "bad_requests",
            "token_headers_max", "connections")


def utc(seconds):
    when = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


class State:
    def __init__(self, settings):
        self.lock = threading.Lock()
        self.tokens = {}
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.settings = {"mode": "normal", "status": 403, "times": 1, "delay": 5.0, "ttl": 21600,
                         "action": None, "action_after": 0.0, "action_in": 120.0, "moving": False,
                         "action_body": None, "rebalance": False, "skew": 0.0}
        self.appears = self.notice_time = 0
        self.change(settings)

    def change(self, settings):
        unknown = settings.keys() - self.settings.keys()
        if unknown:
            raise ValueError("unknown: " + ", ".join(sorted(unknown)))
        if settings.get("mode", "normal") not in MODES:
            raise ValueError("mode is one of " + ", ".join(MODES))
        with self.lock:
            self.settings.update(settings)
            if {"action", "action_after", "action_in"} & settings.keys():
                self.appears = time.time() + self.settings["action_after"]
                self.notice_time = self.appears + self.settings["action_in"]

    def get(self, name):
        with self.lock:
            return self.settings[name]

    def count(self, name, amount=1):
        with self.lock:
            self.counters[name] += amount

    def new_token(self, ttl):
        token = secrets.token_urlsafe(42)
        with self.lock:
            self.tokens[token] = time.monotonic() + ttl
        return token

    def token_valid(self, token):
        with self.lock:
            return self.tokens.get(token, 0) > time.monotonic()

    def take_401(self):
        """True as long as mode 401 has refusals left."""
        with self.lock:
            if self.settings["mode"] != "401" or self.settings["times"] <= 0:
                return False
            self.settings["times"] -= 1
            return True

    def action_text(self):
        with self.lock:
            s = self.settings
            if s["action_body"] is not None:
                return s["action_body"]
            if s["action"] is None or time.time() < self.appears:
                return None
            when = time.time() + s["action_in"] if s["moving"] else self.notice_time
            return json.dumps({"action": s["action"], "time": utc(when + s["skew"])})

    def rebalance_text(self):
        with self.lock:
            value = self.settings["rebalance"]
            if value is True:
                return json.dumps({"noticeTime": utc(time.time() + self.settings["skew"])})
            return value or None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "EC2ws"
    sys_version = ""
    timeout = 30

    def setup(self):
        super().setup()
        self.state.count("connections")

    @property
    def state(self):
        return self.server.state

    def log_message(self, *args):
        pass

    def date_time_string(self, timestamp=None):
        return super().date_time_string((timestamp or time.time()) + self.state.get("skew"))

    def answer(self, status, body="", headers=()):
        data = body if isinstance(body, bytes) else body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def drop(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def answer_endlessly(self):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for _ in range(1024):
            self.wfile.write(b"x" * 4096)

    def misbehave(self):
        """Answers as the mode wants; False: the request is to be served as usual."""
        mode = self.state.get("mode")
        if mode == "dead":
            self.drop()
        elif mode == "slow":
            self.server.ending.wait(self.state.get("delay"))
            return False
        elif mode == "error":
            self.answer(self.state.get("status"))
        elif mode == "redirect":
            self.answer(302, headers=[("Location", self.path)])
        elif mode == "garbage-all" or mode == {"GET": "garbage", "PUT": "garbage-token"}.get(
                self.command):
            self.answer(200, b"<html>\x00\xff not the page you want</html>\n")
        elif mode == "huge" and self.command == "GET":
            self.answer_endlessly()
        else:
            return False
        return True

    def control(self):
        if self.command == "GET":
            with self.state.lock:
                counters = json.dumps(self.state.counters)
            self.answer(200, counters)
            return
        try:
            length = int(self.headers.get("Content-Length", 0))
            self.state.change(json.loads(self.rfile.read(length)))
        except (ValueError, TypeError, AttributeError) as error:
            self.answer(400, f"{error}\n")
        else:
            self.answer(200)

    def bad_request(self, status, why):
        self.state.count("bad_requests")
        self.answer(status, why)

    def do_PUT(self):
        if self.path == "/control":
            self.control()
            return
        self.state.count("puts")
        if int(self.headers.get("Content-Length", 0)):
            self.close_connection = True
        if self.misbehave():
            return
        if "X-Forwarded-For" in self.headers or not self.path.startswith("/latest/"):
            self.bad_request(403, "forbidden\n")
        elif self.path != "/latest/api/token":
            self.bad_request(405, "PUT is for tokens only\n")
        else:
            self.give_token()

    def give_token(self):
        values = self.headers.get_all(TTL, [])
        if len(values) != 1 or not values[0].isdigit() or not 1 <= int(values[0]) <= 21600:
            self.bad_request(400, f"{TTL}: 1 to 21600\n")
            return
        ttl = min(int(values[0]), self.state.get("ttl"))
        self.answer(200, self.state.new_token(ttl), [(TTL, str(ttl))])

    def do_GET(self):
        if self.path == "/control":
            self.control()
            return
        self.state.count("gets")
        if self.misbehave() or not self.authorized():
            return
        body = self.find()
        if body is None:
            self.answer(404, "not found\n")
        else:
            self.answer(200, body)

    do_HEAD = do_GET

    def authorized(self):
        values = self.headers.get_all(TOKEN, [])
        with self.state.lock:
            counters = self.state.counters
            counters["token_headers_max"] = max(counters["token_headers_max"], len(values))
        if len(values) > 1:
            self.bad_request(400, "more than one token\n")
            return False
        if self.state.take_401() or not values or not self.state.token_valid(values[0]):
            self.state.count("unauthorized")
            self.answer(401, "unauthorized\n")
            return False
        return True

    def find(self):
        if self.path == "/latest/meta-data/spot/instance-action":
            self.state.count("action_gets")
            return self.state.action_text()
        if self.path == "/latest/meta-data/events/recommendations/rebalance":
            self.state.count("rebalance_gets")
            return self.state.rebalance_text()
        return FACTS.get(self.path)

    def refuse_method(self):
        self.close_connection = True
        self.bad_request(405, "method not allowed\n")

    do_POST = do_DELETE = do_PATCH = do_OPTIONS = refuse_method


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    state: State

    def __init__(self, address):
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.ending = threading.Event()
        super().__init__(address, Handler)

    def handle_error(self, request, client_address):
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def end_at_eof(server):
    while sys.stdin.buffer.read(4096):
        pass
    server.shutdown()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bind", default="127.0.0.1", metavar="ADDRESS")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--lifetime", type=float, metavar="SECONDS")
    parser.add_argument("--until-eof", action="store_true")
    parser.add_argument("--set", type=json.loads, default={}, metavar="JSON",
                        help='for example {"action": "terminate", "action_in": 120}')
    options = parser.parse_args()

    server = Server((options.bind, options.port))
    try:
        server.state = State(options.set)
    except ValueError as error:
        parser.error(str(error))
    if options.lifetime:
        timer = threading.Timer(options.lifetime, server.shutdown)
        timer.daemon = True
        timer.start()
    if options.until_eof:
        threading.Thread(target=end_at_eof, args=[server], daemon=True).start()
    print("imds: ready", server.server_address[1], flush=True)
    try:
        server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        pass
    server.ending.set()


if __name__ == "__main__":
    main()
