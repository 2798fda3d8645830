"""Threads that share work through a queue, locks and an event, and compute a hash whose value
depends on every step; prints it."""

import hashlib
import queue
import sys
import threading
import time

JOBS, STEPS, THREADS = 60, int(sys.argv[1]), 4


def work(jobs, results, lock):
    local = threading.local()
    while (number := jobs.get()) is not None:
        local.digest = hashlib.sha256(str(number).encode()).digest()
        table = {}
        for step in range(STEPS):
            local.digest = hashlib.sha256(local.digest).digest()
            table[local.digest[:2]] = table.get(local.digest[:2], 0) + step
        with lock:
            results[number] = (local.digest.hex(), sum(table.values()), len(table))


def main():
    jobs, results, lock = queue.Queue(maxsize=5), {}, threading.Lock()
    threads = [threading.Thread(target=work, args=(jobs, results, lock)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    with open("ready", "w"):
        pass
    for number in range(JOBS):
        jobs.put(number)
        time.sleep(0.001)
    for _ in threads:
        jobs.put(None)
    for thread in threads:
        thread.join()
    total = hashlib.sha256(repr(sorted(results.items())).encode()).hexdigest()
    with open("answer", "w") as f:
        f.write(f"{len(results)} {total}\n")


main()
