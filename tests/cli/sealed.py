#!/usr/bin/python3
"""dump --compress, --encrypt, --leave-out, --respect-core-limit: what is stored so comes back eager and streamed, alone,
in a chain, as copies, and is looked into like any other, given the key; without it, or with another, it is refused with
words, and nothing of it can be read. Content that MADV_DONTDUMP keeps out of core files can be left out, and comes back as
zeroes; a tree of which no core file may be made can be refused."""

import os
import resource
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

IMAGE, USAGE, REFUSED = 6, 2, 3
SECRET = b"what nobody is to read"

# Says what it holds whenever it is asked: in plain memory, in memory without a file, and in what it keeps out of cores.
PROGRAM = """
import mmap, os, signal, time
secret = b"what nobody" + b" is to read"
plain = bytearray(secret * 400000)
kept = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
kept.write(secret)
kept.madvise(mmap.MADV_DONTDUMP)
def tell(*_):
    kept.seek(0)
    good = plain == bytearray(secret * 400000)
    with open("said.new", "w") as f:
        f.write(f"{'good' if good else 'bad'} {kept.read(len(secret)) == secret} {any(kept[:])}")
    os.rename("said.new", "said")
signal.signal(signal.SIGUSR1, tell)
open("ready", "w").close()
while True:
    time.sleep(1000)
"""


def said(t, pid):
    if os.path.exists(t.path("said")):
        os.unlink(t.path("said"))
    os.kill(pid, signal.SIGUSR1)
    t.until("its answer", lambda: os.path.exists(t.path("said")))
    with open(t.path("said")) as f:
        return f.read()


def end(t, pid):
    os.kill(pid, signal.SIGKILL)
    children.wait_gone([pid], 5)
    children.statuses.pop(pid, None)


def again(t, pid, image, *more):
    result = t.fsnap.run("restore", image, "-d", "--json", *more)
    t.expect(f"restore {image} {more}: exit status", 0, result.status)
    if result.status == 0:
        t.expect(f"what it holds, from {image} {more}", "good True True", said(t, result.json["pid"]))
        end(t, result.json["pid"])


def size(t, image):
    with open(os.path.join(t.fsnap.store, "images", image + ".fsnap"), "rb") as f:
        content = f.read()
    return len(content), SECRET in content


def ways(t, pid):
    """Each way of storing it, and back."""
    t.dump(pid, "--name", "plain")
    whole, readable = size(t, "plain")
    t.expect_true("a plain image can be read", readable)
    ciphers = ["xchacha20"] + (["aes256"] if " aes " in open("/proc/cpuinfo").read() else [])
    for name, *how in (("zstd", "--compress", "zstd"), ("lz4", "--compress", "lz4:9", "--live"),
                       *((c, "--encrypt", t.path("key"), "--cipher", c, "--compress", "zstd:1") for c in ciphers),
                       ("only", "--encrypt", t.path("key"))):
        report = t.dump(pid, "--name", name, *how)
        bytes_now, readable = size(t, name)
        if "--compress" in how:
            t.expect_true(f"{name} is smaller ({bytes_now} of {whole})", bytes_now < whole / 2)
        if "--encrypt" in how:
            t.expect(f"{name} can be read", False, readable)
        t.expect_true(f"{name}: bytes stored", report["bytes"] > 4 << 20)
    end(t, pid)
    again(t, pid, "zstd")
    again(t, pid, "lz4", "--memory", "stream", "--wait-resident")
    for name in ciphers + ["only"]:
        again(t, pid, name, "--decrypt", t.path("key"))
    again(t, pid, "xchacha20", "--decrypt", t.path("key"), "--memory", "stream", "--record", "1", "--wait-resident")
    t.expect_true("it was recorded", os.path.exists(os.path.join(t.fsnap.store, "images", "xchacha20.record")))
    again(t, pid, "xchacha20", "--decrypt", t.path("key"), "--memory", "stream", "--wait-resident")
    again(t, pid, "only", "--decrypt", t.path("key"), "--new-pids")


def without_key(t):
    for words in (("restore", "only", "-d"), ("inspect", "only"), ("core", "only", "-o", t.path("core"))):
        t.expect_error(t.fsnap.run(*words, "--json"), IMAGE, "IMAGE_KEY", "only", "no key")
        t.expect_error(t.fsnap.run(*words, "--json", "--decrypt", t.path("other")), IMAGE, "IMAGE_KEY", "another key")
    t.expect_error(t.fsnap.run("restore", "only", "-d", "--json", "--decrypt", t.path("nowhere")), USAGE, "USAGE",
                   "nowhere", hint=False)
    listed = {i["name"]: i for i in t.fsnap.run("list", "--json").json["images"]}
    t.expect("list says why", "IMAGE_KEY", listed["only"]["error"]["code"])
    t.expect("list says how", ("xchacha20", "zstd"), (listed["only"]["encrypted"], listed["zstd"]["compressed"]))
    whole = t.fsnap.run("verify", "only", "--json")
    t.expect("verify without the key", (0, True, True), (whole.status, whole.json["good"], whole.json["sealed"]))
    t.expect_error(t.fsnap.run("verify", "only", "--json", "--decrypt", t.path("other")), IMAGE, "IMAGE_KEY")


def looked_into(t):
    os.environ["FSNAP_KEY"] = t.path("key")
    for words in (("verify", "only"), ("inspect", "only", "--stacks"), ("report", "only", "-o", t.path("page")),
                  ("core", "only", "-o", t.path("core")), ("heat", "only"), ("list",), ("prefetch", "only")):
        result = t.fsnap.run(*words)
        t.expect(f"{words[0]} with $FSNAP_KEY: exit status", 0, result.status)
    with open(t.path("core"), "rb") as f:
        t.expect_true("its memory is in the core", SECRET in f.read())
    t.expect("keygen", 0, t.fsnap.run("keygen", t.path("sign")).status)
    t.expect("sign", 0, t.fsnap.run("sign", "--key", t.path("sign"), "only").status)
    t.expect("signed", 0, t.fsnap.run("verify", "--key", t.path("sign.pub"), "only").status)
    del os.environ["FSNAP_KEY"]
    t.expect("signed, and no key", 0, t.fsnap.run("verify", "--key", t.path("sign.pub"), "only").status)


def altered(t, pid):
    path = os.path.join(t.fsnap.store, "images", "only.fsnap")
    with open(path, "r+b") as f:
        f.seek((2 << 20) + 4711)
        byte = f.read(1)
        f.seek((2 << 20) + 4711)
        f.write(bytes([byte[0] ^ 1]))
    for memory in ("eager", "stream"):
        result = t.fsnap.run("restore", "only", "-d", "--json", "--memory", memory, "--decrypt", t.path("key"))
        if memory == "eager" or result.status:
            t.expect_error(result, IMAGE, "IMAGE_CORRUPT", "only")
        else:
            t.until("the tree is killed", lambda: not children.wait_gone([pid], 0.1))
            children.statuses.pop(pid, None)
    t.expect("nothing was restored", False, os.path.exists(f"/proc/{pid}"))
    t.expect_error(t.fsnap.run("verify", "only", "--json"), IMAGE, "IMAGE_CORRUPT", "only")


def passphrase(t, pid):
    for name, words in (("words", "correct horse\n"), ("guess", "correct hors\n")):
        with open(t.path(name), "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as f:
            f.write(words)
    t.dump(pid, "--name", "spoken", "--encrypt", "passphrase:" + t.path("words"), "--kill")
    t.expect_error(t.fsnap.run("restore", "spoken", "-d", "--json", "--decrypt", "passphrase:" + t.path("guess")), IMAGE,
                   "IMAGE_KEY", "another passphrase")
    t.expect_error(t.fsnap.run("restore", "spoken", "-d", "--json", "--decrypt", "passphrase"), USAGE, "USAGE", "terminal")
    os.chmod(t.path("guess"), 0o644)
    t.expect_error(t.fsnap.run("restore", "spoken", "-d", "--json", "--decrypt", "passphrase:" + t.path("guess")), USAGE,
                   "USAGE", "others may read")
    again(t, pid, "spoken", "--decrypt", "passphrase:" + t.path("words"))


def chained(t, pid):
    how = ("--encrypt", t.path("key"), "--compress", "lz4")
    t.dump(pid, "--name", "c0", *how)
    second = t.dump(pid, "--name", "c1", *how)
    t.expect("it builds on", "c0", second["parent"])
    t.expect_true("and stores less", second["bytes"] < 4 << 20)
    without = t.dump(pid, "--name", "c2")
    t.expect_true("without the key it is whole", "parent" not in without or not without["parent"])
    third = t.dump(pid, "--name", "c3", "--kill", *how)
    t.expect_true("on a plain one it is whole, and says why", "not encrypted" in str(third["notes"]))
    again(t, pid, "c1", "--decrypt", t.path("key"))
    t.expect("compact", 0, t.fsnap.run("compact", "c1", "--decrypt", t.path("key")).status)
    t.expect("compact without the key", IMAGE, t.fsnap.run("compact", "c1").status)
    t.expect("still not to be read", False, size(t, "c1")[1])
    again(t, pid, "c1", "--decrypt", t.path("key"), "--memory", "stream", "--wait-resident")
    copies = t.fsnap.run("restore", "c1", "--decrypt", t.path("key"), "--clones", "3", "-d", "--json")
    t.expect("three copies", 0, copies.status)
    for copy in (copies.json or {}).get("copies", []):
        t.expect("a copy holds", "good True True", said(t, copy["root"]))
        end(t, copy["root"])


def watched(t, pid):
    """Argon2id takes most of a second: for the first image, and not for those behind it."""
    handle = t.fsnap.start("watch", "-t", pid, "--every", "20ms", "--name", "w", "--encrypt", "passphrase:" + t.path("words"),
                           "--compress", "lz4", "--json")
    t.until("ten images", lambda: os.path.exists(os.path.join(t.fsnap.store, "images", "w-000010.fsnap")), 20)
    with open(os.path.join(t.fsnap.store, "images", "w-000002.fsnap"), "rb") as second, \
            open(os.path.join(t.fsnap.store, "images", "w-000010.fsnap"), "rb") as last:
        t.expect("one salt for all", second.read(8192)[4096 + 224:4096 + 240], last.read(8192)[4096 + 224:4096 + 240])
    os.kill(handle[0], signal.SIGINT)
    t.expect("watch: exit status", 0, t.fsnap.finish(handle).status)
    end(t, pid)
    again(t, pid, "w-000007", "--decrypt", "passphrase:" + t.path("words"))


def left_out(t, pid):
    report = t.dump(pid, "--name", "less", "--leave-out", "dontdump")
    t.expect_true("it is said", "MADV_DONTDUMP" in str(report["notes"]) and "1024 KiB" in str(report["notes"]))
    live = t.dump(pid, "--name", "less-live", "--leave-out", "dontdump", "--live", "--kill")
    t.expect_true("live, too", "MADV_DONTDUMP" in str(live["notes"]))
    for name in ("less", "less-live"):
        result = t.restore(name)
        t.expect("zeroes there, the rest as it was", "good False False", said(t, result["pid"]))
        end(t, result["pid"])
    t.expect_error(t.fsnap.run("dump", "-t", os.getpid(), "--leave-out", "all", "--json"), USAGE, "USAGE", "dontdump")


def core_limits(t):
    def none():
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def soft():
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))

    undumpable = "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\n" + PROGRAM
    for how, program, refused in ((none, PROGRAM, "RLIMIT_CORE"), (soft, PROGRAM, None),
                                  (None, undumpable, "not dumpable")):
        if os.path.exists(t.path("ready")):
            os.unlink(t.path("ready"))
        pid = t.start([sys.executable, "-c", program], ready="ready", **({"before": how} if how else {}))
        before = t.settled(pid)
        result = t.fsnap.run("dump", "-t", pid, "--respect-core-limit", "--json", "--name", f"limit-{pid}")
        if refused:
            t.expect_error(result, REFUSED, "UNSUPPORTED", str(pid), refused)
            t.expect("without the option", 0, t.fsnap.run("dump", "-t", pid, "--name", f"any-{pid}").status)
        else:
            t.expect("a soft limit says nothing", 0, result.status)
        t.expect_unharmed(pid, before, "a dump that respects core limits")
        end(t, pid)


def body(t):
    t.fsnap.name_store = False
    for name in ("key", "other"):
        t.expect(f"keygen --secret {name}", 0, t.fsnap.run("keygen", "--secret", t.path(name)).status)
    t.expect("a key is its owner's", 0o600, os.stat(t.path("key")).st_mode & 0o777)
    pid = t.start([sys.executable, "-c", PROGRAM], ready="ready")
    t.expect_error(t.fsnap.run("dump", "-t", pid, "--encrypt", t.path("key"), "--with", t.work, "--json"), USAGE, "USAGE",
                   "--with")
    t.expect_error(t.fsnap.run("dump", "-t", pid, "--compress", "gzip", "--json"), USAGE, "USAGE", "gzip")
    t.expect_error(t.fsnap.run("dump", "-t", pid, "--encrypt", t.path("none"), "--json"), USAGE, "USAGE", "none",
                   hint=False)
    ways(t, pid)
    without_key(t)
    looked_into(t)
    altered(t, pid)
    pid = t.restore("zstd")["pid"]
    passphrase(t, pid)
    pid = t.restore("zstd")["pid"]
    if t.fsnap.run("track", "-t", pid).status == 0:
        chained(t, pid)
        pid = t.restore("zstd")["pid"]
        watched(t, pid)
        pid = t.restore("zstd")["pid"]
    left_out(t, pid)
    core_limits(t)


trial.main(body)
