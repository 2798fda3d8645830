/*
 * coverage.h - how a process tells who traces it that from here on it writes counters, and does nothing else:
 * it closes this descriptor, which it does not have.
 */
#define COVERAGE_IS_WRITTEN 0x676f6376
