#!/usr/bin/python3
"""The Debian packages (tools/make-package): installed into a copy of this machine's root they give a command that saves
and restores, its manual, what shells complete, a library that programs are compiled and linked with; a newer version
takes their place; removed, they leave nothing."""

import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import sandbox  # noqa: E402
import trial  # noqa: E402

SOURCE = os.path.dirname(trial.TESTS)
TOOL = os.path.join(SOURCE, "tools", "make-package")
PACKAGES = ("fsnap", "libfsnap0", "libfsnap-dev")
# dpkg's own memory, and what the loader's cache and the manual's index are made anew from.
REMEMBERED = ("var/lib/dpkg/", "var/log/", "var/cache/", "etc/ld.so.cache", "tmp/", "root/", "var/lib/fsnap")

LINTIAN = "/usr/bin/lintian"
# What is built for /usr/local, as here, knows no multiarch directories (GNUInstallDirs); packages that are given to people are
# built for /usr (tools/make-package).
OF_THE_PREFIX = "arch-dependent-file-not-in-arch-specific-directory,pkg-config-unavailable-for-cross-compilation"
MANDB = "/usr/bin/mandb"

PROGRAM = """
#include <fsnap/fsnap.h>
#include <stdio.h>
int main(void) { puts(fsnap_version()); return 0; }
"""
SAVE_AND_RESTORE = """
set -e
cd /tmp
setsid sleep 1000 </dev/null >/dev/null 2>&1 &
pid=$!
fsnap --store /tmp/store rm it 2>/dev/null || true
fsnap --store /tmp/store dump -t $pid --kill --name it
wait || true
[ "$(fsnap --store /tmp/store restore it -d)" = $pid ]
kill $pid
"""


class Root:
    """This machine's root with a layer of its own on top, in which everything may be changed."""

    def __init__(self):
        top = "/dev/shm/root"  # the sandbox's own tmpfs
        self.upper, self.path = f"{top}/upper", f"{top}/merged"
        for name in ("upper", "work", "merged"):
            os.makedirs(f"{top}/{name}")
        sandbox.mount("overlay", self.path, "overlay", 0, f"lowerdir=/,upperdir={top}/upper,workdir={top}/work")
        sandbox.mount("/dev", f"{self.path}/dev", "none", sandbox.MS_BIND | sandbox.MS_REC)
        sandbox.mount("/sys", f"{self.path}/sys", "none", sandbox.MS_BIND | sandbox.MS_REC)
        sandbox.mount("proc", f"{self.path}/proc", "proc")
        sandbox.mount("tmpfs", f"{self.path}/tmp", "tmpfs")
        if os.path.exists(MANDB):  # an index of thousands of pages that are not ours
            sandbox.mount("/bin/true", self.path + MANDB, "none", sandbox.MS_BIND)

    def run(self, *argv, text=None):
        return subprocess.run(["chroot", self.path, *argv], check=False, input=text, text=True, capture_output=True,
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root",
                                   "DEBIAN_FRONTEND": "noninteractive"})

    def changed(self):
        """What is there that was not; a directory that others have files in was only looked at."""
        found = set()
        for directory, _, files in os.walk(self.upper):
            for name in files:
                path = os.path.relpath(os.path.join(directory, name), self.upper)
                if not path.startswith(REMEMBERED):
                    found.add(path)
        return found


def make(t, version, where):
    os.makedirs(t.path(where))
    done = subprocess.run([TOOL, "--build", t.build, "--version", version, t.path(where)], check=False, text=True,
                          capture_output=True)
    t.expect(f"make-package {version}: {done.stderr[-800:]}", 0, done.returncode)
    names = sorted(os.listdir(t.path(where)))
    t.expect("packages", sorted(f"{p}_{version}_amd64.deb" for p in PACKAGES), names)
    return [t.path(f"{where}/{name}") for name in names]


def as_newer(t, files, version, where):
    """The same packages under another version."""
    os.makedirs(t.path(where))
    newer = []
    for file in files:
        tree = t.path("tree")
        package = os.path.basename(file).split("_")[0]
        newer.append(t.path(f"{where}/{package}_{version}_amd64.deb"))
        subprocess.run(["dpkg-deb", "-R", file, tree], check=True)
        control = os.path.join(tree, "DEBIAN", "control")
        with open(control, encoding="utf-8") as f:
            text = f.read()
        with open(control, "w", encoding="utf-8") as f:
            f.write(text.replace("0.1.0", version))
        subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "-b", tree, newer[-1]], check=True,
                       stdout=subprocess.DEVNULL)
        shutil.rmtree(tree)
    return newer


def install(t, root, files):
    inside = []
    for file in files:
        with open(file, "rb") as source, open(os.path.join(root.path, "tmp", os.path.basename(file)), "wb") as copy:
            copy.write(source.read())
        inside.append("/tmp/" + os.path.basename(file))
    done = root.run("dpkg", "--force-unsafe-io", "-i", *inside)
    t.expect(f"dpkg -i: {done.stderr[-500:]}", 0, done.returncode)


def well(t, root, what, *argv, text=None, says=None):
    done = root.run(*argv, text=text)
    t.expect(f"{what}: {done.stderr[-300:]}", 0, done.returncode)
    if says:
        t.expect_true(f"{what} says {says!r}, not {done.stdout[-200:]!r}", says in done.stdout)
    return done.stdout


def used(t, root, version):
    for package in PACKAGES:
        well(t, root, package, "dpkg-query", "-W", "-f", "${Status} ${Version}", package,
             says=f"install ok installed {version}")
    well(t, root, "its files are as packed", "dpkg", "--verify", *PACKAGES)
    well(t, root, "fsnap", "fsnap", "--version", says="fsnap")
    well(t, root, "saved and restored", "bash", "-c", SAVE_AND_RESTORE)
    listed = well(t, root, "files", "dpkg", "-L", *PACKAGES).splitlines()
    for path in ("/usr/bin/fsnap", "/usr/share/man/man1/fsnap.1.gz", "/usr/share/man/man1/fsnap-dump.1.gz",
                 "/usr/share/man/man3/libfsnap.3.gz", "/usr/share/man/man5/fsnap-image.5.gz",
                 "/usr/share/bash-completion/completions/fsnap", "/usr/share/zsh/site-functions/_fsnap",
                 "/usr/share/fish/vendor_completions.d/fsnap.fish", "/usr/include/fsnap/fsnap.h",
                 "/usr/share/doc/fsnap/copyright", "/usr/share/doc/libfsnap0/changelog.Debian.gz"):
        t.expect(f"{path} is there", True, path in listed)
    well(t, root, "the manual reads", "bash", "-c", "zcat /usr/share/man/man1/fsnap.1.gz | groff -man -Tascii -ww")
    well(t, root, "the loader knows the library", "ldconfig", "-p", says="libfsnap.so.0")
    well(t, root, "compiled against it", "bash", "-c",
         "gcc -x c - -o /tmp/consumer $(pkg-config --cflags --libs fsnap)", text=PROGRAM)
    well(t, root, "linked with it", "/tmp/consumer", says=".")


def looks_proper(t, files):
    """What lintian says, and the first of it without it: owners, modes, fields, no trace of where it was built."""
    for file in files:
        entries = subprocess.run(["dpkg-deb", "-c", file], check=True, text=True, capture_output=True).stdout
        t.expect(f"{file}: owners", [], [x for x in entries.splitlines() if " root/root " not in x])
        t.expect(f"{file}: writable by others", [], [x for x in entries.splitlines() if x[0] != "l" and
                                                     (x[5] == "w" or x[8] == "w")])
        fields = subprocess.run(["dpkg-deb", "-f", file], check=True, text=True, capture_output=True).stdout
        t.expect(f"{file}: no field is left open", False, "${" in fields)
    if os.path.exists(LINTIAN):
        done = subprocess.run([LINTIAN, "--allow-root", "--profile", "debian", "--fail-on", "error,warning",
                               "--suppress-tags", OF_THE_PREFIX, *files], check=False, text=True, capture_output=True)
        t.expect(f"lintian: {done.stdout[-800:]}{done.stderr[-300:]}", 0, done.returncode)
    library = next(x for x in files if "libfsnap0" in x)
    depends = subprocess.run(["dpkg-deb", "-f", library, "Depends"], check=True, text=True, capture_output=True).stdout
    t.expect_true("the library needs the C library", "libc6" in depends)


def body(t):
    for tool in ("dpkg-shlibdeps", "dpkg-gensymbols"):
        if not os.path.exists(f"/usr/bin/{tool}"):
            sandbox.skip(f"{tool} is not installed (dpkg-dev)")
    if os.path.exists("/usr/bin/fsnap"):
        sandbox.skip("fsnap is installed here as a package already")
    first = make(t, "0.1.0", "one")
    second = as_newer(t, first, "0.1.1", "two")
    looks_proper(t, first)
    root = Root()
    install(t, root, first)
    used(t, root, "0.1.0")
    install(t, root, second)
    used(t, root, "0.1.1")
    done = root.run("dpkg", "--force-unsafe-io", "--purge", *PACKAGES)
    t.expect(f"dpkg --purge: {done.stderr[-500:]}", 0, done.returncode)
    t.expect("left behind", set(), root.changed())
    t.expect("the command", False, os.path.exists(f"{root.path}/usr/bin/fsnap"))


trial.main(body)
