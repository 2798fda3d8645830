#!/usr/bin/python3
"""Starts Python programs that import much, one after the other, from a library on slow storage:
imports.py PAGE LIBRARY. It waits to be told to begin; each that is done counts."""

import subprocess
import sys
import time

from page import Page

MODULES = ("asyncio, concurrent.futures, ctypes.util, curses, decimal, difflib, distutils.core, doctest, email.mime.text, "
           "ensurepip, http.server, idlelib, imaplib, json, lib2to3.main, logging.config, mailbox, multiprocessing.pool, "
           "optparse, pdb, pickletools, plistlib, pydoc, sqlite3, ssl, tarfile, tkinter, turtle, unittest.mock, "
           "urllib.request, venv, wsgiref.simple_server, xml.dom.minidom, xml.sax, xmlrpc.server, zipfile")
PROGRAM = f"""
import sys
sys.dont_write_bytecode = True
sys.path[:] = [sys.argv[1], sys.argv[1] + "/lib-dynload"]
for name in {MODULES!r}.split(", "):
    try:
        __import__(name)
    except ImportError:
        pass  # not part of this installation
"""
page = Page(sys.argv[1])
while True:
    if page.begun():
        subprocess.run([sys.executable, "-I", "-S", "-c", PROGRAM, sys.argv[2]], stdin=subprocess.DEVNULL,
                       close_fds=True, check=True)
        page.add()
    else:
        time.sleep(0.002)
