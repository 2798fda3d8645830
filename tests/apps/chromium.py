#!/usr/bin/python3
"""A headless Chromium with a page at work: its browser, zygotes, renderer, GPU and network processes and the
handler of crashes are left running, and twice killed and restored. The page and its worker count on; new pages
get new processes."""

import json
import os
import sys
import time
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

PORT = 8007
PROGRAMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs")


def ask(path, method="GET"):
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/json/{path}", method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode()


def titles():
    try:
        return sorted(page["title"] for page in json.loads(ask("list")) if page["type"] == "page")
    except (OSError, ValueError):
        return []


def count_on(t, when, pages):
    """Every page says two numbers, and both grow."""
    def numbers():
        found = titles()
        for title in found:
            if "broken" in title or "after" in title:
                raise trial.Stop(f"{when}: {title}")
        numbers = [[int(word) for word in title.split()] for title in found if title.replace(" ", "").isdigit()]
        return sorted(numbers) if len(numbers) == pages and all(len(n) == 2 for n in numbers) else None
    before = t.until(f"{when}: {pages} pages count ({titles()})", numbers, 30)
    if before:
        t.until(f"{when}: they count on", lambda: (now := numbers()) and all(
            a[0] > b[0] + 3 and a[1] > b[1] for a, b in zip(now, before)), 30)


def body(t):
    if not os.path.exists("/usr/bin/chromium"):
        sandbox.skip("chromium is not installed")
    page = "file://" + os.path.join(PROGRAMS, "page.html")
    pid = t.start(["/usr/bin/python3", os.path.join(PROGRAMS, "reaper.py"), "/usr/bin/chromium", "--headless=new",
                   "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--remote-debugging-port={PORT}",
                   "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
                   "--disable-backgrounding-occluded-windows", f"--user-data-dir={t.path('profile')}", page],
                  env={**trial.ENVIRONMENT, "HOME": t.work})
    count_on(t, "at first", 1)
    time.sleep(0.5)  # until all of it has begun
    report = t.dump(pid)
    t.note(f"{report['processes']} processes, {report['bytes'] >> 20} MiB, "
           f"frozen {report['frozen_us'] / 1000:.1f} ms; {report.get('notes', [])}")
    count_on(t, "left running", 1)
    for number in (1, 2):
        before = children.tree(pid)
        report, again = t.round_trip(pid)
        t.note(f"dump {report['total_us'] / 1000:.0f} ms, restore {again['total_us'] / 1000:.0f} ms; "
               f"{report.get('notes', []) + again.get('notes', [])}")
        count_on(t, f"restored, {number}", number)
        t.expect_true("the same processes", set(before) <= set(children.tree(pid)))
        ask(f"new?{page}", "PUT")
        count_on(t, f"one more, {number}", number + 1)
    os.kill(children.tree(pid)[1], 15)
    t.expect("exit status", 0, children.wait(pid, 30))


trial.main(body)
