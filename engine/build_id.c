#include "engine/build_id.h"

#include <elf.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define LOOK 4096      /* headers and notes are nearly always in the first page */
#define NOTES_MAX 4096 /* of one segment that are looked through */

struct start {
	int fd;
	size_t n;
	unsigned char bytes[LOOK] __attribute__((aligned(8)));
};

/* The file's bytes there, from what was read already where that reaches; NULL: there are not so many. */
static const void *bytes_at(const struct start *start, uint64_t offset, size_t n, void *room)
{
	if (offset <= start->n && n <= start->n - offset)
		return start->bytes + offset;
	if (offset > INT64_MAX || pread(start->fd, room, n, (off_t)offset) != (ssize_t)n)
		return NULL;
	return room;
}

static size_t padded(uint32_t n)
{
	return ((size_t)n + 3) & ~(size_t)3;
}

static size_t search_notes(const unsigned char *notes, size_t size, unsigned char id[BUILD_ID_MAX])
{
	Elf64_Nhdr head;
	while (size >= sizeof(head)) {
		memcpy(&head, notes, sizeof(head));
		size_t name = padded(head.n_namesz), whole = sizeof(head) + name + padded(head.n_descsz);
		if (head.n_namesz > size || head.n_descsz > size || whole > size)
			return 0;
		if (head.n_type == NT_GNU_BUILD_ID && head.n_namesz == 4 && head.n_descsz <= BUILD_ID_MAX &&
		    memcmp(notes + sizeof(head), "GNU", 4) == 0) {
			memcpy(id, notes + sizeof(head) + name, head.n_descsz);
			return head.n_descsz;
		}
		notes += whole;
		size -= whole;
	}
	return 0;
}

size_t build_id_read(int fd, unsigned char id[BUILD_ID_MAX])
{
	struct start start = { .fd = fd };
	ssize_t got = pread(fd, start.bytes, sizeof(start.bytes), 0);
	start.n = got > 0 ? (size_t)got : 0;
	Elf64_Ehdr head;
	memcpy(&head, start.bytes, sizeof(head));
	if (start.n < sizeof(head) || memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 ||
	    head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_phentsize != sizeof(Elf64_Phdr))
		return 0;
	for (unsigned i = 0; i < head.e_phnum; i++) {
		unsigned char room[NOTES_MAX];
		Elf64_Phdr segment;
		const void *at = bytes_at(&start, head.e_phoff + i * sizeof(segment), sizeof(segment), &segment);
		if (!at)
			return 0;
		memmove(&segment, at, sizeof(segment));
		if (segment.p_type != PT_NOTE || segment.p_filesz > sizeof(room))
			continue;
		const unsigned char *notes = bytes_at(&start, segment.p_offset, segment.p_filesz, room);
		size_t n = notes ? search_notes(notes, segment.p_filesz, id) : 0;
		if (n)
			return n;
	}
	return 0;
}
