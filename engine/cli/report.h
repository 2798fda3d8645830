/*
 * report.h - libfsnap's reports as JSON. Members have the names of the fields in
 * engine/fsnap.h, where their units stand too.
 */
#ifndef CLI_REPORT_H
#define CLI_REPORT_H

#include "engine/fsnap.h"

void report_dump_json(const struct fsnap_dump_report *report);
void report_prefetch_json(const struct fsnap_prefetch_report *report);
void report_stats_json(const struct fsnap_prefetch_stats *stats);
void report_restore_json(const struct fsnap_restore_report *report);
void report_clones_json(const struct fsnap_restore_report *reports, unsigned n, uint64_t total_us);

#endif
