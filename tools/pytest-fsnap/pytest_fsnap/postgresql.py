"""A PostgreSQL with data in it, for every test its own."""

import glob
import hashlib
import os
import pwd
import shutil
import subprocess
import time

import pytest

# Durability is for those who would miss something. Shared memory in the data directory goes with it. What each copy has
# to have of its own is small: buffers, and segments of the log (initdb below); nobody does things unasked.
SETTINGS = {"listen_addresses": "", "fsync": "off", "dynamic_shared_memory_type": "mmap", "max_wal_size": "64MB",
            "min_wal_size": "4MB", "wal_level": "minimal", "max_wal_senders": "0", "logging_collector": "off",
            "shared_buffers": "2MB", "autovacuum": "off", "max_logical_replication_workers": "0"}


def programs():
    """The newest PostgreSQL of this machine."""
    found = glob.glob("/usr/lib/postgresql/*/bin/postgres") or [shutil.which("postgres") or ""]
    newest = max(found, key=lambda path: [int(part) for part in path.split("/") if part.isdigit()])
    if not newest:
        pytest.skip("PostgreSQL is not installed")
    return os.path.dirname(newest)


def account():
    """It refuses to run as root."""
    if os.geteuid():
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class Database:
    """One running copy. Connect with host=`host` (a directory), user postgres, database postgres."""

    def __init__(self, directory, pid=None):
        self.host, self.pid = os.path.join(directory, "socket"), pid

    def execute(self, sql):
        done = subprocess.run([os.path.join(programs(), "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", self.host,
                               "-U", "postgres", "-c", sql, "postgres"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()


def start(directory, fill, settings):
    """A server in this directory, filled; returns its PID."""
    who = account()
    data, socket = os.path.join(directory, "data"), os.path.join(directory, "socket")
    os.mkdir(socket)
    if who:
        os.chown(directory, who["user"], who["group"])
        os.chown(socket, who["user"], who["group"])
    subprocess.run([os.path.join(programs(), "initdb"), "-D", data, "-A", "trust", "-U", "postgres", "-N",
                    "--no-instructions", "--wal-segsize=1"], check=True, stdout=subprocess.DEVNULL, cwd=directory, **who)
    options = [word for name, value in {**SETTINGS, **settings}.items() for word in ("-c", f"{name}={value}")]
    with open(os.path.join(directory, "log"), "w", encoding="ascii") as log:
        server = subprocess.Popen([os.path.join(programs(), "postgres"), "-D", data, "-k", socket, *options],
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory,
                                  start_new_session=True, **who)
    database = Database(directory)
    for _ in range(600):
        if server.poll() is not None:
            raise RuntimeError(open(log.name, encoding="utf-8").read())
        if subprocess.run([os.path.join(programs(), "pg_isready"), "-q", "-h", socket], check=False).returncode == 0:
            break
        time.sleep(0.05)
    for statement in [fill] if isinstance(fill, str) else fill:
        database.execute(statement)
    database.execute("CHECKPOINT")
    server.returncode = 0  # from here on its end is awaited by others
    return server.pid


def postgresql(fill, name=None, **settings):
    """Two fixtures: the snapshot, session-scoped, and the database that a test gets. fill: SQL, or a list of it."""
    # Short: the path of a socket has 107 characters at most.
    name = name or "pg" + hashlib.sha256(repr((fill, settings)).encode()).hexdigest()[:8]

    @pytest.fixture(scope="session")
    def snapshot(fsnap):
        return fsnap.once(name, lambda directory: start(directory, fill, settings))

    @pytest.fixture
    def database(fsnap, request):
        # By name, so that it does not matter what the snapshot is called in the module that has it.
        image = fsnap.once(name, lambda directory: start(directory, fill, settings))
        with image.running(request) as copy:
            yield Database(copy.directory, copy.pid)

    return snapshot, database
