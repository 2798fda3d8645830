/*
 * Events that were not read: read(2) would take them away, so they are looked at in the kernel's memory
 * (struct inotify_event_info, fs/notify/inotify/inotify.h).
 */
#include <limits.h>
#include <sys/inotify.h>

#include "engine/kinds/inotify.h"
#include "engine/kinds/peek.h"
#include "engine/kinds/values.h"

static int add_event(image_file_inotify *state, struct peek *peek, uint64_t address,
		     const struct peek_member *at, struct fsnap_error *err)
{
	enum { LINK, MASK, WD, COOKIE, LENGTH, NAME };
	char name[NAME_MAX + 1] = "";
	image_inotify_event *event = append(state->events, events);
	if (!event)
		return no_memory(err);
	uint32_t length = peek_half(peek, address, at[LENGTH].offset);
	event->mask = peek_half(peek, address, at[MASK].offset);
	event->wd = (int)peek_half(peek, address, at[WD].offset);
	event->cookie = peek_half(peek, address, at[COOKIE].offset);
	bool seen = length <= NAME_MAX && (!length || peek_bytes(peek, address + at[NAME].offset, name, length));
	if (set_string(&event->name, name, err) < 0)
		return -1;
	return seen ? 0 : 1;
}

int inotify_look(const struct fd_view *fd, image_file_inotify *state, struct fsnap_error *err)
{
	struct peek_member group[] = {{"fsnotify_group", "notification_list", 0},
				      {"fsnotify_group", "q_len", 0},
				      {"fsnotify_group", "inotify_data.idr.idr_next", 0}};
	struct peek_member at[] = {{"fsnotify_event", "list", 0},	{"inotify_event_info", "mask", 0},
				   {"inotify_event_info", "wd", 0},	{"inotify_event_info", "sync_cookie", 0},
				   {"inotify_event_info", "name_len", 0}, {"inotify_event_info", "name", 0}};
	struct peek *peek = dump_peek(fd->dump);
	uint64_t address = peek && peek_layout(peek, group, 3) && peek_layout(peek, at, 6) ?
				   peek_private(peek, fd->dup) : 0;
	if (!address)
		return 1;
	int next = (int)peek_half(peek, address, group[2].offset);
	if (next > state->next_wd)
		state->next_wd = next;
	uint32_t waiting = peek_half(peek, address, group[1].offset);
	uint64_t head = address + group[0].offset, link = peek_word(peek, head, 0);
	for (uint32_t i = 0; i < waiting && link && link != head; i++) {
		int result = add_event(state, peek, link - at[0].offset, at, err);
		if (result)
			return result;
		if (state->events.events_val[i].mask & IN_UNMOUNT)
			return refuse_fd(fd, err, "Dump when the program has read its events.",
					 "an inotify instance that is about to tell of an unmounted file system");
		link = peek_word(peek, link, 0);
	}
	return link == head ? 0 : 1;
}
