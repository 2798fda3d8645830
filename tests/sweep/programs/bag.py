#!/usr/bin/python3
"""A bag of everything: one small tree that holds as many kinds of kernel state as it can at once, most of
them with something in a queue. On each SIGUSR1 it takes everything out, writes what was not as it had been
put in to the file "answer.N", and puts it in again. bag.py [WITHOUT...]: kinds that are left out.

Only what can be taken out once is a test: an event or message that fsnap has consumed is missing, one that
it has doubled is there twice."""

import array
import ctypes
import fcntl
import mmap
import os
import pty
import select
import signal
import socket
import struct
import sys
import termios
import tty

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
libc.shmat.restype = ctypes.c_void_p
WITHOUT = set(sys.argv[1:])
KEY = 0x5eed2000
TUN, BPF = "bag0", 321
PASS_CREDENTIALS, PEEK_OFF = (socket.SOL_SOCKET, 16), (socket.SOL_SOCKET, 42)
kinds = []


def must(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno(), what)
    return result


def kind(cls):
    """Makes one, if it can be had here."""
    if cls.__name__ not in WITHOUT:
        try:
            kinds.append(cls())
        except OSError as e:
            print(f"without {cls.__name__}: {e}", flush=True)
    return cls


@kind
class Inotify:
    def __init__(self):
        os.makedirs("watched", exist_ok=True)
        self.fd = must(libc.inotify_init1(os.O_NONBLOCK), "inotify_init1")
        self.wd = must(libc.inotify_add_watch(self.fd, b"watched", 0x100 | 0x200), "inotify_add_watch")

    def put(self):
        for name in ("one", "two"):
            open(f"watched/{name}", "w").close()
            os.unlink(f"watched/{name}")

    def take(self):
        data, at, found = os.read(self.fd, 65536), 0, []
        while at < len(data):
            wd, mask, _, length = struct.unpack_from("iIII", data, at)
            found.append((wd, mask, data[at + 16:at + 16 + length].rstrip(b"\0")))
            at += 16 + length
        return found

    def expected(self):
        return [(self.wd, mask, name) for name in (b"one", b"two") for mask in (0x100, 0x200)]


@kind
class Mqueue:
    def __init__(self):
        self.fd = must(libc.mq_open(b"/bag", os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600, None), "mq_open")

    def put(self):
        for text, priority in ((b"low", 1), (b"high", 9), (b"lower", 1)):
            must(libc.mq_send(self.fd, text, len(text), priority), "mq_send")

    def take(self):
        found, room, priority = [], ctypes.create_string_buffer(8192), ctypes.c_uint()
        while (n := libc.mq_receive(self.fd, room, 8192, ctypes.byref(priority))) >= 0:
            found.append((room.raw[:n], priority.value))
        return found

    def expected(self):
        return [(b"high", 9), (b"low", 1), (b"lower", 1)]


@kind
class Lease:
    """A read lease on a file, which it still has."""
    def __init__(self):
        open("leased", "w").close()
        self.fd = os.open("leased", os.O_RDONLY)
        fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)

    def put(self):
        pass

    def take(self):
        return fcntl.fcntl(self.fd, fcntl.F_GETLEASE)

    def expected(self):
        return fcntl.F_RDLCK


@kind
class Pty:
    def __init__(self):
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave)

    def put(self):
        os.write(self.master, b"to the slave")
        os.write(self.slave, b"to the master")

    def take(self):
        found = []
        for fd in (self.slave, self.master):
            found.append(b"")
            while select.select([fd], [], [], 0.05)[0]:
                found[-1] += os.read(fd, 100)
        return found

    def expected(self):
        return [b"to the slave", b"to the master"]


@kind
class Rights:
    """Descriptors under way in a Unix socket."""
    def __init__(self):
        self.a, self.b = socket.socketpair()

    def put(self):
        r, w = os.pipe()
        os.write(w, b"in the pipe")
        self.a.sendmsg([b"take"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [r]))])
        self.a.sendmsg([b"it"])
        os.close(r)
        os.close(w)

    def take(self):
        found = []
        for _ in range(2):
            data, sent, _, _ = self.b.recvmsg(100, 100, socket.MSG_DONTWAIT)
            text = []
            for _, what, raw in sent:
                if what != socket.SCM_RIGHTS:
                    text.append(f"something else: {what}")
                    continue
                for (fd,) in struct.iter_unpack("i", raw):
                    text.append(os.read(fd, 100))
                    os.close(fd)
            found.append((data, text))
        return found + [self.b.getsockopt(*option) for option in (PASS_CREDENTIALS, PEEK_OFF)]

    def expected(self):
        return [(b"take", [b"in the pipe"]), (b"it", []), 0, -1]


class Stream:
    def put(self):
        self.a.sendall(b"forth" * 200)
        self.b.sendall(b"back" * 200)

    def take(self):
        return [s.recv(10000, socket.MSG_DONTWAIT) for s in (self.b, self.a)]

    def expected(self):
        return [b"forth" * 200, b"back" * 200]


@kind
class Tcp(Stream):
    def __init__(self):
        listener = socket.create_server(("127.0.0.1", 7001))
        self.listener = listener
        self.a = socket.create_connection(("127.0.0.1", 7001))
        self.b, _ = listener.accept()


@kind
class Tcp6(Stream):
    def __init__(self):
        self.listener = socket.create_server(("::1", 7002), family=socket.AF_INET6)
        self.a = socket.create_connection(("::1", 7002))
        self.b, _ = self.listener.accept()


@kind
class Udp:
    def __init__(self):
        self.b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.b.bind(("127.0.0.1", 7003))
        self.a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.a.connect(("127.0.0.1", 7003))

    def put(self):
        self.a.send(b"datagram 1")
        self.a.send(b"datagram 2")

    def take(self):
        found = []
        try:
            while True:
                found.append(self.b.recv(100, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return found + [self.b.getsockopt(*option) for option in ((socket.IPPROTO_IP, 8), PEEK_OFF)]

    def expected(self):
        return [b"datagram 1", b"datagram 2", 0, -1]


@kind
class Unix:
    """A bound datagram socket and a listener with who waits there."""
    def __init__(self):
        self.b = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.b.bind("bag.dgram")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind("bag.listener")
        self.listener.listen()
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind(b"\0bag")
        self.abstract.listen()

    def put(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto(b"a datagram", "bag.dgram")
        self.client = socket.socket(socket.AF_UNIX)
        self.client.connect("bag.listener")

    def take(self):
        data = self.b.recv(100, socket.MSG_DONTWAIT)
        self.listener.settimeout(1)
        s, _ = self.listener.accept()
        self.client.send(b"x")
        x = s.recv(1)
        s.close()
        self.client.close()
        return [data, x]

    def expected(self):
        return [b"a datagram", b"x"]


@kind
class Pipe:
    def __init__(self):
        self.r, self.w = os.pipe()
        self.reader, self.writer = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
        os.mkfifo("fifo") if not os.path.exists("fifo") else None
        self.fifo = os.open("fifo", os.O_RDWR | os.O_NONBLOCK)

    def put(self):
        os.write(self.w, b"piped")
        os.write(self.fifo, b"by name")

    def take(self):
        return [os.read(self.r, 100), os.read(self.fifo, 100)]

    def expected(self):
        return [b"piped", b"by name"]


@kind
class Events:
    def __init__(self):
        self.fd = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK)
        self.epoll = select.epoll()
        self.epoll.register(self.fd, select.EPOLLIN | select.EPOLLET)
        self.timer = must(libc.timerfd_create(1, os.O_NONBLOCK), "timerfd_create")

    def put(self):
        os.eventfd_write(self.fd, 2)
        must(libc.timerfd_settime(self.timer, 0, struct.pack("qqqq", 0, 0, 0, 1), None), "timerfd_settime")

    def take(self):
        found = [[fd == self.fd for fd, _ in self.epoll.poll(0)], struct.unpack("Q", os.read(self.timer, 8))[0]]
        for _ in range(2):
            found.append(os.eventfd_read(self.fd))
        return found

    def expected(self):
        return [[True], 1, 1, 1]


@kind
class Signals:
    """Signals that wait in a signalfd, with their data."""
    def __init__(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, [40])
        self.fd = must(libc.signalfd(-1, struct.pack("Q", 1 << 39), os.O_NONBLOCK), "signalfd")

    def put(self):
        libc.sigqueue.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
        for n in (1, 2):
            libc.sigqueue(os.getpid(), 40, n)

    def take(self):
        data = os.read(self.fd, 4096)
        return [struct.unpack_from("Q", data, at + 48)[0] for at in range(0, len(data), 128)]

    def expected(self):
        return [1, 2]


@kind
class SysV:
    def __init__(self):
        self.shm = must(libc.shmget(KEY, 8192, 0o1600), "shmget")
        self.at = libc.shmat(self.shm, None, 0)
        self.sem = must(libc.semget(KEY, 2, 0o1600), "semget")
        self.msg = must(libc.msgget(KEY, 0o1600), "msgget")

    def put(self):
        ctypes.memmove(self.at, b"shared", 6)
        must(libc.semop(self.sem, struct.pack("HhH", 1, 3, 0), 1), "semop")
        for n in (2, 1):
            must(libc.msgsnd(self.msg, struct.pack("q", n) + b"hello", 5, 0), "msgsnd")

    def take(self):
        found = [ctypes.string_at(self.at, 6), libc.semctl(self.sem, 1, 12)]
        must(libc.semop(self.sem, struct.pack("HhH", 1, -3, 0), 1), "semop")
        room = ctypes.create_string_buffer(100)
        while libc.msgrcv(self.msg, room, 50, ctypes.c_long(0), 0o4000) >= 0:
            found.append(struct.unpack_from("q", room.raw)[0])
        return found

    def expected(self):
        return [b"shared", 3, 2, 1]


@kind
class Uring:
    """A ring with a completion nobody has read and a submission nobody has handed in (NOP)."""
    def __init__(self):
        self.params = ctypes.create_string_buffer(120)
        self.fd = must(libc.syscall(425, 8, self.params), "io_uring_setup")
        p = struct.unpack("10I10I10I", self.params.raw)
        self.sq, self.cq = p[10:20], p[20:30]
        size = max(self.sq[6] + 4 * p[0], self.cq[5] + 16 * p[1])
        self.rings = libc.mmap(None, ctypes.c_size_t(size), 3, 0x8001, self.fd, ctypes.c_long(0))
        self.sqes = libc.mmap(None, ctypes.c_size_t(64 * p[0]), 3, 0x8001, self.fd, ctypes.c_long(0x10000000))
        self.mask = ctypes.c_uint.from_address(self.rings + self.sq[2]).value
        self.cqmask = ctypes.c_uint.from_address(self.rings + self.cq[2]).value

    def at(self, offset):
        return ctypes.c_uint.from_address(self.rings + offset)

    def push(self, data):
        tail = self.at(self.sq[1])
        slot = tail.value & self.mask
        ctypes.memmove(self.sqes + 64 * slot, struct.pack("BBHiQQIIQ24x", 0, 0, 0, -1, 0, 0, 0, 0, data), 64)
        self.at(self.sq[6] + 4 * slot).value = slot
        tail.value += 1

    def enter(self, n):
        must(libc.syscall(426, self.fd, n, 0, 0, None, 0), "io_uring_enter")

    def put(self):
        self.push(11)
        self.push(12)
        self.enter(2)
        self.push(13)

    def take(self):
        self.enter(1)
        found = []
        head, tail = self.at(self.cq[0]), self.at(self.cq[1])
        while head.value != tail.value:
            found.append(ctypes.c_ulonglong.from_address(self.rings + self.cq[5] + 16 * (head.value & self.cqmask)).value)
            head.value += 1
        return found

    def expected(self):
        return [11, 12, 13]


# A child has what there is so far, too: all but a ring of io_setup(2), which is refused there.
child = os.fork()
if child == 0:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    while True:
        signal.pause()


@kind
class Aio:
    def __init__(self):
        self.context = ctypes.c_ulong(0)
        must(libc.syscall(206, 8, ctypes.byref(self.context)), "io_setup")
        self.file = os.open("aio", os.O_RDWR | os.O_CREAT)
        self.buffer = ctypes.create_string_buffer(b"written", 7)

    def put(self):
        block = ctypes.create_string_buffer(struct.pack("QIIHhIQQqQII", 77, 0, 0, 1, 0, self.file,
                                            ctypes.addressof(self.buffer), 7, 0, 0, 0, 0))
        self.block = block
        pointer = ctypes.c_void_p(ctypes.addressof(block))
        must(libc.syscall(209, self.context, 1, ctypes.byref(pointer)), "io_submit")

    def take(self):
        events = ctypes.create_string_buffer(32 * 8)
        n = must(libc.syscall(208, self.context, ctypes.c_long(0), ctypes.c_long(8), events,
                              struct.pack("qq", 0, 0)), "io_getevents")
        return [struct.unpack_from("QQqq", events.raw, 32 * i)[0] for i in range(n)]

    def expected(self):
        return [77]


@kind
class Tun:
    def __init__(self):
        self.fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self.fd, 0x400454ca, struct.pack("16sH22x", TUN.encode(), 0x1001))

    def put(self):
        pass

    def take(self):
        raw = fcntl.ioctl(self.fd, 0x800454d2, bytes(40))
        return raw[:16].rstrip(b"\0").decode()

    def expected(self):
        return TUN


@kind
class Map:
    def __init__(self):
        attr = struct.pack("IIII", 2, 4, 8, 4).ljust(128, b"\0")  # an array of 4
        self.fd = must(libc.syscall(BPF, 0, attr, 128), "bpf")
        self.key, self.value = ctypes.c_uint(2), ctypes.c_ulonglong(0xabcdef)

    def call(self, command, value):
        attr = struct.pack("I4xQQQ", self.fd, ctypes.addressof(self.key), ctypes.addressof(value), 0)
        must(libc.syscall(BPF, command, attr.ljust(128, b"\0"), 128), "bpf")

    def put(self):
        self.call(2, self.value)

    def take(self):
        found = ctypes.c_ulonglong(0)
        self.call(1, found)
        self.call(2, ctypes.c_ulonglong(0))
        return found.value

    def expected(self):
        return 0xabcdef


@kind
class Files:
    """A memfd, a deleted file, one without a name, a mapping."""
    def __init__(self):
        self.fds = [os.memfd_create("bag", os.MFD_ALLOW_SEALING), os.open("deleted", os.O_RDWR | os.O_CREAT),
                    os.open(".", os.O_RDWR | os.O_TMPFILE)]
        os.unlink("deleted")
        for fd in self.fds:
            os.write(fd, b"content")
        self.map = mmap.mmap(self.fds[1], 7)
        fcntl.flock(self.fds[0], fcntl.LOCK_EX)
        self.plain = os.open("plain", os.O_RDWR | os.O_CREAT)
        fcntl.lockf(self.plain, fcntl.LOCK_EX, 10, 5)

    def put(self):
        self.map[0:3] = b"CON"

    def take(self):
        found = [os.pread(fd, 100, 0) for fd in self.fds]
        self.map[0:3] = b"con"
        return found

    def expected(self):
        return [b"content", b"CONtent", b"content"]


@kind
class Sockets:
    def __init__(self):
        self.netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self.netlink.bind((0, 1))
        self.packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)

    def put(self):
        pass

    def take(self):
        return self.netlink.getsockname()[1]

    def expected(self):
        return self.netlink.getsockname()[1]


answers = 0


def answer(*_):
    global answers
    wrong = []
    for k in kinds:
        try:
            seen = k.take()
            if seen != k.expected():
                wrong.append(f"{type(k).__name__}: expected {k.expected()!r}, seen {seen!r}")
        except OSError as e:
            wrong.append(f"{type(k).__name__}: {e!r} in line {e.__traceback__.tb_next.tb_lineno}")
        try:
            k.put()
        except OSError as e:
            wrong.append(f"{type(k).__name__}: putting: {e!r}")
    with open("answer.new", "w", encoding="utf-8") as f:
        f.write("\n".join(wrong))
    answers += 1
    os.rename("answer.new", f"answer.{answers}")


for each in kinds:
    each.put()
signal.signal(signal.SIGUSR1, answer)
with open("ready.new", "w", encoding="utf-8") as f:
    f.write(" ".join(type(k).__name__ for k in kinds))
os.rename("ready.new", "ready")
while True:
    signal.pause()
