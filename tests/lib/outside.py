"""What a process tree looks like from outside, in a form that a dump must leave as it was
and a restore must bring back: everything /proc shows that is not a statistic."""

import os
import re
import time

STATUS = ("Name Umask Tgid NSpid PPid TracerPid Uid Gid Groups NSpgid NSsid Threads "
          "SigPnd ShdPnd SigBlk SigIgn SigCgt CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs "
          "Seccomp Seccomp_filters Cpus_allowed THP_enabled").split()
# proc(5): exit signal, rt_priority, policy, nice, and the addresses prctl(PR_SET_MM) sets.
STAT = {19: "nice", 26: "startcode", 27: "endcode", 28: "startstack", 38: "exit_signal",
        40: "rt_priority", 41: "policy", 45: "start_data", 46: "end_data", 47: "start_brk",
        48: "arg_start", 49: "arg_end", 50: "env_start", 51: "env_end"}


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read().decode("latin-1")
    except OSError as e:
        return f"({os.strerror(e.errno)})"


def fields(path, wanted):
    found = {}
    for line in read(path).splitlines():
        key, _, value = line.partition(":")
        if key in wanted:
            found[key] = " ".join(value.split())
    return found


def stat(path):
    text = read(path).rpartition(")")[2].split()
    return {name: text[at - 3] for at, name in STAT.items() if at - 3 < len(text)}

HUGE = "/anon_hugepage (deleted)"  # a file that each such mapping has for itself


def maps(pid):
    """Mappings, with neighbours that differ in nothing joined: where the kernel merges is
    its own business. Anonymous shared memory is numbered anew by every boot and restore."""
    rows = []
    for line in read(f"/proc/{pid}/maps").splitlines():
        if line.startswith("("):  # it ended while we looked
            break
        span, perms, offset, _dev, _inode, *path = line.split(None, 5)
        start, end = (int(x, 16) for x in span.split("-"))
        name, offset = (path[0] if path else ""), int(offset, 16)
        if name == "/dev/zero" and perms[3] == "p":
            name = ""  # the same thing, and not worth a file
        anonymous = not name.startswith("/") or name == HUGE
        if rows:
            last = rows[-1]
            follows = anonymous or offset == last["offset"] + last["end"] - last["start"]
            if last["end"] == start and (last["perms"], last["name"]) == (perms, name) and follows:
                last["end"] = end
                continue
        rows.append({"start": start, "end": end, "perms": perms, "offset": offset, "name": name})
    return [f"{r['start']:x}-{r['end']:x} {r['perms']} "
            f"{r['offset'] if r['name'].startswith('/') and r['name'] != HUGE else 0:x} {r['name']}".rstrip()
            for r in rows]


def files(pid, numbers):
    """Descriptors: what they lead to, position, flags. Inode numbers of pipes and sockets
    become "first pipe", "second pipe", so that sharing shows and the numbers do not."""
    found = {}
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return found
    for name in sorted(names, key=int):
        try:
            link = os.readlink(f"{folder}/{name}")
        except OSError:
            continue
        link = re.sub(r"(pipe|socket):\[(\d+)\]",
                      lambda m: f"{m[1]} {numbers.setdefault(m[0], len(numbers))}", link)
        info = fields(f"/proc/{pid}/fdinfo/{name}", ("pos", "flags", "eventfd-count", "sigmask"))
        found[f"fd {name}"] = f"{link} {info}"
    return found


def tasks(pid):
    found = {}
    try:
        names = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for tid in sorted(names, key=int):
        base = f"/proc/{pid}/task/{tid}"
        row = {**fields(f"{base}/status", STATUS), **stat(f"{base}/stat")}
        row["comm"] = read(f"{base}/comm").strip()
        row["timerslack"] = read(f"/proc/{tid}/timerslack_ns").strip()
        for key, value in row.items():
            found[f"task {tid} {key}"] = value
    return found


def process(pid, numbers):
    base = f"/proc/{pid}"
    found = tasks(pid)
    for name in ("cmdline", "environ", "auxv", "oom_score_adj", "personality",
                 "coredump_filter", "timers"):
        found[name] = read(f"{base}/{name}")
    for line in read(f"{base}/limits").splitlines()[1:]:
        found[f"limit {line[:26].strip()}"] = " ".join(line[26:].split())
    for name in ("exe", "cwd", "root"):
        try:
            found[name] = os.readlink(f"{base}/{name}")
        except OSError as e:
            found[name] = f"({e.strerror})"
    for row in maps(pid):
        found[f"mapping {row}"] = "there"
    found.update(files(pid, numbers))
    return found


PRESENT, FILE, FRAME = 1 << 63, 1 << 61, (1 << 55) - 1


def frames(pid):
    """{address: frame number} of private pages that are no file's (pagemap.rst), but for stacks,
    which every wake-up writes to."""
    found = {}
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        for line in read(f"/proc/{pid}/maps").splitlines():
            span, perms, *rest = line.split(None, 5)
            start, end = (int(x, 16) for x in span.split("-"))
            if perms[3] != "p" or rest[-1:] == ["[stack]"] or line.endswith("[vsyscall]"):
                continue
            pagemap.seek(start // 4096 * 8)
            entries = memoryview(pagemap.read((end - start) // 4096 * 8)).cast("Q")
            for n, entry in enumerate(entries):
                if entry & PRESENT and not entry & FILE and entry & FRAME:
                    found[start + n * 4096] = entry & FRAME
    return found


def sharing(pids):
    """{(address, pids that have one frame there): whether it lies at other addresses, too} of what is
    shared copy-on-write. The latter are the page of zeroes, what KSM merged, what mremap moved."""
    holders, places = {}, {}
    for pid in pids:
        for address, frame in frames(pid).items():
            holders.setdefault((address, frame), []).append(pid)
            places.setdefault(frame, set()).add(address)
    return {(address, tuple(sorted(who))): len(places[frame]) > 1
            for (address, frame), who in holders.items() if len(who) > 1}


def sharing_lost(before, after, most=10):
    """Lines for people: who does not share any more, and who shares what they did not."""
    gone = sorted(key for key, elsewhere in before.items() if not elsewhere and key not in after)
    new = sorted(key for key, elsewhere in after.items() if not elsewhere and key not in before)
    lines = [f"{len(before)} pages were shared, not so any more: {len(gone)}"] if gone or new else []
    lines += [f"page {a:x}: processes {who} do not share it" for a, who in gone[:most]]
    return lines + [f"page {a:x}: processes {who} share it" for a, who in new[:most]]


def look(pids, ignore=()):
    """{(pid, what): seen} of all these processes."""
    numbers, seen = {}, {}
    pattern = re.compile("|".join(ignore)) if ignore else None
    for pid in pids:
        for what, value in process(pid, numbers).items():
            if not (pattern and pattern.search(f"{what} {value}")):
                seen[pid, what] = value
    return seen


def differences(before, after):
    """Lines for people; a task or process that is missing altogether is one line."""
    missing = set()
    for key in sorted(set(before) | set(after), key=str):
        expected, seen = before.get(key, "nothing"), after.get(key, "nothing")
        if expected == seen:
            continue
        whose = f"process {key[0]}"
        if (key[0], "exe") in before and (key[0], "task %d comm" % key[0]) not in after:
            what = f"{whose}: gone"
        elif (task := re.match(r"task \d+ ", key[1])) and "nothing" in (expected, seen):
            word = "gone" if seen == "nothing" else "new"
            what = f"{whose}: {task[0].strip()}: {word}"
        else:
            what = f"{whose}: {key[1]}: expected {expected!r}, seen {seen!r}"
        if what not in missing:
            missing.add(what)
            yield what


def runnable(pids):
    """Whether a task of these runs, or would if it were its turn."""
    for pid in pids:
        try:
            tids = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        if any(read(f"/proc/{pid}/task/{tid}/stat").rpartition(")")[2][:2] == " R" for tid in tids):
            return True
    return False


def settled(look, pids=(), timeout=1.0, patience=0.1):
    """What look() gives twice in a row, with all asleep: a target may still be on its way into
    its call. One that computes all the time is waited for no longer than `patience`."""
    began, last = time.monotonic(), None
    while True:
        busy, now = runnable(pids), look()
        waited = time.monotonic() - began
        if (now == last and (not busy or waited > patience)) or waited > timeout:
            return now
        last = now
        time.sleep(0.003)


def are_unused(complaints):
    """Nothing but an unused descriptor or mapping of the agent: window W2 of engine/place.h."""
    return bool(complaints) and all(re.search(r"memfd:|mapping .*/dev/zero", c) for c in complaints)


def lasting_differences(before, look, timeout=0.5):
    """differences() that do not go away by themselves."""
    deadline = time.monotonic() + timeout
    while True:
        found = list(differences(before, look()))
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.01)
