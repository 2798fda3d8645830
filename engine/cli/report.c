#include "engine/cli/report.h"

#include <string.h>

#include "engine/cli/cli.h"

enum kind { NUMBER32, NUMBER64, FLAG, WORDS, LINES, KINDS };

struct field {
	const char *name;
	enum kind kind;
	size_t offset;
};

#define FIELD(type, name, kind) { #name, kind, offsetof(struct type, name) }

static const struct field dump_fields[] = {
#define F(name, kind) FIELD(fsnap_dump_report, name, kind)
	F(image, WORDS),		F(pid, NUMBER32),	 F(processes, NUMBER32),
	F(threads, NUMBER32),	F(bytes, NUMBER64),	 F(image_bytes, NUMBER64),
	F(pages, NUMBER64),	F(shared_pages, NUMBER64), F(frozen_us, NUMBER64),
	F(total_us, NUMBER64),	F(prepare_us, NUMBER64), F(seize_us, NUMBER64),
	F(collect_us, NUMBER64), F(copy_us, NUMBER64),	 F(commit_us, NUMBER64),
	F(recycled, FLAG),	F(heat_files, NUMBER32), F(heat_sources, NUMBER32),
	F(heat_bytes, NUMBER64), F(hot_bytes, NUMBER64), F(heat_us, NUMBER64),
	F(parent, WORDS),	F(referred_pages, NUMBER64),
	F(with_bytes, NUMBER64), F(with_us, NUMBER64),
	F(kinds, KINDS),
	F(rounds, NUMBER32),	F(arm_us, NUMBER64),	 F(arm_frozen_us, NUMBER64),
	F(live_us, NUMBER64),	F(live_pages, NUMBER64), F(frozen_pages, NUMBER64),
	F(snapshot_pages, NUMBER64), F(snapshot_us, NUMBER64),
	F(inside_pages, NUMBER64), F(young_pages, NUMBER64),
	F(missed, WORDS),	F(notes, LINES),	 { 0 },
#undef F
};

static const struct field restore_fields[] = {
#define F(name, kind) FIELD(fsnap_restore_report, name, kind)
	F(image, WORDS),		F(pid, NUMBER32),	F(old_pid, NUMBER32),
	F(processes, NUMBER32), F(threads, NUMBER32),	F(bytes, NUMBER64),
	F(total_us, NUMBER64),	F(first_instruction_us, NUMBER64),
	F(open_us, NUMBER64),	F(prepare_us, NUMBER64), F(build_us, NUMBER64),
	F(release_us, NUMBER64), F(with_us, NUMBER64), F(terminal, FLAG),	F(prefetch_files, NUMBER32),
	F(prefetch_bytes, NUMBER64), F(listen, LINES),	F(root, NUMBER32),	F(copy, NUMBER32),
	F(stream_bytes, NUMBER64), F(record_bytes, NUMBER64), F(young_bytes, NUMBER64),
	F(direct_bytes, NUMBER64), F(streamed_bytes, NUMBER64), F(stream_faults, NUMBER64),
	F(resident_us, NUMBER64), F(kinds, KINDS), F(notes, LINES), { 0 },
#undef F
};

static const struct field prefetch_fields[] = {
#define F(name, kind) FIELD(fsnap_prefetch_report, name, kind)
	F(image, WORDS),	    F(files, NUMBER32),	       F(bytes, NUMBER64),
	F(read_bytes, NUMBER64), F(present_bytes, NUMBER64), F(failed_bytes, NUMBER64),
	F(total_us, NUMBER64),   F(scarce, FLAG),	       F(notes, LINES),
	{ 0 },
#undef F
};

static const struct field stats_fields[] = {
#define F(name, kind) FIELD(fsnap_prefetch_stats, name, kind)
	F(planned_bytes, NUMBER64), F(read_bytes, NUMBER64), F(present_bytes, NUMBER64),
	F(failed_bytes, NUMBER64),  F(touched_bytes, NUMBER64), F(used_bytes, NUMBER64),
	F(total_us, NUMBER64),	    F(yielded, NUMBER32),	F(done, FLAG),
	F(scarce, FLAG),
	{ 0 },
#undef F
};

static void print_lines(struct json *json, const char *name, const char *lines)
{
	json_array(json_key(json, name));
	while (*lines) {
		size_t length = strcspn(lines, "\n");
		char line[FSNAP_NOTES_MAX];

		snprintf(line, sizeof(line), "%.*s", (int)length, lines);
		json_string(json, line);
		lines += length + (lines[length] == '\n');
	}
	json_close(json);
}

/* As numbers of pages and as bytes: for whoever reads one of them only. */
static void print_kinds(struct json *json, const struct fsnap_page_kinds *kinds)
{
	const struct {
		const char *name;
		uint64_t pages;
	} all[] = {
		{ "anonymous", kinds->anonymous }, { "private_file", kinds->private_file },
		{ "shared_memory", kinds->shared_memory }, { "hugetlb", kinds->hugetlb },
		{ "huge", kinds->huge }, { "swapped", kinds->swapped },
	};
	for (int bytes = 0; bytes <= 1; bytes++) {
		json_object(json_key(json, bytes ? "bytes_by_kind" : "pages_by_kind"));
		for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
			json_u64(json_key(json, all[i].name), bytes ? all[i].pages * 4096 : all[i].pages);
		json_close(json);
	}
}

static void print_field(struct json *json, const struct field *field, const void *value)
{
	switch (field->kind) {
	case NUMBER32:
		json_u64(json_key(json, field->name), *(const unsigned *)value);
		break;
	case NUMBER64:
		json_u64(json_key(json, field->name), *(const uint64_t *)value);
		break;
	case FLAG:
		json_bool(json_key(json, field->name), *(const int *)value != 0);
		break;
	case WORDS:
		json_string(json_key(json, field->name), value);
		break;
	case KINDS:
		print_kinds(json, value);
		break;
	case LINES:
		print_lines(json, field->name, value);
		break;
	}
}

static void print_object(struct json *json, const struct field *fields, const void *report)
{
	json_object(json);
	for (; fields->name; fields++)
		print_field(json, fields, (const char *)report + fields->offset);
	json_close(json);
}

static void print_report(const struct field *fields, const void *report)
{
	struct json json = output_json();

	print_object(&json, fields, report);
	json_finish(&json);
}

void report_dump_json(const struct fsnap_dump_report *report)
{
	print_report(dump_fields, report);
}

void report_stats_json(const struct fsnap_prefetch_stats *stats)
{
	print_report(stats_fields, stats);
}

void report_prefetch_json(const struct fsnap_prefetch_report *report)
{
	print_report(prefetch_fields, report);
}

void report_restore_json(const struct fsnap_restore_report *report)
{
	print_report(restore_fields, report);
}

void report_clones_json(const struct fsnap_restore_report *reports, unsigned n, uint64_t total_us)
{
	struct json json = output_json();

	json_object(&json);
	json_string(json_key(&json, "image"), reports[0].image);
	json_u64(json_key(&json, "total_us"), total_us);
	json_array(json_key(&json, "clones"));
	for (unsigned i = 0; i < n; i++)
		print_object(&json, restore_fields, &reports[i]);
	json_close(&json);
	json_close(&json);
	json_finish(&json);
}
