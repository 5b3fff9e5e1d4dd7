# SPDX-License-Identifier: MIT
"""report - what the measurements of tests/bench/run amount to: table, JSON, chart, and the check of the budget.

A contestant's metrics (all medians over the rounds, each with its range):
    minstr          million instructions the whole host executes from exec to the marker; seconds in wall mode
    exit_minstr     the same to the end of the process
    cpu_minstr      of minstr, those of the contestant's own threads, its guest's included
    exits, io_exits, mmio_exits, pf_taken, halt_exits
                    KVM's counters up to the marker: all exits, port and MMIO accesses, nested page faults, HLT
    anon_kib, rss_kib
                    anonymous and resident memory outside guest RAM at the marker
    ram_kib         guest RAM that is resident at the marker
    threads, libraries
                    threads, and shared libraries mapped, at the marker
    syscalls        system calls before the first KVM_RUN, execve included
    user_exits, exits_per_byte
                    exits to vmm itself over the whole run, by --stats, and per byte of console output

Those of the benchmark "signal":
    round_trip, round_trip_min, round_trip_p99
                    a round trip's median, least, and 99th percentile: instructions that the whole host executes;
                    nanoseconds in wall mode
    ratio           of the medians, to the contestant's reference
    exits, irq_window_exits, halt_exits, insn_emulation
                    KVM's counters, a round trip
    syscalls, ioctls
                    system calls of the process, a round trip, and those of them that are ioctl()

Those of the benchmark "net", by the operation: 64 KiB of a stream, or one request and its response:
    cost            instructions that the whole host executes, both ends of the connection included; nanoseconds in wall
                    mode
    rate            megabytes of a stream, or thousands of transactions, per 10^9 instructions; per second in wall mode
    ratio           of the costs, to the contestant's reference
    exits, halt_exits
                    KVM's counters
    interrupts      of the card or its bus, by the guest's count
    syscalls        system calls of the process, by the kernel's count

Those of the benchmark "disk", by the block read or written:
    cost            instructions that the whole host executes; nanoseconds in wall mode
    rate            thousands of blocks per 10^9 instructions; per second in wall mode
    ratio           of the costs, to the contestant's reference
    exits, irq_injections, halt_exits
                    KVM's counters: all exits, interrupts that the guest took, HLT
    syscalls        system calls of the process, by the kernel's count
"""
import json
import os
import re
import statistics
from xml.sax.saxutils import escape

KVM = ('exits', 'io_exits', 'mmio_exits', 'pf_taken', 'halt_exits', 'irq_exits', 'irq_window_exits',
       'irq_injections', 'insn_emulation')
COUNT_COLUMNS = (('minstr', 'exec->/init M', 0), ('ratio', 'ratio', 2), ('exit_minstr', '->exit M', 0),
                 ('exits', 'exits', 0), ('io_exits', 'PIO', 0), ('mmio_exits', 'MMIO', 0), ('pf_taken', 'NPT', 0),
                 ('anon_kib', 'anon KiB', 0), ('rss_kib', 'RSS KiB', 0), ('ram_kib', 'RAM KiB', 0), ('threads', 'threads', 0),
                 ('syscalls', 'syscalls', 0))
WALL_COLUMNS = (('minstr', 'exec->/init s', 3), ('ratio', 'ratio', 2), ('exit_minstr', '->exit s', 3),
                ('exits', 'exits', 0), ('anon_kib', 'anon KiB', 0), ('rss_kib', 'RSS KiB', 0), ('threads', 'threads', 0))
SIGNAL_COLUMNS = (('round_trip_min', 'least', 0), ('round_trip', 'median', 0), ('round_trip_p99', 'p99', 0),
                  ('ratio', 'ratio', 2), ('exits', 'exits', 2), ('halt_exits', 'HLT', 2),
                  ('irq_window_exits', 'window', 2), ('insn_emulation', 'emulated', 2), ('syscalls', 'syscalls', 2),
                  ('ioctls', 'ioctls', 2))


def guest_columns(rate, interrupts):
    return (('rate', rate, 2), ('cost', 'cost', 0), ('ratio', 'ratio', 2), ('exits', 'exits', 2), ('halt_exits', 'HLT', 2),
            (interrupts, 'interrupts', 2), ('syscalls', 'syscalls', 2))


NET_COLUMNS = guest_columns('MB or 1000 a G', 'interrupts')
DISK_COLUMNS = guest_columns('1000 blocks a G', 'irq_injections')

# What a kind of benchmark is about: its first metric, in columns, units and digits a mode.
KINDS = {
    'boot': {'main': 'minstr', 'columns': {'count': COUNT_COLUMNS, 'wall': WALL_COLUMNS},
             'unit': {'count': 'million instructions', 'wall': 'seconds'}, 'digits': {'count': 0, 'wall': 2}},
    'signal': {'main': 'round_trip', 'columns': {'count': SIGNAL_COLUMNS, 'wall': SIGNAL_COLUMNS},
               'unit': {'count': 'instructions', 'wall': 'nanoseconds'}, 'digits': {'count': 0, 'wall': 0}},
    'net': {'main': 'cost', 'columns': {'count': NET_COLUMNS, 'wall': NET_COLUMNS},
            'unit': {'count': 'instructions for 64 KiB of a stream or for a transaction',
                     'wall': 'nanoseconds for 64 KiB of a stream or for a transaction'}, 'digits': {'count': 0, 'wall': 0}},
    'disk': {'main': 'cost', 'columns': {'count': DISK_COLUMNS, 'wall': DISK_COLUMNS},
             'unit': {'count': 'instructions a block', 'wall': 'nanoseconds a block'}, 'digits': {'count': 0, 'wall': 0}},
}


def metrics_of(line, mode):
    """The figures of one line of raw.jsonl."""
    found = {}
    unit = 1e6 if mode == 'count' else 1e9
    if line['kind'] == 'boot' and 'marker_ns' in line:
        found['minstr'] = line['marker_ns'] / unit
        found['exit_minstr'] = line['exit_ns'] / unit
        if 'cpu_ns' in line:
            found['cpu_minstr'] = line['cpu_ns'] / unit
        for name in ('anon_kib', 'rss_kib', 'ram_kib', 'threads', 'libraries', 'bytes'):
            if name in line:
                found[name] = line[name]
        if line['kvm'] is not None:
            found.update({name: line['kvm'].get(name, 0) for name in KVM})
    if line['kind'] == 'signal' and 'round_trip_median' in line:
        found.update(round_trip=line['round_trip_median'], round_trip_min=line['round_trip_min'],
                     round_trip_p99=line['round_trip_p99'])
        found.update({name: line['kvm_each'].get(name, 0) for name in KVM if 'kvm_each' in line})
    if line['kind'] in ('disk', 'net') and 'cost' in line:
        bytes_ = line.get('unit', 1)
        found.update(cost=line['cost'], rate=1e9 / line['cost'] * (bytes_ / 1e6 if bytes_ > 1 else 1e-3))
        found.update({name: line['kvm_each'].get(name, 0) for name in KVM if line['kvm_each']})
        if 'interrupts' in line:
            found['interrupts'] = line['interrupts']
    if 'calls_each' in line:
        found['syscalls'] = sum(line['calls_each'].values())
        if line['kind'] == 'calls':
            found['ioctls'] = line['calls_each'].get('ioctl', 0)
    if 'syscalls' in line:
        found['syscalls'] = line['syscalls']
    if 'stats' in line:
        found['user_exits'] = line['stats']['user_exits']
        found['first_run_minstr'] = (line['stats']['time']['first_run_ms'] or 0) * 1e6 / unit
        found['exits_per_byte'] = found['user_exits'] / max(line['bytes'], 1)
    return found


def summarize(config, chosen, mode, notes, raw):
    with open(raw, encoding='utf-8') as f:
        lines = [json.loads(line) for line in f]
    kind = config['bench'].get('kind', 'boot')
    main = KINDS[kind]['main']
    contestants = []
    for name in chosen:
        values = {}
        errors = []
        left_out = next((line['left_out'] for line in lines if line['name'] == name and 'left_out' in line), None)
        for line in lines:
            if line['name'] != name:
                continue
            if 'error' in line:
                errors.append(f"{line['kind']}: {line['error']}")
            for metric, value in metrics_of(line, mode).items():
                values.setdefault(metric, []).append(value)
        contestants.append({'name': name, 'title': config[name]['title'],
                            'ours': config[name].getboolean('ours', False),
                            'verbose': config[name].getboolean('verbose', False), 'errors': errors,
                            'left_out': left_out, 'reference': config[name].get('reference'),
                            'metrics': {metric: {'median': statistics.median(list_), 'min': min(list_),
                                                 'max': max(list_), 'n': len(list_)}
                                        for metric, list_ in values.items()}})
    measured = {c['name']: c for c in contestants if main in c['metrics']}
    first = next((name for name, c in measured.items() if c['ours']), None)
    for name, contestant in measured.items():
        contestant['reference'] = contestant['reference'] or first
        if contestant['reference'] in measured:
            of = measured[contestant['reference']]['metrics'][main]['median']
            ratio = contestant['metrics'][main]['median'] / of
            contestant['metrics']['ratio'] = {'median': ratio, 'min': ratio, 'max': ratio, 'n': 1}
    references = {config[name].get('reference_title', c['reference']): None
                  for name, c in measured.items() if 'ratio' in c['metrics']}
    return {'title': config['bench']['title'], 'until': config['bench'].get('until', '/init'), 'kind': kind,
            'mode': mode, 'unit': KINDS[kind]['unit'][mode],
            'reference': ' or '.join(references) or None, 'notes': notes, 'contestants': contestants}


def number(value, digits):
    return f'{value:,.{digits}f}'


def cell(metrics, metric, digits, main):
    if metric not in metrics:
        return '-'
    m = metrics[metric]
    text = number(m['median'], digits)
    if metric == main and m['n'] > 1:
        text += f" ({number(m['min'], digits)}-{number(m['max'], digits)})"
    return text


def table(results):
    kind = KINDS[results['kind']]
    columns = kind['columns'][results['mode']]
    rows = [['contestant'] + [title.replace('/init', results['until']) for _, title, _ in columns]]
    for c in results['contestants']:
        rows.append([c['title']] + [cell(c['metrics'], metric, digits, kind['main']) for metric, _, digits in columns])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    ratio = f"; ratio to {results['reference']}" if results['reference'] else ''
    lines = [results['title'], f"Medians (ranges){ratio}. Unit: {results['unit']}."]
    lines += results['notes'] + ['']
    for row in rows:
        lines.append('  '.join([row[0].ljust(widths[0])] + [t.rjust(w) for t, w in zip(row[1:], widths[1:])]).rstrip())
    for c in results['contestants']:
        m = c['metrics']
        if 'user_exits' in m:
            lines.append(f"{c['title']}: first KVM_RUN after {number(m['first_run_minstr']['median'], 0)} "
                         f"{'M' if results['mode'] == 'count' else 's'}, {number(m['user_exits']['median'], 0)} exits to "
                         f"vmm in the whole run, {m['exits_per_byte']['median']:.3f} a console byte")
        if c['left_out']:
            lines.append(f"{c['title']}: left out: {c['left_out']}")
        lines += [f"{c['title']}: FAILED: {error}" for error in c['errors']]
    return '\n'.join(lines) + '\n'


def nice_step(top):
    """A round distance of grid lines, for four to eight of them."""
    step = 10.0 ** len(str(int(top))) / 100
    while top / step > 8:
        step *= 2.5 if str(step).lstrip('0.').startswith('2') else 2
    return step


def chart(results):
    """Horizontal bars, longest below; the colours carry on white and on black."""
    main = KINDS[results['kind']]['main']
    bars = sorted((c for c in results['contestants'] if main in c['metrics']),
                  key=lambda c: c['metrics'][main]['median'])
    if not bars:
        return ''
    # Seven and a half: no sans-serif's letters are wider on average at this size.
    left = 26 + int(7.5 * max(len(c['title']) for c in bars))
    plot, right, row, top_margin = 470, 130, 34, 70
    width = left + plot + right
    top = max(c['metrics'][main]['max'] for c in bars)
    height = top_margin + row * len(bars) + 70
    digits = KINDS[results['kind']]['digits'][results['mode']]

    def x(value):
        return left + plot * value / top

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
           f'font-family="system-ui, sans-serif" font-size="13" role="img">',
           f'<title>{escape(results["title"])}</title>',
           '<style>.t{fill:#222}.m{fill:#666}.g{stroke:#ccc}.o{fill:#1a7f5a}.p{fill:#7a8ca5}.r{stroke:#222}'
           '@media(prefers-color-scheme:dark){.b{fill:#15181c}.t{fill:#eee}.m{fill:#aaa}.g{stroke:#444}.o{fill:#3fbf8f}'
           '.p{fill:#8fa3bf}.r{stroke:#eee}}@media not (prefers-color-scheme:dark){.b{fill:#fff}}</style>',
           f'<rect class="b" fill="#fff" width="{width}" height="{height}"/>',
           f'<text class="t" x="16" y="28" font-size="17" font-weight="600">{escape(results["title"])}</text>',
           f'<text class="m" x="16" y="49">{escape(results["unit"])}, less is better; medians, thin lines: ranges; '
           f'green: vmm</text>']
    step = nice_step(top)
    bottom = top_margin + row * len(bars)
    mark = 0.0
    while mark <= top:
        out.append(f'<line class="g" x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{top_margin - 6}" y2="{bottom}"/>')
        out.append(f'<text class="m" x="{x(mark):.1f}" y="{bottom + 18}" text-anchor="middle">{number(mark, digits)}</text>')
        mark += step
    for i, c in enumerate(bars):
        m = c['metrics'][main]
        y = top_margin + row * i
        middle = y + row / 2 - 3
        out.append(f'<text class="t" x="{left - 10}" y="{middle + 4:.1f}" text-anchor="end" '
                   f'font-weight="{600 if c["ours"] else 400}">{escape(c["title"])}</text>')
        out.append(f'<rect class="{"o" if c["ours"] else "p"}" x="{left}" y="{y + 3}" width="{x(m["median"]) - left:.1f}" '
                   f'height="{row - 12}" rx="2"/>')
        if m['max'] > m['min']:
            out.append(f'<line class="r" x1="{x(m["min"]):.1f}" x2="{x(m["max"]):.1f}" y1="{middle:.1f}" y2="{middle:.1f}"/>')
        ratio = c['metrics'].get('ratio')
        text = number(m['median'], digits) + (f" ({ratio['median']:.2f}x)" if ratio else '')
        out.append(f'<text class="t" x="{x(m["max"]) + 6:.1f}" y="{middle + 4:.1f}">{text}</text>')
    for i, note in enumerate(results['notes'] or ([f"x: ratio to {results['reference']}"] if results['reference'] else [])):
        out.append(f'<text class="m" x="16" y="{bottom + 44 + 16 * i}">{escape(note)}</text>')
    return '\n'.join(out + ['</svg>', ''])


def write(results, directory):
    text = table(results)
    for name, content in (('results.json', json.dumps(results, indent=1) + '\n'), ('table.txt', text),
                          ('chart.svg', chart(results))):
        with open(os.path.join(directory, name), 'w', encoding='utf-8') as f:
            f.write(content)
    prefix = ''.join('# ' + line + '\n' for line in text.splitlines())
    print(prefix, end='', flush=True)


def worst(contestant, metric):
    """All metrics are better when smaller, so the largest of the rounds is what has to hold."""
    return contestant['metrics'].get(metric, {}).get('max')


def check(results, path):
    """TAP, a test per line of the budget, a remark per goal that is missed; False if a test failed."""
    benches = [{c['name']: c for c in r['contestants']} for r in results]
    count = 0
    good = True
    with open(path, encoding='utf-8') as f:
        lines = f.read().splitlines()
    for text in lines:
        rule = re.fullmatch(r'(goal\s+)?(\S+)\s+(\S+)\s+(<=?)\s+(\S+)', re.sub(r'\s*#.*', '', text).strip())
        if not rule:
            continue
        goal, name, metric, sign, limit = rule.groups()
        by_name = next((names for names in benches if name in names), None)
        if not by_name:
            continue
        count += not goal
        value = worst(by_name[name], metric)
        if limit == 'peers' or limit in by_name:
            peers = [(worst(c, metric), c['name']) for c in by_name.values()
                     if (not c['ours'] if limit == 'peers' else c['name'] == limit)]
            known = [peer for peer in peers if peer[0] is not None]
            bound, whose = min(known) if known else (None, 'no contestant was measured')
        else:
            bound, whose = float(limit), 'the goal' if goal else 'the budget'
        if value is None or bound is None:
            holds = False
            detail = 'not measured' + ''.join(f'; {e}' for e in by_name[name]['errors'])
        else:
            holds = value < bound if sign == '<' else value <= bound
            detail = f'{value:,.4g} {sign} {bound:,.4g} ({whose})' if value < 10 else \
                f'{value:,.0f} {sign} {bound:,.0f} ({whose})'
        if goal:
            print(f"# goal {'reached' if holds else 'missed'}: {name} {metric} {detail}")
            continue
        good = good and holds
        print(f"{'ok' if holds else 'not ok'} {count} - bench: {name} {metric} {detail}")
    print(f'1..{count}')
    return good and count > 0
