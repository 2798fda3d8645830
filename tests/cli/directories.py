#!/usr/bin/python3
"""dump --with DIR: a directory comes back as it was at the instant of the dump, with all that belongs to its files;
restore changes nothing that it should not, and undoes what it did if it fails; the store forgets it with its image."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

# Writes pairs of numbers, into two files and through a mapping, all the time: at any instant they differ by one at
# most. Memory has the number as well.
WRITER = """
import mmap, os, sys
one, two, third = (os.open(f"data/{x}", os.O_RDWR | os.O_CREAT, 0o600) for x in "abc")
os.ftruncate(third, 4096)
mapped = mmap.mmap(third, 4096)
n = 0
while True:
    n += 1
    os.pwrite(one, b"%08d" % n, 0)
    os.pwrite(two, b"%08d" % n, 0)
    mapped[:8] = b"%08d" % n
    if n == 1000:
        open("ready", "w").close()
"""


def fill(top):
    """One of everything."""
    os.makedirs(f"{top}/deep/er/empty")
    for name, text in (("plain", "text"), ("deep/private", "secret"), ("deep/er/program", "#!"), ("zero", "")):
        with open(f"{top}/{name}", "w", encoding="ascii") as f:
            f.write(text)
    os.chmod(f"{top}/deep/private", 0o600)
    os.chmod(f"{top}/deep/er/program", 0o4755)
    os.chmod(f"{top}/deep/er", 0o2750)
    os.chown(f"{top}/deep/private", 1000, 1001)
    os.link(f"{top}/plain", f"{top}/deep/linked")
    os.symlink("../plain", f"{top}/deep/to")
    os.symlink("/nowhere", f"{top}/dangling")
    os.mkfifo(f"{top}/fifo", 0o640)
    os.mknod(f"{top}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with open(f"{top}/sparse", "wb") as f:
        f.seek(64 << 20)
        f.write(b"end")
    try:
        os.setxattr(f"{top}/plain", "user.colour", b"red")
        os.setxattr(f"{top}/deep", "user.colour", b"blue")
    except OSError as e:
        print(f"no extended attributes here: {e}")
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"{top}/socket")
    server.close()
    for path, _, names in os.walk(top, topdown=False):
        for name in [*names, "."]:
            os.utime(f"{path}/{name}", ns=(10 ** 18, 10 ** 18 + 123456789), follow_symlinks=False)


def look(top, sockets=False):
    """All there is to see of a tree, links between its files included."""
    found, inodes = {}, {}
    for path, directories, files in os.walk(top):
        for name in [*files, *directories, "."]:
            full = os.path.normpath(f"{path}/{name}")
            seen = os.lstat(full)
            if stat.S_ISSOCK(seen.st_mode) and not sockets:
                continue
            kind = stat.S_IFMT(seen.st_mode)
            entry = [oct(seen.st_mode), seen.st_uid, seen.st_gid, seen.st_rdev, seen.st_mtime_ns]
            if kind == stat.S_IFREG:
                entry += [seen.st_size, seen.st_nlink, inodes.setdefault(seen.st_ino, full[len(top):])]
                if seen.st_size < 1 << 20:
                    entry.append(open(full, "rb").read())
            elif kind == stat.S_IFLNK:
                entry.append(os.readlink(full))
            if kind in (stat.S_IFREG, stat.S_IFDIR):
                entry.append({x: os.getxattr(full, x) for x in os.listxattr(full) if x.startswith("user.")})
            found[full[len(top):] or "/"] = entry
    return found


def differences(one, two):
    return sorted(f"{x}: {one.get(x)} {two.get(x)}" for x in set(one) | set(two) if one.get(x) != two.get(x))


def expect_same(t, what, one, two):
    t.expect(f"{what}: what differs", [], differences(one, two)[:6])


def spoil(top):
    """A test that behaves as tests may."""
    with open(f"{top}/plain", "a", encoding="ascii") as f:
        f.write("more")
    os.unlink(f"{top}/deep/private")
    subprocess.run(["rm", "-rf", f"{top}/deep/er"], check=True)
    with open(f"{top}/deep/er", "w", encoding="ascii") as f:
        f.write("a file now")
    os.makedirs(f"{top}/new/below")
    open(f"{top}/new/below/file", "w", encoding="ascii").close()
    os.unlink(f"{top}/zero")
    os.mkdir(f"{top}/zero")
    os.chmod(top, 0o700)
    os.unlink(f"{top}/dangling")
    os.symlink("elsewhere", f"{top}/dangling")


def files_of(t, image):
    return os.path.join(t.fsnap.store, "images", image + ".files")


def restore(t, image, *words, status=0):
    result = t.fsnap.run("restore", image, "-d", "--json", *words)
    t.expect(f"restore {words}: exit status", status, result.status)
    if status == 0 and result.status == 0:
        os.kill(result.json["pid"], signal.SIGKILL)
        children.wait_gone([result.json["pid"]], 5)
    return result


def sleeper(t, **how):
    pid = t.start(["/usr/bin/sleep", "1000"], **how)
    t.until("it sleeps", lambda: "nanosleep" in open(f"/proc/{pid}/wchan", encoding="ascii").read())
    return pid


def every_sort(t):
    top = t.path("tree")
    os.mkdir(top)
    fill(top)
    before = look(top)
    pid = sleeper(t)
    report = t.dump(pid, "--kill", "--with", top)
    image = report["image"]
    t.expect_true(f"the socket is named: {report['notes']}", any("socket" in x for x in report["notes"]))
    t.expect_true("sparse files stay sparse", os.stat(f"{files_of(t, image)}").st_mode & 0o777 == 0o700 and
                  int(subprocess.run(["du", "-s", files_of(t, image)], capture_output=True, check=True,
                                     text=True).stdout.split()[0]) < 4096)
    expect_same(t, "the original, after a dump", before, look(top))
    inodes = {x: os.lstat(top + x).st_ino for x in ("/plain", "/sparse", "/deep")}
    restore(t, image)
    t.expect("nothing was touched that was as it was", inodes, {x: os.lstat(top + x).st_ino for x in inodes})
    spoil(top)
    spoiled = look(top)
    refused(t, image, top)
    expect_same(t, "after a refusal", spoiled, look(top))
    restore(t, image, "--with-overwrite")
    expect_same(t, "put back", before, look(top))
    t.expect("the large file was left alone", inodes["/sparse"], os.lstat(f"{top}/sparse").st_ino)
    subprocess.run(["rm", "-rf", top], check=True)
    restore(t, image)
    expect_same(t, "made anew", before, look(top))
    restore(t, image, "--with", f"{top}={t.path('copy')}")
    expect_same(t, "elsewhere", before, look(t.path("copy")))
    undone(t, image, top)
    moved_image(t, image, top, before)
    t.expect("rm: exit status", 0, t.fsnap.run("rm", image).status)
    t.expect("the store has forgotten", [], [*os.listdir(t.fsnap.store + "/tmp"),
                                             *os.listdir(t.fsnap.store + "/images")])


def refused(t, image, top):
    result = restore(t, image, status=1)
    t.expect_error(result, 1, "FILE_CHANGED", top)
    t.expect_true(f"names what helps: {result.hint}", "--with-overwrite" in result.hint)


def undone(t, image, top):
    """A restore that fails after the files were put back takes them away again."""
    spoil(top)
    spoiled = look(top)
    result = t.fsnap.run("restore", image, "-d", "--json", "--with-overwrite", "--fd", "0=987")
    t.expect_true(f"the restore fails: {result}", result.status != 0)
    expect_same(t, "before it began", spoiled, look(top))
    restore(t, image, "--with-overwrite")


def moved_image(t, image, top, before):
    for kind in ("fsnap", "files"):
        subprocess.run(["cp", "-a", f"{t.fsnap.store}/images/{image}.{kind}", t.path(f"moved.{kind}")], check=True)
    subprocess.run(["rm", "-rf", top], check=True)
    restore(t, t.path("moved.fsnap"))
    expect_same(t, "from an image and its files elsewhere", before, look(top))
    os.rename(t.path("moved.files"), t.path("lost"))
    t.expect_error(restore(t, t.path("moved.fsnap"), status=6), 6, "IMAGE_MISSING", "moved.files")
    os.mkdir(t.path("moved.files"), 0o777)
    os.chmod(t.path("moved.files"), 0o777)
    t.expect_error(restore(t, t.path("moved.fsnap"), status=6), 6, "IMAGE_OWNER")


def one_instant(t):
    """Files and memory are of the same instant, however much is written."""
    os.makedirs(t.path("data"), exist_ok=True)
    with open(t.path("data/large"), "wb") as f:
        f.write(os.urandom(24 << 20))
    pid = t.start(["/usr/bin/python3", "-c", WRITER], ready="ready")
    for _ in range(3):
        report = t.dump(pid, "--with", t.path("data"))
        t.expect_true(f"the large file was not copied in the freeze ({report['with_us']} us)",
                      report["with_us"] < report["total_us"] / 2)
        copy = os.path.join(files_of(t, report["image"]), os.listdir(files_of(t, report["image"]))[0], "0")
        a, b, c = (int(open(f"{copy}/{x}", "rb").read(8)) for x in "abc")
        t.expect_true(f"one instant: {a} {b} {c}", 0 <= a - b <= 1 and 0 <= b - c <= 1 and a - c <= 1 and a >= 1000)
    os.kill(pid, 9)
    children.wait_gone([pid], 5)
    result = t.fsnap.run("restore", report["image"], "-d", "--json", "--with-overwrite")
    t.expect(f"restored with its files: {result}", 0, result.status)
    t.until("it writes on", lambda: int(open(t.path("data/a"), "rb").read(8)) > a)
    t.expect_true("from where it was", int(open(t.path("data/a"), "rb").read(8)) < a + 3000000)
    os.kill(pid, 9)


def somebody(t):
    """Without root: the same, but for owners."""
    home = t.path("home")
    os.mkdir(home)
    os.mkdir(f"{home}/tree")
    with open(f"{home}/tree/file", "w", encoding="ascii") as f:
        f.write("mine")
    subprocess.run(["chown", "-R", "1000:1000", home], check=True)
    pid = sleeper(t, uid=1000)
    t.fsnap.store, kept = f"{home}/store", t.fsnap.store
    result = t.fsnap.run("dump", "-t", pid, "--json", "--with", f"{home}/tree", uid=1000)
    t.expect(f"a dump by its owner: {result}", 0, result.status)
    copies = subprocess.run(["find", f"{home}/store", "-name", "file"], capture_output=True, text=True, check=True)
    t.expect("its copy", ["mine"], [open(x, encoding="ascii").read() for x in copies.stdout.split()])
    t.fsnap.store = kept
    os.kill(pid, 9)


def errors(t):
    pid = sleeper(t)
    before = t.settled(pid)
    for words, text in (((t.path("none"),), "none"), (("/dev/null",), "/dev/null"), ((t.work,), "store")):
        t.expect_error(t.fsnap.run("dump", "-t", pid, "--json", "--with", *words), 2, "USAGE", text)
    t.expect_unharmed(pid, before, "refusals")
    t.expect("nothing is left in the store", [], os.listdir(t.fsnap.store + "/tmp"))
    killed(t, pid)
    os.kill(pid, 9)


def killed(t, pid):
    """What a dump that is killed leaves, the next one removes; so does a writer that died between two names."""
    os.makedirs(t.path("big"), exist_ok=True)
    for i in range(40):
        with open(t.path(f"big/{i}"), "wb") as f:
            f.write(os.urandom(1 << 20))
    handle = t.fsnap.start("dump", "-t", pid, "--name", "killed", "--with", t.path("big"))
    t.until("it copies", lambda: os.listdir(t.fsnap.store + "/tmp"))
    os.kill(handle[0], signal.SIGKILL)
    t.fsnap.finish(handle)
    os.makedirs(t.fsnap.store + "/images/again.files/0123/0", exist_ok=True)
    t.expect("the next dump", 0, t.fsnap.run("dump", "-t", pid, "--name", "again", "--with", t.path("big")).status)
    t.expect("nothing is left in tmp", [], os.listdir(t.fsnap.store + "/tmp"))
    inner = os.listdir(t.fsnap.store + "/images/again.files")
    t.expect_true(f"nor in its files: {inner}", len(inner) == 1 and inner != ["0123"])
    expect_same(t, "the copy", look(t.path("big")), look(f"{t.fsnap.store}/images/again.files/{inner[0]}/0"))


def before_they_are_fetched(t):
    """Pages of files are brought into the cache when the files are there: put back first."""
    top = t.path("cached")
    os.mkdir(top)
    with open(f"{top}/data", "wb") as f:
        f.write(os.urandom(8 << 20))
    program = "import time\nf = open('cached/data', 'rb')\nfor _ in range(3):\n f.seek(0)\n f.read()\n" \
              "open('warm', 'w').close()\ntime.sleep(1000)"
    pid = t.start(["/usr/bin/python3", "-c", program], ready="warm", name="cached")
    report = t.dump(pid, "--kill", "--with", top, "--heat", "always")
    t.expect_true("its pages were noted", report["heat_bytes"] >= 8 << 20)
    shutil.rmtree(top)
    result = t.fsnap.run("restore", report["image"], "-d", "--json", "--prefetch", "all")
    t.expect("restore: status", 0, result.status)
    t.expect_true(f"its pages are fetched: {result.json}", result.json["prefetch_bytes"] >= 8 << 20)
    t.expect("nothing is left out", [], [x for x in result.json["notes"] if "prefetch" in x])
    os.kill(result.json["pid"], signal.SIGKILL)


def body(t):
    every_sort(t)
    before_they_are_fetched(t)
    one_instant(t)
    somebody(t)
    errors(t)


trial.main(body)
