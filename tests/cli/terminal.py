#!/usr/bin/python3
"""fsnap at a terminal: passphrases are typed unseen, whatever ends the asking; long work says how far it is, and leaves
nothing of that behind; a restored job has the terminal as if a shell had lent it."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402
from terminal import Terminal, expect_shows  # noqa: E402

SECRET = "four words nobody guesses"

# Fills memory with what does not compress, then says so.
LARGE = """
import os, time
memory = os.urandom(320 << 20)
open("large", "w").close()
time.sleep(1000)
"""

# As a shell does: a job in a group of its own, which gets the terminal.
JOB = """
import os, signal, sys, time
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
pid = os.fork()
if pid == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execvp(sys.argv[1], sys.argv[1:])
try:
    os.setpgid(pid, pid)
except OSError:
    pass
while True:
    _, status = os.waitpid(pid, os.WUNTRACED)
    mine = os.getpgrp()
    os.tcsetpgrp(0, mine)
    if not os.WIFSTOPPED(status):
        sys.exit(os.waitstatus_to_exitcode(status) % 256)
    print("shell: stopped", flush=True)
    input()
    os.tcsetpgrp(0, pid)
    os.killpg(pid, signal.SIGCONT)
"""


def fsnap(t, *argv):
    return Terminal([t.fsnap.binary, "--store", t.fsnap.store, *map(str, argv)], t.work, trial.ENVIRONMENT)


def answers(t, terminal, prompt, text):
    expect_shows(t, terminal, prompt)
    t.until("nothing is echoed", lambda: not terminal.echoes())
    terminal.type(text + "\n")


def typed(t, pid):
    """Twice for a new image, once for one that is there."""
    shown = fsnap(t, "dump", "-t", pid, "--name", "spoken", "--encrypt", "passphrase")
    answers(t, shown, "passphrase of the image: ", SECRET)
    answers(t, shown, "once more: ", SECRET)
    t.expect("a dump whose passphrase is typed", 0, shown.end())
    t.expect("it is not shown", False, "four" in shown.text)
    shown = fsnap(t, "verify", "spoken", "--decrypt", "passphrase")
    answers(t, shown, "passphrase of the image: ", SECRET)
    t.expect("what it opens", 0, shown.end())
    t.expect("it echoes again", True, shown.echoes())
    shown = fsnap(t, "verify", "spoken", "--decrypt", "passphrase")
    answers(t, shown, "passphrase of the image: ", SECRET + "?")
    t.expect("another one", 6, shown.end())
    expect_shows(t, shown, "another passphrase")


def mistyped(t, pid):
    shown = fsnap(t, "dump", "-t", pid, "--name", "other", "--encrypt", "passphrase")
    answers(t, shown, "passphrase of the image: ", SECRET)
    answers(t, shown, "once more: ", SECRET.upper())
    t.expect("typed in two ways", 2, shown.end())
    expect_shows(t, shown, "these are two passphrases")
    shown = fsnap(t, "dump", "-t", pid, "--name", "other", "--encrypt", "passphrase")
    answers(t, shown, "passphrase of the image: ", "")
    t.expect("an empty one", 2, shown.end())
    t.expect("no image", False, os.path.exists(os.path.join(t.fsnap.store, "other.fsnap")))


def blocked(t, pid):
    """Started with signals blocked, or ignored: they are none of its business."""
    asks = [t.fsnap.binary, "--store", t.fsnap.store, "dump", "-t", str(pid), "--name", "blocked", "--encrypt", "passphrase"]
    start = f"""
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.kill(os.getpid(), signal.SIGTERM)
os.execv({asks[0]!r}, {asks!r})
"""
    shown = Terminal(["/usr/bin/python3", "-c", start], t.work, trial.ENVIRONMENT)
    expect_shows(t, shown, "passphrase of the image: ")
    t.until("nothing is echoed", lambda: not shown.echoes())
    os.kill(shown.pid, signal.SIGHUP)
    shown.type("four words nobody")
    shown.type("\x04")  # what there is of the line
    shown.type(" guesses\n")
    answers(t, shown, "once more: ", SECRET)
    shown.shows("\0", 0.5)
    t.expect("asked so many times", 1, shown.text.count("passphrase of the image: "))
    os.kill(shown.pid, signal.SIGKILL)
    shown.end()


def interrupted(t, pid):
    """The terminal echoes again before fsnap ends, or stops."""
    for key, number in (("\x03", signal.SIGINT), ("\x1c", signal.SIGQUIT)):
        shown = fsnap(t, "dump", "-t", pid, "--name", "never", "--encrypt", "passphrase")
        expect_shows(t, shown, "passphrase of the image: ")
        t.until("nothing is echoed", lambda s=shown: not s.echoes())
        shown.type("four wo" + key)
        t.expect(f"{number.name} while it asks", -number, shown.end())
        t.expect(f"{number.name}: it echoes again", True, shown.echoes())
    shown = Terminal(["/usr/bin/python3", "-c", JOB, t.fsnap.binary, "--store", t.fsnap.store, "dump", "-t", str(pid),
                      "--name", "later", "--encrypt", "passphrase"], t.work, trial.ENVIRONMENT)
    expect_shows(t, shown, "passphrase of the image: ")
    t.until("nothing is echoed", lambda: not shown.echoes())
    shown.type("four wo\x1a")
    expect_shows(t, shown, "shell: stopped")
    t.expect("stopped: it echoes again", True, shown.echoes())
    shown.text = ""
    shown.type("\n")
    answers(t, shown, "passphrase of the image: ", SECRET)
    answers(t, shown, "once more: ", SECRET)
    t.expect("stopped, and asked once more", 0, shown.end())
    t.expect("the target", True, os.path.exists(f"/proc/{pid}"))


def progress(t):
    pid = t.start(["/usr/bin/python3", "-c", LARGE], ready="large", name="large.out")
    shown = fsnap(t, "dump", "-t", pid, "--no-live", "--name", "large", "--compress", "zstd:12", "--kill")
    began = time.monotonic()
    t.expect("a dump that takes long", 0, shown.end(60))
    if time.monotonic() - began < 1.5:
        t.note("too fast a machine: nobody needs to be told how far it is")
        return
    t.expect_true(f"it says how far it is: {shown.text[:300]!r}", "%" in shown.text and "[#" in shown.text)
    lines = shown.text.rpartition("\033[K")[2]
    t.expect_true(f"that is gone at the end: {lines!r}", ": 1 process" in lines and "%" not in lines)


def lent(t):
    """A job in a group of its own: Ctrl-C, Ctrl-Z and what is typed are for it."""
    first = Terminal(["/usr/bin/python3", "-c", JOB, "/usr/bin/python3", "-c", """
import os, signal, sys
def told(*_):
    os.write(1, b"job: interrupted\\n")
signal.signal(signal.SIGINT, told)
print("job: ready", flush=True)
for line in sys.stdin:
    if line == "end\\n":
        sys.exit(9)
    print("job:", line.upper(), end="", flush=True)
"""], t.work, trial.ENVIRONMENT)
    expect_shows(t, first, "job: ready")
    job = first.foreground()
    first.type("one\n")
    expect_shows(t, first, "job: ONE")
    image = t.dump(job, "--kill")["image"]
    first.end()
    first.close()

    second = Terminal(["/usr/bin/python3", "-c", JOB, t.fsnap.binary, "--store", t.fsnap.store, "restore", image], t.work,
                      trial.ENVIRONMENT)
    t.until("the job has the terminal", lambda: second.foreground() == job)
    second.type("two\n")
    expect_shows(t, second, "job: TWO")
    second.type("\x03")
    expect_shows(t, second, "job: interrupted")
    second.type("\x1a")
    expect_shows(t, second, "shell: stopped")
    t.expect_true("the shell has the terminal", second.foreground() == second.pid)
    second.type("\n")
    t.until("the job has the terminal again", lambda: second.foreground() == job)
    second.type("three\n")
    expect_shows(t, second, "job: THREE")
    second.type("end\n")
    t.expect("its exit status", 9, second.end())


def body(t):
    if t.control:
        sandbox.skip("is about fsnap only")
    pid = t.start(["/usr/bin/sleep", "1000"])
    typed(t, pid)
    mistyped(t, pid)
    blocked(t, pid)
    interrupted(t, pid)
    os.kill(pid, signal.SIGKILL)
    progress(t)
    lent(t)
    t.expect("no process is left", [], [p for p in children.tree(os.getpid()) if p != os.getpid()])


trial.main(body)
