#include "store/layout.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "store/hash.h"

#define HINT_DAMAGED "copy it again from where it is whole, or remove it"

uint64_t layout_checksum(const void *bytes, uint64_t length)
{
	return hash_bytes(bytes, length);
}

void layout_seal_super(struct layout_super *super)
{
	super->checksum = layout_checksum(super, offsetof(struct layout_super, checksum));
}

void layout_seal_slot(struct layout_slot *slot)
{
	slot->checksum = layout_checksum(slot, offsetof(struct layout_slot, checksum));
}

static int truncated(struct fsnap_error *err, const char *image, uint64_t need, uint64_t have)
{
	fail(err, FSNAP_E_IMAGE_TRUNCATED, 0,
	     "image %s: the file ends after %" PRIu64 " of %" PRIu64 " bytes", image, have, need);
	return error_hint(err, HINT_DAMAGED);
}

int layout_corrupt(struct fsnap_error *err, const char *image, const char *format, ...)
{
	char what[256];
	va_list args;
	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "image %s: %s", image, what);
	return error_hint(err, HINT_DAMAGED);
}

/* What the file is comes before whether it is whole: a foreign image is to be named as such. */
static int check_identity(const struct layout_super *super, uint64_t have, const char *image,
			  struct fsnap_error *err)
{
	size_t magic = have < sizeof(super->magic) ? have : sizeof(super->magic);
	if (memcmp(super->magic, LAYOUT_MAGIC, magic) != 0) {
		fail(err, FSNAP_E_IMAGE_FORMAT, 0, "image %s: not an fsnap image", image);
		return error_hint(err, "fsnap images begin with \"FSNAP\"");
	}
	if (have < offsetof(struct layout_super, required))
		return truncated(err, image, LAYOUT_HEAD, have);
	if (super->format != IMAGE_FORMAT) {
		fail(err, FSNAP_E_IMAGE_FORMAT, 0,
		     "image %s: format %" PRIu32 ", this fsnap reads format %d", image,
		     super->format, IMAGE_FORMAT);
		return error_hint(err, "use the fsnap that wrote it, or a newer one");
	}
	if (super->machine != LAYOUT_MACHINE) {
		fail(err, FSNAP_E_IMAGE_ARCH, 0,
		     "image %s: made on ELF machine %" PRIu32 ", this is %u (x86-64)", image,
		     super->machine, LAYOUT_MACHINE);
		return error_hint(err, "restore it on a machine of its own architecture");
	}
	return 0;
}

static int check_super(const struct layout_super *super, const char *image,
		       struct fsnap_error *err)
{
	if (super->checksum != layout_checksum(super, offsetof(struct layout_super, checksum)))
		return layout_corrupt(err, image, "the superblock's checksum is wrong");
	if (super->required & ~LAYOUT_FEATURES) {
		fail(err, FSNAP_E_IMAGE_FORMAT, 0,
		     "image %s: needs features %#" PRIx64 " that this fsnap does not know", image,
		     super->required & ~(uint64_t)LAYOUT_FEATURES);
		return error_hint(err, "use the fsnap that wrote it, or a newer one");
	}
	if (super->page_size != STORE_PAGE || super->block_pages != STORE_BLOCK_PAGES)
		return layout_corrupt(err, image, "page or block size is not that of its format");
	return 0;
}

static bool slot_valid(const struct layout_super *super, const struct layout_slot *slot)
{
	return slot->generation != 0 &&
	       slot->checksum == layout_checksum(slot, offsetof(struct layout_slot, checksum)) &&
	       memcmp(slot->uuid, super->uuid, sizeof(slot->uuid)) == 0;
}

static bool all_zero(const void *bytes, size_t length)
{
	const char *at = bytes;
	return *at == 0 && memcmp(at, at + 1, length - 1) == 0;
}

static int choose_slot(const struct layout_head *head, const char *image, struct layout_slot *slot,
		       struct fsnap_error *err)
{
	bool valid[2] = {slot_valid(&head->super, &head->slot[0]),
			 slot_valid(&head->super, &head->slot[1])};
	if (!valid[0] && !valid[1]) {
		bool never = all_zero(head->slot, sizeof(head->slot));
		return layout_corrupt(err, image, "%s",
				      never ? "it was never committed"
					    : "both commit slots are damaged");
	}
	bool second = valid[1] && (!valid[0] || head->slot[1].generation > head->slot[0].generation);
	*slot = head->slot[second];
	return 0;
}

static bool apart(uint64_t start, uint64_t length, uint64_t other, uint64_t other_length)
{
	return length == 0 || other_length == 0 || start + length <= other ||
	       other + other_length <= start;
}

/* What this fsnap can decode, and within which bounds. */
static const char *check_coding(const struct layout_slot *slot)
{
	const struct layout_coding *coding = &slot->coding;
	if (coding->codec > STORE_LZ4 || coding->cipher > STORE_AES256 || coding->kdf > 1)
		return "it is stored in a way that its format does not know";
	if (coding->stored > slot->pages * STORE_PAGE)
		return "what is compressed is longer than what it was";
	return NULL;
}

/* Offsets and lengths of a valid slot: written by us, or by somebody who can compute checksums. */
static const char *check_bounds(const struct layout_slot *slot)
{
	if (slot->length > LAYOUT_LIMIT || slot->pages > LAYOUT_LIMIT / STORE_PAGE)
		return "its size is impossible";
	if (slot->pages_offset % LAYOUT_HUGE || slot->pages_offset < LAYOUT_HEAD)
		return "the page area is misplaced";
	const char *wrong = check_coding(slot);
	uint64_t page_bytes = layout_area(slot);
	if (wrong)
		return wrong;
	if (page_bytes && (slot->pages_offset > slot->length ||
			   page_bytes > slot->length - slot->pages_offset))
		return "the page area reaches beyond the end";
	uint64_t entry = layout_coded(slot) ? sizeof(struct layout_frame) : sizeof(uint64_t);
	if (slot->blocks.length != layout_blocks(slot->pages) * entry)
		return "the block checksums are not as many as the blocks";
	if (slot->index.length % sizeof(struct page_run))
		return "the page index has a length of no whole entries";
	if (slot->metadata.length > UINT32_MAX || slot->records > slot->metadata.length / 16)
		return "the metadata has an impossible size";
	if (slot->lineage.length % sizeof(struct layout_ancestor) ||
	    slot->lineage.length / sizeof(struct layout_ancestor) > LAYOUT_ANCESTORS)
		return "its lineage has an impossible size";
	if (slot->hints.length > UINT32_MAX || slot->hint_records > slot->hints.length / 16)
		return "its hints have an impossible size";

	const struct layout_section *section[] = {&slot->metadata, &slot->blocks, &slot->index,
						  &slot->hints, &slot->lineage};
	int sections = slot->lineage.length ? 5 : 4;
	for (int i = 0; i < sections; i++) {
		uint64_t offset = section[i]->offset, length = section[i]->length;
		if (offset < LAYOUT_HEAD || offset % sizeof(uint64_t) || offset > slot->length ||
		    length > slot->length - offset)
			return "a table reaches beyond the end";
		if (!apart(offset, length, slot->pages_offset, page_bytes))
			return "a table lies within the page area";
		for (int j = 0; j < i; j++)
			if (!apart(offset, length, section[j]->offset, section[j]->length))
				return "two tables overlap";
	}
	return NULL;
}

int layout_check_head(const struct layout_head *head, uint64_t have, uint64_t file_size,
		      const char *image, struct layout_slot *slot, struct fsnap_error *err)
{
	if (check_identity(&head->super, have, image, err) < 0)
		return -1;
	if (have < LAYOUT_HEAD)
		return truncated(err, image, LAYOUT_HEAD, have);
	if (check_super(&head->super, image, err) < 0 || choose_slot(head, image, slot, err) < 0)
		return -1;
	if (slot->length > file_size)
		return truncated(err, image, slot->length, file_size);
	const char *wrong = check_bounds(slot);
	if (!wrong && slot->lineage.length && !(head->super.required & LAYOUT_LINEAGE))
		wrong = "it has a lineage, and does not say so";
	if (!wrong && layout_coded(slot) != !!(head->super.required & LAYOUT_CODED))
		wrong = "it does not say whether it is compressed or encrypted";
	return wrong ? layout_corrupt(err, image, "%s", wrong) : 0;
}

const char *layout_check_runs(const struct page_run *runs, uint64_t count, uint64_t pages,
			      uint64_t *bad)
{
	for (uint64_t i = 0; i < count; i++) {
		const struct page_run *run = &runs[i], *before = i ? run - 1 : NULL;
		*bad = i;
		if (run->npages == 0)
			return "is empty";
		if (run->at > pages || run->npages > pages - run->at)
			return "lies outside the page area";
		if (run->page > UINT64_MAX / STORE_PAGE - run->npages)
			return "lies outside every address space";
		if (before && before->space > run->space)
			return "is out of order";
		if (before && before->space == run->space &&
		    before->page + before->npages > run->page)
			return "overlaps the one before it";
	}
	return NULL;
}
