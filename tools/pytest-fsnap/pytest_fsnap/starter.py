"""A process that starts copies for the one that runs tests: to fork that, with all it has loaded, costs more than all
the rest. It is asked by lines of JSON on its standard input, and answers each with one."""

import contextlib
import json
import os
import signal
import subprocess
import sys


class Starter:
    """The end of it that tests have."""

    def __init__(self):
        here = os.path.dirname(os.path.abspath(__file__))
        # Nothing is imported that this does not need.
        self.process = subprocess.Popen([sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {here!r}); "
                                         "import starter; starter.serve()"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def ask(self, **what):
        print(json.dumps(what), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the process that starts copies has ended")
        return json.loads(line)

    def end(self):
        """Copies that somebody has go on."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Server:
    """The other end. Copies that have a PID namespace are made ahead: while a test has one, the next is made, in another
    place; they take turns."""

    def __init__(self):
        from library import Library

        self.library, self.templates, self.ready, self.turns = Library(), {}, {}, {}

    def make(self, key, apart):
        store, image, directory, place = key
        turn = self.turns[key] = not self.turns.get(key, True) if apart else False
        if (store, image) not in self.templates:
            self.templates[store, image] = self.library.template(store, image)
        place = f"{place}.{int(turn)}"
        pid = self.library.restore(store, image, [f"{directory}={place}"], overwrite=True, apart=apart,
                                   template=self.templates[store, image])
        return {"pid": pid, "place": place}

    def take(self, key, apart):
        from library import FsnapError

        try:
            return self.ready.pop(key, None) or self.make(key, apart)
        except FsnapError as e:
            return {"code": e.code, "message": str(e).split("\n", maxsplit=1)[0], "hint": e.hint}

    def make_ahead(self, key):
        from library import FsnapError

        with contextlib.suppress(FsnapError):  # who takes it will hear
            self.ready[key] = self.make(key, True)

    @staticmethod
    def bury(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)

    def run(self, questions, answers):
        for line in questions:
            what = json.loads(line)
            if "ended" in what:
                print("{}", file=answers, flush=True)
                self.bury(what["ended"])
                continue
            key = tuple(what[name] for name in ("store", "image", "directory", "place"))
            answer = self.take(key, what["apart"])
            print(json.dumps(answer), file=answers, flush=True)
            if what["apart"] and "pid" in answer:
                self.make_ahead(key)
        for copy in self.ready.values():
            self.bury(copy["pid"])


def serve():
    """Until there is nobody to ask any more."""
    questions, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1):  # copies get neither: they would hold them open
        os.dup2(null, stream)
    Server().run(questions, answers)
