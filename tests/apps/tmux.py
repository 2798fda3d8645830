#!/usr/bin/python3
"""A tmux server with all it holds: a shell with a stopped job, vim in the midst of an insertion, less, a
shell that prints all the time into a pipe, and a second tmux with its client in a window of
the first. Left running, and twice killed and restored."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

TMUX, EDITOR = "/usr/bin/tmux", "/usr/bin/vim.tiny"
SHELL = "/bin/bash --norc --noprofile"
PRINTER = "i=0; while :; do i=$((i + 1)); echo line $i; done"


class Tmux:
    def __init__(self, t):
        self.t, self.lines = t, t.path("lines")
        self.socket = t.path("outer")
        self.environment = {**trial.ENVIRONMENT, "HOME": t.work, "TERM": "screen", "TMPDIR": t.work}
        self.pid = t.start([TMUX, "-D", "-f", "/dev/null", "-S", self.socket], env=self.environment)
        t.until("the server", lambda: self.try_("set-option", "-g", "default-command", SHELL).returncode == 0)

    def try_(self, *words):
        return subprocess.run([TMUX, "-S", self.socket, *words], env=self.environment, capture_output=True,
                              text=True, cwd=self.t.work, timeout=20)

    def do(self, *words):
        done = self.try_(*words)
        if done.returncode:
            raise trial.Stop(f"tmux {words}: {done.stderr}")
        return done.stdout

    def screen(self, window):
        return self.do("capture-pane", "-p", "-t", f"main:{window}")

    def type(self, window, *keys):
        self.do("send-keys", "-t", f"main:{window}", *keys)

    def shows(self, window, text, what=None):
        if not self.t.until(what or f"{window} shows {text!r}", lambda: text in self.screen(window)):
            self.t.note(self.screen(window))

    def set_up(self):
        self.do("new-session", "-d", "-s", "main", "-n", "shell", "-x", "80", "-y", "24")
        self.shows("shell", "#")
        self.type("shell", "mine=1; sleep 1000", "Enter")
        self.t.until("sleep in the foreground", lambda: "sleep" in self.do(
            "display", "-p", "-t", "main:shell", "#{pane_current_command}"))
        self.type("shell", "C-z")
        self.shows("shell", "Stopped")
        self.do("new-window", "-d", "-t", "main", "-n", "editor", f"{EDITOR} -u NONE -N {self.t.path('letter')}")
        self.shows("editor", "~")
        self.type("editor", "i", "begun, ")
        self.do("new-window", "-d", "-t", "main", "-n", "pager", "/usr/bin/less /etc/passwd")
        self.shows("pager", "root:")
        self.do("new-window", "-d", "-t", "main", "-n", "printer", PRINTER)
        self.do("pipe-pane", "-t", "main:printer", f"cat >>{self.lines}")
        inner = f"tmux -f /dev/null -S {self.t.path('inner')}"
        self.do("new-window", "-d", "-t", "main", "-n", "inner", f"unset TMUX; {inner} -D </dev/null >/dev/null 2>&1 & "
                f"until {inner} -N new-session -s second '{SHELL}'; do sleep 0.1; done; wait")
        self.shows("inner", "second")
        self.type("inner", "theirs=1", "Enter")

    def last_line(self):
        with open(self.lines, encoding="utf-8") as f:
            return f.read().count("\n")

    def well(self, when, number):
        printed = self.last_line()
        self.t.until(f"{when}: lines are printed", lambda: self.last_line() > printed + 20)
        self.type("shell", f"mine=$((mine * 2)); echo mine: $mine {number}; jobs", "Enter")
        self.shows("shell", f"mine: {2 ** number} {number}", f"{when}: the shell")
        self.shows("shell", "Stopped")
        self.type("shell", "clear", "Enter")
        self.type("editor", f"{when}, ")
        self.shows("editor", when, f"{when}: the editor")
        self.type("pager", "Down")
        self.type("inner", f"theirs=$((theirs * 3)); echo theirs: $theirs {number}", "Enter")
        self.shows("inner", f"theirs: {3 ** number} {number}", f"{when}: the tmux within")

    def gapless(self):
        with open(self.lines, encoding="utf-8") as f:
            numbers = [int(line.split()[1]) for line in f.read().splitlines()[1:-1]]
        self.t.expect("lines are missing or there twice", [], [
            (a, b) for a, b in zip(numbers, numbers[1:]) if b != a + 1][:5])
        self.t.note(f"{len(numbers)} lines")

    def end(self):
        self.type("shell", "kill %1; fg; echo status $?", "Enter")
        self.shows("shell", "status")
        self.type("editor", "ended.", "Escape", ":wq", "Enter")
        self.t.until("the letter", lambda: os.path.getsize(self.t.path("letter")))
        self.do("set-option", "-g", "exit-empty", "on")
        self.try_("kill-session", "-t", "main")


def body(t):
    for program in (TMUX, EDITOR):
        if not os.path.exists(program):
            sandbox.skip(f"{program} is not installed")
    tmux = Tmux(t)
    tmux.set_up()
    tmux.well("first", 1)
    pids = children.tree(tmux.pid)
    report = t.dump(tmux.pid)
    t.note(f"{report['processes']} processes, frozen {report['frozen_us'] / 1000:.1f} ms")
    t.expect("notes", [], report.get("notes", []))
    tmux.well("left running", 2)
    for number in (3, 4):
        report, again = t.round_trip(tmux.pid)
        t.expect("notes", [], report.get("notes", []) + again.get("notes", []))
        tmux.well(f"restored {number}", number)
        t.expect("processes", pids, children.tree(tmux.pid))
    tmux.gapless()
    tmux.end()
    with open(t.path("letter"), encoding="utf-8") as f:
        t.expect("the letter", "begun, first, left running, restored 3, restored 4, ended.\n", f.read())
    t.until("the end of tmux", lambda: children.wait_gone([tmux.pid], 0.1) == [])


trial.main(body)
