# SPDX-License-Identifier: MIT
"""disk - what is particular to the benchmark "disk"; see guest.py for the names. tests/bench/disk.conf says what it is.

A measurement is one boot of a contestant with one medium, and every test in it. The guest's /init takes one load after
the other from its console. Each is run once to be timed, by the host's clock, with KVM's counters read before and after,
and once more with the system calls of the contestant counted by the kernel; and each time also with no blocks to measure,
which tells what the talk on the console and the first blocks cost: that is taken from what is counted.
"""
import os
import time

from guest import Calls, Guest, each, insert_host_modules, run

INIT = 'disk_load'
LIBRARIES = ('-luring',)
MODULES = ('drivers/virtio/virtio_ring', 'drivers/virtio/virtio', 'drivers/virtio/virtio_pci_modern_dev',
           'drivers/virtio/virtio_pci_legacy_dev', 'drivers/virtio/virtio_pci', 'drivers/block/virtio_blk',
           'drivers/scsi/scsi_common', 'drivers/scsi/scsi_mod', 'drivers/scsi/sd_mod', 'drivers/scsi/virtio_scsi',
           'drivers/hv/hv_vmbus', 'drivers/scsi/scsi_transport_fc', 'drivers/scsi/hv_storvsc')
WORDS = {'disk': '@disk@', 'driver': '@driver@'}
HOST_MODULES = ('fs/configfs/configfs', 'lib/crc16', 'fs/mbcache', 'crypto/crc32c_generic', 'fs/jbd2/jbd2',
                'fs/ext4/ext4')
NULL_BLK = 'drivers/block/null_blk/null_blk'
NULLB = '/sys/kernel/config/nullb'
MIB = 1 << 20


def media(config, check):
    return [name for name in config['bench']['media'].split()
            if not check or config['medium ' + name].getboolean('check', False)]


def names_of_tests(config, check):
    return [name for name in config['bench']['tests'].split()
            if not check or config['test ' + name].getboolean('check', False)]


def rows(config, chosen, check):
    return [(f'{name}.{medium}.{test}',
             f"{config['medium ' + medium]['title']}, {config['test ' + test]['title']}: {config[name]['title']}", name,
             f"{config[name]['reference']}.{medium}.{test}")
            for medium in media(config, check) for test in names_of_tests(config, check) for name in chosen]


def plan(config, check):
    """A check counts, and a few blocks are counted as well as many."""
    less = config['bench'].getint('check_less') if check else 1
    tests = []
    for name in names_of_tests(config, check):
        load, count = config['test ' + name]['load'].rsplit(' ', 1)
        tests.append({'name': name, 'load': load, 'count': int(count) // less})
    return {'tests': tests,
            'media': {name: {'null_blk': config['medium ' + name]['null_blk'],
                             'driver': config['medium ' + name]['driver'],
                             'file': config['medium ' + name].getint('file', 0)} for name in media(config, check)}}


def steps(config, chosen, check):
    return [(f'{name}.{medium}', name, {'medium': medium}) for medium in media(config, check) for name in chosen]


def write(path, text):
    with open(path, 'w', encoding='ascii') as f:
        f.write(text)


class Medium:
    """A device of null_blk, or a file on one, as long as this is entered; the value is its path."""

    def __init__(self, local, name, about):
        self.mounted = None
        self.device = os.path.join(NULLB, f'vmm-bench-{name}')
        self.local, self.about = local, about

    def __enter__(self):
        try:
            device = self.make_device()
            return self.make_file(device) if self.about['file'] else device
        except OSError:
            self.__exit__()
            raise

    def make_device(self):
        insert_host_modules(HOST_MODULES)
        insert_host_modules([NULL_BLK], 'nr_devices=0')
        if not os.environ.get('VMM_HOST_MODULES'):
            run('modprobe', 'null_blk', 'nr_devices=0')
        if not os.path.isdir(NULLB):
            run('mount', '-t', 'configfs', 'configfs', '/sys/kernel/config')
        os.mkdir(self.device)
        for attribute in self.about['null_blk'].split():
            name, value = attribute.split('=')
            write(os.path.join(self.device, name), value)
        write(os.path.join(self.device, 'power'), '1')
        # Linux before 6.0 does not name it after its directory.
        path = '/dev/' + os.path.basename(self.device)
        if not os.path.exists(path):
            with open(os.path.join(self.device, 'index'), encoding='ascii') as f:
                path = f'/dev/nullb{f.read().strip()}'
        return path

    def make_file(self, device):
        directory = os.path.join(self.local, 'mnt')
        os.makedirs(directory, exist_ok=True)
        wrong = run('/sbin/mkfs.ext4', '-q', '-b', '4096', device) or run('mount', device, directory)
        if wrong:
            raise OSError(wrong)
        self.mounted = directory
        path = os.path.join(directory, 'disk.img')
        # Written once, so that what is measured finds its blocks.
        with open(path, 'wb') as f:
            for _ in range(self.about['file']):
                f.write(bytes(MIB))
            os.fsync(f.fileno())
        return path

    def __exit__(self, *_):
        if self.mounted:
            run('umount', self.mounted)
        if os.path.isdir(self.device):
            write(os.path.join(self.device, 'power'), '0')
            os.rmdir(self.device)


def carry_out(guest, test, count):
    """Nanoseconds that the load takes."""
    begin = time.monotonic_ns()
    guest.tell(f"{test['load']} {count}")
    words = guest.answer()
    if words != ['done']:
        raise OSError(f"{test['load']} {count}: the guest says {' '.join(words)!r}")
    return time.monotonic_ns() - begin


def counted(guest, test, count):
    """Nanoseconds, and what KVM counted."""
    before = guest.counters()
    taken = carry_out(guest, test, count)
    return taken, each(guest.counters(), before, 1)


def traced(guest, test, count):
    """System calls of each number; None where they cannot be had."""
    calls = Calls(guest.pid)
    calls.start()
    carry_out(guest, test, count)
    return calls.stop()


def run_test(guest, test):
    """The figures of one test."""
    count = test['count']
    carry_out(guest, test, 0)
    (idle, idle_kvm), (taken, kvm) = counted(guest, test, 0), counted(guest, test, count)
    result = {'cost': (taken - idle) / count, 'kvm_each': each(kvm, idle_kvm, count)}
    idle_calls, calls = traced(guest, test, 0), traced(guest, test, count)
    if calls is not None:
        result['calls_each'] = each(calls, idle_calls, count)
    return result


def measure(plan_, local, step):
    about = plan_['media'][step['medium']]
    results, why = {}, None
    try:
        with Medium(local, step['medium'], about) as disk:
            command = [word.replace('@disk@', disk).replace('@driver@', about['driver']) for word in step['command']]
            with Guest(command, local, plan_['marker']) as guest:
                words = guest.answer()
                if words != ['ready']:
                    raise OSError(f'the guest says {" ".join(words)!r}')
                for test in plan_['tests']:
                    results[test['name']] = run_test(guest, test)
    except OSError as error:
        why = {'error': str(error)}
    return [(f"{step['name']}.{test['name']}", results.get(test['name'], why)) for test in plan_['tests']]
