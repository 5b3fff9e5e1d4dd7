# SPDX-License-Identifier: MIT
"""guest - what the benchmarks "disk" and "net" have in common: a stock kernel whose /init takes part, and what is counted.

Both have a module of their own, which tests/bench/run and rounds know by these names:
    INIT, LIBRARIES             the guest's /init (INIT.c), and what it is linked with
    MODULES                     the guest's kernel modules, in the order they go in
    WORDS                       words of a contestant's command line besides those of a boot
    rows(config, chosen, check) (name, title, contestant, reference) of each row of the table
    plan(config, check)         what measure() is to know besides the steps
    steps(config, chosen, check)  (name of the measurement, contestant, what measure() is to know of it) for each of a round
    measure(plan, local, step)  (row, figures) for each row that the measurement makes; "error" or "left_out" in the
                                figures if there are none
"""
import ctypes
import os
import re
import selectors
import subprocess
import time

TRACING = '/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter'
KVM = '/sys/kernel/debug/kvm'
COUNTERS = ('exits', 'halt_exits', 'irq_injections', 'io_exits', 'mmio_exits', 'irq_window_exits', 'insn_emulation')
FINIT_MODULE = 313
# A boot or the longest load takes 3 of the host's. One that counts instructions is slow, but not by its own clock.
ANSWER_SECONDS = 20 if os.environ.get('VMM_EMULATED_HOST') == '2' else 120


def run(*command):
    """What a command that failed complains of."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, check=False)
    except OSError as error:
        return f'{command[0]}: {error.strerror}'
    return '' if done.returncode == 0 else f'{command[0]}: {done.stdout.strip()}'


def insert_host_modules(names, parameters=''):
    """In an emulated host. One that is there, built in or not to be had shows in what is missing afterwards."""
    directory = os.environ.get('VMM_HOST_MODULES')
    for name in names if directory else ():
        try:
            with open(os.path.join(directory, name + '.ko'), 'rb') as f:
                ctypes.CDLL(None).syscall(FINIT_MODULE, f.fileno(), parameters.encode(), 0)
        except OSError:
            pass


class Guest:
    """A contestant that boots, and then says and is told lines by its console; killed in the end."""

    def __init__(self, command, local, mark):
        self.mark = mark.encode()
        self.log = os.path.join(local, 'log')
        self.said = b''
        with open(self.log, 'wb') as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=local)
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def line(self, deadline):
        """What it has said up to the end of a line; nothing if it has ended."""
        said = b''
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not said.endswith(b'\n'):
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    raise OSError(f'timed out: {(self.said + said).decode(errors="replace")!r}')
                more = os.read(self.process.stdout.fileno(), 1)
                if not more:
                    break
                said += more
        return said

    def answer(self):
        """The words behind the mark on its next line that has one."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while line := self.line(deadline):
            self.said = (self.said + line)[-400:]
            _, found, words = line.partition(self.mark)
            if found:
                return words.decode(errors='replace').split()
        with open(self.log, encoding='utf-8', errors='replace') as f:
            log = [line.strip() for line in f][:3]
        raise OSError('; '.join([f'no word from the guest: {self.said.decode(errors="replace").strip()!r}', *log]))

    def tell(self, text):
        self.process.stdin.write(text.encode() + b'\n')
        self.process.stdin.flush()

    def counters(self):
        """KVM's, of its machine; the directory is named after the thread that made that."""
        threads = os.listdir(f'/proc/{self.pid}/task')
        names = os.listdir(KVM) if os.path.isdir(KVM) else []
        directory = next((name for name in names if name.split('-')[0] in threads), '')
        found = {}
        for name in COUNTERS if directory else ():
            with open(os.path.join(KVM, directory, name), encoding='ascii') as f:
                found[name] = int(f.read())
        return found


class Calls:
    """System calls of a process between start() and stop(), by a histogram that the kernel keeps."""

    def __init__(self, pid):
        self.pid = pid
        self.on = os.path.exists(os.path.join(TRACING, 'trigger'))

    def write(self, text):
        with open(os.path.join(TRACING, 'trigger'), 'w', encoding='ascii') as f:
            f.write(text)

    def start(self):
        if self.on:
            self.write('hist:keys=common_pid,id')

    def stop(self):
        """Number of the call -> how many; None where that cannot be had."""
        if not self.on:
            return None
        with open(os.path.join(TRACING, 'hist'), encoding='ascii') as f:
            text = f.read()
        self.write('!hist:keys=common_pid,id')
        threads = set(os.listdir(f'/proc/{self.pid}/task'))
        calls = {}
        for pid, number, count in re.findall(r'common_pid:\s+(\d+), id:\s+(\d+) } hitcount:\s+(\d+)', text):
            if pid in threads:
                calls[number] = calls.get(number, 0) + int(count)
        return calls


def each(more, less, operations):
    """What was counted, by the operation, without what is counted anyway."""
    return {name: (value - less.get(name, 0)) / operations for name, value in more.items()}
