"""Runs the fsnap command the way a user would and keeps what it said."""

import json
import os

import children

EXIT_OK, EXIT_GENERAL, EXIT_USAGE, EXIT_REFUSED = 0, 1, 2, 3
EXIT_TARGET, EXIT_STORE, EXIT_IMAGE, EXIT_RESTORE = 4, 5, 6, 125


class Result:
    def __init__(self, argv, status, out, err):
        self.argv, self.status, self.out, self.err = argv, status, out, err

    @property
    def json(self):
        try:
            return json.loads(self.out)
        except ValueError:
            return None

    @property
    def code(self):
        """The error's stable name ("UNSUPPORTED"), or None."""
        document = self.json
        return document.get("error", {}).get("code") if isinstance(document, dict) else None

    @property
    def message(self):
        document = self.json
        if isinstance(document, dict) and "error" in document:
            return document["error"].get("message", "")
        return self.err

    @property
    def hint(self):
        document = self.json
        if isinstance(document, dict) and "error" in document:
            return document["error"].get("hint", "")
        lines = [x.strip() for x in self.err.splitlines()]
        return next((x[5:].strip() for x in lines if x.startswith("hint:")), "")

    def __str__(self):
        text = f"$ {' '.join(self.argv)}\n  exit status {self.status}\n"
        for name, content in (("stdout", self.out), ("stderr", self.err)):
            for line in content.splitlines():
                text += f"  {name}: {line}\n"
        return text


class Fsnap:
    def __init__(self, binary, work, store=None):
        self.binary = os.path.abspath(binary)
        self.work = work
        self.store = store or os.path.join(work, "store")
        self.runs = 0
        self.name_store = True  # False: by $FSNAP_STORE, as help and others take no --store

    def start(self, *args, uid=None, cwd=None, before=None):
        """Starts it and returns a handle for finish(). Its output goes to files, not to
        pipes: a restored tree may go on holding it. before(): called in fsnap's process first."""
        self.runs += 1
        base = os.path.join(self.work, f"fsnap.{self.runs}")
        argv = [self.binary, *(["--store", self.store] if self.name_store else []), *map(str, args)]
        pid = children.spawn(argv, out=base + ".out", err=base + ".err", uid=uid, cwd=cwd, before=before,
                             env={**os.environ, "FSNAP_STORE": self.store})
        return pid, base, argv

    def finish(self, handle, timeout=40):
        pid, base, argv = handle
        status = children.wait(pid, timeout * children.PATIENCE)
        if status is None:
            status = "none: still running"
        texts = []
        for suffix in (".out", ".err"):
            try:
                with open(base + suffix, encoding="utf-8", errors="replace") as f:
                    texts.append(f.read())
            except OSError:
                texts.append("")
        return Result(argv, status, *texts)

    @staticmethod
    def lines(handle):
        """What it has told so far with --json, a document a line."""
        if not os.path.exists(handle[1] + ".out"):
            return []  # it has not begun
        with open(handle[1] + ".out", encoding="utf-8") as f:
            return [json.loads(x) for x in f if x.endswith("\n")]

    def run(self, *args, timeout=40, **how):
        return self.finish(self.start(*args, **how), timeout)
