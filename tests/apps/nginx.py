#!/usr/bin/python3
"""nginx under load: two workers that pass requests on to each other through a Unix socket, and wrk,
which fetches a large file all the time. Connections are kept, or reset; what was answered is in the
log, once; then the first process makes new workers."""

import os
import re
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import counting  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

PORT = 8005
CONFIGURATION = """
daemon off;
worker_processes 2;
error_log error.log;
pid nginx.pid;
events { worker_connections 256; }
http {
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    log_format counted "$arg_client $arg_n";
    sendfile on;
    keepalive_requests 1000000;
    access_log off;
    upstream behind { server unix:behind.sock; keepalive 4; }
    server {
        listen 127.0.0.1:PORT;
        location /file { root .; }
        location /add { proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ""; }
    }
    server {
        listen unix:behind.sock;
        access_log counted.log counted;
        location / { return 200 "$arg_client $arg_n"; }
    }
}
"""


class Nginx(counting.Http):
    """Its total is what stands in the log."""

    def __init__(self, t):
        super().__init__(PORT)
        self.log = t.path("counted.log")

    def total(self):
        self.connect().close()
        with open(self.log, encoding="utf-8") as f:
            return sum(1 for _ in f)


def body(t):
    if not os.path.exists("/usr/sbin/nginx") or not os.path.exists("/usr/bin/wrk"):
        sandbox.skip("nginx or wrk is not installed")
    with open(t.path("nginx.conf"), "w", encoding="utf-8") as f:
        f.write(CONFIGURATION.replace("PORT", str(PORT)).replace("behind.sock", t.path("behind.sock")))
    with open(t.path("file"), "wb") as f:
        f.write(os.urandom(1 << 10) * 700)
    pid = t.start(["/usr/sbin/nginx", "-p", t.work, "-e", "error.log", "-c", "nginx.conf"])
    way = Nginx(t)
    t.until("the server answers", lambda: counting.is_up(way))
    load = children.spawn(["/usr/bin/wrk", "-c", "10", "-t", "2", "-d", "60s", "--timeout", "60s",
                           f"http://127.0.0.1:{PORT}/file"], out=t.path("wrk.out"), session=True)
    counting.through_it(t, pid, way, 4, before_cut=lambda: load_ends(t, load))
    workers = children.tree(pid)[1:]
    os.kill(pid, signal.SIGHUP)
    t.until("other workers", lambda: len(children.tree(pid)) == 3 and not set(workers) & set(children.tree(pid)))
    t.expect_true("they serve", counting.is_up(way))
    os.kill(pid, signal.SIGQUIT)
    t.expect("exit status", 0, children.wait(pid, 20))


def load_ends(t, load):
    """wrk tells of errors when it ends."""
    os.kill(load, signal.SIGINT)
    t.expect("exit status of wrk", 0, children.wait(load, 20))
    with open(t.path("wrk.out"), encoding="utf-8") as f:
        said = f.read()
    t.expect("errors that wrk saw", [], re.findall("(?:Socket errors|Non-2xx).*", said))
    requests = re.search(r"(\d+) requests in", said)
    t.expect_true(f"wrk was served ({said})", requests and int(requests[1]) > 20)


trial.main(body)
