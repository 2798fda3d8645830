#!/usr/bin/python3
"""TCP connections to the outside that are kept (--tcp keep): traffic in both directions, from the same
network namespace and from another one behind a veth pair, IPv4 and IPv6, with readers that are
quick and slow. The server is dumped where it goes on running, then dumped and killed, and restored
seconds later, twice: not a byte is lost or doubled, and no peer ever sees a reset. Then: what is given up
is given up, what is not kept is reset at once."""

import contextlib
import os
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

TRAFFIC = [sys.executable, os.path.join(HERE, "programs", "traffic.py")]
PORT = 5000
PEERS = {"loopback4": "127.0.0.1", "loopback6": "::1", "lazy": "127.0.0.1", "self4": "10.77.0.1",
         "far4": "10.77.0.1", "far6": "fd77::1", "far-lazy": "10.77.0.1"}


def ip(*words):
    subprocess.run(["ip", *words], check=True, stdout=subprocess.DEVNULL)


def second_namespace(t):
    """A process that holds it; 10.77.0.2 and fd77::2 there."""
    holder = children.spawn(["/usr/bin/unshare", "-n", "/usr/bin/sleep", "1000"])
    t.until("another network namespace", lambda: os.readlink(f"/proc/{holder}/ns/net") !=
            os.readlink("/proc/self/ns/net") and open(f"/proc/{holder}/comm").read() == "sleep\n")
    ip("link", "add", "near", "type", "veth", "peer", "name", "far", "netns", str(holder))
    ip("address", "add", "10.77.0.1/24", "dev", "near")
    ip("address", "add", "fd77::1/64", "dev", "near", "nodad")
    ip("link", "set", "near", "up")
    inside = ["nsenter", "-t", str(holder), "-n", "ip"]
    for words in (["link", "set", "lo", "up"], ["link", "set", "far", "up"],
                  ["address", "add", "10.77.0.2/24", "dev", "far"],
                  ["address", "add", "fd77::2/64", "dev", "far", "nodad"]):
        subprocess.run(inside + words, check=True)
    return holder


def call(t, holder, name, host, port=PORT):
    inside = ["/usr/bin/nsenter", "-t", str(holder), "-n"] if name.startswith("far") else []
    argv = inside + TRAFFIC + ["call", name, host, str(port)]
    return children.spawn(argv, out=t.path("peers.out"), cwd=t.work, session=True)


def text(t, name):
    try:
        with open(t.path(name)) as f:
            return f.read()
    except OSError:
        return None


def ends():
    return [f"{side}-{name}" for name in PEERS for side in ("client", "server")]


def progress(t):
    return {end: int(text(t, end + ".progress") or 0) for end in ends()}


def expect_flow(t, when):
    before = progress(t)
    t.until(f"{when}: traffic flows everywhere", lambda: all(
        seen > before[end] for end, seen in progress(t).items()), timeout=30)
    for end in ends():
        t.expect(f"{when}: error at {end}", None, text(t, end + ".error"))


def tables():
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout


def resets(holder):
    """Resets that were sent, here and there. (EstabResets counts silent ends, too.)"""
    seen = []
    for pid in ("self", holder):
        names, values = [line.split() for line in open(f"/proc/{pid}/net/snmp") if line.startswith("Tcp:")]
        seen.append(int(dict(zip(names, values))["OutRsts"]))
    return seen


def kept(t, pid, holder):
    expect_flow(t, "at first")
    before = resets(holder)
    report = t.dump(pid, "--tcp", "keep")
    t.expect("tables of nftables after a dump of what runs on", "", tables())
    expect_flow(t, "left running")
    for round in (1, 2):
        report = t.dump(pid, "--kill", "--tcp", "keep")
        t.note(f"frozen {report['frozen_us'] / 1000:.1f} ms; {report.get('notes', '')}")
        t.expect_true("packets are held back", t.control or tables().count("fsnap-") == 1)
        time.sleep(0.7)
        again = t.restore(report["image"])
        t.expect("tables of nftables after the restore", "", tables())
        t.expect("PID", pid, again["pid"])
        expect_flow(t, f"round {round}")
    if not t.control:
        t.expect("resets sent meanwhile", before, resets(holder))


def accounts(t, peers):
    with open(t.path("stop"), "w"):
        pass
    for name in PEERS:
        t.until(f"{name} ends", lambda: all(
            text(t, f"{side}-{name}.{what}") for side in ("client", "server") for what in ("sent", "got")),
            timeout=40)
        t.expect(f"{name}: bytes to the server", text(t, f"client-{name}.sent"), text(t, f"server-{name}.got"))
        t.expect(f"{name}: bytes to the client", text(t, f"server-{name}.sent"), text(t, f"client-{name}.got"))
    for end in ends():
        t.expect(f"error at {end}", None, text(t, end + ".error"))
    for peer in peers:
        t.expect("a peer's exit status", 0, children.wait(peer, 20))
    os.remove(t.path("stop"))


def asks(s):
    s.settimeout(10)
    try:
        s.sendall(b"x" * 8)
        while s.recv(1 << 16):
            pass
        return "end"
    except OSError as e:
        return type(e).__name__


def given_up(t, pid):
    """rm removes the hold; a second restore of the same image resets; so does --tcp reset."""
    for how in ("rm", "again", "reset"):
        s = socket.create_connection(("127.0.0.1", PORT))
        s.sendall(b"last\n")
        time.sleep(0.1)
        image = t.dump(pid, "--kill", "--tcp", "keep")["image"]
        if how == "rm":
            other = t.fsnap.run("restore", image, "--explain")
            t.expect("restore --explain", 0, other.status)
            t.expect_true("--explain leaves the hold alone", "fsnap-" in tables())
            saved = t.path("copy.fsnap")
            os.link(os.path.join(t.fsnap.store, "images", image + ".fsnap"), saved)
            t.expect("rm", 0, t.fsnap.run("rm", image).status)
            t.expect("tables of nftables after rm", "", tables())
            image = saved
        if how == "again":
            t.restore(image)
            os.kill(pid, 9)
            t.until("the end of it", lambda: not os.path.exists(f"/proc/{pid}"))
        more = ["--tcp", "reset"] if how == "reset" else []
        result = t.fsnap.run("restore", image, "-d", "--json", *more)
        t.expect(f"{how}: restore", 0, result.status)
        t.expect_true(f"{how}: it is told that connections are reset", "reset by the peer" in str(result.json))
        t.expect(f"{how}: tables of nftables", "", tables())
        t.expect_true(f"{how}: the client is told", asks(s) in ("ConnectionResetError", "BrokenPipeError"))
        s.close()


def shared(t):
    """A connection that a process outside the tree has, too, goes on there when the tree is killed."""
    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.dup2(ours.fileno(), 9)
        null = os.open("/dev/null", os.O_RDWR)
        for n in range(3):
            os.dup2(null, n)
        for n in [*range(3, 9), *range(10, 256)]:
            with contextlib.suppress(OSError):
                os.close(n)
        os.execv("/usr/bin/sleep", ["sleep", "1000"])
    t.until("it sleeps", lambda: open(f"/proc/{pid}/comm").read() == "sleep\n")
    report = t.dump(pid, "--kill", "--tcp", "keep")
    ours.sendall(b"still here")
    theirs.settimeout(10)
    t.expect("what comes from the one outside", b"still here", theirs.recv(100))
    theirs.sendall(b"so am I")
    ours.settimeout(10)
    t.expect("what comes back", b"so am I", ours.recv(100))
    result = t.fsnap.run("restore", report["image"], "-d", "--json")
    t.expect_error(result, 1, "ADDRESS_TAKEN", "127.0.0.1")
    t.fsnap.run("rm", report["image"])
    t.expect("tables of nftables after rm", "", tables())


def body(t):
    if not os.path.exists("/usr/sbin/nft") or not os.path.exists("/usr/sbin/ip"):
        sandbox.skip("nft or ip is not installed")
    holder = second_namespace(t)
    pid = t.start(TRAFFIC + ["serve", str(PORT)], ready="listening", name="server")
    peers = [call(t, holder, name, host) for name, host in PEERS.items()]
    kept(t, pid, holder)
    accounts(t, peers)
    if not t.control:
        given_up(t, pid)
        shared(t)
    os.kill(pid, 9)
    os.kill(holder, 9)


trial.main(body)
