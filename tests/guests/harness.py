# SPDX-License-Identifier: MIT
"""What the cases of tests/guests/run are written with."""

import json
import os
import re
import select
import subprocess
import time

CASES = []
GUEST_FAILED = 17  # RT_FAILED of rt/rt.h

REPORTS = re.compile(r"AddressSanitizer|ThreadSanitizer|LeakSanitizer|runtime error:|UndefinedBehaviorSanitizer")


class Skip(Exception):
    pass


class Failure(Exception):
    pass


class Case:
    def __init__(self, name, function):
        self.name = name
        self.function = function


def case(name):
    def register(function):
        CASES.append(Case(name, function))
        return function
    return register


def check(condition, text):
    if not condition:
        raise Failure(text)


class Result:
    def __init__(self, command, status, out, err, seconds):
        self.command, self.status, self.out, self.err, self.seconds = command, status, out, err, seconds

    def __str__(self):
        return (f"{' '.join(self.command)}\nstatus {self.status} after {self.seconds:.2f} s\n"
                f"stdout: {self.out[-1500:]!r}\nstderr: {self.err[-3000:]}")

    def expect(self, status, out=None, err=None):
        check(self.status == status, f"expected status {status}\n{self}")
        if out is not None:
            check(re.search(out, self.out, re.S), f"expected {out!r} on stdout\n{self}")
        if err is not None:
            check(re.search(err, self.err, re.S), f"expected {err!r} on stderr\n{self}")
        return self


class Machine:
    """One case's workplace: a directory of its own, and processes that end with it."""

    def __init__(self, vmm, guests, directory, slack):
        self.vmm, self.guests, self.directory, self.slack = vmm, guests, directory, slack
        self.processes = []

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def path(self, name):
        return os.path.join(self.directory, name)

    def guest(self, name):
        return os.path.join(self.guests, name)

    def file(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)
        return self.path(name)

    def command(self, guest, *arguments):
        kernel = ["--kernel", self.guest(guest)] if guest else []
        return [self.vmm, *kernel, *map(str, arguments)]

    def start(self, command, **kwargs):
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        kwargs.setdefault("stdout", subprocess.PIPE)
        kwargs.setdefault("stderr", subprocess.PIPE)
        process = subprocess.Popen(command, cwd=self.directory, **kwargs)
        process.begin = time.monotonic()
        self.processes.append(process)
        return process

    def finish(self, process, timeout=20, data=None):
        """Collects the rest of the output; the process must end by itself."""
        try:
            out, err = process.communicate(data, timeout * self.slack)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise Failure(f"still running after {timeout * self.slack} s: {' '.join(process.args)}\n"
                          f"stdout: {out!r}\nstderr: {err!r}") from None
        result = Result(process.args, process.returncode, (out or b"").decode("latin-1"),
                        (err or b"").decode("latin-1"), time.monotonic() - process.begin)
        check(not REPORTS.search(result.err), f"sanitizer report\n{result}")
        return result

    def run(self, guest, *arguments, timeout=20, data=None, **kwargs):
        if data is not None:
            kwargs["stdin"] = subprocess.PIPE
        return self.finish(self.start(self.command(guest, *arguments), **kwargs), timeout, data)

    def stats(self, name="stats.json"):
        with open(self.path(name), encoding="utf-8") as f:
            return json.load(f)

    def wait_for(self, process, text, seconds=10):
        """Reads stdout until it ends with this line; returns what was read."""
        seen = b""
        end = time.monotonic() + seconds * self.slack
        while not seen.endswith(text):
            ready, _, _ = select.select([process.stdout], [], [], max(0, end - time.monotonic()))
            byte = os.read(process.stdout.fileno(), 1) if ready else b""
            if not byte:
                process.kill()
                raise Failure(f"no {text!r} on stdout, only {seen!r}\n{process.communicate()[1]!r}")
            seen += byte
        return seen
