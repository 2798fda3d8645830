#!/usr/bin/python3
"""fsnap keygen, sign, verify --key: where a key is trusted, an image that is not signed with it is not
restored, listed as not trusted, and left alone; signed, it is; altered, it is not."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import trial  # noqa: E402

IMAGE = 6
SLEEPER = "import time; open('ready', 'w').close(); time.sleep(1000)"


def chained(t, pid):
    """What is not signed is not built on, and it is said why; what is made to stand alone wants signing anew."""
    t.dump(pid, "--name", "c0")
    t.expect_true("why it is whole", "not signed" in str(t.dump(pid, "--name", "c1")["notes"]))
    t.expect("sign c1", 0, t.fsnap.run("sign", "--key", t.path("mine"), "c1").status)
    t.expect("signed, it is built on", "c1", t.dump(pid, "--name", "c2")["parent"])
    t.expect("sign c2", 0, t.fsnap.run("sign", "--key", t.path("mine"), "c2").status)
    for again in (True, False):
        said = t.fsnap.run("compact", "c2" if again else "c1")
        t.expect(f"compact {said.argv[-1]}", (0, again), (said.status, "sign it again" in said.err))


def body(t):
    t.fsnap.name_store = False
    pid = t.start([sys.executable, "-c", SLEEPER])
    t.until("the program", lambda: os.path.exists(t.path("ready")))
    image = t.dump(pid, "--kill")["image"]
    for name in ("mine", "other"):
        t.expect(f"keygen {name}", 0, t.fsnap.run("keygen", t.path(name)).status)
    t.expect("a secret key is its owner's", 0o600, os.stat(t.path("mine")).st_mode & 0o777)
    t.expect("no key is written over", 2, t.fsnap.run("keygen", t.path("mine")).status)
    os.mkdir(t.path("trusted"))
    os.link(t.path("mine.pub"), t.path("trusted/mine.pub"))

    os.environ["FSNAP_TRUSTED"] = t.path("trusted")
    for words in (("restore", image, "-d"), ("verify", image), ("inspect", image)):
        t.expect_error(t.fsnap.run(*words, "--json"), IMAGE, "IMAGE_SIGNATURE", image)
    t.expect("list names it", "IMAGE_SIGNATURE", t.fsnap.run("list", "--json").json["images"][0]["error"]["code"])
    t.expect_true("in words, too", "not trusted:" in t.fsnap.run("list").out)
    t.expect_error(t.fsnap.run("sign", image, "--json"), 2, "USAGE", "--key")
    t.expect_error(t.fsnap.run("sign", "--key", t.path("mine.pub"), image, "--json"), 2, "USAGE", "secret")
    t.expect("signed by another", 0, t.fsnap.run("sign", "--key", t.path("other"), image).status)
    t.expect_error(t.fsnap.run("restore", image, "-d", "--json"), IMAGE, "IMAGE_SIGNATURE", "not trusted")
    t.expect("signed", 0, t.fsnap.run("sign", "--key", t.path("mine"), image).status)
    t.expect("verify", 0, t.fsnap.run("verify", image).status)
    t.expect("verify --key", 0, t.fsnap.run("verify", "--key", t.path("mine.pub"), image).status)
    t.expect_error(t.fsnap.run("verify", "--key", t.path("other.pub"), image, "--json"), IMAGE, "IMAGE_SIGNATURE")
    t.restore(image)
    if t.fsnap.run("track", "-t", pid).status == 0:  # else this kernel cannot
        chained(t, pid)
    os.kill(pid, 9)
    t.until("its end", lambda: not children.wait_gone([pid], 0.1))

    with open(os.path.join(t.fsnap.store, "images", image + ".fsnap"), "r+b") as f:
        f.seek(2 << 20)
        byte = f.read(1)
        f.seek(2 << 20)
        f.write(bytes([byte[0] ^ 1]))
    t.expect_error(t.fsnap.run("restore", image, "-d", "--json"), IMAGE, "IMAGE_SIGNATURE", "altered")
    t.expect("nothing was restored", False, os.path.exists(f"/proc/{pid}"))
    del os.environ["FSNAP_TRUSTED"]


trial.main(body)
