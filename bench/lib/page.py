"""The page that a specimen shares with us; its layout is page.h's."""

import mmap
import struct

GAPS = 4000
REQUESTS = 16 + GAPS * 16
SIZE = REQUESTS + 24


class Page:
    def __init__(self, path):
        self.path = path
        with open(path, "w+b") as f:
            f.truncate(SIZE)
            self.memory = mmap.mmap(f.fileno(), SIZE)

    def clear(self):
        self.memory[:SIZE] = bytes(SIZE)

    @property
    def ready(self):
        return struct.unpack_from("Q", self.memory)[0] == 1

    def gaps(self):
        """(from, to) of the newest gaps, in ns."""
        count = struct.unpack_from("Q", self.memory, 8)[0]
        return [struct.unpack_from("QQ", self.memory, 16 + n % GAPS * 16)
                for n in range(max(0, count - GAPS), count)]

    def woke_after(self, moment):
        """When the specimen ran again that had not run at `moment`; None: not yet."""
        return next((end for start, end in self.gaps() if start < moment <= end), None)

    def longest_gap(self, start, end):
        """The longest gap that began between the two moments."""
        return max((b - a for a, b in self.gaps() if start <= a <= end), default=0)

    def ask(self):
        """One request more; when it is answered, answered_at() says when that was."""
        struct.pack_into("Q", self.memory, REQUESTS, struct.unpack_from("Q", self.memory, REQUESTS)[0] + 1)

    def answered_at(self):
        """None: not yet."""
        asked, answered, moment = struct.unpack_from("QQQ", self.memory, REQUESTS)
        return moment if asked == answered else None
