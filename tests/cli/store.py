#!/usr/bin/python3
"""list, verify, restore, inspect and rm where there is no store, no image, or not the right one;
which store is meant; and what an image takes that is made."""

import os
import resource
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

STORE, IMAGE, RESTORE = 5, 6, 125
SLEEPER = "import time; open('ready', 'w').close(); time.sleep(1000)"
TABLES = 12288  # offset of an image's metadata (store/README.md)


def missing_store(t):
    """A store that was named and is not there may be a slip: nothing may be made in its place."""
    for words, status in ((("list",), STORE), (("verify",), STORE), (("inspect",), STORE),
                          (("rm", "name"), STORE), (("rm", "--all"), STORE),
                          (("restore", "-d"), STORE), (("restore",), RESTORE)):
        t.expect_error(t.fsnap.run(*words, "--json"), status, "STORE_MISSING", t.fsnap.store)
        t.expect_error(t.fsnap.run(*words), status, None, t.fsnap.store)
    t.expect("the store was not created", False, os.path.exists(t.fsnap.store))


def empty_store(t):
    os.makedirs(os.path.join(t.fsnap.store, "images"), 0o700)
    listed = t.fsnap.run("list", "--json")
    t.expect("list of an empty store: exit status", 0, listed.status)
    t.expect("list of an empty store", {"store": t.fsnap.store, "images": []}, listed.json)
    listed = t.fsnap.run("list")
    t.expect("list of an empty store: stdout", (0, ""), (listed.status, listed.out))
    t.expect_true("list of an empty store says so", t.fsnap.store in listed.err)

    for words, status in ((("verify",), IMAGE), (("inspect",), IMAGE), (("restore", "-d"), IMAGE),
                          (("restore",), RESTORE), (("verify", "name"), IMAGE),
                          (("inspect", "name"), IMAGE), (("rm", "name"), IMAGE),
                          (("restore", "name", "-d"), IMAGE)):
        t.expect_error(t.fsnap.run(*words, "--json"), status, "IMAGE_MISSING")
    for words in (("rm", "../name"), ("rm", ".hidden")):
        t.expect_error(t.fsnap.run(*words, "--json"), IMAGE, "BAD_NAME")
    t.expect("verify --all of an empty store", [], t.fsnap.run("verify", "--all", "--json").json["images"])
    removed = t.fsnap.run("rm", "--all", "--trim", "--json")
    t.expect("rm --all --trim of an empty store", (0, []), (removed.status, removed.json["removed"]))


def damaged(t):
    """Files that are no images are listed, refused, and can be removed."""
    path = os.path.join(t.fsnap.store, "images", "broken.fsnap")
    with open(path, "wb") as f:
        f.write(b"not an image" * 1000)
    entry = t.fsnap.run("list", "--json").json["images"][0]
    t.expect("the name of a damaged image", "broken", entry["name"])
    t.expect_true("what is wrong with it", entry["error"]["message"])
    t.expect("list shows it to people", True, "damaged" in t.fsnap.run("list").out)
    codes = ("IMAGE_CORRUPT", "IMAGE_TRUNCATED", "IMAGE_FORMAT")
    for words, status in ((("verify", "broken"), IMAGE), (("inspect", "broken"), IMAGE),
                          (("restore", "broken", "-d"), IMAGE), (("verify", path), IMAGE)):
        t.expect_error(t.fsnap.run(*words, "--json"), status, codes, hint=False)
    every = t.fsnap.run("verify", "--all", "--json")
    t.expect("verify --all: exit status", IMAGE, every.status)
    t.expect("verify --all: verdict", False, every.json["images"][0]["good"])
    t.expect_error(t.fsnap.run("rm", "broken", "unknown", "--json"), IMAGE, "IMAGE_MISSING", "unknown")
    t.expect("one unknown name, nothing removed", True, os.path.exists(path))
    t.expect("rm broken", 0, t.fsnap.run("rm", "broken").status)
    t.expect("it is gone", [], t.fsnap.run("list", "--json").json["images"])


def damaged_within(t):
    """A file that begins like an image and is not whole further on: the same, and both lists say why."""
    pid = t.start(["/usr/bin/python3", "-c", SLEEPER], ready="ready")
    t.dump(pid, "--kill", "--name", "spoilt")
    with open(os.path.join(t.fsnap.store, "images", "spoilt.fsnap"), "r+b") as f:
        f.seek(TABLES)
        f.write(b"spoilt")
    entry = t.fsnap.run("list", "--json").json["images"][0]
    t.expect("JSON: its code", "IMAGE_CORRUPT", entry.get("error", {}).get("code"))
    t.expect_true("people: what is wrong", "checksum" in t.fsnap.run("list").out)
    t.expect("rm", 0, t.fsnap.run("rm", "spoilt").status)


def which_store(t):
    def listed(**environment):
        result = subprocess.run([t.fsnap.binary, "list"], capture_output=True, text=True,
                                timeout=20, check=False, user=environment.pop("user", None),
                                env={"PATH": "/usr/bin:/bin", **environment})
        return result.returncode, result.stderr

    home = t.path("home")
    for environment, expected in (
            ({"FSNAP_STORE": t.path("a")}, t.path("a")),
            ({"HOME": home}, "/var/lib/fsnap"),
            ({"HOME": home, "user": 1000}, f"{home}/.local/share/fsnap"),
            ({"HOME": home, "XDG_DATA_HOME": t.path("x"), "user": 1000}, t.path("x") + "/fsnap"),
            ({"HOME": home, "XDG_DATA_HOME": "relative", "user": 1000}, f"{home}/.local/share/fsnap")):
        if expected == "/var/lib/fsnap" and os.path.exists(expected):
            continue
        status, words = listed(**environment)
        t.expect(f"store with {environment}", (0, f"there is no image in {expected}\n"), (status, words))


def few_addresses(t):
    """An image becomes larger than it was thought to be, by a file without a name: there may be addresses for that though
    not for all it could become."""
    if children.CHECKED:
        return  # whose shadow is address space
    pid = t.start(["/usr/bin/python3", "-c", """
import os, time
f = os.open("gone", os.O_RDWR | os.O_CREAT)
os.write(f, os.urandom(40 << 20))
os.unlink("gone")
memory = os.urandom(80 << 20)
open("large", "w").close()
time.sleep(1000)
"""], ready="large")
    for how in ("--live", "--no-live"):
        result = t.fsnap.run("dump", "-t", pid, how, "--name", "few" + how,
                             before=lambda: resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20)))
        t.expect(f"dump {how} with few addresses: {result.err}", 0, result.status)
        t.expect("its image", 0, t.fsnap.run("verify", "few" + how).status)
    os.kill(pid, 9)


def body(t):
    missing_store(t)
    empty_store(t)
    damaged(t)
    damaged_within(t)
    which_store(t)
    few_addresses(t)


trial.main(body)
