#!/usr/bin/python3
"""fsnap report: one page, without a network, that shows what the image holds; it fits a phone, works by
keyboard, does not rely on colour, and takes no text of the image for its own code."""

import os
import re
import struct
import sys
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import browser  # noqa: E402
import children  # noqa: E402
import trial  # noqa: E402

# Threads, a pipe between processes, and a file whose name would break out of a careless page.
EVIL = "</script><img src=x onerror=document.title=1>"
PROGRAM = """
import os, sys, threading, time
read_end, write_end = os.pipe()
if os.fork() == 0:
    os.close(write_end)
    os.read(read_end, 1)
os.close(read_end)
held = open(sys.argv[1], "rb")
held.read()
for _ in range(2):
    threading.Thread(target=time.sleep, args=(1000,)).start()
time.sleep(0.2)
open("ready", "w").close()
os.wait()
"""


def pixels(path):
    """Sizes of a PNG, and how many different bytes its first rows hold: an empty page has few."""
    with open(path, "rb") as file:
        data = file.read()
    width, height = struct.unpack(">II", data[16:24])
    body, at = b"", 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body += data[at + 8:at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    return width, height, len(set(zlib.decompress(body)))


def plain_checks(t, page):
    with open(page, encoding="utf-8") as file:
        text = file.read()
    t.expect("the page asks nothing of the network", [], re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", text))
    t.expect("text of the image ends no script", 2, text.count("</script>"))
    t.expect("the page is as private as the image", 0o600, os.stat(page).st_mode & 0o777)


def look(t, b, page, pid):
    b.open(page, 1200)
    t.expect("no errors", [], b.errors())
    sections = b.run("return [...document.querySelectorAll('h2')].map(e => e.textContent)")
    t.expect("sections", ["Processes", "Memory", "Page cache", "Descriptors", "Threads", "Timeline"], sections)
    text = b.run("return document.body.textContent")
    for word in (f"python3 {pid}", "pipe", "clock_nanosleep", "libc.so.6", EVIL, "first instruction after"):
        t.expect_true(f"the page shows {word!r}", word in text)
    t.expect("the title is its own", True, b.run("return document.title").startswith("fsnap report"))
    t.expect_true("a line joins the two processes", b.run(
        "return document.querySelectorAll('svg path[data-seg]').length") >= 1)
    t.expect("every part of a picture has a text", 0, b.run(
        "return [...document.querySelectorAll('[data-seg]')].filter(e => !e.getAttribute('aria-label')).length"))
    t.expect_true("kinds differ by pattern, not only by colour", b.run(
        "return new Set([...document.querySelectorAll('pattern path')].map(e => e.getAttribute('d'))).size") == 5)
    b.screenshot(t.path("wide.png"))


def keyboard(t, b):
    b.run("document.querySelector('#memory').parentElement.querySelector('[data-seg]').focus()")
    first = b.run("return document.activeElement.getAttribute('aria-label')")
    b.press("right")
    second = b.run("return document.activeElement.getAttribute('aria-label')")
    t.expect_true("an arrow key moves on", first and second and first != second)
    t.expect_true("what has the focus is told", b.run(
        "return [...document.querySelectorAll('[aria-live]')].some(e => e.textContent === arguments[0])", second))
    b.press("tab")
    t.expect("tab leaves the picture", False, b.run("return document.activeElement.hasAttribute('data-seg')"))
    b.run("document.querySelector('#threads').parentElement.querySelector('summary').focus()")
    b.press("enter")
    t.expect("enter unfolds a stack", True, b.run("return document.activeElement.parentElement.open"))


def phone(t, b, page):
    b.open(page, 360)
    t.expect_true("nothing is wider than a phone", b.run(
        "return document.scrollingElement.scrollWidth <= window.innerWidth"))
    t.expect_true("text is large enough", b.run(
        "return parseFloat(getComputedStyle(document.body).fontSize)") >= 16)
    b.screenshot(t.path("phone.png"))
    width, height, shades = pixels(t.path("phone.png"))
    t.expect("the picture is as wide as the phone", 360, width)
    t.expect_true("something is to be seen", height >= 900 and shades > 20)


def body(t):
    lack = browser.missing()
    os.makedirs(os.path.dirname(t.path(EVIL)))
    with open(t.path(EVIL), "wb") as file:
        file.write(bytes(1 << 20))
    pid = t.start([sys.executable, "-c", PROGRAM, EVIL], ready="ready")
    image = t.dump(pid, "--kill")["image"]
    restored = t.fsnap.run("restore", image, "-d", "--json")
    with open(t.path("restore.json"), "w") as file:
        file.write(restored.out)
    page = t.path("report.html")
    result = t.fsnap.run("report", image, "-o", page, "--timeline", t.path("restore.json"))
    t.expect("report: exit status", 0, result.status)
    for each in children.tree(pid):
        os.kill(each, 9)
    plain_checks(t, page)
    t.expect_error(t.fsnap.run("report", image, "-o", t.path("none/x.html")), 2, "USAGE", "none/x.html", hint=False)
    if lack:
        t.note(f"skipped: {lack} is not installed")
        sys.exit(77 if not t.failures else 1)
    b = browser.Browser(t.path("profile"))
    try:
        look(t, b, page, pid)
        keyboard(t, b)
        phone(t, b, page)
    finally:
        b.close()


trial.main(body)
