#!/usr/bin/env python3
"""The lab's AWS.

    python tests/lab/aws/server.py [--port N]     by hand: makes an account, prints how to use it, serves until ^C
    python tests/lab/aws/server.py --lab          for the tests: prints its address, serves until standard input ends

Every account that a test makes is apart from all others, and so are its addresses. Nothing of it outlives the server.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import threading

MOTO = "5.2.5"

# The source tree stays clean.
sys.dont_write_bytecode = True
# Tells moto to leave out what takes a second to load and nobody here uses.
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
# Nothing of this host's AWS settings counts.
for name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[name]

import moto  # noqa: E402

if moto.__version__ != MOTO:
    sys.exit(f"moto {MOTO} is needed (its own parts are used), found {moto.__version__}: see requirements.txt")

from moto.moto_server.werkzeug_app import DomainDispatcherApplication  # noqa: E402
from moto.moto_server.werkzeug_app import create_backend_app  # noqa: E402
from werkzeug.serving import WSGIRequestHandler  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402

from cloud import byhand  # noqa: E402
from cloud import clock  # noqa: E402
from cloud import machine  # noqa: E402
from cloud import world  # noqa: E402
from cloud.front import Front  # noqa: E402


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body go in two writes; the second must not wait for the first's acknowledgement.
    disable_nagle_algorithm = True

    def log_request(self, *_):
        pass

    def send_response(self, code, message=None):
        # The base class would send a time of its own; the application says what time it is at AWS.
        self.send_response_only(code, message)
        self.send_header("Server", self.version_string())


def end(code=0):
    machine.kill_all()
    if byhand.folder:
        shutil.rmtree(byhand.folder, ignore_errors=True)
    sys.stdout.flush()
    os._exit(code)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--lab", action="store_true")
    options = options.parse_args()
    clock.start()
    machine.start()
    front = Front(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", options.port, front, threaded=True, request_handler=Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end())
    if options.lab:
        print(json.dumps({"url": url}), flush=True)
        while os.read(0, 4096):
            pass
        end()
    byhand.explain(world.Account(), url)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
