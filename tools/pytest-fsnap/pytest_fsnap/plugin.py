"""The fixture `fsnap`, its options, and who removes what was made."""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import tempfile
import time

import pytest

from .library import FsnapError, Library
from .starter import Starter


def pytest_addoption(parser):
    group = parser.getgroup("fsnap", "snapshots of processes")
    group.addoption("--fsnap-keep-failed", action="store_true",
                    help="save the process of a test that fails; print the command that brings it back")
    group.addoption("--fsnap-directory", metavar="DIR", help="where snapshots lie, and the files of copies")


def pytest_configure(config):
    """The controller makes the directory, workers of xdist are told of it."""
    given = getattr(config, "workerinput", {}).get("fsnap_directory")
    config.fsnap_owner = given is None
    config.fsnap_directory = given or tempfile.mkdtemp(prefix="fsnap-", dir=config.getoption("fsnap_directory"))
    if config.fsnap_owner:
        os.chmod(config.fsnap_directory, 0o755)  # servers run as other users; the store in it is private


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["fsnap_directory"] = node.config.fsnap_directory


def pytest_unconfigure(config):
    if not getattr(config, "fsnap_owner", False):
        return
    kept = os.path.join(config.fsnap_directory, "kept")
    if not os.path.exists(kept):
        shutil.rmtree(config.fsnap_directory, ignore_errors=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if call.when == "call":
        item.fsnap_failed = report.failed
        item.fsnap_report = report


def tree(root):
    """A process and all below it."""
    found = [root]
    for pid in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as children:
                    found += map(int, children.read().split())
    return found


class Copy:
    """A restored process: `pid`, `directory` with its files. apart: it is the init of a PID namespace."""

    def __init__(self, pid, directory, starter, apart=False):
        self.pid, self.directory, self.starter, self.apart = pid, directory, starter, apart

    def end(self):
        """All of it: their numbers are free when this returns. With the init of a PID namespace all others end
        (pid_namespaces(7)): whoever has started it sees to that."""
        pids = [] if self.apart else tree(self.pid)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.starter.ask(ended=self.pid)
        deadline = time.monotonic() + 5
        while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.001)


class Snapshot:
    def __init__(self, session, name, directory):
        self.session, self.name, self.directory = session, name, directory

    def start(self, apart):
        """A process of this snapshot, its files put back into a directory of this worker's own."""
        starter = self.session.starter()
        answer = starter.ask(store=self.session.store, image=self.name, directory=self.directory,
                             place=f"{self.directory}.{self.session.worker}", apart=apart)
        if "pid" not in answer:
            raise FsnapError(**answer)
        return Copy(answer["pid"], answer["place"], starter, apart)

    @contextlib.contextmanager
    def running(self, request):
        """For the time of one test. Each copy is in a PID namespace, beside those of other workers. What is to be
        kept cannot be in one: there is one at a time then, under the PIDs of the original."""
        keep = self.session.config.getoption("fsnap_keep_failed")
        with self.session.alone("running") if keep else contextlib.nullcontext():
            copy = self.start(apart=not keep)
            try:
                yield copy
            finally:
                if keep and getattr(request.node, "fsnap_failed", False):
                    self.session.keep(request.node, copy)
                copy.end()


class Session:
    def __init__(self, config, worker):
        self.config, self.worker = config, worker
        self.directory = config.fsnap_directory
        self.store = os.path.join(self.directory, "store")
        self.library = Library()
        self._starter = None

    def starter(self):
        self._starter = self._starter or Starter()
        return self._starter

    def end(self):
        if self._starter:
            self._starter.end()

    @contextlib.contextmanager
    def alone(self, name):
        """Among all workers."""
        with open(os.path.join(self.directory, f"{name}.lock"), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def once(self, name, setup):
        """The snapshot of what setup(directory) has started, whose PID it returns; by whichever worker is first."""
        directory = os.path.join(self.directory, name)
        with self.alone(name):
            if not os.path.exists(os.path.join(self.store, "images", f"{name}.fsnap")):
                os.makedirs(directory)
                try:
                    pid = setup(directory)
                except BaseException:
                    shutil.rmtree(directory)
                    raise
                self.library.dump(pid, self.store, name, [directory], kill=True)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        return Snapshot(self, name, directory)

    def keep(self, node, copy):
        name = "failed-" + re.sub(r"[^A-Za-z0-9._-]", "_", node.name)[:100]
        with open(os.path.join(self.directory, "kept"), "w", encoding="ascii"):
            pass
        self.library.dump(copy.pid, self.store, name, [copy.directory], kill=True)
        node.add_report_section("teardown", "fsnap", "the process of this test, as it failed, comes back with\n"
                                f"  fsnap restore {name} --store {self.store} --with-overwrite")
        print(f"\nfsnap restore {name} --store {self.store} --with-overwrite")


@pytest.fixture(scope="session")
def fsnap(request):
    """Snapshots of this run."""
    session = Session(request.config, getattr(request.config, "workerinput", {}).get("workerid", "master"))
    yield session
    session.end()
