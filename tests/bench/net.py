# SPDX-License-Identifier: MIT
"""net - what is particular to the benchmark "net"; see guest.py for the names. tests/bench/net.conf says what it is.

A measurement is one boot of a contestant and every test in it. Each test is run by netload once to be timed, with KVM's
counters read before and after, and once more with the system calls of the contestant counted by the kernel.
"""
import ctypes
import os
import subprocess

from guest import Calls, Guest, each, insert_host_modules, run

INIT = 'netload'
LIBRARIES = ()
MODULES = ('drivers/virtio/virtio_ring', 'drivers/virtio/virtio', 'drivers/virtio/virtio_pci_modern_dev',
           'drivers/virtio/virtio_pci_legacy_dev', 'drivers/virtio/virtio_pci', 'net/core/failover',
           'drivers/net/net_failover', 'drivers/net/virtio_net', 'drivers/hv/hv_vmbus',
           'drivers/net/hyperv/hv_netvsc')
TAP = 'vmmbench0'
WORDS = {'tap': TAP, 'mac': '02:00:00:00:09:02'}
HOST = '10.77.9.1/24'
GUEST = '10.77.9.2'
CLONE_NEWNET = 0x40000000


def names_of_tests(config):
    return config['bench']['tests'].split()


def rows(config, chosen, _check):
    return [(f'{name}.{test}', f"{config['test ' + test]['title']}: {config[name]['title']}", name,
             f"{config[name]['reference']}.{test}") for test in names_of_tests(config) for name in chosen]


def plan(config, check):
    """A check counts, and a few operations are counted as well as many."""
    less = config['bench'].getint('check_less') if check else 1
    return {'tests': [{'name': test, 'unit': config['test ' + test].getint('unit'),
                       'warm': config['test ' + test].getint('warm') // less,
                       'count': config['test ' + test].getint('count') // less} for test in names_of_tests(config)]}


def steps(config, chosen, _check):
    return [(name, name, {'modules': config[name]['modules'], 'path': config[name].get('path', '')}) for name in chosen]


def prepare_host(step):
    """Modules, where this is an emulated host, and a tap in a network of its own. A sentence if that cannot be had."""
    insert_host_modules(step['modules'].split())
    if step['path'] and not os.path.exists(step['path']):
        return f"{step['path']} is not there"
    # What the kernel remembers of one contestant's address must not be of use to the next.
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        return f'no network of its own: {os.strerror(ctypes.get_errno())}'
    return (run('ip', 'tuntap', 'add', 'dev', TAP, 'mode', 'tap') or run('ip', 'addr', 'add', HOST, 'dev', TAP) or
            run('ip', 'link', 'set', TAP, 'up'))


def answer(driver, expected):
    """The words of netload's next line; it says on standard error why it has ended."""
    words = driver.stdout.readline().split()
    if not words or words[0] != expected:
        raise OSError(driver.stderr.read().strip() or f'netload says {words}')
    return words


def go_on(driver):
    driver.stdin.write('\n')
    driver.stdin.flush()


def run_test(local, test, guest):
    """The figures of one test."""
    command = [os.path.join(local, INIT), GUEST, test['name'], str(test['warm']), str(test['count'])]
    calls = Calls(guest.pid)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as driver:
        answer(driver, 'ready')
        before = guest.counters()
        go_on(driver)
        timed = answer(driver, 'done')
        after = guest.counters()
        go_on(driver)
        answer(driver, 'ready')
        calls.start()
        go_on(driver)
        answer(driver, 'done')
        counted = calls.stop()
        go_on(driver)
    operations = test['count'] / test['unit']
    result = {'cost': int(timed[1]) / operations, 'interrupts': int(timed[2]) / operations, 'unit': test['unit'],
              'kvm_each': each(after, before, operations)}
    if counted is not None:
        result['calls_each'] = each(counted, {}, operations)
    return result


def measure(plan_, local, step):
    results, why = {}, None
    wrong = prepare_host(step)
    try:
        if wrong:
            why = {'left_out': wrong}
        else:
            with Guest(step['command'], local, plan_['marker']) as guest:
                guest.answer()
                for test in plan_['tests']:
                    results[test['name']] = run_test(local, test, guest)
    except OSError as error:
        why = {'error': str(error)}
    return [(f"{step['name']}.{test['name']}", results.get(test['name'], why)) for test in plan_['tests']]
