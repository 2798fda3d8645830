#!/usr/bin/python3
"""Point queries of PostgreSQL without end, over the hot tenth of pgbench's table, asked by libpq from
the same tree as the server: postgresql_points.py PAGE PROGRAMS DATA SOCKET ROWS"""

import ctypes
import random
import subprocess
import sys
import time

from page import Page

page, programs, data, socket, rows = Page(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5])
subprocess.Popen([f"{programs}/postgres", "-D", data, "-k", socket, "-c", "listen_addresses=", "-c", "fsync=off",
                  "-c", "shared_buffers=16MB", "-c", "autovacuum=off"], stdin=subprocess.DEVNULL)
pq = ctypes.CDLL("libpq.so.5")
pq.PQconnectdb.restype = pq.PQprepare.restype = pq.PQexecPrepared.restype = ctypes.c_void_p
pq.PQerrorMessage.restype = ctypes.c_char_p
OK, TUPLES = 0, 2
for _ in range(600):
    server = ctypes.c_void_p(pq.PQconnectdb(f"host={socket} user=postgres dbname=postgres".encode()))
    if pq.PQstatus(server) == OK:
        break
    pq.PQfinish(server)
    time.sleep(0.1)
pq.PQclear(ctypes.c_void_p(pq.PQprepare(
    server, b"point", b"SELECT abalance FROM pgbench_accounts WHERE aid = $1::int", 0, None)))
while True:
    keys = (ctypes.c_char_p * 1)(str(random.randrange(rows // 10) + 1).encode())
    answer = ctypes.c_void_p(pq.PQexecPrepared(server, b"point", 1, keys, None, None, 0))
    if pq.PQresultStatus(answer) != TUPLES:
        sys.exit(pq.PQerrorMessage(server).decode())
    pq.PQclear(answer)
    page.add()
