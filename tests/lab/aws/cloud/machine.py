"""The machine behind a task: a program as process 1 of a PID namespace of its own.

Nothing in there can signal a process of this host, and all of it dies with process 1. It dies with this server
too, however that ends: the kernel kills it when the thread that started it is gone, so one thread that lives as long
as the server starts them all."""

import os
import queue
import shutil
import signal
import subprocess
import threading
import time

from . import clock

SETPRIV = shutil.which("setpriv")
UNSHARE = shutil.which("unshare")
ENV = shutil.which("env")
SETSID = shutil.which("setsid")

# The first child of a process that has asked for a new PID namespace is process 1 there. The outer shell waits for it
# and tells how it ended (unshare's own --fork fails to, for a process that was killed). What is started aside has two
# signals ignored, and what `nohup` started a third, which no container has.
OUTER = (
    f'{SETPRIV} --pdeathsig KILL -- {ENV} --default-signal=HUP,INT,QUIT '
    f"""/bin/sh -c 'mount -t proc proc /proc && exec {SETSID} "$@"' sh "$@" & wait $!"""
)

_orders = queue.Queue()
_alive = set()


def _starter():
    while True:
        machine = _orders.get()
        try:
            machine._start()
        except Exception as error:
            machine._over(127, f"{error}")


def start():
    threading.Thread(target=_starter, name="machines", daemon=True).start()


def kill_all():
    for machine in list(_alive):
        machine.signal(signal.SIGKILL)


class Machine:
    """One running program; with the lock held, `started()` is called once it has a process 1, and
    `ended(exit_code, error)` when it is over."""

    def __init__(self, spec, addresses, environment, started, ended):
        self.spec = spec
        self.addresses = addresses
        self.environment = environment
        self.started = started
        self.ended = ended
        self.process = None
        self.pending = None
        self.over = False
        _orders.put(self)

    def _start(self):
        log = self.spec.get("log")
        output = open(log, "ab") if log else subprocess.DEVNULL
        command = [SETPRIV, "--pdeathsig", "KILL", "--"]
        command += [UNSHARE, "--pid", "--mount", "--propagation", "private", "--", "/bin/sh", "-c", OUTER, "sh"]
        process = subprocess.Popen(
            command + self.spec["command"] + self.addresses,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=self.spec.get("directory", "/"),
            # All of it, and nothing of ours: this is what process 1's environment shows.
            env=self.environment,
            start_new_session=True,
        )
        if log:
            output.close()
        with clock.LOCK:
            self.process = process
            _alive.add(self)
            pending = self.pending
        threading.Thread(target=self._wait, daemon=True).start()
        if pending:
            self.signal(pending)

    def _wait(self):
        # That another process has a child is no event that could be waited for.
        while self.process.poll() is None and self.process_one() is None:
            time.sleep(0.002)
        with clock.LOCK:
            self.started()
        code = self.process.wait()
        self._over(128 - code if code < 0 else code, None)

    def _over(self, code, error):
        with clock.LOCK:
            _alive.discard(self)
            self.over = True
            self.ended(code, error)
            clock.changed()

    def process_one(self):
        """Returns this host's id of the machine's process 1, once there is one."""
        if self.process is None or self.over:
            return None
        pid = self.process.pid
        try:
            with open(f"/proc/{pid}/task/{pid}/children") as file:
                children = file.read().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def signal(self, number):
        """Sends a signal to process 1."""
        if self.over:
            return
        if self.process is None:
            self.pending = number
            return
        pid = self.process_one()
        try:
            if pid is not None:
                os.kill(pid, number)
            elif number == signal.SIGKILL:
                # It dies with its parent.
                self.process.kill()
            else:
                # Between its start and its first process there is a moment.
                clock.after(0.02, lambda: self.signal(number))
        except ProcessLookupError:
            pass
