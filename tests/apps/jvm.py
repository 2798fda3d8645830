#!/usr/bin/python3
"""A Java server under load, with several threads of the garbage collector at work: once the parallel
collector, once G1. Connections are kept, or reset; no request that was answered is lost or counted twice."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import children  # noqa: E402
import counting  # noqa: E402
import sandbox  # noqa: E402
import trial  # noqa: E402

PORT = 8003


def collector(t, name, *more):
    pid = t.start(["/usr/bin/java", "-Xmx128m", f"-XX:+Use{name}", "-XX:ParallelGCThreads=4", *more,
                   "-cp", t.work, "Counting", str(PORT)], name=name)
    counting.through_it(t, pid, counting.Http(PORT))
    os.kill(pid, 15)
    t.expect("exit status", 143, children.wait(pid, 20))


def body(t):
    if not os.path.exists("/usr/bin/javac"):
        sandbox.skip("no Java compiler is installed")
    builder = children.spawn(["/usr/bin/javac", "-d", t.work, counting.here("Counting.java")],
                             out=t.path("build.out"))
    t.expect("exit status of javac", 0, children.wait(builder, 60))
    collector(t, "ParallelGC")
    collector(t, "G1GC", "-XX:ConcGCThreads=2")


trial.main(body)
