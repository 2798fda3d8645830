"""As much of <fsnap/fsnap.h> as tests need. The structs grow at their end: what is left out here, the library takes
as zero, because `size` tells it how much its caller knows of."""

import ctypes
import ctypes.util
import os

NAME_MAX = 127
Strings = ctypes.POINTER(ctypes.c_char_p)


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("sys", ctypes.c_int), ("message", ctypes.c_char * 640),
                ("hint", ctypes.c_char * 384)]


class DumpOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("pid", ctypes.c_int), ("store", ctypes.c_char_p),
                ("name", ctypes.c_char_p), ("kill", ctypes.c_int), ("progress", ctypes.c_void_p),
                ("progress_arg", ctypes.c_void_p), ("external", Strings), ("heat", ctypes.c_int),
                ("sync_files", ctypes.c_int), ("tcp", ctypes.c_int), ("live", ctypes.c_int),
                ("max_freeze_us", ctypes.c_uint64), ("with_", Strings)]


class RestoreOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("store", ctypes.c_char_p), ("image", ctypes.c_char_p),
                ("detach", ctypes.c_int), ("progress", ctypes.c_void_p), ("progress_arg", ctypes.c_void_p),
                ("tcp", ctypes.c_int), ("changed", ctypes.c_int), ("map", Strings), ("fd", Strings),
                ("external", Strings), ("prefetch", ctypes.c_int), ("prefetch_rate", ctypes.c_uint64),
                ("prefetch_max", ctypes.c_uint64), ("prefetch_stats", ctypes.c_int), ("clocks", ctypes.c_int),
                ("cgroup", ctypes.c_int), ("pids", ctypes.c_int), ("listen", Strings), ("cwd", ctypes.c_char_p),
                ("stdio", ctypes.POINTER(ctypes.c_int)), ("env", Strings), ("message", ctypes.c_void_p),
                ("message_length", ctypes.c_size_t), ("copy", ctypes.c_uint), ("pid_ns", ctypes.c_int),
                ("net_ns", ctypes.c_int), ("ipc_ns", ctypes.c_int), ("user_ns", ctypes.c_int),
                ("pidfd", ctypes.c_int), ("with_", Strings), ("with_overwrite", ctypes.c_int),
                ("memory", ctypes.c_int), ("record_ms", ctypes.c_uint), ("allow", Strings), ("deny", Strings),
                ("from_", ctypes.c_void_p)]


class RestoreReport(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("image", ctypes.c_char * (NAME_MAX + 1)), ("pid", ctypes.c_int),
                ("old_pid", ctypes.c_int)]


class FsnapError(Exception):
    """What the library said; `code` is stable ("PID_TAKEN"), `hint` tells what can be done."""

    def __init__(self, code, message, hint):
        super().__init__(f"{message}\n  hint: {hint}" if hint else message)
        self.code, self.hint = code, hint


PREFETCH_OFF = 2


def strings(words):
    """char *[] with a NULL at its end; None for nothing."""
    if not words:
        return None
    return (ctypes.c_char_p * (len(words) + 1))(*[os.fsencode(word) for word in words], None)


class Library:
    def __init__(self, path=None):
        path = path or os.environ.get("FSNAP_LIBRARY") or ctypes.util.find_library("fsnap") or "libfsnap.so.0"
        self.lib = ctypes.CDLL(path)
        self.lib.fsnap_version.restype = ctypes.c_char_p
        self.lib.fsnap_code_name.restype = ctypes.c_char_p

    def version(self):
        return self.lib.fsnap_version().decode()

    def _call(self, function, options, report):
        error = Error()
        options.size = ctypes.sizeof(options)
        if report is not None:
            report.size = ctypes.sizeof(report)
        if function(ctypes.byref(options), ctypes.byref(report) if report is not None else None, ctypes.byref(error)):
            raise self._failed(error)

    def _failed(self, error):
        return FsnapError(self.lib.fsnap_code_name(error.code).decode(), error.message.decode(errors="replace"),
                          error.hint.decode(errors="replace"))

    def dump(self, pid, store, name, directories=(), kill=False):
        options = DumpOptions(pid=pid, store=os.fsencode(store), name=name.encode(), kill=kill,
                              with_=strings(directories))
        self._call(self.lib.fsnap_dump, options, None)

    def template(self, store, image):
        """An image held ready in this process, for restore(template=...); for as long as the process lives."""
        held, error = ctypes.c_void_p(), Error()
        if self.lib.fsnap_template_open(os.fsencode(store), image.encode(), ctypes.byref(held), ctypes.byref(error)):
            raise self._failed(error)
        return held

    def restore(self, store, image, directories=(), overwrite=False, apart=False, template=None):
        """Returns the PID of the root, our child; with apart, of the init of its PID namespace."""
        options = RestoreOptions(store=os.fsencode(store), image=image.encode(), detach=1, with_=strings(directories),
                                 with_overwrite=overwrite, pid_ns=apart, ipc_ns=apart, prefetch=PREFETCH_OFF,
                                 from_=template)
        report = RestoreReport()
        self._call(self.lib.fsnap_restore, options, report)
        return report.pid
