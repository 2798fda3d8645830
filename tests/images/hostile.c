/*
 * hostile.c - makes an image ask for what its program never had, as somebody would who wants a restore to do it.
 *
 *	hostile STORE IMAGE NEW path FROM TO	the file that was FROM is TO, of whatever type that is
 *	hostile STORE IMAGE NEW name FROM TO	the same, of the type it was
 *	hostile STORE IMAGE NEW handle FROM TO	it is called FROM, and by its handle TO
 *	hostile STORE IMAGE NEW socket FROM TO	the Unix socket that was bound to FROM is bound to TO
 *	hostile STORE IMAGE NEW proc FROM TO	the file of /proc whose path ends in FROM is TO
 *	hostile STORE IMAGE NEW user N N	every thread has these users
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "image.h"
#include "store/scope.h"
#include "tests/images/copying.h"

static const char *what, *from, *to;
static int changed;

static char *encode(xdrproc_t proc, void *state, u_int *size)
{
	static char room[1 << 20];
	XDR xdr;
	xdrmem_create(&xdr, room, sizeof(room), XDR_ENCODE);
	if (!proc(&xdr, state))
		give_up("encoding");
	*size = xdr_getpos(&xdr);
	return memcpy(malloc(*size), room, *size);
}

static void decode(const image_file *file, xdrproc_t proc, void *state)
{
	XDR xdr;
	xdrmem_create(&xdr, file->state.state_val, file->state.state_len, XDR_DECODE);
	if (!proc(&xdr, state))
		give_up("decoding");
}

static void take(image_file *file, xdrproc_t proc, void *state)
{
	file->state.state_val = encode(proc, state, &file->state.state_len);
	changed++;
}

static void take_handle(image_identity *identity)
{
	static struct {
		struct file_handle head;
		char room[MAX_HANDLE_SZ];
	} handle = { .head.handle_bytes = MAX_HANDLE_SZ };
	int mount;
	if (name_to_handle_at(AT_FDCWD, to, &handle.head, &mount, 0) < 0)
		give_up("its handle");
	identity->handle_type = handle.head.handle_type;
	identity->handle.handle_len = handle.head.handle_bytes;
	identity->handle.handle_val = (char *)handle.head.f_handle;
}

static void change_regular(image_file *file)
{
	image_file_regular state = { 0 };
	struct stat now;
	decode(file, (xdrproc_t)xdr_image_file_regular, &state);
	if (strcmp(state.identity.path, from) != 0)
		return;
	if (strcmp(what, "handle") == 0)
		take_handle(&state.identity);
	else
		state.identity.path = (char *)to;
	if (strcmp(what, "path") == 0 && stat(to, &now) == 0)
		state.identity.mode = now.st_mode;
	take(file, (xdrproc_t)xdr_image_file_regular, &state);
}

static void change_socket(image_file *file)
{
	image_file_unix state = { 0 };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t head = offsetof(struct sockaddr_un, sun_path);
	decode(file, (xdrproc_t)xdr_image_file_unix, &state);
	if (state.address.address_len <= head || strncmp(state.address.address_val + head, from, strlen(from)) != 0)
		return;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", to);
	state.address.address_val = (char *)&address;
	state.address.address_len = (u_int)(head + strlen(to) + 1);
	take(file, (xdrproc_t)xdr_image_file_unix, &state);
}

static void change_proc(image_file *file)
{
	image_file_proc state = { 0 };
	decode(file, (xdrproc_t)xdr_image_file_proc, &state);
	size_t length = strlen(state.path), end = strlen(from);
	if (length < end || strcmp(state.path + length - end, from) != 0)
		return;
	state.path = (char *)to;
	take(file, (xdrproc_t)xdr_image_file_proc, &state);
}

static void change_file(size_t index)
{
	image_file file = { 0 };
	MUST(image_get(image, IMAGE_FILE, index, (xdrproc_t)xdr_image_file, &file, &err));
	if (strcmp(what, "socket") == 0 && strcmp(file.kind, "unix") == 0)
		change_socket(&file);
	else if (strcmp(what, "proc") == 0 && strcmp(file.kind, "proc") == 0)
		change_proc(&file);
	else if (strcmp(file.kind, "regular") == 0)
		change_regular(&file);
	put(IMAGE_FILE, (xdrproc_t)xdr_image_file, &file);
}

static void change_process(size_t index)
{
	image_process process = { 0 };
	MUST(image_get(image, IMAGE_PROCESS, index, (xdrproc_t)xdr_image_process, &process, &err));
	for (u_int i = 0; strcmp(what, "user") == 0 && i < process.threads.threads_len; i++)
		for (int j = 0; j < 4; j++)
			process.threads.threads_val[i].creds.uid[j] = (u_int)atoi(to), changed++;
	put(IMAGE_PROCESS, (xdrproc_t)xdr_image_process, &process);
}

static void copy_runs(size_t index)
{
	image_mm mm = { 0 };
	size_t n;
	MUST(image_get(image, IMAGE_MM, index, (xdrproc_t)xdr_image_mm, &mm, &err));
	const struct page_run *runs = image_runs(image, mm.id, &n);
	for (size_t i = 0; i < n; i++)
		MUST(image_writer_add_run(writer, &runs[i], &err));
}

static void copy_all_runs(void)
{
	for (size_t i = 0; i < image_count(image, IMAGE_MM); i++)
		copy_runs(i);
}

int main(int argc, char **argv)
{
	if (argc != 7)
		return 2;
	what = argv[4];
	from = argv[5];
	to = argv[6];
	copy_begin(argv[1], argv[2], argv[3]);
	copy_all_runs();
	for (uint32_t kind = 1; kind < 64; kind++) {
		if (kind != IMAGE_FILE && kind != IMAGE_PROCESS)
			copy_records(kind);
		for (size_t i = 0; kind == IMAGE_FILE && i < image_count(image, kind); i++)
			change_file(i);
		for (size_t i = 0; kind == IMAGE_PROCESS && i < image_count(image, kind); i++)
			change_process(i);
	}
	if (!changed)
		give_up("nothing was changed");
	copy_end();
	return 0;
}
